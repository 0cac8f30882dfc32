"""One file has one vector, whichever way it comes in, and it is the vector of what is to be seen in it.

Shape legend: D width, n vectors of one file.
"""

import json
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pytest
from entrances import ENTRANCES, World, named, stored
from media_corpus import Sample, smallest, write_corpus
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor

from gve import GVESentenceTransformer, read_video, save_embedder
from gve.encoding.frame_cache import FrameCache
from gve.encoding.prefetching import PipelineOptions
from gve.eval import encode_command, search_command
from gve.eval.models import model_fingerprint
from gve.eval.store import FileEmbeddings, load_embeddings, save_embeddings
from gve.image_gve import open_image

TOLERANCE = 1e-6
FAR = 1e-4
"""Vectors of two contents differ by more, or the comparison would say nothing."""
TRUTH_FRAMES = 8
PLAIN_PATH = "plain, bare path"
SUFFIX_FIRST = {
    "really_jpeg.mp4": "got the image",
    "really_mp4.jpg": "got the video",
    "really_ts.png": "got the video",
    **dict.fromkeys(("picture.gif", "moving.gif", "moving_clear.gif", "really_webp.gif"), ""),
    **dict.fromkeys(("moving.webp", "moving_clear.webp", "moving_clear.png", "moving_beside_still.png"), ""),
}
"""Files that sentence-transformers, which knows a few suffixes, takes for the other kind; with words of the refusal.
An animation that is asked for as an image is its first picture."""
LONGEST = 10.0
"""Seconds; every video is shorter."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder, saved = tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVT_LOG", "0")  # the encoder of AV1 would fill a failure's report
        samples = write_corpus(folder)
    save_embedder(saved, *smallest())
    model, processor = AutoModel.from_pretrained(saved), AutoProcessor.from_pretrained(saved)
    both = [kind(str(saved), device="cpu") for kind in (GVESentenceTransformer, SentenceTransformer)]
    return World(samples, folder, saved, model, processor, *both, 32)


@pytest.fixture(scope="module")
def vectors(world):
    """(D,) by name, as the processor and the model give them; only of files that they can read."""
    found = {}
    for sample in world.samples:
        try:
            found[sample.name] = world.vectors(world.processor.prepare([{sample.kind: str(sample.path)}]))[0]
        except (ValueError, OSError):
            continue  # test_what_is_seen_is_right tells of it
    return found


def words_of(error: Exception) -> str:
    return ascii(f"{type(error).__name__}: {error}"[:160])


def problem(sample: Sample, wanted: np.ndarray, found: Any) -> str | None:
    found = np.asarray(found)
    if found.shape[-1] != len(wanted):
        return f"{sample.name}: vectors of shape {found.shape}"
    off = float(np.abs(found - wanted).max())
    return None if off <= TOLERANCE else f"{sample.name}: off by {off:.2g}"


def compare(world: World, vectors: dict[str, np.ndarray], found: Callable, without: Collection = ()) -> list[str]:
    """Ask an entrance for every file: what is wrong with those that fail or have another vector."""
    problems = []
    for sample in world.samples:
        if sample.name not in vectors or sample.name in without:
            continue
        try:
            problems.append(problem(sample, vectors[sample.name], found(world, sample)))
        except Exception as error:  # whatever goes wrong with a file, the others are looked at too
            problems.append(f"{sample.name}: {words_of(error)}")
    return [line for line in problems if line]


def test_other_contents_have_other_vectors(vectors):
    names, array = list(vectors), np.stack(list(vectors.values()))
    apart = np.abs(array[:, None] - array[None]).max(-1) + np.eye(len(array))
    near = [f"{names[i]} and {names[j]}" for i, j in np.argwhere(apart < FAR) if i < j]
    assert not near


def _seen(sample: Sample) -> str | None:
    """What is wrong with the picture or with the video."""
    if sample.kind == "image":
        return _differs(np.asarray(open_image(str(sample.path))), sample.shows, sample.loss)
    places = np.linspace(0, len(sample.shows) - 1, TRUTH_FRAMES).round().astype(int)  # a short one repeats some
    read = read_video(str(sample.path), TRUTH_FRAMES)
    if wrong := _differs(read.frames, sample.shows[places], sample.loss):
        return wrong
    frames = sample.shows.astype(np.int16)
    nearest = [int(np.abs(frames - frame).mean((1, 2, 3)).argmin()) for frame in read.frames]
    if nearest != places.tolist():
        return f"frames {nearest} instead of {places.tolist()}"
    times = np.array(read.timestamps)
    if (np.diff(times)[np.diff(places) > 0] <= 0).any() or times[-1] > LONGEST:
        return f"times {times.tolist()}"
    return None


def _differs(found: np.ndarray, wanted: np.ndarray, loss: float) -> str | None:
    if found.shape != wanted.shape:
        return f"shape {found.shape} instead of {wanted.shape}"
    off = float(np.abs(found.astype(np.int16) - wanted).mean())
    return f"off by {off:.1f} grey levels" if off > loss else None


def test_what_is_seen_is_right(world, vectors):
    problems = [f"{name}: not read" for name in {sample.name for sample in world.samples} - vectors.keys()]
    for sample in world.samples:
        try:
            wrong = _seen(sample)
        except (ValueError, OSError) as error:
            wrong = words_of(error)
        problems += [f"{sample.name}: {wrong}"] if wrong else []
    assert problems == []


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_one_vector(world, vectors, entrance):
    assert compare(world, vectors, ENTRANCES[entrance], SUFFIX_FIRST if entrance == PLAIN_PATH else {}) == []


def test_sentence_transformers_looks_at_suffixes(world):
    """A bare path of these reaches the processor as a file of the other kind, and is that or is refused."""
    problems = []
    for sample in (sample for sample in world.samples if sample.name in SUFFIX_FIRST):
        if words := SUFFIX_FIRST[sample.name]:
            with pytest.raises(ValueError, match=words):
                ENTRANCES[PLAIN_PATH](world, sample)
            continue
        other = {"image": "video", "video": "image"}[sample.kind]
        wanted = world.vectors(world.processor.prepare([{other: str(sample.path)}]))[0]
        problems.append(problem(sample, wanted, ENTRANCES[PLAIN_PATH](world, sample)))
    assert [line for line in problems if line] == []


@pytest.mark.parametrize("how", ["threads", "no threads", "frames kept", "frames kept before"])
def test_one_vector_in_a_list(world, vectors, how, tmp_path_factory, monkeypatch):
    """A list in batches of several files, by threads or without, with frames from the cache or for it."""
    if "kept" in how:
        monkeypatch.setattr(world.ours, "frame_cache", FrameCache(tmp_path_factory.mktemp("frames")))
    if how == "no threads":
        monkeypatch.setattr(world.ours, "pipeline", PipelineOptions(workers=0))
    inputs = [{sample.kind: str(sample.path)} for sample in world.samples]
    for _ in range(2 if how.endswith("before") else 1):
        found = world.ours.encode(inputs, batch_size=16)
    by_name = {sample.name: vector for sample, vector in zip(world.samples, found, strict=True)}
    assert compare(world, vectors, lambda world, sample: by_name[sample.name]) == []


@pytest.mark.parametrize("out", ["vectors.safetensors", "shards"])
def test_one_vector_by_gve_encode(world, vectors, out, tmp_path, capsys):
    fixed = ["--model", str(world.saved), "--shard-size", "50"]
    code = encode_command.main([str(world.folder), "--out", str(tmp_path / out), *fixed])
    made = load_embeddings(tmp_path / out)
    assert code == 0 and made.skipped == {}
    found = dict(zip(made.paths, made.vectors, strict=True))
    assert compare(world, vectors, lambda world, sample: found[str(sample.path)]) == []


def test_one_vector_by_gve_search(world, vectors, tmp_path, monkeypatch, capsys):
    """The query's vector, by its score with each axis."""
    names, axes = [str(number) for number in range(world.width)], np.eye(world.width, dtype=np.float32)
    made = FileEmbeddings(names, axes, [""] * world.width, {}, str(world.saved), model_fingerprint(str(world.saved)))
    save_embeddings(made, tmp_path / "axes.safetensors")
    monkeypatch.setattr("gve.eval.search.load_encoder", lambda model: world.ours)
    fixed = [str(tmp_path / "axes.safetensors"), "--instruction", "", "--top", str(world.width), "--json"]

    def take(world, sample):
        code = search_command.main([*fixed, f"--{sample.kind}", str(sample.path)])
        told = capsys.readouterr()
        if code:
            raise ValueError(told.err)
        scores = {int(hit["path"]): hit["score"] for hit in json.loads(told.out)["results"]}
        return np.array([scores[number] for number in range(world.width)])

    assert compare(world, vectors, take) == []


def test_one_vector_by_mteb(world, vectors):
    mteb = pytest.importorskip("mteb")
    from gve.eval.mteb import mteb_model

    model, metadata = mteb_model(world.ours), type("Metadata", (), {"name": "Task"})()
    fixed = {"task_metadata": metadata, "hf_split": "x", "hf_subset": "y"}

    def take(world, sample):
        batches = [{sample.kind: [medium]} for medium in (str(sample.path), stored(sample), named(sample))]
        return model.encode(batches, prompt_type=mteb.types.PromptType.document, **fixed)

    assert compare(world, vectors, take) == []
