from functools import partial

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from synth_stages import Colours, context_of, place_of, record_of, verdicts, video_file

from gve.hub_datasets.vsynflow.decontamination import Decontamination, gate_report
from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.fingerprints import Fingerprints, id_keys, make_fingerprints
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.quality.integrity import Integrity, VideoLimits
from gve.hub_datasets.vsynflow.quality.measure import measure
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.stages import Failed, SetupError

SIZE, COUNT = (160, 96), 3
write = partial(video_file, fps=10)
LONG = "a tall man in a grey coat walks over the old bridge and looks back at number {}"


def frames_of(seed, count=40):
    """A detailed picture that a window moves over slowly."""
    rng = np.random.default_rng(seed)
    cells = Image.fromarray(rng.integers(0, 255, (30, 60, 3)).astype(np.uint8))
    wide = np.asarray(cells.resize((SIZE[0] * 2, SIZE[1]), Image.Resampling.BICUBIC))
    return [wide[:, index : index + SIZE[0]] for index in range(count)]


GUISES = {
    "reencoded": lambda frames: frames,
    "smaller": lambda frames: [np.asarray(Image.fromarray(frame).resize((120, 72))) for frame in frames],
    "letterboxed": lambda frames: [np.pad(frame, ((16, 16), (0, 0), (0, 0))) for frame in frames],
    "mirrored": lambda frames: [frame[:, ::-1] for frame in frames],
    "subclip": lambda frames: frames[7:27],
}
RECALL = dict.fromkeys(GUISES, 1.0) | {"subclip": 0.5}
"""Of the net of videos alone, with `Colours` and a window of 13 of 40 frames for a sub-clip."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Test videos, their copies in every guise, and clean videos."""
    folder = tmp_path_factory.mktemp("leaks")
    for seed in range(COUNT):
        frames = frames_of(seed)
        write(folder / f"test{seed}.mp4", frames)
        for guise, change in GUISES.items():
            write(folder / f"{guise}{seed}.mp4", change(frames), crf=30)
    for seed in range(2 * COUNT):
        write(folder / f"clean{seed}.mp4", frames_of(100 + seed))
    return folder


@pytest.fixture(scope="module")
def train(folder):
    """Measured rows by guise."""
    counts = dict.fromkeys(GUISES, COUNT) | {"clean": 2 * COUNT}
    return {
        guise: [measured(folder / f"{guise}{seed}.mp4") for seed in range(count)] for guise, count in counts.items()
    }


@pytest.fixture(scope="module")
def marks(folder):
    """The file of fingerprints of the test videos."""
    items = [
        item(folder / f"test{seed}.mp4", [f"https://youtu.be/Abcdefgh_{seed:02d}"], [LONG.format(seed)])
        for seed in range(COUNT)
    ]
    make_fingerprints("test", items).save(folder / "marks.safetensors")
    return folder / "marks.safetensors"


def item(path=None, ids=(), texts=()):
    return {"ids": ids, "video": path and place_of(path), "texts": texts}


def measured(path):
    return {**record_of(path), "raw_text": "a dog", "text": "a dog", **measure(place_of(path))}


def test_copies_are_caught_in_every_guise_and_other_videos_pass(marks, train, tmp_path):
    stage, context = Decontamination(str(marks)), context_of(tmp_path)
    found = {guise: verdicts(stage, rows, context) for guise, rows in train.items()}
    assert found == {guise: ["frames"] * COUNT for guise in GUISES} | {"clean": [None] * 2 * COUNT}


def test_ids_and_texts_are_caught(marks, train, tmp_path):
    clean = train["clean"][0]
    texts = (f"We see {LONG.format(2).upper()}!", "A tall man in a grey coat")
    rows = [{**clean, "video": place_of("/v/Abcdefgh_02.mp4")}, *({**clean, "text": text} for text in texts)]
    assert verdicts(Decontamination(str(marks)), rows, context_of(tmp_path)) == ["id", "text", None]


class Bag:
    """An encoder that counts words."""

    def encode_query(self, inputs, **options):
        words = ["red", "green", "ball", "cube", "rolls", "falls"]
        return np.array([[item["text"].split().count(word) for word in words] for item in inputs], float) + 1e-3


def test_paraphrases_are_caught_by_an_encoder(train, tmp_path):
    path = tmp_path / "f.safetensors"
    make_fingerprints("test", [item(texts=["the red ball rolls"])], encoder=Bag(), encoder_name="bag").save(path)
    stage = Decontamination(str(path), encoder="bag", texts=("text", "captions"))
    rows = [{**train["clean"][0], "captions": ["a cube", "slowly rolls a ball that is red"]}]
    assert verdicts(stage, rows, context_of(tmp_path, encoder=Bag())) == ["paraphrase"]
    with pytest.raises(SetupError, match="the run has none"):
        stage.run(rows, context_of(tmp_path))
    with pytest.raises(SetupError, match="the fingerprints' own, 'bag'; got 'none'"):
        Decontamination(str(path), texts=("text", "captions")).run(rows, context_of(tmp_path, encoder=Bag()))


def test_copies_are_caught_by_embeddings_alone_and_a_video_that_is_gone_fails(folder, train, tmp_path):
    items = [item(folder / f"test{seed}.mp4") for seed in range(COUNT)]
    known = make_fingerprints("test", items, encoder=Colours(), encoder_name="colours")
    assert len(known.videos) == 4 * COUNT
    known.hashes = known.hashes[:0]  # so that no other net can catch them
    known.save(tmp_path / "f.safetensors")
    stage = Decontamination(str(tmp_path / "f.safetensors"), encoder="colours", most_video_similarity=0.9)
    context = context_of(tmp_path, encoder=Colours())
    for guise, least in RECALL.items():
        found = verdicts(stage, train[guise], context)
        assert set(found) <= {"video", None} and found.count("video") >= least * COUNT, guise
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows = [{**train["clean"][0], "video": place_of(tmp_path / "broken.mp4")}, *train["clean"]]
    assert verdicts(stage, rows, context) == ["undecodable"] + [None] * 2 * COUNT
    assert stage.run(rows[:1], context) == [Failed("undecodable", retryable=False)]


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
    pictures = [item() | {"image": tmp_path / name} for name in ("a.png", "b.png")]
    one, other = (make_fingerprints("test", [picture]) for picture in pictures)
    assert np.array_equal(one.hashes, other.hashes) and len(one.hashes) == 2


def test_fingerprints_survive_writing_and_hold_no_text(marks, tmp_path):
    loaded = Fingerprints.load(marks)
    assert (loaded.name, len(loaded.ids), loaded.hashes.shape[1]) == ("test", COUNT, 256)
    assert b"grey coat" not in marks.read_bytes()
    vectors = np.eye(3, 4, dtype=np.float32)
    made = Fingerprints("n", frozenset(("youtube:a",)), encoder="e", num_frames=5, videos=vectors, texts=vectors[:1])
    made.save(tmp_path / "f")
    loaded = Fingerprints.load(tmp_path / "f")
    assert (loaded.encoder, loaded.num_frames, loaded.ids, loaded.digest()) == ("e", 5, made.ids, made.digest())
    assert np.array_equal(loaded.videos, vectors) and loaded.texts.shape == (1, 4) and loaded.hashes.shape == (0, 256)
    assert made.counts() == {"ids": 1, "hashes": 0, "runs": 0, "videos": 3, "texts": 1}


def test_what_is_no_file_of_fingerprints(folder, tmp_path):
    save_file({"x": np.zeros(1)}, tmp_path / "foreign")
    for path, match in (
        (tmp_path / "other", "does not exist"),
        (folder / "test0.mp4", "is not a safetensors file"),
        (tmp_path / "foreign", "got None"),
    ):
        with pytest.raises(ValueError, match=match):
            Fingerprints.load(path)
    with pytest.raises(ValueError, match="encoder and encoder_name belong together"):
        make_fingerprints("test", [], encoder=Bag())


def test_platform_ids():
    assert id_keys("https://www.youtube.com/watch?t=3&v=aB3-_5678Zz") == {"youtube:aB3-_5678Zz"}
    assert id_keys("clips/v_aB3-_5678Zz_10_20.mp4") == {"youtube:aB3-_5678Zz"}
    assert id_keys("https://www.flickr.com/photos/somebody/12345/") == {"flickr:12345"}
    assert id_keys("https://www.pexels.com/video/a-dog-855029/") == {"pexels:855029"}
    assert id_keys("video_00001.mp4") == set()


def test_the_gate(folder, marks, tmp_path):
    make_plan(tmp_path, [record_of(folder / f"{name}0.mp4", name, "a dog") for name in ("test", "clean")], {})
    integrity = Integrity(VideoLimits(least_side=48))
    run_flow(tmp_path, Flow((integrity,)), InlineEngine())
    assert "no decontamination stage" in gate_report(tmp_path)["reason"]
    run_flow(tmp_path, Flow((integrity, Decontamination(str(marks), texts=("text",)))), InlineEngine())
    report = gate_report(tmp_path)
    assert (report["passed"], report["checked"], report["caught"]["frames"]) == (True, 2, 1)
    assert report["nets"] == ["id", "frames", "text"]
    next((tmp_path / "done").iterdir()).unlink()
    assert "not finished" in gate_report(tmp_path)["reason"]
