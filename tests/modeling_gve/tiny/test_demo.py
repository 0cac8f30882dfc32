"""The checkpoint that ships: what it weighs, and that it finds what it was trained to find."""

import json

import numpy as np
from safetensors import safe_open

import gve
from gve.hub_datasets.world.sets import Sizes, build_sets
from gve.hub_datasets.world.video import video_bytes
from gve.tiny.demo import CHECKPOINT


def test_texts_find_their_videos():
    mini = build_sets("unseen", 5, Sizes(base=16, groups=2, programs=2, themes=2, longs=2, composed=2))["MSRVTT"]
    model = gve.load_demo()
    assert isinstance(model, gve.GVESentenceTransformer)
    videos = model.encode_document([{"video": video_bytes(clips)} for clips in mini.corpus.values()])
    texts = model.encode_query([side.text for side in mini.queries.values()], prompt=mini.task.instruction)
    names = list(mini.corpus)
    right = [
        names[i] in mini.positives[query] for query, i in zip(mini.queries, (texts @ videos.T).argmax(1), strict=True)
    ]
    assert len(right) == 16 and np.mean(right) > 0.7


def test_it_is_small_and_carries_its_card_and_no_code():
    with safe_open(CHECKPOINT / "model.safetensors", framework="pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 2.5e6
    assert not list(CHECKPOINT.glob("*.py")) and "auto_map" not in json.loads((CHECKPOINT / "config.json").read_text())
    card = (CHECKPOINT / "README.md").read_text()
    assert "model-index" in card and "python tests/make_checkpoint.py" in card and "CMP | 0." in card


def test_a_saved_copy_gives_the_same_vectors(tmp_path):
    model = gve.load_demo()
    model.save(str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "modeling_gve.py").is_file()
    again = gve.GVESentenceTransformer(str(tmp_path / "copy"))
    texts = ["a red ring in the snow", "a blue square"]
    assert np.array_equal(model.encode(texts), again.encode(texts))
