"""What the files of conf/experiment promise is what reports/experiments holds."""

from pathlib import Path

import pytest

from diffground.report.experiments import read_records
from diffground.report.experiments_tables import MODELS
from diffground.report.tables import GROUP_TITLES, ZS3_TITLES
from diffground.reproduction.catalogue import DEFAULT_PROFILE, read_catalogue

ROOT = Path(__file__).parents[2]
CATALOGUE = read_catalogue(ROOT / "conf" / "experiment")
RECORDS = {
    record.experiment: record
    for record in read_records(ROOT / "reports" / "experiments")
    if record.setup.profile == DEFAULT_PROFILE and "_seed" not in record.experiment
}
"""Without repetitions with other seeds."""


def expected(record):
    """The scores that its target is for, in the order of the report."""
    target = CATALOGUE[record.experiment].target
    if target == "evaluate_grounding":
        scores, titles = record.metrics[target]["grounding"], GROUP_TITLES
    else:
        (training_set,) = record.params["segmenter.training_sets"][:1]
        assert {model.training_set for model in MODELS if model.experiment == record.experiment} <= {training_set}
        scores, titles = record.metrics[target][training_set], ZS3_TITLES
    numbers = ", ".join(f"{title} {scores[key]:.1f}" for key, title in titles.items())
    return f"{numbers} (mIoU, {DEFAULT_PROFILE})"


@pytest.mark.parametrize("name", RECORDS)
def test_the_expected_scores_are_those_that_were_measured(name):
    assert CATALOGUE[name].expected == expected(RECORDS[name])


def test_every_experiment_of_the_default_profile_was_run():
    assert set(RECORDS) == {name for name, experiment in CATALOGUE.items() if experiment.exists_for(DEFAULT_PROFILE)}
