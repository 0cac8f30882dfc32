"""The second stage: a cross-encoder reorders hits and the candidates of an evaluation."""

import json
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import other_models
import pytest
import uvrb_folder
from index_rows import make_hit
from sentence_transformers import CrossEncoder, SentenceTransformer
from square_clips import COLOURS, frames_of, mp4_of, png_of
from transformers import AutoProcessor
from uvrb_folder import make_tables, write_uvrb

from gve.eval.eval_command import main
from gve.eval.rerank import Reranker, load_reranker, rerank
from gve.eval.second_stage import rerank_set
from gve.eval.store import EmbeddingCache
from gve.eval.video_retrieval.ranking import count_scores, score_block
from gve.hub_datasets.uvrb import SETS

NAMES = list(COLOURS)


class Colours:
    """Scores a colour's name and a picture by the cosine of that colour and the picture's mean."""

    def __init__(self, *kinds):
        self.kinds, self.calls = set(kinds), []

    def supports(self, modality):
        return {modality} <= self.kinds or set(modality) <= self.kinds

    def predict(self, pairs, **options):
        self.calls.append((len(pairs), options))
        return np.array([self._score(*pair) for pair in pairs])

    def _score(self, text, side):
        picture = side["video"].transpose(0, 2, 3, 1) if "video" in side else np.asarray(side["image"])
        mean, colour = picture.reshape(-1, 3).mean(0), np.array(COLOURS[text["text"]])
        return (mean * colour).sum() / np.linalg.norm(mean) / np.linalg.norm(colour)


def clip_of(*colours):
    return mp4_of(np.concatenate([frames_of(colour, 1, 1) for colour in colours]))


@pytest.fixture(scope="module")
def hits(tmp_path_factory):
    """A red and a green video, a video that is first green, then red, and a blue picture; all in the wrong order."""
    folder = tmp_path_factory.mktemp("hits")
    files = {"red": clip_of("red"), "green": clip_of("green"), "both": clip_of("green", "red")}
    for name, content in files.items():
        (folder / f"{name}.mp4").write_bytes(content)
    (folder / "blue.png").write_bytes(png_of(frames_of("blue", 1, 1)[0]))
    (folder / "broken.mp4").write_bytes(b"no video")
    rows = [("broken.mp4", None, None), ("green.mp4", None, None), ("both.mp4", 0.0, 1.5), ("gone.mp4", None, None)]
    rows += [("blue.png", None, None), ("both.mp4", 1.5, 3.0), ("red.mp4", None, None)]
    return [
        make_hit(str(folder / name), start, end, score=0.9 - place / 10, missing=name == "gone.mp4")
        for place, (name, start, end) in enumerate(rows)
    ]


@pytest.mark.parametrize("kinds", [("text", "video", "image"), ("text", "image")])
def test_hits_take_the_order_of_the_reranker(hits, kinds, caplog):
    model = Colours(*kinds)
    found = rerank(Reranker(model, "colours"), {"text": "red"}, hits, instruction="Find the colour.")
    names = [(hit.path.rpartition("/")[2], hit.start) for hit in found]
    assert set(names[:2]) == {("red.mp4", None), ("both.mp4", 1.5)}
    assert {name for name, _ in names[2:5]} == {"blue.png", "green.mp4", "both.mp4"}
    assert names[5:] == [("broken.mp4", None), ("gone.mp4", None)]
    assert [hit.score for hit in found[5:]] == [0.9, pytest.approx(0.6)]
    scores = [hit.score for hit in found[:5]]
    assert scores == sorted(scores, reverse=True) and scores[1] > scores[2] + 0.1
    assert all(options["prompt"] == "Find the colour." for _, options in model.calls)
    timed = [size for size, options in model.calls if "processing_kwargs" in options]
    assert (timed, len(model.calls)) == (([1] * 4, 5) if "video" in kinds else ([], 1))
    assert "not reranked: " in caplog.text and "broken.mp4" in caplog.text


def test_what_a_reranker_does_not_take_is_refused(hits):
    with pytest.raises(ValueError, match="does not take text and video with image"):
        rerank(Reranker(Colours("text", "video"), "colours"), {"text": "red", "video": hits[-1].path}, hits)
    with pytest.raises(ValueError, match="--rerank-top: 0"):
        Reranker(Colours("text"), top=0)
    model = Colours("text", "image")
    model.predict = lambda pairs, **options: np.full(len(pairs), np.nan)
    with pytest.raises(ValueError, match="finite scores, got nan"):
        rerank(Reranker(model), {"text": "red"}, hits)


@pytest.mark.parametrize("pooled", [False, True])
def test_ranks_equal_those_of_the_whole_order(pooled):
    """Against a slow oracle: numbers that put the K reordered candidates above all others."""
    rng = np.random.default_rng(4)
    queries, corpus = (rng.integers(-1, 2, (number, 3)).astype(np.float32) for number in (20, 30))  # many ties
    queries[:, 0] = corpus[:, 0] = 1
    grades = rng.integers(0, 4, (20, 30)).astype(np.float32)
    pools = [np.sort(rng.choice(30, 12, replace=False)) for _ in range(20)] if pooled else None
    candidates = pools or [np.arange(30)] * 20
    positives = [np.sort(rng.choice(pool, 2, replace=False)) for pool in candidates]
    rows = {name: [{"text": f"{name} {n}"} for n in range(k)] for name, k in (("q", 20), ("c", 30))}
    task = SimpleNamespace(name="MSRVTT")
    data = SimpleNamespace(task=task, queries=rows["q"], corpus=rows["c"], positives=positives, pools=pools)

    def number(row):
        return int(row["text"].split()[1])

    def graded(query, rows, *, instruction):
        return np.array([grades[number(query), number(row)] for row in rows])

    reranker, store = SimpleNamespace(top=5, num_frames=8, scores=graded), EmbeddingCache()
    counts, scored = rerank_set(reranker, data, queries, corpus, instruction=None, store=store)
    assert scored == len(store) == 100
    expected = []
    for query, pool in enumerate(candidates):
        scores = score_block(queries[query : query + 1], corpus[pool])[0]
        best = np.argsort(-scores, kind="stable")[:5]
        scores[best] = 100 + grades[query, pool[best]]
        expected.append(scores)
    slow = count_scores(expected, positives, candidates)
    assert (counts.above == slow.above).all() and (counts.tied == slow.tied).all()
    again, scored = rerank_set(reranker, data, queries, corpus, instruction=None, store=store)
    assert scored == 0 and (again.above == counts.above).all()


@pytest.fixture
def cross_encoder(tmp_path, monkeypatch):
    """A tiny random Qwen3-VL reranker, which sees videos as pictures where torchvision is not there."""
    folder = other_models.qwen3_vl_reranker(tmp_path / "reranker", videos=find_spec("torchvision") is not None)

    def load(source, **options):
        kind = other_models.PictureProcessor if source == str(folder) else AutoProcessor
        return kind.from_pretrained(source, **options)

    if find_spec("torchvision") is None:
        patched = "sentence_transformers.base.modules.transformer.AutoProcessor"
        monkeypatch.setattr(patched, SimpleNamespace(from_pretrained=load))
    return folder


def test_qwen3_vl_scores_are_those_of_its_cross_encoder(cross_encoder, hits):
    reranker, query = load_reranker(str(cross_encoder), top=3), {"text": "find the clip"}
    rows = [{"video": hits[1].path}, {"image": hits[4].path}, {"video": hits[2].path, "start": 1.5, "end": 3.0}]
    together = reranker.scores(query, rows)
    alone = [reranker.scores(query, [row])[0] for row in rows]
    assert np.abs(together - alone).max() < 1e-5 and len({round(float(score), 6) for score in together}) == 3
    model = CrossEncoder(str(cross_encoder))
    assert abs(model.predict([["find the clip", {"image": hits[4].path}]])[0] - together[1]) < 1e-5
    assert np.abs(reranker.scores(query, rows, instruction="find the 1") - together).max() > 1e-4
    picture = hits[4].path  # as words, it is not opened
    words, seen = (reranker.scores({kind: picture}, rows[1:2])[0] for kind in ("text", "image"))
    assert abs(model.predict([[{"text": picture}, {"image": picture}]])[0] - words) < 1e-5 < abs(words - seen)


def test_eval_reports_both_stages(cross_encoder, tmp_path, tiny_folder, capsys):
    clips = [mp4_of(frames_of(NAMES[number % 4], number % 3, number)) for number in range(12)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvrb_folder, "clip_bytes", clips.__getitem__)
        data = write_uvrb(tmp_path / "data", {name: make_tables(name) for name in ("MSRVTT", "CRB-S", "MS-TI")})
    common = ["--model", str(tiny_folder), "--data", str(data), "--sets", "msrvtt", "crb-s", "ms-ti", "--json"]
    reports = []
    for options in ([], ["--rerank", str(cross_encoder)], ["--rerank", str(cross_encoder)]):
        code = main([*common, "--out", str(tmp_path / "out"), "--rerank-top", "3", *options])
        reports.append(json.loads(capsys.readouterr().out))
        assert code == 0
    plain, first, again = reports
    assert "rerank" not in plain and plain["sets"] == first["sets"]
    second = first["rerank"]
    assert (second["model"], second["top"], second["pairs"]) == (str(cross_encoder), 3, 3 * 12 * 3)
    assert again["rerank"] | {"pairs": 0, "seconds": 0} == second | {"pairs": 0, "seconds": 0}
    assert again["rerank"]["pairs"] == 0 < second["seconds"]
    for row in second["differences"]:
        if row["name"] in SETS:
            pair = first["sets"][row["name"]]["score"], second["sets"][row["name"]]["score"]
            assert (row["first"], row["second"]) == pair
    text = (tmp_path / "out" / "report.md").read_text()
    assert "### Second stage" in text and "The first 3 candidates of each query" in text and "| MSRVTT | " in text


def test_what_is_no_cross_encoder_is_refused(tmp_path, capsys, uvrb):
    folder = other_models.text_model(tmp_path)
    assert SentenceTransformer(str(folder)).supports("text")
    with pytest.raises(ValueError, match="BertModel without trained scores"):
        load_reranker(str(folder))
    with pytest.raises(ValueError, match="--rerank: cannot load 'nowhere/nothing'"):
        load_reranker("nowhere/nothing")
    model = CrossEncoder(str(tmp_path / "base"), num_labels=1)
    model.save(str(tmp_path / "texts"))
    assert load_reranker(str(tmp_path / "texts")).scores({"text": "a"}, [{"text": "b"}, {"text": "c"}]).shape == (2,)
    code = main(
        ["--model", str(folder), "--data", str(uvrb), "--rerank", str(tmp_path / "texts"), "--rerank-top", "0"]
    )
    assert code == 2 and "--rerank-top: 0; must be at least 1" in capsys.readouterr().err
    CrossEncoder(str(tmp_path / "base"), num_labels=3).save(str(tmp_path / "three"))
    with pytest.raises(ValueError, match="one score for a pair, got 3"):
        load_reranker(str(tmp_path / "three"))
