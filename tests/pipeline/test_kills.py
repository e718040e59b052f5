"""SIGKILL at random moments: nothing finished is done again, and the end is the same."""

import pytest

from benchmarks.kills import STAGES, as_table, run_trials
from tests.pipeline.conftest import smoke_repository

NUM_TRIALS = 10
# more work than profile smoke has, so that there is something to kill
OVERRIDES = (
    "tracking.enabled=false",
    "runtime.checkpoint_every_s=0.2",
    "generator.shard_size=3",
    "generator.num_steps=12",
    "grounding.iterations=150",
    "segmenter.iterations=20",
    "segmenter.training_sets=[synthetic,real_seen_only]",
)


@pytest.mark.slow
def test_a_stage_that_is_killed_at_any_moment_goes_on_and_ends_the_same(tmp_path, components):
    repository = smoke_repository(tmp_path / "repository", components=components, overrides=OVERRIDES)
    repository.run("dvc", "repro", "train_maskformer")
    trials = list(
        run_trials(repository.root, stages=STAGES, num_trials=NUM_TRIALS, seed=0, environment=repository.environment)
    )
    print(as_table(trials).to_markdown())
    assert len(trials) == NUM_TRIALS
    assert all(trial.same_bytes for trial in trials)
    assert sum(trial.redone_shards for trial in trials) == 0
    assert sum(trial.finished_shards for trial in trials) > 0, "no kill came between two shards"
    assert any(trial.state_kept for trial in trials if trial.stage.startswith("train_"))
