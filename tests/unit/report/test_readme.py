import pytest

from diffground.errors import UserError
from diffground.report.readme import marked_tables, read_tables, update_readme

TEXT = "# Title\n<!-- table: a -->\nold\n<!-- end -->\nbetween\n<!-- table: b -->\n<!-- end -->\nafter\n"


def test_replaces_what_stands_between_the_marks_and_nothing_else():
    expected = (
        "# Title\n<!-- table: a -->\n| A |\n<!-- end -->\nbetween\n<!-- table: b -->\n| B |\n<!-- end -->\nafter\n"
    )
    assert update_readme(TEXT, {"a": "| A |\n", "b": "| B |\n", "unused": "-\n"}) == expected


def test_refreshing_twice_changes_nothing():
    tables = {"a": "| A |\n", "b": "| B |\n"}
    once = update_readme(TEXT, tables)
    assert update_readme(once, tables) == once
    assert marked_tables(once) == tables


def test_a_mark_without_a_table_is_named():
    with pytest.raises(UserError, match="no table named 'b'; known: a"):
        update_readme(TEXT, {"a": "| A |\n"})


def test_reads_the_tables_of_a_folder(tmp_path):
    (tmp_path / "zs3.md").write_text("| x |\n")
    (tmp_path / "zs3.csv").write_text("x\n")
    assert read_tables(tmp_path) == {"zs3": "| x |\n"}


def test_no_tables_yet_names_the_command(tmp_path):
    with pytest.raises(UserError, match="run `dvc repro report`"):
        read_tables(tmp_path / "missing")
