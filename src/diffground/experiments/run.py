"""Run named experiments one after another, each in its own folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from diffground.errors import UserError
from diffground.experiments.clone import Clone
from diffground.reproduction.catalogue import Experiment, run_name
from diffground.reproduction.commands import DVC_TEMPORARY, alone, check_dvc_is_idle, experiment_commits, git, git_file
from diffground.reproduction.composition import compose_params
from diffground.reproduction.lock_file import combine, read_stages, read_yaml
from diffground.reproduction.recovery import LOCK

logger = logging.getLogger(__name__)

FOLDER = DVC_TEMPORARY / "experiments"
"""One folder per unfinished experiment."""
LOCKS = DVC_TEMPORARY / "experiment_locks"
"""One folder per experiment: different experiments may run at the same time, the same one may not."""
_REPRODUCED = tuple(f":(exclude){path}" for path in (LOCK, "reports"))
"""For git: without what a reproduction writes."""


def run_experiments(experiments: Sequence[Experiment], *, profile: str, root: Path) -> None:
    """Run the unfinished ones. One that fails does not stop the others; its folder stays for the next run to resume.

    Each starts from the last commit of the repository `root`, ends as a DVC experiment with its name, and touches
    neither params.yaml nor dvc.lock nor reports/ there. Stages that the workspace has run with the code of this commit
    do not run again. An experiment that equals the committed default run has nothing to run.
    Raises: UserError while a DVC command is running; at the end, with the names of the experiments that failed or that
    another process is running.
    """
    root = root.resolve()
    compose_params(profile, conf=root / "conf")  # reports a wrong name once, not in every clone
    commit = git("rev-parse", "--verify", "HEAD", cwd=root)
    check_dvc_is_idle(root)
    if git("status", "--porcelain", "--untracked-files=no", "--", ".", *_REPRODUCED, cwd=root):
        logger.warning("uncommitted changes are not used: the experiments start from commit %s", commit[:8])
    failed = []
    for i, experiment in enumerate(experiments, start=1):
        name = run_name(experiment.name, profile)
        logger.info("== %s (%d of %d): %s", name, i, len(experiments), experiment.source)
        try:
            with alone(root / LOCKS / name):
                logger.info("== %s: %s", name, _run(experiment, profile=profile, root=root, commit=commit))
        except UserError as error:
            failed.append(name)
            logger.info("== %s: failed: %s", name, error)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(experiments)} experiments failed: {', '.join(failed)}; "
            "run the same command again to resume them"
        )


def _run(experiment: Experiment, *, profile: str, root: Path, commit: str) -> str:
    """Run one experiment; return its outcome in words. Raises: UserError when it fails."""
    name = run_name(experiment.name, profile)
    clone = Clone(root=root, path=root / FOLDER / name, commit=commit, experiment=experiment, profile=profile)
    saved, baseline = experiment_commits(cwd=root).get(name, (None, None))
    if saved and baseline == commit and _holds(saved, experiment, profile=profile, root=root):
        return "finished before"
    check_dvc_is_idle(clone.path)
    if not clone.prepare(earlier=saved):
        clone.remove()
        if saved:
            return "finished before; nothing that it depends on has changed"
        return "has the settings of the committed default run, and so its results"
    if not clone.reproduce():
        raise UserError(f"a stage ended with an error, see above; complete outputs are kept in {FOLDER / name}")
    clone.save()
    clone.remove()
    return "finished"


def _holds(saved: str, experiment: Experiment, *, profile: str, root: Path) -> bool:
    """Whether the results in commit `saved` are those of the experiment's parameters, up to its target."""
    composed = compose_params(profile, conf=root / "conf", overrides=experiment.overrides)
    _, holding = combine([read_stages(git_file(saved, LOCK.name, cwd=root) or "")], read_yaml(composed))
    return experiment.target in holding
