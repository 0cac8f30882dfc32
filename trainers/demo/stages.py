"""The stages of the demo, in order; each leaves its result on disk and a few facts for the report."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoProcessor

from gve.eval.benchmark import run_benchmark
from gve.eval.encode import encode_rows
from gve.eval.encoders import Encoder
from gve.eval.index.rows import Levels
from gve.eval.media_encoder import NUM_FRAMES
from gve.eval.models import load_encoder, weights_fingerprint
from gve.eval.moments.scoring import moment_report
from gve.eval.moments.sets import load_moments
from gve.eval.report import write_report
from gve.hub_datasets.files import write_json, write_text
from gve.hub_datasets.uvrb import instructions, load_set
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.texts import training_texts
from gve.sentence_gve import save_embedder
from gve.tiny import build_tiny
from gve.trainers.demo.learning import pick_dtype, train
from gve.trainers.demo.pretraining import Course, lesson_seconds, pretrain
from gve.trainers.demo.queries import QUERY_SETS, answer
from gve.trainers.demo.synthesis import synthesise, to_markdown
from gve.trainers.demo.workspace import DemoSize, Workspace
from gve.trainers.watching.curves_command import draw_run

TOKENIZER_TEXTS = 20000
PRETRAINING_SHARE = 0.75
"""Share of the time for training; the rest is contrastive. More lessons still teach order and actions."""
LEAST_LESSONS, LESSON_SLACK = 10, 0.95
"""A lesson is measured without optimizer and checkpoints."""
SHIPPED_LESSONS = 1700
"""About those of the model that ships; a machine that has time for fewer than half of them is told how long they take it."""
MOMENT_LEVELS = Levels(files=False, window=6.0, stride=3.0)
"""The world's moments last four to eight seconds."""
TOLERANCE = 1e-6
CHECKED = 4
"""Inputs of each kind on which both ways of loading must agree."""


Stage = Callable[[Workspace, DemoSize, float], None]
"""Takes the workspace, the size of the demo, and the seconds left for training."""


def render_world(workspace: Workspace, size: DemoSize, seconds: float) -> None:
    """Render the videos, and write pairs, benchmark and raw corpus."""
    options = {"raw": size.raw, "workers": size.workers, "sizes": size.sizes}
    build_world(workspace.root / "data", seed=workspace.seed, pairs=size.pairs, **options)
    workspace.facts["pairs"] = sum(size.pairs.values())


def synthesise_pairs(workspace: Workspace, size: DemoSize, seconds: float) -> None:
    """Take the raw corpus through V-SynFlow: pairs of all seven tasks, decontaminated against the benchmark."""
    workspace.facts["synflow"] = synthesise(workspace)


def build_model(workspace: Workspace, size: DemoSize, seconds: float) -> None:
    """Train the tokenizer and build the untrained model."""
    model, processor = build_tiny(training_texts(workspace.seed, TOKENIZER_TEXTS), seed=workspace.seed)
    save_embedder(workspace.untrained, model, processor, prompts=instructions())
    workspace.facts["parameters"] = sum(p.numel() for p in model.parameters())
    workspace.write(f"  {workspace.facts['parameters'] / 1e6:.2f} M parameters, {len(processor.tokenizer)} tokens")


def pretrain_model(workspace: Workspace, size: DemoSize, seconds: float) -> None:
    """Teach the model to name what it sees and reads, as the pre-training of a real backbone does."""
    processor = AutoProcessor.from_pretrained(workspace.untrained)
    model = AutoModel.from_pretrained(workspace.untrained, dtype=pick_dtype(), attn_implementation="eager")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    seconds *= PRETRAINING_SHARE
    if "planned_lessons" not in workspace.facts:
        one = lesson_seconds(model, processor)
        workspace.facts |= {"planned_lessons": max(LEAST_LESSONS, int(seconds * LESSON_SLACK / one))}
        workspace.save()
        workspace.write(f"  {one:.2f} s a lesson: {workspace.facts['planned_lessons']} lessons")
    count = workspace.facts["planned_lessons"]
    if LEAST_LESSONS < count < SHIPPED_LESSONS / 2:
        enough = workspace.minutes + minutes_missing(count, seconds)
        workspace.write(f"  the model that ships had about {SHIPPED_LESSONS}: here they take --minutes {enough:.0f}")
    limit = math.inf if count == LEAST_LESSONS else seconds
    learnt = pretrain(model, processor, Course(workspace.lessons, count, limit, workspace.seed), workspace.write)
    save_embedder(workspace.pretrained, model.float().eval(), processor, prompts=instructions())
    workspace.facts |= {"lessons": learnt.lessons, "told_right": learnt.right}
    shown = ", ".join(f"{name.replace('_', ' ')} {share:.2f}" for name, share in learnt.right.items())
    workspace.write(f"  right on unseen combinations: {shown}")


def minutes_missing(count: int, seconds: float) -> float:
    """Minutes of lessons and training that a demo with `count` lessons in so many seconds lacks beside the model that ships."""
    return max(0, SHIPPED_LESSONS - count) * seconds / count / PRETRAINING_SHARE / 60


def train_model(workspace: Workspace, size: DemoSize, seconds: float) -> None:
    """Train, save, and draw the curves of the training."""
    write_json(workspace.root / "curriculum.json", train(workspace, seconds))
    draw_run(workspace.checkpoints, workspace.root)


def check_model(workspace: Workspace, size: DemoSize, seconds: float) -> None:
    """Reload the saved folder by AutoModel and by SentenceTransformer, and make sure that both agree."""
    folder = str(workspace.model)
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    encoder, worst = load_encoder(folder), 0.0
    for name in QUERY_SETS.values():
        data = load_set(workspace.uvrb, name, "unseen")
        few = range(min(CHECKED, len(data.queries), len(data.corpus)))
        rows = [{k: v for k, v in data.queries[i].items() if k != "id"} for i in few]
        rows += [{"video": data.corpus[i]["video"]} for i in few]
        with torch.inference_mode():
            ours = model(**processor.prepare(rows)).embeddings.numpy()
        theirs = encode_rows(encoder, rows, role="document", progress=False)
        worst = max(worst, float(np.abs(ours - theirs).max()))
    workspace.facts["largest_difference"] = worst
    workspace.write(f"  AutoModel and SentenceTransformer differ by at most {worst:.1e}")
    if worst > TOLERANCE:
        raise RuntimeError(
            f"AutoModel and SentenceTransformer must agree to {TOLERANCE:.0e}, but differ by {worst:.1e}"
        )


def score_model(workspace: Workspace, size: DemoSize, seconds: float) -> None:
    """Score the sixteen sets on combinations that training never showed."""
    encoder, fingerprint = load_encoder(str(workspace.model)), weights_fingerprint(workspace.model)
    report = run_benchmark(encoder, workspace.uvrb, split="unseen", fingerprint=fingerprint)
    report["moments"] = score_moments(workspace, encoder)
    synflow = workspace.facts["synflow"]
    write_report({**report, "synflow": synflow}, workspace.root)
    page = workspace.root / "report.md"
    write_text(page, page.read_text(encoding="utf-8") + to_markdown(synflow))


def score_moments(workspace: Workspace, encoder: Encoder) -> dict[str, Any]:
    """Moment retrieval in the world's long videos."""
    source = workspace.root / "data" / "moments"
    return {"source": str(source)} | moment_report(encoder, load_moments(source), MOMENT_LEVELS, num_frames=NUM_FRAMES)


def answer_queries(workspace: Workspace, size: DemoSize, seconds: float) -> None:
    """Search the corpus with one query of each kind."""
    results = answer(load_encoder(str(workspace.model)), workspace, size.sizes)
    write_json(workspace.root / "queries" / "queries.json", results)
    workspace.facts["first_right"] = {result["query"]: result["first_right"] for result in results}


STAGES: dict[str, Stage] = {
    "world": render_world,
    "synthesis": synthesise_pairs,
    "model": build_model,
    "pretrain": pretrain_model,
    "train": train_model,
    "check": check_model,
    "score": score_model,
    "queries": answer_queries,
}
