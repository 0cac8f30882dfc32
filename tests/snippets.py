"""Code blocks of Markdown, and a folder in which they run: a tiny model, a tiny benchmark, and the media they name."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset
from PIL import Image
from uvrb_folder import make_tables, write_uvrb

from gve import build_tiny, save_embedder
from gve.hub_datasets.schema import TASKS, media, pair_features
from gve.hub_datasets.uvrb import SETS, instructions
from gve.video_writer import encode_mp4

ROOT = Path(__file__).parents[1]
VIDEOS = (".mp4", ".mkv", ".webm", ".mov")
IMAGES = (".png", ".jpg", ".jpeg")


class Block(NamedTuple):
    """A fenced block and the heading above it."""

    language: str
    heading: str
    code: str


def read_blocks(text):
    blocks, heading, fence, kept = [], "", None, []
    for line in text.splitlines():
        opened = re.match(r"\s*```(\w*)", line)
        if fence is not None and opened:
            blocks.append(Block(fence, heading, "\n".join(kept) + "\n"))
            fence = None
        elif opened:
            fence, kept = opened[1], []
        elif fence is not None:
            kept.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    assert fence is None, f"the block under {heading!r} is not closed"
    return blocks


def python_of(page, heading=None):
    """All Python of a page, or of what stands under one heading."""
    blocks = read_blocks(page.read_text(encoding="utf-8"))
    code = [block.code for block in blocks if block.language == "python" and heading in (None, block.heading)]
    assert code, f"no Python in {page}"
    return "".join(code)


def clip_bytes():
    """An encoded video of twelve frames: a bright square that moves to the right."""
    frames = np.zeros((12, 48, 64, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[16:32, 4 * number : 4 * number + 16] = 255
    return encode_mp4(frames, 12)


def build_hub(folder):
    """The repositories that snippets name, as local folders `org/...`."""
    org = folder / "org"
    org.mkdir(parents=True)
    clip = clip_bytes()
    save_embedder(org / "gve", *build_tiny(["a square moves to the right", "find the video"]), prompts=instructions())
    (org / "uvrb").mkdir()
    write_uvrb(org / "uvrb", {name: _tables(name, clip) for name in SETS})
    _write_uvrd(org / "uvrd", clip)
    shutil.copytree(ROOT / "eval" / "video_retrieval", org / "video_retrieval", ignore=shutil.ignore_patterns("__*__"))
    (org / "video_retrieval" / "__init__.py").touch()
    return clip


def _tables(name, clip):
    """Rows of a set whose videos can be decoded."""
    tables = make_tables(name)
    for row in [*tables["corpus"], *tables["queries"]]:
        if row["video"] is not None:
            row["video"] = {"bytes": clip, "path": None}
    return tables


def _write_uvrd(folder, clip):
    """One pair a task."""
    lines = ["---", "configs:"]
    for task in TASKS:
        row = {"id": "0", "task": task, "kind": "scene", "instruction": "Find the video.", "group": ""}
        row |= {"query": media(text="a square"), "target": media(video=clip)}
        row |= {"negatives": [], "query_facts": [], "target_facts": []}
        (folder / task).mkdir(parents=True)
        Dataset.from_list([row], features=pair_features()).to_parquet(folder / task / "train.parquet")
        lines += [f"- config_name: {task}", "  data_files:", f"  - {{split: train, path: {task}/train.parquet}}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def place_media(code, folder, clip):
    """Write the videos and images that a snippet's strings name; a repository that nobody made is an error."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        name, suffix = node.value, Path(node.value).suffix.lower()
        if re.fullmatch(r"org/[\w-]+", name):
            assert (folder / name).is_dir(), f"{name} is none of the folders that build_hub makes"
        if suffix in VIDEOS + IMAGES and "\n" not in name:
            assert not Path(name).is_absolute(), name
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if suffix in VIDEOS:
                (folder / name).write_bytes(clip)
            else:
                Image.new("RGB", (64, 48), (200, 40, 40)).save(folder / name)


def run_snippet(code, folder, clip):
    """Run code as a reader would, in a new interpreter; it sees the package and the folder, and no network."""
    place_media(code, folder, clip)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / ".hf"), "TQDM_DISABLE": "1"}
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=os.environ | offline, **options)
