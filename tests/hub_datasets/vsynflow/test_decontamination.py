from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from safetensors.numpy import save_file
from synth_stages import Colours, context_of, place_of, video_file

from gve.hub_datasets.vsynflow.decontamination import Decontamination, gate_report
from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.fingerprints import Fingerprints, id_keys, make_fingerprints
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.quality.integrity import Integrity, VideoLimits
from gve.hub_datasets.vsynflow.quality.measure import measure
from gve.hub_datasets.vsynflow.records import make_record
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.stages import Failed, Kept, SetupError, Stage

SIZE, COUNT = (160, 96), 6
write = partial(video_file, fps=10)
LONG = "a tall man in a grey coat walks over the old bridge and looks back at number {}"


def frames_of(seed, count=40):
    """A detailed picture that a window moves over slowly."""
    rng = np.random.default_rng(seed)
    cells = Image.fromarray(rng.integers(0, 255, (30, 60, 3)).astype(np.uint8))
    wide = np.asarray(cells.resize((SIZE[0] * 2, SIZE[1]), Image.Resampling.BICUBIC))
    return [wide[:, index : index + SIZE[0]] for index in range(count)]


def boxed(frame):
    return np.pad(frame, ((16, 16), (0, 0), (0, 0)))


GUISES = {
    "reencoded": lambda frames: frames,
    "smaller": lambda frames: [np.asarray(Image.fromarray(frame).resize((120, 72))) for frame in frames],
    "letterboxed": lambda frames: [boxed(frame) for frame in frames],
    "mirrored": lambda frames: [frame[:, ::-1] for frame in frames],
    "subclip": lambda frames: frames[7:27],
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Fingerprints of test videos, and measured train videos by guise."""
    folder = tmp_path_factory.mktemp("leaks")
    tests = [frames_of(seed) for seed in range(COUNT)]
    items = [
        {
            "ids": [f"https://youtu.be/Abcdefgh_{seed:02d}"],
            "video": write(folder / f"t{seed}.mp4", frames),
            "texts": [LONG.format(seed)],
        }
        for seed, frames in enumerate(tests)
    ]
    path = folder / "fingerprints.safetensors"
    make_fingerprints("test", items).save(path)
    train = {
        guise: [
            measure(write(folder / f"{guise}{seed}.mp4", change(frames), crf="30"))
            for seed, frames in enumerate(tests)
        ]
        for guise, change in GUISES.items()
    }
    train["clean"] = [measure(write(folder / f"c{seed}.mp4", frames_of(100 + seed))) for seed in range(2 * COUNT)]
    return path, train


def codes(stage, rows, tmp_path):
    context = context_of(tmp_path)
    outcomes = stage.run(rows, context)
    verdicts = [stage.judge({**row, **outcome.columns}) for row, outcome in zip(rows, outcomes, strict=True)]
    return [verdict and verdict.code for verdict in verdicts]


def rows_of(measured, text="a dog", path="x.mp4"):
    place = {"path": path, "offset": None, "size": None}
    return [
        {"id": "r", "origin": "r", "parent": None, "video": place, "text": text, "raw_text": text, **row}
        for row in measured
    ]


@pytest.mark.parametrize("guise", GUISES)
def test_planted_videos_are_caught(planted, tmp_path, guise):
    path, train = planted
    assert codes(Decontamination(str(path)), rows_of(train[guise]), tmp_path) == ["frames"] * COUNT


def test_other_videos_pass(planted, tmp_path):
    path, train = planted
    assert codes(Decontamination(str(path)), rows_of(train["clean"]), tmp_path) == [None] * 2 * COUNT


def test_ids_and_texts_are_caught(planted, tmp_path):
    path, train = planted
    stage, clean = Decontamination(str(path)), train["clean"][:1]
    assert codes(stage, rows_of(clean, path="/v/Abcdefgh_03.mp4"), tmp_path) == ["id"]
    assert codes(stage, rows_of(clean, text=f"We see {LONG.format(5).upper()}!"), tmp_path) == ["text"]
    assert codes(stage, rows_of(clean, text="A tall man in a grey coat"), tmp_path) == [None]


class Bag:
    """An encoder that counts words."""

    def encode_query(self, inputs, **options):
        words = ["red", "green", "ball", "cube", "rolls", "falls"]
        return np.array([[item["text"].split().count(word) for word in words] for item in inputs], float) + 1e-3


def test_paraphrases_are_caught_by_an_encoder(planted, tmp_path):
    _, train = planted
    texts = {"ids": [], "video": None, "texts": ["the red ball rolls"]}
    path = tmp_path / "f.safetensors"
    make_fingerprints("test", [texts], encoder=Bag(), encoder_name="bag").save(path)
    stage = Decontamination(str(path), encoder="bag", texts=("text", "captions"))
    context = context_of(tmp_path, encoder=Bag())
    rows = [{**row, "captions": ["a cube", "slowly rolls a ball that is red"]} for row in rows_of(train["clean"][:1])]
    (outcome,) = stage.run(rows, context)
    assert stage.judge({**rows[0], **outcome.columns}).code == "paraphrase"
    context.encoder = None
    with pytest.raises(SetupError, match="the run has none"):
        stage.run(rows, context)
    with pytest.raises(SetupError, match="the fingerprints' own, 'bag'; got 'none'"):
        Decontamination(str(path), texts=("text", "captions")).run(rows, context)


RECALL = {"reencoded": 1.0, "smaller": 1.0, "letterboxed": 1.0, "mirrored": 1.0, "subclip": 0.5}
"""Of the net of videos alone, with the encoder above and a window of 13 of 40 frames for a sub-clip."""


def test_copies_are_caught_by_embeddings_alone(planted, tmp_path):
    path, train = planted
    items = [{"ids": [], "video": place_of(path.parent / f"t{seed}.mp4"), "texts": []} for seed in range(COUNT)]
    known = make_fingerprints("test", items, encoder=Colours(), encoder_name="colours")
    assert known.videos.shape == (4 * COUNT, 96)
    known.hashes = known.hashes[:0]  # so that no other net can catch them
    known.save(tmp_path / "f.safetensors")
    stage = Decontamination(str(tmp_path / "f.safetensors"), encoder="colours", most_video_similarity=0.9)
    context = context_of(tmp_path, encoder=Colours())

    def caught(guise, count):
        rows = [
            {**row, "video": place_of(path.parent / f"{guise}{number}.mp4")}
            for number, row in enumerate(rows_of(train[guise if guise != "c" else "clean"]))
        ]
        outcomes = stage.run(rows, context)
        verdicts = [stage.judge({**row, **outcome.columns}) for row, outcome in zip(rows, outcomes, strict=True)]
        return sum(verdict is not None and verdict.code == "video" for verdict in verdicts) / count

    found = {guise: caught(guise, COUNT) for guise in GUISES}
    assert all(found[guise] >= least for guise, least in RECALL.items()), found
    assert caught("c", 2 * COUNT) == 0


def test_a_picture_has_the_hashes_of_what_every_reader_sees(tmp_path):
    """White beneath transparency, upright."""
    noise = np.random.default_rng(0).integers(0, 255, (8, 12, 3)).astype(np.uint8)
    seen = Image.fromarray(noise).resize((96, 64))
    stored = seen.convert("RGBA")
    stored.paste((0, 0, 0, 0), (0, 0, 30, 64))
    seen.paste((255, 255, 255), (0, 0, 30, 64))
    exif = Image.Exif()
    exif[0x0112] = 3
    stored.rotate(180).save(tmp_path / "a.png", exif=exif)
    seen.save(tmp_path / "b.png")
    one, other = (
        make_fingerprints("test", [{"ids": [], "video": None, "image": tmp_path / name, "texts": []}])
        for name in ("a.png", "b.png")
    )
    assert np.array_equal(one.hashes, other.hashes) and len(one.hashes) == 2


def test_a_video_that_is_gone_fails_and_the_others_go_on(planted, tmp_path):
    path, train = planted
    known = make_fingerprints(
        "test",
        [{"ids": [], "video": place_of(path.parent / "t0.mp4"), "texts": []}],
        encoder=Colours(),
        encoder_name="colours",
    )
    known.save(tmp_path / "f.safetensors")
    stage = Decontamination(str(tmp_path / "f.safetensors"), encoder="colours")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows = [
        {**row, "video": place_of(file)}
        for row, file in zip(
            rows_of(train["clean"][:2]), (tmp_path / "broken.mp4", path.parent / "c1.mp4"), strict=True
        )
    ]
    broken, good = stage.run(rows, context_of(tmp_path, encoder=Colours()))
    assert broken == Failed("undecodable", retryable=False)
    assert 0 < good.columns["leak_video"] < 1


def test_fingerprints_survive_writing_and_hold_no_text(planted):
    path, _ = planted
    loaded = Fingerprints.load(path)
    assert loaded.name == "test"
    assert len(loaded.ids) == COUNT
    assert loaded.hashes.shape[1] == 256
    assert b"grey coat" not in path.read_bytes()
    with pytest.raises(ValueError, match="does not exist"):
        Fingerprints.load(path.with_name("other"))
    with pytest.raises(ValueError, match="is not a safetensors file"):
        Fingerprints.load(path.parent / "t0.mp4")
    save_file({"x": np.zeros(1)}, path.with_name("foreign"))
    with pytest.raises(ValueError, match="got None"):
        Fingerprints.load(path.with_name("foreign"))
    with pytest.raises(ValueError, match=r"encoder and encoder_name belong together"):
        make_fingerprints("test", [], encoder=Bag())


def test_embeddings_survive_writing(tmp_path):
    vectors = np.eye(3, 4, dtype=np.float32)
    made = Fingerprints("n", frozenset(("youtube:a",)), encoder="e", num_frames=5, videos=vectors, texts=vectors[:1])
    made.save(tmp_path / "f")
    loaded = Fingerprints.load(tmp_path / "f")
    assert (loaded.encoder, loaded.num_frames, loaded.ids, loaded.digest()) == ("e", 5, made.ids, made.digest())
    assert np.array_equal(loaded.videos, vectors) and loaded.texts.shape == (1, 4) and loaded.hashes.shape == (0, 256)
    assert made.counts() == {"ids": 1, "hashes": 0, "runs": 0, "videos": 3, "texts": 1}


def test_platform_ids():
    assert id_keys("https://www.youtube.com/watch?t=3&v=aB3-_5678Zz") == {"youtube:aB3-_5678Zz"}
    assert id_keys("clips/v_aB3-_5678Zz_10_20.mp4") == {"youtube:aB3-_5678Zz"}
    assert id_keys("https://www.flickr.com/photos/somebody/12345/") == {"flickr:12345"}
    assert id_keys("https://www.pexels.com/video/a-dog-855029/") == {"pexels:855029"}
    assert id_keys("video_00001.mp4") == set()


def test_the_gate(planted, tmp_path):
    path, _ = planted
    place = write(tmp_path / "leak.mp4", frames_of(0))
    clean = write(tmp_path / "clean.mp4", frames_of(200))
    raw = [
        {**make_record(name, "", "a dog", source="s", licence="CC0"), "video": video}
        for name, video in (("leak", place), ("clean", clean))
    ]
    make_plan(tmp_path / "run", raw, {})
    integrity = Integrity(VideoLimits(least_side=48))
    run_flow(tmp_path / "run", Flow((integrity,)), InlineEngine())
    assert "no decontamination stage" in gate_report(tmp_path / "run")["reason"]
    run_flow(tmp_path / "run", Flow((integrity, Decontamination(str(path), texts=("text",)))), InlineEngine())
    report = gate_report(tmp_path / "run")
    assert (report["checked"], report["caught"]["frames"]) == (2, 1)
    assert report["nets"] == ["id", "frames", "text"]
    next((tmp_path / "run" / "done").iterdir()).unlink()
    assert "not finished" in gate_report(tmp_path / "run")["reason"]


@dataclass(frozen=True)
class Demanding(Stage):
    name = "demanding"
    columns = {"x": pa.int64()}  # noqa: RUF012

    def run(self, records, context):
        if context.encoder is None:
            raise SetupError("encoder: got none")
        return [Kept({"x": 1})] * len(records)


def test_a_wrong_setup_ends_the_run(tmp_path):
    make_plan(tmp_path, [make_record("a", "p", "t", source="s", licence="l")], {})
    with pytest.raises(SetupError, match="encoder: got none"):
        run_flow(tmp_path, Flow((Demanding(),)), InlineEngine())
