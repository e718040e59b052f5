from html.parser import HTMLParser

from diffground.report.html import Section, render_page
from diffground.report.tables import Table


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page):
    elements = Elements()
    elements.feed(page)
    assert elements.open == []
    return elements


def test_every_table_picture_and_parameter_is_on_the_page():
    table = Table(header=("method", "mIoU"), rows=(("grounding", 81.25), ("daam", None)))
    section = Section("Protocol I", "By group.", table, ["figures/bars.png"])
    elements = parse(render_page(title="diffground", sections=[section], settings={"generator.num_steps": 20}))
    assert [attrs["src"] for tag, attrs in elements.seen if tag == "img"] == ["figures/bars.png"]
    assert {"grounding", "81.2", "–", "generator.num_steps", "20"} <= set(elements.text)


def test_text_is_aligned_left_and_numbers_are_not():
    table = Table(header=("method", "mIoU", "from"), rows=(("a", 1.0, None), ("b", None, "masks")))
    elements = parse(render_page(title="t", sections=[Section("s", "x", table)], settings={}))
    cells = [attrs.get("class") for tag, attrs in elements.seen if tag in ("th", "td")]
    assert cells == ["text", None, "text"] * 3


def test_text_is_escaped():
    elements = parse(render_page(title="a < b & c", sections=[Section("<script>", "x")], settings={"k": "<i>"}))
    assert not {"script", "i"} & {tag for tag, _ in elements.seen}
    assert "<script>" in elements.text
