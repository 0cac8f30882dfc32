"""Counterfactual pairs of the rendered world: each text is true of its clip and false of the other."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from datasets import load_dataset
from sentence_transformers import SentenceTransformer

from gve import build_tiny, save_embedder
from gve.hub_datasets.schema import COUNTERFACTUALS, task_of
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.captions import answers
from gve.hub_datasets.world.counterfactuals import CHANGES, TEXT_KINDS, counterfactual, true_facts
from gve.hub_datasets.world.pairs import build_pairs
from gve.hub_datasets.world.rows import stream
from gve.hub_datasets.world.spec import held_out, held_out_action, sample_clip
from gve.hub_datasets.world.worlds import WORLDS, seed_of
from gve.trainers import GVETrainer, GVETrainingArguments
from gve.trainers.train_command import load_tasks


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_each_text_is_true_of_its_own_clip_alone(kind, world):
    for seed in range(60):
        told = counterfactual(kind, stream(seed_of(seed, world)))
        truth = [[answers(text.facts, true_facts(clip)) for clip, _ in told] for _, text in told]
        assert truth == [[True, False], [False, True]] and told[0][1].text != told[1][1].text
        for clip, _ in told:
            assert not any(held_out(thing.color, thing.shape) for thing in clip.things)
            assert not any(held_out_action(clip.things[i].shape, action) for i, action in clip.events)
    words = [sorted(text.text.replace(",", "").split()) for _, text in told]
    assert (words[0] == words[1]) == (kind in ("attribute",)) or kind in ("order", "actor"), "only the sense differs"


def test_a_symmetric_clip_has_no_counterfactual():
    rng = np.random.default_rng(0)
    found = [
        (clip, {kind: change(clip) for kind, change in CHANGES.items()})
        for clip in (sample_clip(rng, "seen") for _ in range(300))
    ]
    for clip, changed in found:
        assert (changed["camera"] is None) == (
            clip.camera in (("static", "static"), ("shake", "shake"))
            or set(clip.camera) in ({"left", "right"}, {"up", "down"}, {"in", "out"})
        )
        assert changed["attribute"] is None or clip.things[0].shape != clip.things[1].shape
        assert changed["actor"] is None or clip.events[0][0] != clip.events[1][0]
        assert all(change is None or CHANGES[kind](change) == clip for kind, change in changed.items()), (
            "twice is once"
        )
    assert all(any(changed[kind] is None for _, changed in found) for kind in CHANGES if kind != "relation")


@pytest.mark.parametrize("source", COUNTERFACTUALS)
def test_rows_come_in_twos_and_each_is_the_others_negative(source):
    pairs = list(build_pairs(source, 28, 3))
    assert pairs[5:9] == list(build_pairs(source, 9, 3, start=5)) and len(pairs) == 28
    assert set(Counter(pair.kind for pair in pairs).values()) == {4} and set(
        Counter(p.group for p in pairs).values()
    ) == {2}
    for first, second in list(pairwise(pairs))[::2]:
        assert first.negatives == (second.target,) and second.negatives == (first.target,)
        assert not answers(first.query_facts, second.target_facts) and answers(first.query_facts, first.target_facts)
        assert first.task == task_of(source) and first.instruction


def test_a_world_holds_them_where_named_as_configurations_that_load(tmp_path):
    build_world(
        tmp_path, pairs={"t2v": 1, **dict.fromkeys(COUNTERFACTUALS, 7)}, sets=False, raw=0, workers=1, progress=False
    )
    rows = load_dataset(str(tmp_path / "uvrd"), "v2t-counterfactual", split="train")
    assert len(rows) == 7 and rows[0]["query"]["video"]["bytes"][4:8] == b"ftyp"
    assert rows[0]["target"]["text"] != rows[0]["negatives"][0]["text"] and rows[0]["negatives"][0]["video"] is None
    assert "each true of its own clip" in (tmp_path / "uvrd" / "README.md").read_text()
    with pytest.raises(ValueError, match="got task 'v2t'"):
        build_world(tmp_path / "x", pairs={"v2t": 1})


def test_they_train_where_named(tmp_path):
    build_world(
        tmp_path, pairs={"t2v": 8, **dict.fromkeys(COUNTERFACTUALS, 8)}, sets=False, raw=0, progress=False, workers=1
    )
    assert set(load_tasks(str(tmp_path / "uvrd"))) == {"t2v"}, "off unless named"
    rows = load_tasks(str(tmp_path / "uvrd"), COUNTERFACTUALS)
    texts = rows["t2v-counterfactual"][:]["query"]
    sizes = {"vision_depth": 1, "vision_hidden": 32, "text_layers": 2, "text_hidden": 64}
    tiny = build_tiny([one["text"] for one in texts], frame_size=32, num_frames=4, vocab_size=320, **sizes)
    save_embedder(tmp_path / "tiny", *tiny)
    model = SentenceTransformer(str(tmp_path / "tiny"), device="cpu", model_kwargs={"dtype": torch.float32})
    settings = {"num_train_epochs": 1, "steps_per_epoch": 3, "per_device_train_batch_size": 4, "probe_pairs": 4}
    quiet = {"logging_steps": 1, "save_strategy": "no", "use_cpu": True, "report_to": "none", "disable_tqdm": True}
    arguments = GVETrainingArguments(output_dir=str(tmp_path), num_negatives=1, **settings, **quiet)
    trainer = GVETrainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 3 and all(math.isfinite(entry["loss"]) for entry in logged)
    assert {name for entry in logged for name in entry if name.startswith("loss/")} == {
        f"loss/{s}" for s in COUNTERFACTUALS
    }
