from pathlib import Path

import pytest

from diffground.errors import UserError
from diffground.report.benchmarks import benchmark_sections, read_markdown

ROOT = Path(__file__).parents[3]


def test_reads_the_table_and_the_text_around_it(tmp_path):
    path = tmp_path / "scale.md"
    path.write_text("Made by `python x`.\n\n| prompts | ms (CPU) |\n| ---: | --- |\n| 1,000 | 0.33 (0.53) |\n\nEnd.\n")
    text, table = read_markdown(path)
    assert text == "Made by python x. End."
    assert (table.header, table.rows) == (("prompts", "ms (CPU)"), (("1,000", "0.33 (0.53)"),))


def test_a_row_of_another_length_is_named(tmp_path):
    path = tmp_path / "speed.md"
    path.write_text("| a | b |\n| --- | --- |\n| 1 |\n")
    with pytest.raises(UserError, match=r"speed\.md: line 3 has 1 cells, the header 2"):
        read_markdown(path)


def test_known_benchmarks_come_first_and_others_keep_their_name(tmp_path):
    for name in ("another", "speed", "kills"):
        (tmp_path / f"{name}.md").write_text("| a |\n| --- |\n| 1 |\n")
    (tmp_path / "without_table.md").write_text("Not measured.\n")
    sections = benchmark_sections(tmp_path)
    assert [section.heading for section in sections] == ["Speed", "Recovery after a kill", "another", "without_table"]
    assert sections[3].table is None and sections[3].text == "Not measured."
    assert benchmark_sections(tmp_path / "absent") == []


def test_all_committed_benchmarks_have_a_table_and_a_heading_of_their_own():
    folder = ROOT / "reports/benchmarks"
    sections = benchmark_sections(folder)
    assert len(sections) == len(list(folder.glob("*.md"))) > 0
    assert all(section.table and section.table.rows for section in sections)
    assert not {section.heading for section in sections} & {path.stem for path in folder.glob("*.md")}
