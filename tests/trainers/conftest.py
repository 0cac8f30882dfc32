"""A tiny embedder on disk and a few tasks of hand-made rows with real mp4 and PNG bytes."""

import pytest
import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer
from square_clips import COLOURS, frames_of, mp4_of, png_of

from gve import build_tiny, save_embedder
from gve.hub_datasets.schema import media, pair_features

SPEEDS = (0, 2, 4)
WORDS = [f"a {colour} square moves {speed}" for colour in COLOURS for speed in SPEEDS]


def row(task, number, query, target, **changes):
    instruction = "Find the video." if number % 2 else "Find the video that shows this."
    made = {"id": f"{task}-{number}", "task": task, "kind": "made", "instruction": instruction, "query": query}
    empty = {"negatives": [], "group": "", "query_facts": [], "target_facts": []}
    return made | {"target": target} | empty | changes


def make_tasks():
    rows = {"t2t": [], "t2v": [], "i2v": []}
    names = [(colour, speed) for colour in COLOURS for speed in SPEEDS]
    clips = [frames_of(colour, speed, number) for number, (colour, speed) in enumerate(names)]
    videos = [media(video=mp4_of(clip)) for clip in clips]
    for number, (colour, speed) in enumerate(names):
        words, facts = media(text=WORDS[number]), [number // len(SPEEDS), 100 + speed]
        rows["t2t"].append(row("t2t", number, words, media(text=f"{colour} square {speed}")))
        rows["i2v"].append(row("i2v", number, media(image=png_of(clips[number][0])), videos[number]))
        stated = {"query_facts": facts if number % 3 else facts[:1], "target_facts": facts}
        stated |= {"group": f"g{number // 2}" if number < 4 else "", "negatives": [videos[(number + 1) % 12]]}
        query = words if number % 3 else media(text=f"a {colour} square")
        rows["t2v"].append(row("t2v", number, query, videos[number], **stated))
    return DatasetDict({task: Dataset.from_list(made, features=pair_features()) for task, made in rows.items()})


@pytest.fixture(scope="session")
def tasks():
    return make_tasks()


@pytest.fixture(scope="session")
def embedder_folder(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("embedder")
    size = {"frame_size": 32, "num_frames": 4, "vocab_size": 320}
    size |= {"vision_depth": 1, "vision_hidden": 32, "text_layers": 2, "text_hidden": 64}
    model, processor = build_tiny([*WORDS, "Find the video that shows this."], **size)
    save_embedder(folder, model, processor)
    return folder


@pytest.fixture
def load(embedder_folder):
    def load_embedder(folder=embedder_folder, dtype=torch.float32):
        return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype})

    return load_embedder


@pytest.fixture
def embedder(load):
    return load()
