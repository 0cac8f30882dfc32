"""GVETrainer: SentenceTransformerTrainer with the Modality Pyramid (paper, section 3.3)."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import TrainOutput

from gve.embedder_gve import EmbedderMixin
from gve.encoding.frame_cache import FrameCache
from gve.eval.encoders import Encoder
from gve.media_gve import shown
from gve.sentence_gve import write_json
from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.collator import PairCollator
from gve.trainers.curriculum.schedule import TaskScores
from gve.trainers.encoders import LiveEncoder, OutsideEncoder
from gve.trainers.gradcache.loss import build_loss
from gve.trainers.losses import GVELoss
from gve.trainers.media.vision_cache import cache_for, completed
from gve.trainers.mining.callback import MiningCallback
from gve.trainers.optimizer import optimizer_of
from gve.trainers.prober import CurriculumCallback, Prober, hold_out
from gve.trainers.resume.checkpoints import STAGE, CheckpointStage, find_checkpoint
from gve.trainers.resume.finite import LossGuard, check_weights
from gve.trainers.resume.guard import check_resume, run_facts
from gve.trainers.resume.missing import complete_rows
from gve.trainers.rows import (
    NamedBatches,
    PairRows,
    build_loader,
    build_sampler,
    check_tasks,
)
from gve.trainers.sharding import check_sharding, load_weights, write_model
from gve.trainers.watching.meters import WatchCallback

PROBE_BATCH = 32
"""Rows that are embedded at a time while probing."""


class GVETrainer(SentenceTransformerTrainer):
    """Trains an embedder on UVRD tasks, one task a step, drawn by the pyramid.

    Each epoch starts with a probe of every task, which sets the probabilities; `state.log_history` holds R, R',
    accuracy and P of each task. A run resumed from any of its checkpoints ends in the weights of the uninterrupted
    run, to the bit, on the same machine.

    Args:
        model: A SentenceTransformer whose processor is a `GVEProcessor`.
        train_dataset: UVRD rows by task.
        prober: The strong embedder that scores the first epoch. Without one the first epoch is uniform: an untrained
            model's own scores tell modalities apart, not what is aligned.
        **kwargs: Passed on; `model_init` is refused, because the caches and the checkpoints belong to one model.
    """

    training_args_class = GVETrainingArguments

    def __init__(
        self,
        model: SentenceTransformer | None = None,
        args: GVETrainingArguments | None = None,
        train_dataset: Mapping[str, Dataset] | None = None,
        *,
        prober: Encoder | None = None,
        eval_dataset: Any = None,
        evaluator: Any = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        **kwargs: Any,
    ) -> None:
        _check_parts(model, args, kwargs.pop("model_init", None))
        if args.compile_layers:
            model[0].model.compile_layers()  # before anything wraps the model
        self.curriculum = CurriculumCallback()
        self.watch = WatchCallback()
        self.prober = prober
        self.guard = LossGuard()
        tasks, self.skipped = complete_rows(
            check_tasks(train_dataset), on_missing=args.on_missing, negatives_of=args.negatives_of
        )
        self.probed = tasks
        if args.probe_held_out:
            tasks, self.probed = hold_out(tasks, args.probe_pairs, args.seed)
        mines = args.mined_negatives is not None or args.remine_every_epoch
        self.mining = MiningCallback(args, tasks, prober) if mines else None
        self.vision_cache = cache_for(model[0].model, model.processor, args)
        collator = kwargs.pop("data_collator", None) or PairCollator(
            model.processor,
            num_negatives=args.num_negatives,
            reference_negatives=args.reference_negatives,
            max_length=args.max_length,
            cache_bytes=args.decode_cache_mb << 20,
            frames=None if args.frame_cache_dir is None else FrameCache(args.frame_cache_dir),
            store=None if self.vision_cache is None else self.vision_cache.store,
            share_media=args.share_media,
        )
        super().__init__(
            model=model,
            args=args,
            train_dataset=tasks,
            data_collator=collator,
            eval_dataset=eval_dataset,
            evaluator=evaluator,
            callbacks=[
                *(callbacks or ()),
                *((self.mining,) if self.mining else ()),
                self.curriculum,
                self.watch,
                *((self.vision_cache,) if self.vision_cache else ()),
            ],
            **kwargs,
        )
        self.stage = CheckpointStage(args, self.accelerator)

    def get_default_loss(self, model: nn.Module) -> GVELoss:
        """Equation 1 with the settings of the run."""
        return build_loss(model, self.args)

    def collect_features(self, inputs: dict[str, Any]) -> tuple[list[dict[str, Any]], torch.Tensor | None]:
        """The model's inputs of each side, with features of a frozen vision tower where they are kept."""
        features, labels = super().collect_features(inputs)
        return completed(features, self.vision_cache), labels

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave the card alone: the stock one would read samples of every video column; `gve.model_cards` writes ours."""

    def get_train_dataloader(self) -> DataLoader:
        """Batches by the pyramid, each process its own."""
        args = self.args
        rows = {
            task: data if args.negatives_of(task) and not self.mining else data.remove_columns("negatives")
            for task, data in self.train_dataset.items()
        }
        sampler = build_sampler(args, self.train_dataset)
        if isinstance(self.loss, GVELoss):
            self.watch.connect(self.loss.meters, sampler)
        self.curriculum.connect(
            sampler, schedule=args.curriculum, probe=self.probe, log=self.log, skipped=self.skipped
        )
        rows = self.mining.join(rows, self) if self.mining else PairRows(rows)
        return build_loader(rows, sampler, NamedBatches(self.data_collator), args)

    def probe(self, epoch: int) -> dict[str, TaskScores]:
        """Scores by the given prober in epoch 0, by the live weights after it (section 3.3) or if the schedule adapts."""
        schedule = self.args.curriculum(1)
        live = epoch > 0 or schedule.adapts or (self.prober is None and schedule.needs_baseline)
        if not live and self.prober is None:
            return {}
        prober = Prober(
            {task: rows.remove_columns("negatives") for task, rows in self.probed.items()},
            pairs=self.args.probe_pairs,
            seed=self.args.seed,
            progress=not self.args.disable_tqdm,
            rank=self.args.process_index,
            world_size=self.args.world_size,
        )
        if live:
            options = {"cache": self.vision_cache, "batch_size": PROBE_BATCH}
            return prober(LiveEncoder(self.model, self.data_collator, **options))
        return prober(OutsideEncoder(self.prober, batch_size=PROBE_BATCH))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train, from the start or from a checkpoint of the same run.

        Raises:
            ValueError: If there is no such checkpoint, if it has other data or settings (unless `resume_force` is
                set), or if a loss or weight is NaN or infinite.
        """
        check_sharding(self.args, enabled=self.is_fsdp_enabled)
        self.facts = run_facts(self.args, self.train_dataset, self.model)
        checkpoint = find_checkpoint(resume_from_checkpoint, self.args.output_dir)
        if checkpoint is not None:
            check_resume(checkpoint, self.facts, force=self.args.resume_force)
        self.stage.clear(Path(self.args.output_dir))
        output = super().train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint), **kwargs)
        self.guard.settle()
        return output

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss of a batch; in training NaN or infinity stops the run with the ids of the rows."""
        named = {name: inputs.pop(name) for name in ("task", "ids") if name in inputs}
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if named:
            self.guard.check(loss, **named, step=self.state.global_step + 1)
        return loss

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The batches of a step; the time that it waits for them is measured."""
        with self.watch.waiting():
            return super().get_batch_samples(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Muon or master weights where the settings ask for them, else transformers' choice."""
        if self.optimizer is None and (self.args.use_muon or self.args.master_weights):
            self.optimizer = optimizer_of(self.args, self.model if model is None else model)
        return super().create_optimizer(model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the scores of the loss (Figures 9 and 10 of the paper) to each entry of the training log."""
        if "loss" in logs:
            logs = logs | {name: round(value, 4) for name, value in self.watch.pop().items()}
        super().log(logs, start_time)

    def _get_output_dir(self, trial: Any) -> str:
        """The folder of the run, or while a checkpoint is written, a folder in it that no resume reads."""
        run = super()._get_output_dir(trial)
        return str(Path(run, STAGE)) if self.stage.is_open else run

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint whole or not at all."""
        self.guard.settle()
        check_weights(self.model, step=self.state.global_step, device=self.args.device)
        run = Path(self._get_output_dir(trial))
        folder = self.stage.write(run, self.state, self.facts, partial(super()._save_checkpoint, model, trial))
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload a checkpoint, once it is where it stays."""
        if not self.stage.is_open:
            super()._push_from_checkpoint(checkpoint_folder)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a complete model folder, under FSDP too, whatever its `state_dict_type`."""
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        whole = self.accelerator.get_state_dict(self.model)  # every process takes part, the first one holds it
        self._save(output_dir, whole)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write a complete model folder, or only the adapter."""
        if not self.args.should_save:  # transformers calls this on every process
            return
        if not isinstance(self.model[0].model, EmbedderMixin):
            super()._save(output_dir, state_dict)
            return
        folder = Path(output_dir or self.args.output_dir)
        write_model(self.model, folder, state_dict)
        write_json(folder / "training_args.json", self.args.to_dict())

    def _load_from_checkpoint(self, checkpoint_path: str, model: nn.Module | None = None) -> None:
        """Read the weights into the live model; the parent would build a second model."""
        if load_weights(self.model, Path(checkpoint_path), sharded=self.is_fsdp_enabled):
            return
        if self.is_fsdp_enabled:  # an adapter over sharded weights: accelerate's own files hold both
            Trainer._load_from_checkpoint(self, checkpoint_path, self.model_wrapped)
        else:
            super()._load_from_checkpoint(checkpoint_path)


def _check_parts(model: Any, args: Any, model_init: Any) -> None:
    """Refuse what is not one model with our arguments, before any work."""
    if model_init is not None:
        raise ValueError(
            f"model_init: got {shown(model_init)}; accepted is a model, since caches, probabilities and checkpoints belong "
            "to one; for a search of settings make a model and a trainer for each trial"
        )
    if not isinstance(model, SentenceTransformer):
        raise ValueError(
            f"model: got {type(model).__name__}; a SentenceTransformer is accepted; write SentenceTransformer(folder)"
        )
    if not isinstance(args, GVETrainingArguments):
        raise ValueError(
            f"args: got {type(args).__name__}; GVETrainingArguments are accepted; write GVETrainingArguments(output_dir=...)"
        )
