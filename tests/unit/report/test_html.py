import base64
from html.parser import HTMLParser

import pytest

from diffground.report.embed import Embedded
from diffground.report.html import Card, Gallery, Part, Section, Tile, render_page
from diffground.report.tables import Table

VOID = ("meta", "img")
PIXEL = Embedded("data:image/webp;base64,UklGRg==", "a dog", 8, 8)
TABLE = Table(header=("method", "mIoU"), rows=(("grounding", 81.25), ("daam", None)))


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def attributes(self, *tags):
        return [attrs for tag, attrs in self.seen if tag in tags]


def parse(text):
    elements = Elements()
    elements.feed(text)
    assert elements.open == []
    return elements


def page(*sections, **values):
    """A page with these sections in one part."""
    default = {"title": "t", "summary": [], "tiles": [], "cards": [], "settings": {}, "versions": {}}
    return render_page(**{**default, **values}, parts=[Part("Results", "What was measured.", sections)])


def test_every_table_picture_and_setting_is_on_the_page():
    section = Section("Protocol I", "By group.", TABLE, [PIXEL], name="protocol1")
    elements = parse(page(section, settings={"generator.num_steps": 20}, versions={"torch": "2.15.0"}))
    assert [attrs["src"] for attrs in elements.attributes("img")] == [PIXEL.src]
    assert {"grounding", "81.2", "–", "generator.num_steps", "20", "torch", "2.15.0"} <= set(elements.text)


def test_text_is_aligned_left_and_numbers_are_not():
    table = Table(header=("method", "mIoU", "from"), rows=(("a", 1.0, None), ("b", None, "masks")))
    cells = [attrs.get("class") for attrs in parse(page(Section("s", "x", table))).attributes("th", "td")]
    assert cells == ["text", None, "text"] * 3


SCRIPT = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    "text",
    [
        page(title=SCRIPT),
        page(summary=[SCRIPT]),
        page(settings={SCRIPT: SCRIPT}),
        page(tiles=[Tile(SCRIPT, SCRIPT, SCRIPT, SCRIPT)]),
        page(cards=[Card([Embedded(PIXEL.src, f'">{SCRIPT}', 8, 8)], SCRIPT)]),
        page(Section(SCRIPT, SCRIPT, Table((SCRIPT, "x"), ((SCRIPT, 1.0),)), [PIXEL], [SCRIPT], name=f'">{SCRIPT}')),
        page(Section("s", "x", galleries=[Gallery(SCRIPT, [Card([PIXEL], f"Prompt: “{SCRIPT}”")])])),
    ],
)
def test_a_category_or_prompt_with_a_script_in_its_name_is_text(text):
    elements = parse(text)
    assert len(elements.attributes("script")) == 1, "the page's own"
    assert "alert(1)" not in "".join(elements.text).split("// Headers become buttons")[1], "not in the script"
    assert any(
        SCRIPT in shown for shown in (*elements.text, *(attrs.get("alt", "") for attrs in elements.attributes("img")))
    )


def test_nothing_is_loaded_from_elsewhere():
    text = page(Section("s", "x", TABLE, [PIXEL]))
    elements = parse(text)
    assert all(attrs["src"].startswith("data:") for attrs in elements.attributes("img"))
    assert all(attrs["href"].startswith(("#", "data:")) for attrs in elements.attributes("a"))
    assert elements.attributes("link") == [] and "http" not in text and "url(" not in text


def test_the_link_below_a_table_holds_its_csv():
    elements = parse(page(Section("Protocol I", "x", TABLE, name="protocol1")))
    (link,) = [attrs for attrs in elements.attributes("a") if "download" in attrs]
    kind, _, content = link["href"].partition(";base64,")
    assert (link["download"], kind) == ("protocol1.csv", "data:text/csv;charset=utf-8")
    assert base64.b64decode(content).decode() == TABLE.to_csv()


def test_the_contents_lead_to_every_section():
    elements = parse(page(Section("Protocol I", "x"), Section("Zero-shot segmentation", "x")))
    targets = [attrs["href"].removeprefix("#") for attrs in elements.attributes("a")]
    ids = [attrs["id"] for _, attrs in elements.seen if "id" in attrs]
    assert targets == ids == ["p-results", "s-protocol-i", "s-zero-shot-segmentation", "parameters"]


def test_each_picture_says_what_it_shows():
    card = Card([PIXEL, Embedded(PIXEL.src, "a cat", 8, 8)], "Two animals.")
    elements = parse(page(Section("s", "x", galleries=[Gallery("Best", [card])]), cards=[card]))
    assert [attrs["alt"] for attrs in elements.attributes("img")] == ["a dog", "a cat"] * 2
