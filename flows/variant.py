"""Run one experiment in its own clone: python -m flows.variant PROFILE EXPERIMENT TARGET [KEY=VALUE …].

EXPERIMENT is a file of conf/experiment, or - for the default run, which then ends at TARGET.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from diffground.entry_point import run_entry_point
from diffground.experiments.run import run_experiments
from diffground.reproduction.catalogue import Experiment, read_catalogue, select, vary
from flows.places import ROOT

DEFAULT = "-"


def variant_of(name: str, target: str, overrides: Sequence[str]) -> Experiment:
    """The experiment that the command line names. Raises: UserError for one that conf/experiment does not have."""
    base = None if name == DEFAULT else select(read_catalogue(ROOT / "conf/experiment"), [name])[0]
    return vary(base, overrides, target=target)


def variant_command(profile: str, name: str, target: str, overrides: Sequence[str]) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "flows.variant", profile, name, target, *overrides]


def main(arguments: Sequence[str]) -> int:
    profile, name, target, *overrides = arguments

    def action() -> None:
        run_experiments([variant_of(name, target, overrides)], profile=profile, root=ROOT)

    return run_entry_point(action, resume_with="python -m flows ablate")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
