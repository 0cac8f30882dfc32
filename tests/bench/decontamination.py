"""Which planted copies of test videos and texts each net of the decontamination gate catches, and what it refuses wrongly.

    python tests/bench/decontamination.py --model FOLDER [--videos 400] [--leaks 100]

Test videos are rendered clips of combinations that training never shows; leaks are copies of some of them in seven
guises, encoded again at a low rate; clean videos are clips of the other combinations. Texts are captions: a leak says
them again, within a longer text, or tells the same clip in other words.
"""

import argparse
import json
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
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
GUISES = {
    "re-encoded": lambda frames: frames,
    "letterboxed": lambda frames: [np.pad(frame, ((8, 8), (0, 0), (0, 0))) for frame in frames],
    "mirrored": lambda frames: [frame[:, ::-1] for frame in frames],
    "sub-clip (half)": lambda frames: frames[len(frames) // 5 : len(frames) // 5 + max(8, len(frames) // 2)],
    "half the size": lambda frames: [np.asarray(Image.fromarray(frame).resize((24, 24))) for frame in frames],
    "cropped by 8 %": lambda frames: [frame[2:-2, 2:-2] for frame in frames],
    "brighter by 10 %": lambda frames: [np.clip(frame.astype(int) + 25, 0, 255).astype(np.uint8) for frame in frames],
}


def encode(path, frames, rate, crf="28"):
    """Write frames as H.264."""
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": crf, "threads": "1"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, rate)
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        output.mux(stream.encode())


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
    """The gate's columns of some records."""
    context = Context(folder, "s", Journal(folder / "journal"), encoder=encoder)
    return [outcome.columns for outcome in stage.run(rows, context)]


def row(path, text):
    return {
        "id": "r",
        "origin": "r",
        "parent": None,
        "video": place(path),
        "text": text,
        "raw_text": text,
        **measure(place(path)),
    }


def caught(columns):
    """Shares by net: PDQ of frames, and embeddings above each threshold, alone and together."""
    bits = np.array([one["leak_bits"] <= 31 for one in columns])
    nearest = np.array([one["leak_video"] for one in columns])
    return {
        "frames": round(float(bits.mean()), 3),
        "video": {limit: round(float((nearest > limit).mean()), 3) for limit in THRESHOLDS},
        "either": {limit: round(float((bits | (nearest > limit)).mean()), 3) for limit in THRESHOLDS},
    }


def told(columns):
    """The same for texts."""
    runs = np.array([one["leak_runs"] > 0 for one in columns])
    nearest = np.array([one["leak_similarity"] for one in columns])
    return {
        "text": round(float(runs.mean()), 3),
        "paraphrase": {limit: round(float((nearest > limit).mean()), 3) for limit in THRESHOLDS},
    }


def show(name, found):
    print(json.dumps({name: found}), flush=True)  # noqa: T201


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--videos", type=int, default=400)
    parser.add_argument("--leaks", type=int, default=100)
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
        plain = "a word"
        for guise, change in GUISES.items():
            for number in range(arguments.leaks):
                frames, rate = decode(paths[number])
                encode(folder / "leak.mp4", change(frames), rate)
                (folder / "leak.mp4").rename(folder / f"leak{number}.mp4")
            rows = [row(folder / f"leak{number}.mp4", plain) for number in range(arguments.leaks)]
            show(guise, caught(scores(stage, encoder, rows, folder)))
        clean = render(folder, "clean", others)
        show("clean videos", caught(scores(stage, encoder, [row(path, plain) for path in clean], folder)))
        video = row(clean[0], plain)
        spoken = {
            "verbatim": texts[: arguments.leaks],
            "within a longer text": [f"Now and then we see {text}, as it was." for text in texts[: arguments.leaks]],
            "other words": [caption(clip, "detailed", rng).text for clip in clips[: arguments.leaks]],
            "clean texts": [caption(clip, "detailed", rng).text for clip in others],
        }
        for kind, lines in spoken.items():
            show(kind, told(scores(stage, encoder, [{**video, "text": line} for line in lines], folder)))


if __name__ == "__main__":
    main()
