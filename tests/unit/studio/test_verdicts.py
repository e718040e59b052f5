"""The file of verdicts is changed by several programs at once, and no verdict is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import diffground
from diffground.data.review import read_review
from diffground.data.shards import write_shard
from diffground.errors import UserError
from diffground.studio.desk import Desk, Filter
from diffground.studio.index import SampleIndex
from diffground.studio.shard_sets import ShardSet
from diffground.studio.verdicts import VerdictFile
from tests.studio.studio_clone import NAMES, synthetic_sample, write_synthetic, write_test_set

NUM = 12


@pytest.fixture
def desk(tmp_path):
    return desk_of(tmp_path)


def desk_of(folder):
    shards = folder / "shards"
    if not shards.is_dir():
        write_synthetic(shards, num=NUM, per_shard=5)
    index = SampleIndex(ShardSet("synthetic", "Synthetic", shards, NAMES), folder / "state")
    return Desk(index, VerdictFile(folder / "review.csv", lock=folder / "state/review.lock"))


def numbers(desk, chosen, *, limit=50):
    """Numbers of the samples in the order in which they are shown."""
    card, found = desk.card(chosen, None, move="first"), []
    while card is not None and len(found) < limit and card.number not in found:
        found.append(card.number)
        card = desk.card(chosen, card.cursor, move="next")
    return found


def verdicts(desk):
    return {key: entry.verdict for key, entry in read_review(desk.verdicts.path).entries.items()}


def test_the_lowest_quality_comes_first_and_filters_leave_samples_out(desk):
    assert numbers(desk, Filter()) == list(range(NUM, 0, -1))  # the last sample has the lowest quality
    assert numbers(desk, Filter(category="cat")) == [10, 7, 4, 1]  # every third, from the first
    assert numbers(desk, Filter(group="one_unseen", max_quality=0.8)) == [12, 11, 9, 8]
    assert numbers(desk, Filter(shown="rejected")) == []
    assert desk.choices() == (["cat", "dog"], ["one_unseen", "two_seen"])


def test_a_judged_sample_leaves_the_filter_and_the_next_one_follows(desk):
    first = desk.card(Filter(), None, move="first")
    assert (first.number, first.place, first.num, first.entry) == (12, 1, 12, None)
    desk.verdicts.judge(first.sample, "rejected")
    assert desk.card(Filter(), first.cursor, move="stay").place == 0
    following = desk.card(Filter(), first.cursor, move="next")
    assert (following.number, following.place, following.num) == (11, 1, 11)
    assert desk.card(Filter(), following.cursor, move="previous").number == 11  # there is none before
    assert numbers(desk, Filter(shown="rejected")) == [12]
    counts = desk.counts()
    assert (counts.num, counts.accepted, counts.rejected, counts.foreign) == (12, 0, 1, 0)


def test_an_undo_takes_back_what_was_done_and_nothing_else(desk):
    sample = desk.card(Filter(), None, move="first").sample
    accepted = desk.verdicts.judge(sample, "accepted")
    rejected = desk.verdicts.judge(sample, "rejected")
    assert not desk.verdicts.undo(accepted)  # another tab has changed it since
    assert verdicts(desk) == {sample.key: "rejected"}
    assert desk.verdicts.undo(rejected)
    assert verdicts(desk) == {sample.key: "accepted"}
    assert desk.verdicts.undo(accepted)
    assert desk.verdicts.path.read_text() == "id,prompt,look,verdict,note\n"


def test_a_note_stays_and_a_broken_file_is_one_line(desk):
    sample = desk.card(Filter(), None, move="first").sample
    desk.verdicts.judge(sample, "accepted")
    text = desk.verdicts.path.read_text()
    desk.verdicts.path.write_text(text.replace("accepted,", 'accepted,"a tail, perhaps"'))
    desk.verdicts.judge(sample, "rejected")
    assert read_review(desk.verdicts.path).entries[sample.key].note == "a tail, perhaps"
    desk.verdicts.path.write_text(text.replace("accepted", "good"))
    with pytest.raises(UserError, match=r"review.csv, line 2: verdict must be accepted or rejected, got 'good'"):
        desk.verdicts.judge(sample, "rejected")
    assert "good" in desk.verdicts.path.read_text()  # what a person wrote is not written over


def test_verdicts_on_samples_that_are_gone_are_counted_and_dropped_on_request(desk, tmp_path):
    for move in range(3):
        desk.verdicts.judge(desk.index.shard_set.read(list(desk.index.shard_set.places())[move]), "accepted")
    for path in (tmp_path / "shards").iterdir():
        path.unlink()
    write_synthetic(tmp_path / "shards", num=2)
    counts = desk.counts()
    assert (counts.num, counts.accepted, counts.foreign) == (2, 2, 1)
    assert desk.drop_foreign() == 1
    assert list(verdicts(desk)) == ["synthesis-000000", "synthesis-000001"]


JUDGE = """
import sys
from pathlib import Path
from diffground.studio.shard_sets import ShardSet
from diffground.studio.verdicts import VerdictFile
from diffground.vocabulary import load_vocabulary
folder = Path(sys.argv[1])
shards = ShardSet("synthetic", "Synthetic", folder / "shards", load_vocabulary("pascal").categories)
verdicts = VerdictFile(folder / "review.csv", lock=folder / "state/review.lock")
for i, place in enumerate(shards.places()):
    if i % 3 == int(sys.argv[2]):
        verdicts.judge(shards.read(place), "rejected")
"""


def test_three_programs_at_once_lose_no_verdict(desk):
    desk.counts()
    folder = desk.verdicts.path.parent
    env = {"PYTHONPATH": str(Path(diffground.__file__).parents[1]), "PATH": ""}
    (folder / f"{desk.verdicts.path.name}.1.partial").write_text("of a Studio that was killed")
    running = [subprocess.Popen([sys.executable, "-c", JUDGE, folder, str(i)], env=env) for i in range(3)]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    assert sorted(verdicts(desk)) == [f"synthesis-{i:06d}" for i in range(NUM)]
    assert not list(folder.glob("*.partial"))


def test_a_test_image_has_the_lowest_score_of_its_detections(tmp_path):
    write_test_set(tmp_path / "generated", tmp_path / "oracle")
    shards = ShardSet("test", "Test images", tmp_path / "generated", NAMES, oracle=tmp_path / "oracle")
    desk = Desk(SampleIndex(shards, tmp_path / "s"), VerdictFile(tmp_path / "r.csv", lock=tmp_path / "s/lock"))
    card = desk.card(Filter(), None, move="first")
    assert (card.sample.key, card.quality, card.sample.masks()) == ("test-000005", 0.0, {})
    card = desk.card(Filter(), card.cursor, move="next")
    assert (card.sample.key, card.quality, list(card.sample.masks())) == ("test-000004", 0.86, ["dog"])


def test_the_list_is_made_again_when_the_shards_change(desk, tmp_path):
    assert desk.counts().num == NUM
    [listed] = (tmp_path / "state").glob("*.sqlite")
    stamp = listed.stat().st_mtime_ns
    assert desk.counts().num == NUM and listed.stat().st_mtime_ns == stamp  # counted once
    write_synthetic(tmp_path / "shards", num=3)
    (tmp_path / "shards/000001.tar").unlink()
    (tmp_path / "shards/000002.tar").unlink()
    assert desk.counts().num == 3
    assert len(list((tmp_path / "state").glob("*.sqlite"))) == 1


def test_a_sample_that_is_twice_there_and_shards_that_are_missing_are_one_line(desk, tmp_path):
    write_shard(tmp_path / "shards/000009.tar", [synthetic_sample(3)])
    with pytest.raises(UserError, match=r"000009.tar: sample 'synthesis-000003' is in another shard too; delete"):
        desk.counts()
    for path in (tmp_path / "shards").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"holds no shard"):
        desk.counts()
