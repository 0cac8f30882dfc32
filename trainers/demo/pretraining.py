"""What replaces the backbone's pre-training: the tiny model learns to name what its inputs show.

Shapes: B inputs of a lesson, L long videos made of its clips, K right answers to a question, A attributes, D embedding width.

Qwen2.5-VL comes to the contrastive training already knowing where things are, what they do and how the camera moves.
A model built from scratch does not learn that from pairs: the vectors that separate things come first, and those that
separate a relation from its opposite hardly at all. Class labels teach it in minutes. The classifiers are thrown away.
A question may have several right answers: what a long video shows, in any of its clips, or where a thing stands that a text
names without its place. And words that change a clip are answered by what the changed clip would show.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import ProgressCallback, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.world.attributes import ACTED, ATTRIBUTES, LOOSE, MOVING, STATED, clip_labels, loose_labels
from gve.hub_datasets.world.captions import caption, image_caption, long_caption
from gve.hub_datasets.world.render import frame_times, render
from gve.hub_datasets.world.rows import stream
from gve.hub_datasets.world.spec import Clip, sample_clip
from gve.hub_datasets.world.texts import KIND_SETS, TASK_INSTRUCTIONS
from gve.hub_datasets.world.variants import MODIFICATIONS, action_text, leading_thing, modified, reference_picture
from gve.hub_datasets.world.video import LONG_CLIPS, LONG_FPS, LONG_FRAMES
from gve.hub_datasets.world.worlds import DEFAULT, Seed, seed_of
from gve.processing_gve import GVEProcessor
from gve.trainers.demo.pace import (
    CoreShareCallback,
    Deadline,
    FiniteLoss,
    NonFiniteLossError,
    QuietProgress,
    falling_rate,
    steady_seconds,
)
from gve.trainers.optimizer import build_optimizer
from gve.video_gve import Frames

LESSON = 48
"""Clips in a step."""
MOTION_WEIGHT = 4.0
"""Weight of actors, actions and camera, which are learnt last; places and scenes have 1."""
SCALE = 11.3
"""Classifiers see unit vectors times this: about the length of an unnormalised vector of 128 numbers."""
CLIP_SECONDS = 2.0
LEARNING_RATE, MUON_LEARNING_RATE = 8e-4, 8e-3
"""After 1,200 lessons the order of events is right in .73 of groups of four, at 2.5 times these rates in .45 and at .6 of them
in .68 (tests/bench/lessons.py)."""
WARMUP = 80
IMAGE_EVERY = 4
"""Steps from one lesson about single frames to the next: they teach the same as videos, except for motion."""
LONG_TEMPERATURE = 0.03
"""Of finding the long video that holds a clip, the slowest thing to learn. After 500 lessons .52 of them are found, at .05 .45
and at .02 .49 (tests/bench/lessons.py)."""
COMPOSED_EVERY, COMPOSED = 4, 24
"""Steps from one lesson about words beside a clip to the next, twice as many about words beside a picture, and how many of
its clips each takes."""


class Lessons(Dataset):
    """Freshly rendered clips with a text about each; item i is the batch of step i, the same for the same seed."""

    def __init__(self, processor: GVEProcessor, count: int, *, seed: Seed, size: int = LESSON) -> None:
        self.processor, self.count, self.seed, self.size = processor, count, seed, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = stream(self.seed, 7, step)
        clips = [sample_clip(rng, "seen") for _ in range(self.size)]
        videos = self._show(clips)
        columns = {"video": self._column(videos, _shown(clips)), "text": self._texts(clips, rng)}
        if step % IMAGE_EVERY == 0:
            columns["image"] = self._images(clips)
        if len(clips) >= 2 * LONG_CLIPS:
            columns |= self._longs(clips, rng)
        if step % COMPOSED_EVERY == COMPOSED_EVERY // 2:
            columns["edited"] = self._edited(clips[:COMPOSED], videos, rng)
        if step % (2 * COMPOSED_EVERY) == COMPOSED_EVERY:
            columns["set_going"] = self._set_going(clips[:COMPOSED], rng)
        return {f"{name}_{key}": value for name, column in columns.items() for key, value in column.items()}

    def _show(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        times = frame_times(self.processor.video_processor.num_frames)
        return [{"video": Frames(render(clip, times), times * CLIP_SECONDS, CLIP_SECONDS)} for clip in clips]

    def _edited(
        self, clips: Sequence[Clip], videos: Sequence[dict[str, Any]], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Clips with words that change one thing about each; the answers are those about the clip that the words ask for."""
        kinds = [MODIFICATIONS[place % len(MODIFICATIONS)] for place in range(len(clips))]
        pairs = [modified(clip, kind, rng, "seen") for clip, kind in zip(clips, kinds, strict=True)]
        inputs = [video | {"text": pair.text} for video, pair in zip(videos, pairs, strict=False)]
        return self._column(inputs, _shown([pair.target for pair in pairs]), TASK_INSTRUCTIONS["tv2v"])

    def _set_going(self, clips: Sequence[Clip], rng: np.random.Generator) -> dict[str, Tensor]:
        """Pictures of the thing that acts first in each clip, with words that say what it does and where."""
        pictures = [_still(reference_picture(leading_thing(clip), rng, "seen")) for clip in clips]
        inputs = [{"image": one, "text": action_text(clip, rng)} for one, clip in zip(pictures, clips, strict=True)]
        return self._column(inputs, _shown(clips, ACTED), TASK_INSTRUCTIONS["ti2v"])

    def _images(self, clips: Sequence[Clip]) -> dict[str, Tensor]:
        return self._column([{"image": _still(clip)} for clip in clips], _shown(clips, STATED["image"]))

    def _longs(self, clips: Sequence[Clip], rng: np.random.Generator) -> dict[str, dict[str, Tensor]]:
        """Each four clips as one long video, with the frames that the processor takes of its file, and a text about each.

        The answers about a long video are those about each of its clips. The texts have none: they find their video.
        """
        groups = [clips[start : start + LONG_CLIPS] for start in range(0, len(clips) - LONG_CLIPS + 1, LONG_CLIPS)]
        total, count = LONG_CLIPS * LONG_FRAMES, self.processor.video_processor.num_frames
        taken = np.linspace(0, total - 1, count).round().astype(int)
        moments = [frame_times(LONG_FRAMES)[taken[taken // LONG_FRAMES == k] % LONG_FRAMES] for k in range(LONG_CLIPS)]
        frames = [np.concatenate([render(*one) for one in zip(group, moments, strict=True)]) for group in groups]
        videos = [{"video": Frames(shown, taken / LONG_FPS, total / LONG_FPS)} for shown in frames]
        listed = [[clip_labels(clip) for clip in group] for group in groups]
        told, instruction = [long_caption(group, rng) for group in groups], SETS[KIND_SETS["long"]].instruction
        return {"long": self._column(videos, listed), "told": self._column(told, [], instruction)}

    def _texts(self, clips: Sequence[Clip], rng: np.random.Generator) -> dict[str, Tensor]:
        kind = str(rng.choice([*STATED, *LOOSE]))
        if kind == "image":
            told, instruction = [image_caption(clip, rng) for clip in clips], TASK_INSTRUCTIONS["t2i"]
        else:
            told = [caption(clip, kind, rng) for clip in clips]
            instruction = SETS[KIND_SETS[kind]].instruction
        if kind in STATED:
            labels = _shown(clips, STATED[kind])
        else:
            labels = [loose_labels(clip, text.facts) for clip, text in zip(clips, told, strict=True)]
        return self._column([text.text for text in told], labels, instruction)

    def _column(
        self, inputs: list[Any], labels: list[list[list[int]]], instruction: str | None = None
    ) -> dict[str, Tensor]:
        column = dict(self.processor.prepare(inputs, instruction=instruction))
        return column | ({"labels": torch.tensor(labels)} if labels else {})  # (B, K, A)


def _still(clip: Clip) -> np.ndarray:
    return render(clip, [0.0])[0]


def _shown(clips: Sequence[Clip], stated: Sequence[str] = tuple(ATTRIBUTES)) -> list[list[list[int]]]:
    """(B, 1, A) labels of what clips show."""
    return [[clip_labels(clip, stated)] for clip in clips]


class FactReader(nn.Module):
    """The embedder with one linear classifier an attribute on its vectors, shared by all modalities."""

    def __init__(self, embedder: nn.Module) -> None:
        super().__init__()
        self.embedder = embedder
        width = embedder.config.get_text_config().hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(options)) for name, options in ATTRIBUTES.items()})

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """The loss, summed over the columns, whose inputs and `labels` have their names as prefixes."""
        vectors: dict[str, Tensor] = {}
        losses = []
        for name in ("video", "text", "image", "edited", "set_going", "long", "told"):
            column = {key.removeprefix(f"{name}_"): v for key, v in batch.items() if key.startswith(f"{name}_")}
            if column:
                labels = column.pop("labels", None)  # (B, K, A)
                vectors[name] = self.embedder(**column).embeddings.float()  # (B, D), (L, D)
                if labels is not None:
                    losses.append(self.score(vectors[name] * SCALE, labels))
        if "long" in vectors:
            long, clips = vectors["long"], vectors["video"]
            losses += [find_long(vectors[name], long, clips) for name in ("video", "told")]
        return {"loss": torch.stack(losses).sum()}

    def score(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Mean over attributes of the weighted cross-entropy in units of log(options), of (B, D) vectors.

        Args:
            labels: (B, K, A), K answers to each question that are equally right.
        """
        total = torch.zeros((), device=vectors.device)
        for place, (name, options) in enumerate(ATTRIBUTES.items()):
            asked = labels[..., place]  # (B, K)
            if (asked >= 0).any():
                logits = self.heads[name](vectors).repeat_interleave(asked.shape[1], 0)
                weight = MOTION_WEIGHT if name in MOVING else 1.0
                total = total + weight * nn.functional.cross_entropy(logits, asked.flatten()) / math.log(len(options))
        return total / len(ATTRIBUTES)


def find_long(vectors: Tensor, longs: Tensor, clips: Tensor) -> Tensor:
    """Cross-entropy, in units of log(L + B), of finding the long video that a vector belongs to, in order.

    Among (L, D) long videos and (B, D) clips, so that no other clip is as near as the video that holds one; if the vectors
    are those of the clips, none finds itself.
    """
    own = torch.arange(len(longs), device=longs.device).repeat_interleave(len(vectors) // len(longs))
    asked = vectors[: len(own)]
    logits = asked @ torch.cat([longs, clips]).T / LONG_TEMPERATURE  # (B, L + B)
    if vectors is clips:
        itself = torch.eye(len(own), logits.shape[1] - len(longs), dtype=torch.bool, device=longs.device)
        logits = logits.masked_fill(nn.functional.pad(itself, (len(longs), 0)), -math.inf)
    return nn.functional.cross_entropy(logits, own) / math.log(logits.shape[1])


@dataclass(frozen=True)
class Course:
    """Length of the pre-training (steps and seconds at most), seed, world, folder of its checkpoints, and lessons."""

    folder: Path
    steps: int
    seconds: float
    seed: int
    world: str = DEFAULT
    size: int = LESSON
    rate: float = 1.0  # factor of both learning rates
    workers: int = 0  # processes that prepare lessons; on two cores they slow the training more than they spare it


class Learnt(NamedTuple):
    """Result of a pre-training."""

    lessons: int  # steps taken; fewer than planned if the time ran out
    right: dict[str, float]  # share of right answers by attribute, on videos of combinations that training never shows


def pretrain(model: nn.Module, processor: GVEProcessor, course: Course, write: Callable[[str], Any]) -> Learnt:
    """Teach a model, in place, to name what it sees and reads; continues from the last checkpoint if there is one.

    A course that breaks in half precision goes on in float32 from its last checkpoint, or begins anew: kernels of a device
    have broken some.
    """
    torch.manual_seed(course.seed)
    reader = FactReader(model.train())
    untaught = {name: value.clone() for name, value in reader.state_dict().items()}
    deadline = Deadline(course.seconds, write)
    try:
        lessons = _learn(reader, processor, course, deadline)
    except NonFiniteLossError as error:
        if model.dtype == torch.float32:
            raise
        write(f"  {error}; going on in float32")
        reader.float().load_state_dict(untaught)
        lessons = _learn(reader, processor, course, deadline)
    return Learnt(lessons, examine(reader, processor, seed=seed_of(course.seed, course.world)))


def _learn(reader: FactReader, processor: GVEProcessor, course: Course, deadline: Deadline) -> int:
    """Give the lessons that are left; the number of all that were given."""
    seed = seed_of(course.seed, course.world)
    trainer = Trainer(
        reader,
        fact_arguments(course),
        train_dataset=Lessons(processor, course.steps, seed=seed, size=course.size),
        data_collator=_only,
        callbacks=[deadline, CoreShareCallback(), FiniteLoss()],
    )
    trainer.remove_callback(ProgressCallback)  # Trainer adds it after those that are given
    trainer.add_callback(QuietProgress())
    trainer.optimizer = build_optimizer(  # after Trainer has moved the model to its device
        reader,
        learning_rate=LEARNING_RATE * course.rate,
        muon_learning_rate=MUON_LEARNING_RATE * course.rate,
        weight_decay=0.02,
    )
    trainer.lr_scheduler = falling_rate(
        trainer.optimizer, course.steps, deadline, warmup=WARMUP, plateau=0.6, least=0.05
    )
    checkpoint = get_last_checkpoint(str(course.folder)) if course.folder.is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer.state.global_step


def fact_arguments(course: Course) -> TrainingArguments:
    """Settings of the Trainer: one lesson a step, in order; no checkpoint without a look at the loss."""
    logged = max(1, course.steps // 20)
    return TrainingArguments(
        output_dir=str(course.folder),
        max_steps=course.steps,
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_num_workers=course.workers,
        dataloader_prefetch_factor=4 if course.workers else None,
        max_grad_norm=1.0,
        save_steps=logged * max(5, math.ceil(20 / logged)),
        save_total_limit=1,
        logging_steps=logged,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=False,
        seed=course.seed,
    )


def lesson_seconds(model: nn.Module, processor: GVEProcessor, *, lessons: int = IMAGE_EVERY) -> float:
    """Measured seconds of a step, with its lesson, without its optimizer; the weights stay as they are."""
    reader, batches = FactReader(model).to(model.device), Lessons(processor, lessons, seed=0)

    def learn(number: int) -> None:
        reader(**send_to_device(batches[number], model.device))["loss"].backward()
        reader.zero_grad(set_to_none=True)

    return steady_seconds(learn, lessons, model.device)


@torch.no_grad()
def examine(reader: FactReader, processor: GVEProcessor, *, seed: Seed, clips: int = 192) -> dict[str, float]:
    """Share of right answers by attribute about videos of unseen combinations."""
    reader.eval()
    rng = stream(seed, 8)
    drawn = [sample_clip(rng, "unseen") for _ in range(clips)]
    lessons = Lessons(processor, 1, seed=seed)
    right: list[Tensor] = []
    for start in range(0, clips, LESSON):
        clips = drawn[start : start + LESSON]
        column = lessons._column(lessons._show(clips), _shown(clips))
        column = send_to_device(column, reader.embedder.device)
        labels = column.pop("labels")
        vectors = reader.embedder(**column).embeddings.float() * SCALE
        answers = torch.stack([reader.heads[name](vectors).argmax(1) for name in ATTRIBUTES], dim=1)
        right.append(answers == labels[:, 0])
    shares = torch.cat(right).double().mean(0).tolist()
    return {name: round(share, 3) for name, share in zip(ATTRIBUTES, shares, strict=True)}


def _only(items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """A lesson is a whole batch already."""
    return dict(items[0])
