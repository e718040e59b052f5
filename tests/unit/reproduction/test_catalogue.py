from pathlib import Path

import pytest

from diffground.errors import UserError
from diffground.reproduction.catalogue import read_catalogue, run_name, select

ROOT = Path(__file__).parents[3]
HEADER = (
    "# source: table 1\n# command: dvc exp run\n# target: a\n# profiles: mini, big\n# time: 1 minute\n# expected: 80\n"
)


def names(experiments):
    return [experiment.name for experiment in experiments]


@pytest.fixture
def conf(tmp_path):
    for name in ("table1_b", "table1_a", "seen_05"):
        (tmp_path / f"{name}.yaml").write_text(f"# @package _global_\n{HEADER}x: 1\n")
    return tmp_path


def test_reads_the_opening_comment(conf):
    catalogue = read_catalogue(conf)
    assert list(catalogue) == ["seen_05", "table1_a", "table1_b"]
    experiment = catalogue["seen_05"]
    assert (experiment.source, experiment.target, experiment.expected) == ("table 1", "a", "80")


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        ([], ["seen_05", "table1_a", "table1_b"]),
        (["table1_*"], ["table1_a", "table1_b"]),
        (["seen_05", "*_0?"], ["seen_05"]),
    ],
)
def test_globs_choose(conf, globs, expected):
    assert names(select(read_catalogue(conf), globs)) == expected


def test_a_glob_that_matches_nothing_is_one_line(conf):
    with pytest.raises(UserError, match=r"^no experiment is named 'tabel\*'; known: seen_05, table1_a, table1_b$"):
        select(read_catalogue(conf), ["seen_05", "tabel*"])


def test_what_does_not_exist_for_a_profile_is_left_out_and_refused_by_name(conf):
    (conf / "seen_20.yaml").write_text(HEADER.replace("mini, big", "big"))
    (conf / "table2.yaml").write_text(HEADER.replace("mini, big", "all"))
    catalogue = read_catalogue(conf)
    assert names(select(catalogue, [], profile="mini")) == ["seen_05", "table1_a", "table1_b", "table2"]
    assert names(select(catalogue, ["seen_*"], profile="big")) == ["seen_05", "seen_20"]
    assert names(select(catalogue, ["*"], profile="bi")) == ["table2"]
    with pytest.raises(UserError, match=r"^experiment seen_20 exists for profile big, not for 'mini'$"):
        select(catalogue, ["table1_*", "seen_20"], profile="mini")
    assert names(select(catalogue, ["seen_20"])) == ["seen_20"]


def test_a_comment_without_its_target_is_one_line(conf):
    (conf / "bad.yaml").write_text(HEADER.replace("# target: a\n", ""))
    with pytest.raises(UserError, match=r"bad\.yaml: its opening comment lacks '# target: …'"):
        read_catalogue(conf)


def test_elsewhere_it_says_where_to_run(tmp_path):
    with pytest.raises(UserError, match="root of a clone"):
        read_catalogue(tmp_path)


def test_other_profiles_than_mini_are_in_the_name():
    assert run_name("seen_05", "mini") == "seen_05"
    assert run_name("seen_05", "paper_voc") == "seen_05-paper_voc"


def test_every_command_names_its_experiment_and_target():
    catalogue = read_catalogue(ROOT / "conf/experiment")
    assert len(catalogue) >= 20
    for name, experiment in catalogue.items():
        first = "mini" if experiment.exists_for("mini") else experiment.profiles.split(", ")[0]
        chosen = "" if first == "mini" else f" -S profile={first}"
        assert experiment.command == (
            f"dvc exp run -n {run_name(name, first)}{chosen} -S experiment={name} {experiment.target}"
        )
        assert experiment.target in ("evaluate_grounding", "evaluate_zs3")
        assert "arXiv" in experiment.source or experiment.source.startswith("not in the paper; ")
