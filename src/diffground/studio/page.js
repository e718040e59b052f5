() => {
  // the keys of the tab Review, where it is shown and no field has the focus
  const buttons = { a: "review-accept", r: "review-reject", u: "review-undo", ArrowLeft: "review-previous",
                    ArrowRight: "review-next" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const id = buttons[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const button = id && document.getElementById(id);
    if (!button || button.offsetParent === null || button.disabled) return;
    const typing = "input, textarea, select, [role=listbox], [contenteditable]";
    if (event.target.closest(typing)) return;
    event.preventDefault();
    button.click();
  });
  // Gradio's upload field: a name for screen readers that contains its text
  const mend = () => {
    for (const button of document.querySelectorAll("#segment-files button.upload-container[aria-label]"))
      if (button.innerText.trim()) button.removeAttribute("aria-label");
  };
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
  mend();
}
