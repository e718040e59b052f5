// Headers become buttons that sort their column; without JavaScript the tables stay as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const number = (text) => {
    const found = /^[-−]?[\d,]*\.?\d+/.exec(text.trim());
    return found ? Number(found[0].replace("−", "-").replaceAll(",", "")) : NaN;
  };
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    if (!button.textContent.trim()) return header.append(...button.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const falling = header.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const text = (row) => row.cells[column].textContent;
      const rows = [...body.rows];
      const missing = (row) => text(row).trim() === "–";
      const numeric = rows.every((row) => missing(row) || !Number.isNaN(number(text(row))));
      const order = (a, b) => (numeric ? number(text(a)) - number(text(b)) : text(a).localeCompare(text(b), "en"));
      rows.sort((a, b) => missing(a) - missing(b) || (falling ? order(b, a) : order(a, b)));
      body.append(...rows);
    });
  });
}
