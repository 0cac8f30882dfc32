"""GVETrainer: SentenceTransformerTrainer with the Modality Pyramid (paper, section 3.3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.utils import SAFE_WEIGHTS_NAME

from gve.embedder_gve import EmbedderMixin
from gve.sentence_gve import save_embedder, write_json
from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.collator import PairCollator
from gve.trainers.curriculum import TaskScores
from gve.trainers.curriculum_callback import CurriculumCallback
from gve.trainers.losses import GVELoss
from gve.trainers.optimizer import build_optimizer
from gve.trainers.prober import Encoder, LiveEncoder, OutsideEncoder, Prober
from gve.trainers.rows import PairRows, check_tasks, index_task, without_unused_negatives
from gve.trainers.sampler import PyramidBatchSampler

PROBE_BATCH = 32
"""Rows that are embedded at a time while probing."""


class GVETrainer(SentenceTransformerTrainer):
    """Trains an embedder on UVRD tasks, one task a step, drawn by the pyramid.

    At the start of each epoch every task is probed and the probabilities follow; R, R', accuracy and P of each task
    stand in `state.log_history`. A run that is resumed from any of its checkpoints ends in the weights of the run that
    was never stopped, to the bit, on the same machine.

    Args:
        model: A SentenceTransformer whose processor is a `GVEProcessor`.
        args: `GVETrainingArguments`.
        train_dataset: UVRD rows by task.
        prober: The strong embedder that the first epoch asks. Without one the first epoch is uniform: an untrained
            model's own scores tell modalities apart, not what is aligned.
        eval_dataset: As for SentenceTransformerTrainer, of UVRD rows.
        evaluator: As for SentenceTransformerTrainer.
        callbacks: Added to the defaults.
        **kwargs: Passed on.
    """

    training_args_class = GVETrainingArguments

    def __init__(
        self,
        model: SentenceTransformer,
        args: GVETrainingArguments,
        train_dataset: Mapping[str, Dataset],
        *,
        prober: Encoder | None = None,
        eval_dataset: Any = None,
        evaluator: Any = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        **kwargs: Any,
    ) -> None:
        self.curriculum = CurriculumCallback()
        self.prober = prober
        tasks = check_tasks(train_dataset)
        collator = kwargs.pop("data_collator", None) or PairCollator(
            model.processor,
            num_negatives=args.num_negatives,
            max_length=args.max_length,
            cache_bytes=args.decode_cache_mb << 20,
        )
        super().__init__(
            model=model,
            args=args,
            train_dataset=tasks,
            data_collator=collator,
            eval_dataset=eval_dataset,
            evaluator=evaluator,
            callbacks=[*(callbacks or ()), self.curriculum],
            **kwargs,
        )

    def get_default_loss(self, model: nn.Module) -> GVELoss:
        """Equation 1 with the settings of the run.

        Args:
            model: The model in training.

        Returns:
            The loss.
        """
        return GVELoss(
            model,
            temperature=self.args.temperature,
            false_negative_margin=self.args.false_negative_margin,
            gather_across_devices=self.args.gather_across_devices,
        )

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave the card alone: the stock one would read samples of every video column; `gve.model_cards` writes ours."""

    def get_train_dataloader(self) -> DataLoader:
        """Batches by the pyramid, each process its own.

        Returns:
            A loader that accelerate neither shards nor pads, since the sampler already knows its rank.
        """
        args = self.args
        rows = {
            task: without_unused_negatives(data, args.negatives_of(task)) for task, data in self.train_dataset.items()
        }
        sampler = self.build_sampler()
        self.curriculum.connect(sampler, schedule=args.curriculum, probe=self.probe, log=self.log)
        loader = DataLoader(
            PairRows(rows),
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            generator=torch.Generator().manual_seed(args.seed),  # else each epoch would draw from the global state
        )
        return prepare_data_loader(
            loader, device=args.device, num_processes=1, process_index=0, put_on_device=True, non_blocking=True
        )

    def build_sampler(self) -> PyramidBatchSampler:
        """The sampler of this run, with `steps_per_epoch` counted in optimizer steps."""
        args = self.args
        steps = args.steps_per_epoch
        return PyramidBatchSampler(
            {task: index_task(rows, unique_targets=args.unique_targets) for task, rows in self.train_dataset.items()},
            {task: args.batch_size_of(task) for task in self.train_dataset},
            seed=args.seed if args.data_seed is None else args.data_seed,
            steps_per_epoch=None if steps is None else steps * args.gradient_accumulation_steps,
            rank=args.process_index,
            world_size=args.world_size,
        )

    def probe(self, epoch: int) -> dict[str, TaskScores]:
        """Score all tasks: by the given prober in the first epoch, by the live weights after it (section 3.3).

        Args:
            epoch: Counted from 0.

        Returns:
            Scores by task; empty in a first epoch without a prober, and on all processes but the first.
        """
        if not self.is_world_process_zero() or (epoch == 0 and self.prober is None):
            return {}
        prober = Prober(
            {task: rows.remove_columns("negatives") for task, rows in self.train_dataset.items()},
            pairs=self.args.probe_pairs,
            seed=self.args.seed,
            progress=not self.args.disable_tqdm,
        )
        if epoch == 0:
            return prober(OutsideEncoder(self.prober, batch_size=PROBE_BATCH))
        return prober(LiveEncoder(self.model, self.data_collator, batch_size=PROBE_BATCH))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Muon or master weights where the settings ask for them, else transformers' choice.

        Args:
            model: Instead of the trainer's.

        Returns:
            The optimizer.
        """
        args = self.args
        if self.optimizer is None and (args.use_muon or args.master_weights):
            self.optimizer = build_optimizer(
                self.model if model is None else model,
                learning_rate=args.learning_rate,
                muon_learning_rate=args.muon_learning_rate if args.use_muon else None,
                weight_decay=args.weight_decay,
                betas=(args.adam_beta1, args.adam_beta2),
                eps=args.adam_epsilon,
            )
        return super().create_optimizer(model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the scores of the loss (Figures 9 and 10 of the paper) to each entry of the training log.

        Args:
            logs: The entry.
            start_time: For the speed figures.
        """
        if "loss" in logs and isinstance(self.loss, GVELoss):
            logs = logs | {name: round(value, 4) for name, value in self.loss.pop_meters().items()}
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write a complete model folder; an adapter is left to sentence-transformers."""
        inner = self.model[0].model
        if not isinstance(inner, EmbedderMixin) or inner._hf_peft_config_loaded:
            super()._save(output_dir, state_dict)
            return
        folder = Path(output_dir or self.args.output_dir)
        save_embedder(folder, inner, self.model.processor, prompts=dict(self.model.prompts))
        write_json(folder / "training_args.json", self.args.to_dict())

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        """Read the weights into the live model; the parent would build a second model beside it."""
        weights = Path(checkpoint_path) / SAFE_WEIGHTS_NAME
        if not weights.is_file():  # an adapter, or shards
            super()._load_from_checkpoint(checkpoint_path)
            return
        self.model[0].model.load_state_dict(load_file(weights))
