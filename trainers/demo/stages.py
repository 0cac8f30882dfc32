"""The stages of the demo, in order; each leaves its result on disk and a few facts for the report."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoProcessor

from gve.eval.benchmark import run_benchmark
from gve.eval.encode import encode_rows
from gve.eval.files import weights_fingerprint, write_atomic
from gve.eval.models import load_encoder
from gve.eval.outputs import write_report
from gve.hub_datasets.uvrb import instructions, load_set
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.texts import training_texts
from gve.sentence_gve import save_embedder, write_json
from gve.tiny import build_tiny
from gve.trainers.demo.estimate import Plan
from gve.trainers.demo.learning import SCHEDULE, pick_dtype, train
from gve.trainers.demo.pictures import draw_curriculum
from gve.trainers.demo.pretraining import Course, lesson_seconds, pretrain
from gve.trainers.demo.queries import answer
from gve.trainers.demo.synthesis import synthesise, to_markdown
from gve.trainers.demo.workspace import Workspace

TOKENIZER_TEXTS = 20000
PRETRAINING_SHARE = 0.7
"""Of the time for training; the rest is contrastive. Order and actions are what more lessons still teach."""
LEAST_LESSONS, LESSON_SLACK = 10, 0.6
"""A lesson was measured without the worker that renders beside it."""
TOLERANCE = 1e-6
CHECKED = 4
"""Inputs of each kind on which both ways of loading must agree."""


@dataclass(frozen=True)
class Job:
    """What a stage works with.

    Attributes:
        workspace: The demo.
        plan: What to make.
        seconds: What is left of the budget for the training.
        write: Shows a line to the user.
    """

    workspace: Workspace
    plan: Plan
    seconds: float
    write: Callable[[str], Any]


def render_world(job: Job) -> None:
    """Render the videos, and write pairs, benchmark and raw corpus."""
    workspace, plan = job.workspace, job.plan
    build_world(
        workspace.root / "data",
        seed=workspace.seed,
        pairs=plan.pairs,
        raw=plan.raw,
        workers=plan.workers,
        sizes=plan.sizes,
    )
    workspace.facts["pairs"] = sum(plan.pairs.values())


def synthesise_pairs(job: Job) -> None:
    """Take the raw corpus through V-SynFlow: pairs of all seven tasks, none of which meets the benchmark."""
    workspace = job.workspace
    workspace.facts["synflow"] = synthesise(workspace.root / "data", workspace.synflow, workspace.seed, job.write)


def build_model(job: Job) -> None:
    """Train the tokenizer and build the untrained model."""
    workspace = job.workspace
    model, processor = build_tiny(training_texts(workspace.seed, TOKENIZER_TEXTS), seed=workspace.seed)
    save_embedder(workspace.untrained, model, processor, prompts=instructions())
    workspace.facts["parameters"] = sum(p.numel() for p in model.parameters())
    job.write(f"  {workspace.facts['parameters'] / 1e6:.2f} M parameters, {len(processor.tokenizer)} tokens")


def pretrain_model(job: Job) -> None:
    """Teach the model to tell what it sees and reads, as the pre-training of a real backbone does."""
    workspace = job.workspace
    folder = workspace.root / "training" / "lessons"
    processor = AutoProcessor.from_pretrained(workspace.untrained)
    dtype = pick_dtype()
    model = AutoModel.from_pretrained(workspace.untrained, dtype=dtype, attn_implementation="eager")
    seconds = job.seconds * PRETRAINING_SHARE
    if "planned_lessons" not in workspace.facts:
        one = lesson_seconds(model, processor)
        workspace.facts |= {"planned_lessons": max(LEAST_LESSONS, int(seconds * LESSON_SLACK / one))}
        workspace.save()
        job.write(f"  {one:.2f} s a lesson: {workspace.facts['planned_lessons']} lessons")
    count = workspace.facts["planned_lessons"]
    limit = math.inf if count == LEAST_LESSONS else seconds
    learnt = pretrain(model, processor, Course(folder, count, limit, workspace.seed), job.write)
    save_embedder(workspace.pretrained, model.float().eval(), processor, prompts=instructions())
    workspace.facts |= {"lessons": learnt.lessons, "told_right": learnt.right}
    shown = ", ".join(f"{name.replace('_', ' ')} {share:.2f}" for name, share in learnt.right.items())
    job.write(f"  right on unseen combinations: {shown}")


def train_model(job: Job) -> None:
    """Train, save, and draw the curriculum."""
    workspace = job.workspace
    history = train(workspace, job.seconds, job.write)
    write_json(workspace.root / "curriculum.json", history)
    draw_curriculum(history, workspace.root / "curriculum.png", schedule=SCHEDULE)


def check_model(job: Job) -> None:
    """Reload the saved folder by AutoModel and by SentenceTransformer, and make sure that both agree.

    Raises:
        RuntimeError: When they do not.
    """
    workspace, folder = job.workspace, str(job.workspace.model)
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    encoder = load_encoder(folder)
    worst = 0.0
    for name in ("MSRVTT", "MSRVTT-I2V", "LoVR-C2V", "MS-TI", "MS-TV"):
        data = load_set(workspace.uvrb, name, "unseen")
        few = range(min(CHECKED, len(data.queries), len(data.corpus)))
        rows = [{k: v for k, v in data.queries[i].items() if k != "id"} for i in few]
        rows += [{"video": data.corpus[i]["video"]} for i in few]
        with torch.inference_mode():
            ours = model(**processor.prepare(rows)).embeddings.numpy()
        theirs = encode_rows(encoder, rows, role="document", progress=False)
        worst = max(worst, float(np.abs(ours - theirs).max()))
    workspace.facts["largest_difference"] = worst
    job.write(f"  AutoModel and SentenceTransformer differ by at most {worst:.1e}")
    if worst > TOLERANCE:
        raise RuntimeError(
            f"AutoModel and SentenceTransformer give vectors {worst:.1e} apart; {TOLERANCE:.0e} is allowed"
        )


def score_model(job: Job) -> None:
    """Score the sixteen sets on combinations that training never showed."""
    workspace = job.workspace
    encoder, fingerprint = load_encoder(str(workspace.model)), weights_fingerprint(workspace.model)
    report = run_benchmark(encoder, workspace.uvrb, split="unseen", fingerprint=fingerprint)
    synflow = workspace.facts["synflow"]
    write_report({**report, "synflow": synflow}, workspace.root)
    page = workspace.root / "report.md"
    write_atomic(page, (page.read_text(encoding="utf-8") + to_markdown(synflow)).encode())


def answer_queries(job: Job) -> None:
    """Search the corpus with one query of each kind."""
    workspace = job.workspace
    results = answer(load_encoder(str(workspace.model)), workspace, job.write)
    write_json(workspace.root / "queries" / "queries.json", results)
    workspace.facts["first_right"] = {result["query"]: result["first_right"] for result in results}


STAGES: dict[str, Callable[[Job], None]] = {
    "world": render_world,
    "synthesis": synthesise_pairs,
    "model": build_model,
    "pretrain": pretrain_model,
    "train": train_model,
    "check": check_model,
    "score": score_model,
    "queries": answer_queries,
}
