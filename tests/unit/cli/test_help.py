"""The help: every command is in a group and has examples that its own parser takes."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from diffground import __version__
from diffground.cli.help import EXAMPLES, GROUPS
from diffground.cli.main import _parser, main

COMMANDS = [name for names in GROUPS.values() for name in names]


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_main_help_lists_each_command_once_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    lines = help_of(capsys, "--help").splitlines()
    for title, names in GROUPS.items():
        start = lines.index(f"{title}:") + 1
        assert [line.split()[0] for line in lines[start : start + len(names)]] == list(names)
    assert "other:" not in lines, "a command is in no group"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_one_to_three_examples_that_can_be_parsed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 <= len(EXAMPLES[name]) <= 3
    text = help_of(capsys, name, "--help")
    for example in EXAMPLES[name]:
        assert f"\n  {example}\n" in text
        program, *arguments = shlex.split(example)
        assert program == "diffground" and _parser().parse_args(arguments).command == name


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert help_of(capsys, "--version") == f"diffground {__version__}\n"


@pytest.mark.parametrize(("typed", "offered"), [(["expo"], "export"), (["quality", "--min"], "--min-quality")])
def test_bash_completes_commands_and_options(
    typed: list[str], offered: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "bash"])
    script = capsys.readouterr().out
    words = f"COMP_WORDS=({shlex.join(['diffground', *typed])}); COMP_CWORD={len(typed)}"
    ask = f"{words}; _shtab_diffground diffground {typed[-1]}; echo ${{COMPREPLY[@]}}"
    found = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert offered in found.stdout.split()


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "diffground", "completion", "bash"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
