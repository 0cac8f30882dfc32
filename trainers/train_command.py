"""`gve train`: train an embedder on a UVRD folder, or say beforehand what a run would be."""

import logging
import sys
from collections.abc import Sequence
from typing import Any

import torch
from datasets import DatasetDict, get_dataset_config_names
from sentence_transformers import SentenceTransformer

from gve import lora_config
from gve.hub_datasets.pair_media import load_pairs
from gve.hub_datasets.schema import TASKS
from gve.hub_datasets.uvrb import instructions
from gve.media_gve import QUOTED, shown
from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.planning.dry_run import describe_run, estimate_run
from gve.trainers.recipe import RECIPES, TrainCommand, parse, read_recipe
from gve.trainers.trainer import GVETrainer
from gve.trainers.watching.curves_command import draw_run
from gve.trainers.watching.evaluator import GVEUVRBEvaluator
from gve.trainers.watching.failures import FailureCallback
from gve.trainers.watching.record import write_record

__all__ = ["RECIPES", "TrainCommand", "load_model", "load_tasks", "main", "parse", "read_recipe"]

BAD_USAGE = 2
logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        command, args = parse(sys.argv[1:] if argv is None else list(argv))
        if command.dry_run:
            tasks = None if command.data is None else load_tasks(command.data, command.tasks)
            sys.stdout.write(describe_run(estimate_run(command, args, tasks)))
            return 0
        check_processes(command, args)
        trainer = make_trainer(command, args)
    except ValueError as error:
        sys.stderr.write(f"gve train: {error}\n")
        return BAD_USAGE
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_state()
    resumed = args.resume_from_checkpoint is not None
    write_record(trainer, base_model=command.model, data=[command.data], resumed=resumed)
    if trainer.is_world_process_zero():
        for path in draw_run(args.output_dir):
            logger.info("drew %s", path)
    logger.info("saved %s", args.output_dir)
    return 0


def make_trainer(command: TrainCommand, args: GVETrainingArguments) -> GVETrainer:
    """Load model, data, prober and benchmark, and join them."""
    evaluator = make_evaluator(command, args)
    tasks = load_tasks(command.data, command.tasks)
    model = load_model(command, seed=args.seed)
    prober = None if command.prober is None else SentenceTransformer(command.prober)
    failures = FailureCallback({task: len(rows) for task, rows in tasks.items()})
    return GVETrainer(model, args, tasks, prober=prober, evaluator=evaluator, callbacks=[failures])


def make_evaluator(command: TrainCommand, args: GVETrainingArguments) -> GVEUVRBEvaluator | None:
    """The benchmark of the run, loaded and checked before the first step; None without one."""
    if command.uvrb is None:
        return None
    if args.eval_strategy == "no":
        raise ValueError(
            f"uvrb: got {shown(command.uvrb)} while eval_strategy is no; steps or epoch is needed; add --eval_strategy epoch"
        )
    evaluator = GVEUVRBEvaluator(
        command.uvrb,
        sets=command.uvrb_sets,
        rows=command.uvrb_rows,
        batch_size=args.per_device_eval_batch_size,
    )
    wanted = (args.metric_for_best_model or "").removeprefix("eval_")
    if args.load_best_model_at_end and wanted not in evaluator.names:
        raise ValueError(
            f"metric_for_best_model: got {shown(args.metric_for_best_model)}; {', '.join(evaluator.names)} are measured; "
            "name one of them, such as mean"
        )
    return evaluator


def check_processes(command: TrainCommand, args: GVETrainingArguments) -> None:
    """Refuse a recipe written for another number of processes, whose global batch would differ."""
    wanted, there = command.num_processes, args.world_size
    if wanted is None or wanted == there:
        return
    size = args.per_device_train_batch_size
    raise ValueError(
        f"num_processes: the recipe is for {wanted} processes of {size} rows ({wanted * size} a step); this run has "
        f"{there} ({there * size} a step) and this machine {torch.cuda.device_count()} GPUs; start {wanted} with accelerate "
        f"launch or torchrun, take a single-gpu recipe, or accept the smaller step with --num_processes {there}"
    )


def load_tasks(data: str, tasks: Sequence[str] | None = None) -> DatasetDict:
    """The training sets of a UVRD folder or Hub data set; all tasks by default."""
    try:
        there = get_dataset_config_names(data)
    except OSError as error:  # no such folder, no data in it, no connection
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"data: cannot read {shown(data)} ({reason[:QUOTED]}); a UVRD folder or Hub data set is accepted; check the path"
        ) from error
    wanted = [task for task in TASKS if task in there] if not tasks else list(tasks)
    if missing := [task for task in wanted if task not in there] or ([] if wanted else list(TASKS)):
        raise ValueError(
            f"tasks: got {', '.join(missing)}; {shown(data)} has {', '.join(there)[:QUOTED]}; choose among those or build the others"
        )
    return DatasetDict(load_pairs(data, wanted))


def load_model(command: TrainCommand, *, seed: int) -> SentenceTransformer:
    """The embedder, with adapters or frozen parts as the command says."""
    options: dict[str, Any] = {"dtype": getattr(torch, command.dtype)}
    if command.attention is not None:
        options["attn_implementation"] = command.attention
    model = SentenceTransformer(command.model, model_kwargs=options)
    model.prompts = instructions() | model.prompts  # what the model brings goes before
    inner = model[0].model
    if command.freeze_vision:
        inner.visual.requires_grad_(False)
        inner.get_input_embeddings().requires_grad_(False)
    if command.lora_rank:
        torch.manual_seed(seed)
        model.add_adapter(
            lora_config(inner, r=command.lora_rank, lora_alpha=command.lora_alpha, lora_dropout=command.lora_dropout)
        )
    return model
