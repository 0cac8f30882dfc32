"""Consistency of captions and videos: the quantile and the floor, exactly, by an oracle that knows what was rendered."""

import numpy as np
import pytest
from synth_stages import context_of, place_of, record_of, verdicts

from gve.hub_datasets.vsynflow.extension.mining import Mining
from gve.hub_datasets.vsynflow.quality.consistency import Consistency, Similarity
from gve.hub_datasets.vsynflow.quality.measure import sample_frames
from gve.hub_datasets.vsynflow.stages import Failed, Kept, Rejected, SetupError
from gve.hub_datasets.vsynflow.work import run_stage
from gve.hub_datasets.world.captions import clip_facts
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.video import video_bytes

COUNT, FRAMES, SIDE = 20, 2, 48
WRONG = (3, 8, 12, 17)
"""Places of the captions that belong to another clip."""


class Oracle:
    """Vectors of facts: those of the rendered clip that the frames are of, and those that a caption states."""

    def __init__(self, shown, facts):
        self.shown, self.facts = shown, facts
        names = sorted({fact for found in facts for fact in found})
        self.places = {name: place for place, name in enumerate(names)}

    def vector(self, facts):
        found = np.zeros(len(self.places))
        found[[self.places[fact] for fact in facts]] = 1
        return found / np.linalg.norm(found)

    def encode_query(self, inputs, **options):
        return np.stack([self.vector(self.facts[int(item["text"])]) for item in inputs])

    def encode_document(self, inputs, **options):
        return np.stack([self.vector(self.facts[self.shown[picture(item["video"][0])]]) for item in inputs])


def picture(frame):
    return np.asarray(frame).tobytes()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Records whose caption is the number of the clip that it describes, and their oracle."""
    # a seed with which the four wrong captions have four different scores
    folder, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(4)
    clips = [sample_clip(rng, "seen") for _ in range(COUNT)]
    records, shown = [], {}
    for number, clip in enumerate(clips):
        path = folder / f"{number}.mp4"
        path.write_bytes(video_bytes((clip,)))
        told = (number + 1) % COUNT if number in WRONG else number
        record = record_of(path, str(number), str(told)) | {"duration": 2.0}
        records.append(record)
        shown[picture(sample_frames(record["video"], [0.5], SIDE)[0])] = number
    return records, Oracle(shown, [sorted(clip_facts(clip)) for clip in clips])


@pytest.fixture(scope="module")
def scored(world, tmp_path_factory):
    records, oracle = world
    outcomes = Similarity("oracle", FRAMES).run(records, context_of(tmp_path_factory.mktemp("s"), encoder=oracle))
    return [{**record, **outcome.columns} for record, outcome in zip(records, outcomes, strict=True)]


def refused(stage, rows, folder):
    codes = verdicts(stage, rows, context_of(folder))
    assert set(codes) <= {"inconsistent", None}
    return {int(row["id"]) for row, code in zip(rows, codes, strict=True) if code}


def test_scores_are_the_shares_of_common_facts(world, scored):
    oracle = world[1]
    for number, row in enumerate(scored):
        told, seen = set(oracle.facts[int(row["text"])]), set(oracle.facts[number])
        expected = len(told & seen) / np.sqrt(len(told) * len(seen))
        assert row["similarity"] == pytest.approx(expected, abs=1e-6)
    assert [row["similarity"] == 1.0 for row in scored] == [number not in WRONG for number in range(COUNT)]


def test_the_quantile_refuses_that_share_at_most(scored, tmp_path):
    """The four wrong ones are the lowest; the rest are equal, and go together or not at all."""
    for share, expected in ((0.0, 0), (0.04, 0), (0.05, 1), (0.1, 2), (0.2, 4), (0.5, 4), (0.99, 4)):
        found = refused(Consistency(share), scored, tmp_path)
        assert len(found) == expected and found <= set(WRONG), share


def test_the_floor_refuses_whatever_the_share(scored, tmp_path):
    assert refused(Consistency(0.0, 0.999), scored, tmp_path) == set(WRONG)
    assert refused(Consistency(0.05, 0.999), scored, tmp_path) == set(WRONG)
    lowest = sorted(row["similarity"] for row in scored)
    assert refused(Consistency(0.0, lowest[0]), scored, tmp_path) == set(), "the floor itself is kept"
    assert len(refused(Consistency(0.0, lowest[2]), scored, tmp_path)) == 2
    wrong = scored[WRONG[0]] | {"similarity_rank": 1.0}
    assert Consistency(0.0, 0.999).judge(wrong) == Rejected("inconsistent", wrong["similarity"])


def test_few_records_and_equal_scores_are_not_refused(tmp_path):
    equal = [{"id": str(number), "similarity": 0.5} for number in range(10)]
    for rows in (equal, equal[:1], []):
        assert refused(Consistency(), rows, tmp_path) == set()


def test_a_score_that_is_no_number_fails_its_record(world, tmp_path):
    class Broken:
        def encode_query(self, inputs, **options):
            return np.ones((len(inputs), 2))

        def encode_document(self, inputs, **options):
            return np.array([[1.0, np.nan if number == 1 else 0.0] for number in range(len(inputs))])

    context = context_of(tmp_path, encoder=Broken())
    absent = {**world[0][0], "video": place_of("absent.mp4")}
    outcomes = Similarity("broken", 1).run([world[0][0], world[0][1], absent], context)
    assert outcomes[0] == Kept({"similarity": pytest.approx(0.707107)})
    assert outcomes[1:] == [Failed("no number", False), Failed("undecodable", False)]


def test_what_is_set_up_wrongly_ends_the_run_in_every_stage(world, tmp_path):
    context = context_of(tmp_path)
    with pytest.raises(SetupError, match="encoder: got none"):
        run_stage(Similarity("oracle"), world[0][:1], context)
    record = dict.fromkeys(Mining.reads) | {"id": "a", "origin": "a", "parent": None}
    with pytest.raises(SetupError, match="encoder: got none, but this stage was made for 'x'"):
        run_stage(Mining("x"), [record], context)
