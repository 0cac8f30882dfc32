"""Planted copies of test videos and texts that each net of the decontamination gate catches, and clean ones it rejects.

    python tests/bench/decontamination.py --model FOLDER [--videos 400] [--leaks 100]

Test videos are rendered clips of combinations that training never shows; leaks are copies of some of them in seven
guises, encoded again at a low rate; clean videos are clips of the other combinations. Texts are captions: a leak repeats
them, puts them into a longer text, or describes the same clip in other words.
"""

import json
import tempfile
from pathlib import Path

import av
import numpy as np
import torch
from common import make_parser, say, write_video
from PIL import Image

from gve.hub_datasets.vsynflow.decontamination import Decontamination
from gve.hub_datasets.vsynflow.encoders import encoder_name, make_encoder
from gve.hub_datasets.vsynflow.fingerprints import make_fingerprints
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.quality.measure import measure
from gve.hub_datasets.vsynflow.stages import Context
from gve.hub_datasets.world.captions import caption
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.video import video_bytes

THRESHOLDS = (0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
LOW = {"preset": "veryfast", "crf": "28", "threads": "1"}
GUISES = {
    "re-encoded": lambda frames: frames,
    "letterboxed": lambda frames: [np.pad(frame, ((8, 8), (0, 0), (0, 0))) for frame in frames],
    "mirrored": lambda frames: [frame[:, ::-1] for frame in frames],
    "sub-clip (half)": lambda frames: frames[len(frames) // 5 : len(frames) // 5 + max(8, len(frames) // 2)],
    "half the size": lambda frames: [np.asarray(Image.fromarray(frame).resize((24, 24))) for frame in frames],
    "cropped by 8 %": lambda frames: [frame[2:-2, 2:-2] for frame in frames],
    "brighter by 10 %": lambda frames: [np.clip(frame.astype(int) + 25, 0, 255).astype(np.uint8) for frame in frames],
}


def decode(path):
    with av.open(str(path)) as video:
        rate = round(float(video.streams.video[0].average_rate))
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)], rate


def place(path):
    return {"path": str(path), "offset": None, "size": None}


def render(folder, name, clips):
    paths = [folder / f"{name}{number}.mp4" for number in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        path.write_bytes(video_bytes((clip,)))
    return paths


def scores(stage, encoder, rows, folder):
    context = Context(folder, "s", Journal(folder / "journal"), encoder=encoder)
    return [outcome.columns for outcome in stage.run(rows, context)]


def row(path, text="a word"):
    names = {"id": "r", "origin": "r", "parent": None, "text": text, "raw_text": text}
    return {**names, "video": place(path), **measure(place(path))}


def share(hits):
    return round(float(hits.mean()), 3)


def caught(columns):
    """Shares by net: PDQ of frames, and embeddings above each threshold, alone and together."""
    bits = np.array([one["leak_bits"] <= 31 for one in columns])
    nearest = np.array([one["leak_video"] for one in columns])
    alone = {limit: share(nearest > limit) for limit in THRESHOLDS}
    either = {limit: share(bits | (nearest > limit)) for limit in THRESHOLDS}
    return {"frames": share(bits), "video": alone, "either": either}


def told(columns):
    runs = np.array([one["leak_runs"] > 0 for one in columns])
    nearest = np.array([one["leak_similarity"] for one in columns])
    return {"text": share(runs), "paraphrase": {limit: share(nearest > limit) for limit in THRESHOLDS}}


def main():
    parser = make_parser(__doc__, videos=400, leaks=100)
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    named = f"gve.eval.models:load_encoder:{arguments.model}"
    encoder, rng = make_encoder(named), np.random.default_rng(0)
    clips = [sample_clip(rng, "unseen") for _ in range(arguments.videos)]
    others = [sample_clip(rng, "seen") for _ in range(2 * arguments.leaks)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = render(folder, "test", clips)
        texts = [caption(clip, "detailed", rng).text for clip in clips]
        items = [{"ids": [], "video": place(path), "texts": [text]} for path, text in zip(paths, texts, strict=True)]
        marks = folder / "marks.safetensors"
        make_fingerprints("test", items, encoder=encoder, encoder_name=encoder_name(named)).save(marks)
        stage = Decontamination(str(marks), ("text",), encoder_name(named))
        for guise, change in GUISES.items():
            rows = []
            for number in range(arguments.leaks):
                leak, (frames, rate) = folder / f"leak{number}.mp4", decode(paths[number])
                changed = change(frames)
                write_video(str(leak), changed, changed[0].shape[1::-1], rate=rate, options=LOW)
                rows.append(row(leak))
            say(json.dumps({guise: caught(scores(stage, encoder, rows, folder))}))
        clean = render(folder, "clean", others)
        rows = [row(path) for path in clean]
        say(json.dumps({"clean videos": caught(scores(stage, encoder, rows, folder))}))
        video = row(clean[0])
        spoken = {
            "verbatim": texts[: arguments.leaks],
            "within a longer text": [f"Now and then we see {text}, as it was." for text in texts[: arguments.leaks]],
            "other words": [caption(clip, "detailed", rng).text for clip in clips[: arguments.leaks]],
            "clean texts": [caption(clip, "detailed", rng).text for clip in others],
        }
        for kind, lines in spoken.items():
            rows = [{**video, "text": line} for line in lines]
            say(json.dumps({kind: told(scores(stage, encoder, rows, folder))}))


if __name__ == "__main__":
    main()
