"""The demo's training: sources of pairs, a measured number of steps, GVETrainer, and the saved model."""

import math
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from datasets import Dataset, DatasetDict, load_dataset
from sentence_transformers import SentenceTransformer
from transformers import ProgressCallback
from transformers.trainer_utils import get_last_checkpoint

from gve.encoding.cores import half_speed
from gve.hub_datasets.files import write_json
from gve.hub_datasets.schema import TASKS
from gve.hub_datasets.world.variants import GROUP_SIZE
from gve.sentence_gve import save_embedder
from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.demo.pace import CoreShareCallback, Deadline, QuietProgress, falling_rate, steady_seconds
from gve.trainers.demo.synthesis import SUFFIX, load_synflow
from gve.trainers.demo.workspace import Workspace
from gve.trainers.rows import PairRows
from gve.trainers.trainer import GVETrainer
from gve.trainers.watching.record import write_record

BATCH = 48
EPOCHS, EPOCH_STEPS = 5, 50
"""Most epochs, and the least steps of one: each begins with a probe of all sources, which takes as long as about thirty
steps, so that a short training has fewer."""
SCHEDULE = "unlock"
"""It shows what a curriculum looks at. None is better than all sources equally often on both worlds of `gve.trainers.ablation`."""
LEARNING_RATE, MUON_LEARNING_RATE = 1.4e-4, 1.4e-3
"""A sixth of the pre-training's: at the full rate the contrastive loss forgets relations within 250 steps."""
SMALL_MODEL = {
    "false_negative_margin": None,
    "reference_negatives": ["v2v"],
    "use_muon": True,
    "master_weights": True,
    "weight_decay": 0.02,
    "adam_beta2": 0.98,
    "max_grad_norm": 1.0,
    "report_to": "none",
}
"""Settings for a model this small, of the demo and of the ablation: Muon, and clips that are no answer to themselves:
without that, short clips like the query come before the long video that holds it."""
DATA = ["UVRD of the rendered world", "UVRD that V-SynFlow made of its raw corpus"]
SYNFLOW_PRIOR = 0.3
"""w_k of each source that V-SynFlow made of the raw corpus: a hundred pairs or so each, seen often even so."""
PRIORS = {"v2v": 3.0, "t2v-temporal-twins": 3.0}
"""w_k of what is forgotten first: which long video holds a clip, and which clip shows its events in the order told."""
WORTH = 1.3
"""Times as fast as float32 that bf16 must be to be used."""
LEAST_STEPS = 30
WARMUP = 80
TIMED_SOURCES = 9
"""Sources to time one step on."""
SLACK = 0.95
"""Share of the time that steps are planned for, beside probes and checkpoints; a training that is slower ends by its deadline."""


def load_sources(folder: Path) -> DatasetDict:
    """The training pairs of a UVRD folder by source: each batch has one task, kind of text and degree of hardness.

    Sources are named such as "t2i", "t2v-spatial" and "t2v-spatial-twins" (groups of near-identical clips).
    """
    sources: dict[str, Dataset] = {}
    for task in TASKS:
        rows = load_dataset(str(folder), task, split="train")
        sizes = Counter(rows["group"])
        whole = np.array([not group or sizes[group] == GROUP_SIZE for group in rows["group"]])  # the last may be cut
        names = np.array([_source(task, kind, group) for kind, group in zip(rows["kind"], rows["group"], strict=True)])
        for name in dict.fromkeys(names.tolist()):
            sources[name] = rows.select(np.flatnonzero((names == name) & whole))
    return DatasetDict(sources)


def _source(task: str, kind: str, group: str) -> str:
    name = f"{task}-{kind}" if task == "t2v" else task
    return f"{name}-twins" if group and task in ("t2v", "t2i", "t2t") else name


def pick_dtype() -> torch.dtype:
    """bf16 if this machine multiplies it clearly faster than fp32, else fp32."""
    fast = torch.cuda.is_available() or half_speed(torch.bfloat16) > WORTH
    return torch.bfloat16 if fast else torch.float32


def pick_attention() -> str:
    """What is fastest for short sequences: on a CPU two matrix products, on a GPU one kernel."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def epochs_for(steps: int) -> int:
    """Epochs of so many steps: at least two, as the first one is drawn before anything has moved."""
    return max(2, min(EPOCHS, steps // EPOCH_STEPS))


def training_arguments(
    workspace: Workspace, sources: Mapping[str, Dataset], steps_per_epoch: int
) -> GVETrainingArguments:
    """The settings of the demo's training."""
    epochs = workspace.facts.get("epochs", 1)  # none are planned when one step is timed
    steps = steps_per_epoch * epochs
    return GVETrainingArguments(
        output_dir=str(workspace.checkpoints),
        seed=workspace.seed,
        num_train_epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        per_device_train_batch_size=BATCH,
        task_batch_sizes={name: min(BATCH, len(rows) // 4 * 4) for name, rows in sources.items()},
        schedule=SCHEDULE,
        task_priors=PRIORS | {name: SYNFLOW_PRIOR for name in sources if name.endswith(SUFFIX)},
        probe_pairs=32,
        probability_floor=0.4 / len(sources),
        probability_cap=5 / len(sources),
        learning_rate=LEARNING_RATE,
        muon_learning_rate=MUON_LEARNING_RATE,
        warmup_steps=min(WARMUP, max(1, steps // 10)),
        save_strategy="steps",
        save_steps=max(8, steps // 12),
        save_total_limit=1,
        logging_steps=max(1, steps // 60),
        disable_tqdm=False,
        dataloader_num_workers=1,
        dataloader_persistent_workers=True,
        dataloader_prefetch_factor=4,
        decode_cache_mb=2600,
        **SMALL_MODEL,
    )


def measure_step(model: SentenceTransformer, trainer: GVETrainer, sources: Mapping[str, Dataset]) -> float:
    """Seconds of one training step, over a spread of sources; the weights stay as they are."""
    names = list(sources)
    batches = []
    for index in np.unique(np.linspace(0, len(names) - 1, TIMED_SOURCES).round().astype(int)):
        rows = PairRows({names[index]: sources[names[index]]})
        size = trainer.args.batch_size_of(names[index])
        rows = trainer.data_collator(rows.__getitems__(list(range(size))))
        batches.append(send_to_device(rows, model.device))

    def learn(number: int) -> None:
        trainer.compute_loss(model, dict(batches[number])).backward()
        model.zero_grad(set_to_none=True)
        _work_as_muon(model)

    return steady_seconds(learn, len(batches), model.device)


def _work_as_muon(model: SentenceTransformer) -> None:
    """Take as long as the optimizer and leave the weights: Muon's five rounds are 15 products of a hidden matrix."""
    for matrix in (p for p in model.parameters() if p.ndim == 2):
        half = matrix.detach().float()[:512]
        for _ in range(15):
            half @ half.T


def load_trainable(folder: Path, dtype: torch.dtype) -> SentenceTransformer:
    """The model that the training begins with, in its number format."""
    options = {"dtype": dtype, "attn_implementation": pick_attention()}
    model = SentenceTransformer(str(folder), model_kwargs=options)
    return model.train()


def train(workspace: Workspace, seconds: float) -> dict[str, Any]:
    """Train within a number of seconds and save the model; continues from the last checkpoint if there is one."""
    sources = load_sources(workspace.uvrd)
    sources.update(load_synflow(workspace.synflow / "uvrd"))
    dtype = pick_dtype()
    model = load_trainable(workspace.pretrained, dtype)
    begun = time.monotonic()
    if "epochs" not in workspace.facts:
        trial = GVETrainer(model, training_arguments(workspace, sources, 1), sources)
        step = measure_step(model, trial, sources)
        steps = max(LEAST_STEPS, int((seconds - (time.monotonic() - begun)) * SLACK / step))
        epochs = epochs_for(steps)
        workspace.facts |= {"step_seconds": round(step, 4), "epochs": epochs, "steps_per_epoch": steps // epochs}
        workspace.facts |= {"dtype": str(dtype).removeprefix("torch.")}
        workspace.save()
        workspace.write(f"  {len(sources)} sources, {step:.2f} s a step: {epochs} epochs of {steps // epochs} steps")
    args = training_arguments(workspace, sources, workspace.facts["steps_per_epoch"])
    steps = args.steps_per_epoch * workspace.facts["epochs"]
    least = steps <= LEAST_STEPS
    deadline = Deadline(math.inf if least else seconds, workspace.write)
    trainer = GVETrainer(model, args, sources, callbacks=[deadline, CoreShareCallback()])
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(QuietProgress())
    trainer.create_optimizer()
    trainer.lr_scheduler = falling_rate(trainer.optimizer, steps, deadline, warmup=int(args.warmup_steps))
    checkpoint = get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
    if checkpoint:
        workspace.write(f"  continuing from {Path(checkpoint).name}")
    trainer.train(resume_from_checkpoint=checkpoint)
    workspace.facts["steps"] = trainer.state.global_step
    workspace.facts["pairs_seen"] = trainer.state.global_step * BATCH
    write_record(trainer, base_model=None, data=DATA, resumed=checkpoint is not None)
    write_json(workspace.root / "training_log.json", trainer.state.log_history)
    save_embedder(workspace.model, model[0].model.float().eval(), model.processor, prompts=dict(model.prompts))
    return trainer.curriculum.history.to_json()
