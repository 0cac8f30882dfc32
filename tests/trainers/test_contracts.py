"""What the trainer takes for granted of transformers, sentence-transformers, accelerate and torch.

A release that breaks one of these would break training in silence or far from the cause; what breaks it loudly is left to
the tests of the trainer.
"""

import inspect
import re
from types import SimpleNamespace

import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from sentence_transformers import SentenceTransformerTrainer
from short_runs import arguments
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.utils.generic import is_flash_attention_requested

from gve.trainers import GVETrainer
from gve.trainers.collator import PairCollator


def test_overridden_methods_have_their_parameters():
    for owner, name, expected in (
        (Trainer, "_get_output_dir", ["self", "trial"]),
        (Trainer, "_save_checkpoint", ["self", "model", "trial"]),
        (Trainer, "_push_from_checkpoint", ["self", "checkpoint_folder"]),
        (Trainer, "_save", ["self", "output_dir", "state_dict"]),
        (Trainer, "save_model", ["self", "output_dir", "_internal_call"]),
        (Trainer, "_load_from_checkpoint", ["self", "resume_from_checkpoint", "model"]),
        (SentenceTransformerTrainer, "_load_from_checkpoint", ["self", "checkpoint_path"]),
        (SentenceTransformerTrainer, "_save", ["self", "output_dir", "state_dict"]),
        (SentenceTransformerTrainer, "collect_features", ["self", "inputs"]),
        (SentenceTransformerTrainer, "add_model_card_callback", ["self", "default_args_dict"]),
        (Trainer, "get_batch_samples", ["self", "epoch_iterator", "num_batches", "device"]),
    ):
        assert list(inspect.signature(getattr(owner, name)).parameters) == expected, name


def test_a_prepared_loader_neither_shards_nor_moves_texts():
    rows = [{"x": torch.tensor(n), "ids": [str(n)]} for n in range(4)]
    loader = prepare_data_loader(
        DataLoader(rows, batch_size=1, collate_fn=lambda batch: batch[0]),
        device=torch.device("cpu"),
        num_processes=1,
        process_index=0,
        put_on_device=True,
        non_blocking=True,
    )
    assert [(batch["x"].item(), batch["ids"]) for batch in loader] == [(n, [str(n)]) for n in range(4)]
    assert [batch["ids"] for batch in skip_first_batches(loader, 2)] == [["2"], ["3"]]


def test_columns_are_split_by_prefixes_that_cannot_collide(tmp_path, embedder, tasks):
    """`negative_1` begins `negative_10`, and yet each column gets its own tensors."""
    rows = tasks["t2v"].__getitems__([4, 5])
    for row in rows:
        row["negatives"] = [tasks["t2v"][number % 12]["target"] for number in range(12)]
    batch = PairCollator(embedder.processor, num_negatives=12)(rows)
    trainer = GVETrainer(embedder, arguments(tmp_path, num_negatives=12), {"t2t": tasks["t2t"]})
    features, labels = SentenceTransformerTrainer.collect_features(trainer, batch)
    names = ["query", "target", *(f"negative_{number}" for number in range(1, 13))]
    for name, column in zip(names, features, strict=True):
        own = {key for key in batch if re.fullmatch(rf"{name}_(?!\d).*", key)}
        assert set(column) == {key.removeprefix(f"{name}_") for key in own}
        assert torch.equal(column["input_ids"], batch[f"{name}_input_ids"])
    assert torch.equal(labels, batch["label"])


def test_flash_attention_is_seen_by_the_name_in_the_config():
    for name in ("flash_attention_2", "sdpa", "eager", None):
        expected = name == "flash_attention_2"
        assert is_flash_attention_requested(SimpleNamespace(_attn_implementation=name)) is expected
