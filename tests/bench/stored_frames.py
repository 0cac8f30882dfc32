"""What storing 8 frames of a video costs and saves: bytes a video, cosine with the source's vector, and scores.

    python tests/bench/stored_frames.py MODEL UVRB [VIDEO ...]

MODEL is a trained model folder, UVRB the rendered world's folder. For real VIDEOs bytes and pixel errors are shown too.
"""

import io
import tempfile
from functools import partial
from pathlib import Path

import common
import numpy as np
import torch
from datasets import disable_progress_bars

from gve.eval.encode import EmbeddingCache, encode_rows
from gve.eval.models import load_encoder
from gve.eval.scores import score_set
from gve.hub_datasets.uvrb import load_set
from gve.hub_datasets.uvrb.media import FrameSettings, fit_size, store_video
from gve.video_gve import read_video

SETS = ("MSRVTT", "CRB-G", "VDC-O", "PEV-K", "VDC-D", "MSRVTT-I2V", "CRB-S", "CRB-T", "LoVR-V")
SETTINGS = [
    *(FrameSettings(format=kind, quality=quality) for kind in ("jpeg", "webp") for quality in (70, 80, 90, 95)),
    FrameSettings(frames=48, format="jpeg", quality=90),
]
show = partial(common.show, 13)


def main():
    parser = common.make_parser(__doc__)
    parser.add_argument("model")
    parser.add_argument("uvrb")
    parser.add_argument("videos", nargs="*", type=Path)
    arguments = parser.parse_args()
    disable_progress_bars()
    torch.set_num_threads(1)
    real(arguments.videos)
    world(arguments.model, arguments.uvrb)


def real(paths):
    """Bytes and errors of pixels of real videos."""
    show("video", "size", "setting", "kB a video", "of source", "mean error", "PSNR dB")
    for path in paths:
        source = read_video(path, 8, fit_size).frames.astype(np.float32)
        for settings in SETTINGS:
            stored = store_video(path, settings)
            error = ["-", "-"]
            if settings.frames == 8:
                difference = read_video(stored.content, 8).frames.astype(np.float32) - source
                error = [f"{np.abs(difference).mean():.2f}", f"{10 * np.log10(255**2 / (difference**2).mean()):.1f}"]
            size, (height, width) = len(stored.content), source.shape[1:3]
            sizes = f"{size / 1e3:.1f}", f"{size / path.stat().st_size:.3f}"
            show(path.name, f"{width}x{height}", label(settings), *sizes, *error)


def label(settings):
    return f"{settings.frames} {settings.format} {settings.quality}"


def world(model, folder):
    """Vectors and scores of the world's videos, stored and not."""
    encoder, loaded = load_encoder(model), [load_set(folder, name, "unseen") for name in SETS]
    kept = EmbeddingCache()
    queries = {
        data.task.name: encode_rows(encoder, data.queries, role="query", instruction=data.task.instruction, cache=kept)
        for data in loaded
    }
    source = {data.task.name: encode_rows(encoder, data.corpus, role="document", cache=kept) for data in loaded}
    base = {data.task.name: score_set(data, queries[data.task.name], source[data.task.name]) for data in loaded}
    show("setting", "bytes a video", "mean cosine", "least cosine", "mean score", *SETS)
    show("source", "", "", "", f"{mean(base):.4f}", *(f"{base[name]['score']:.3f}" for name in SETS))
    for settings in SETTINGS:
        kept, scores, cosines, sizes, memory = EmbeddingCache(), {}, [], [], {}
        for data in loaded:
            rows = [{"video": stored(row["video"]["bytes"], settings, memory)} for row in data.corpus]
            sizes += [len(row["video"].getvalue()) for row in rows]
            vectors = encode_rows(encoder, rows, role="document", cache=kept)
            cosines.append((vectors * source[data.task.name]).sum(axis=1))
            scores[data.task.name] = score_set(data, queries[data.task.name], vectors)
        flat = np.concatenate(cosines)
        changes = [f"{scores[name]['score'] - base[name]['score']:+.3f}" for name in SETS]
        numbers = f"{np.mean(sizes):.0f}", f"{flat.mean():.5f}", f"{flat.min():.5f}", f"{mean(scores):.4f}"
        show(label(settings), *numbers, *changes)


def stored(content, settings, memory):
    """A video through the disk and back."""
    if content not in memory:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "video.mp4"
            path.write_bytes(content)
            memory[content] = store_video(path, settings).content
    return io.BytesIO(memory[content])


def mean(scores):
    return np.mean([entry["score"] for entry in scores.values()])


if __name__ == "__main__":
    main()
