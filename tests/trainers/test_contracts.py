"""What the trainer takes for granted of transformers, sentence-transformers, accelerate and torch, one test a name.

A release that breaks one of these would break training in silence or far from the cause.
"""

import inspect
import re
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, DistributedType
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from accelerate.state import AcceleratorState
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.util import all_gather_with_grad
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.distributed.fsdp import is_fsdp_managed_module
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints
from transformers.utils.generic import is_flash_attention_requested

from gve.trainers import GVETrainer, GVETrainingArguments
from gve.trainers.collator import PairCollator


def parameters(function):
    return list(inspect.signature(function).parameters)


def in_order(text, *needles):
    """Whether the pieces of code stand in this order, each looked for after the one before."""
    place = 0
    for needle in needles:
        place = text.find(needle, place) + len(needle)
        if place < len(needle):
            return False
    return True


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
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
    ],
)
def test_overridden_methods_have_their_parameters(owner, name, expected):
    assert parameters(getattr(owner, name)) == expected


def test_a_checkpoint_is_written_beneath_the_output_folder_and_nowhere_else():
    text = inspect.getsource(Trainer._save_checkpoint)
    assert in_order(
        text,
        "run_dir = self._get_output_dir(trial=trial)",
        "self.save_model(output_dir, _internal_call=True)",
        "self._save_optimizer_and_scheduler(output_dir)",
        "self._save_rng_state(output_dir)",
        "self.state.save_to_json(os.path.join(output_dir, TRAINER_STATE_NAME))",
        "self._push_from_checkpoint(output_dir)",
        "rotate_checkpoints(",
    )
    assert "self.args.output_dir" not in text
    assert TRAINER_STATE_NAME == "trainer_state.json"
    assert callable(TrainerState.save_to_json)


def test_checkpoints_are_found_by_their_whole_name(tmp_path):
    for name in ("checkpoint-3", "checkpoint-20", "saving", "checkpoint-30.part"):
        (tmp_path / name).mkdir()
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-20")
    assert parameters(rotate_checkpoints)[:4] == [
        "output_dir",
        "save_total_limit",
        "best_model_checkpoint",
        "use_mtime",
    ]


def test_an_epoch_begins_before_its_iterator_exists():
    assert in_order(
        inspect.getsource(Trainer._inner_training_loop), "on_train_begin", "on_epoch_begin", "self._run_epoch("
    )
    assert in_order(inspect.getsource(Trainer._run_epoch), "skip_first_batches", "set_epoch", "iter(train_dataloader)")
    assert in_order(inspect.getsource(Trainer._run_epoch), "on_step_end", "_maybe_log_save_evaluate")


def test_callbacks_that_are_exportable_travel_in_the_checkpoint():
    assert issubclass(type("Kept", (TrainerCallback, ExportableState), {}), ExportableState)
    assert "stateful_callbacks" in TrainerState.__dataclass_fields__
    assert "cb.state()" in inspect.getsource(Trainer._save_checkpoint)


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
    args = GVETrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", num_negatives=12)
    trainer = GVETrainer(embedder, args, {"t2t": tasks["t2t"]})
    features, labels = SentenceTransformerTrainer.collect_features(trainer, batch)
    names = ["query", "target", *(f"negative_{number}" for number in range(1, 13))]
    assert len(features) == len(names)
    for name, column in zip(names, features, strict=True):
        own = {key for key in batch if re.fullmatch(rf"{name}_(?!\d).*", key)}
        assert set(column) == {key.removeprefix(f"{name}_") for key in own}
        assert torch.equal(column["input_ids"], batch[f"{name}_input_ids"])
    assert torch.equal(labels, batch["label"])


def test_a_batch_goes_to_the_loss_as_it_comes():
    assert parameters(SentenceTransformerTrainer.compute_loss)[:3] == ["self", "model", "inputs"]
    text = inspect.getsource(Trainer.training_step)
    assert in_order(text, "inputs = self._prepare_inputs(inputs)", "self.compute_loss(model, inputs")


def test_a_model_is_saved_without_its_card(tmp_path):
    assert "create_model_card" in parameters(SentenceTransformer.save_pretrained)


def test_fsdp_names(tmp_path):
    assert "fsdp_plugin" in inspect.getsource(Trainer.create_accelerator_and_postprocess)
    assert "self._load_from_checkpoint(resume_from_checkpoint, self.model_wrapped)" in inspect.getsource(
        Trainer._prepare_for_training
    )
    assert callable(Accelerator.get_state_dict)
    assert parameters(set_model_state_dict) == ["model", "model_state_dict", "options"]
    assert {"full_state_dict", "strict"} <= set(StateDictOptions.__dataclass_fields__)


def test_accelerate_shards_on_gpus_only():
    """Why `fsdp` is refused on a CPU, and how the tests run it there all the same."""
    text = inspect.getsource(AcceleratorState.__init__)
    listed = text[
        text.index("elif self.distributed_type in [") : text.index("self.distributed_type = DistributedType.FSDP")
    ]
    assert "DistributedType.MULTI_GPU" in listed
    assert "MULTI_CPU" not in listed
    assert DistributedType.MULTI_CPU.value == "MULTI_CPU"


def test_the_gather_passes_gradients_back():
    assert parameters(all_gather_with_grad) == ["tensor"]


def test_an_adapter_is_told_from_a_whole_model(load):
    model = load()
    assert model[0].model._hf_peft_config_loaded is False
    assert parameters(model[0].model.save_pretrained.__func__)[:2] == ["self", "save_directory"]
    assert "state_dict" in parameters(model[0].model.save_pretrained.__func__) or "kwargs" in parameters(
        model[0].model.save_pretrained.__func__
    )


def test_sharded_modules_and_models_are_told_by_these_marks(monkeypatch):
    module = torch.nn.Linear(2, 2)
    assert not is_fsdp_managed_module(module)
    module._is_fsdp_managed_module = True
    assert is_fsdp_managed_module(module)
    assert not is_deepspeed_zero3_enabled()
    config = SimpleNamespace(is_zero3=lambda: True)
    monkeypatch.setattr("transformers.integrations.deepspeed._hf_deepspeed_config_weak_ref", lambda: config)
    assert is_deepspeed_zero3_enabled()


@pytest.mark.parametrize(
    ("name", "expected"), [("flash_attention_2", True), ("sdpa", False), ("eager", False), (None, False)]
)
def test_flash_attention_is_told_by_the_name_in_the_config(name, expected):
    assert is_flash_attention_requested(SimpleNamespace(_attn_implementation=name)) is expected
