"""The parts that read files: whole runs of encoding, and decoding on the device against decoding on the CPU."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from encode import by_load_video, make_files
from sentence_transformers import SentenceTransformer

from gpu_parts.setting import FRAMES, Row, Setting, linear_work
from gve.encoding.frame_cache import FrameCache
from gve.encoding.prefetching import EncodeStatistics, usable_cpus
from gve.video_gve import read_video, uniform_indices

BATCH = 32
PRIMARY_CONTEXT = 1
"""FFmpeg's AV_CUDA_USE_PRIMARY_CONTEXT: the context that torch has, instead of a new one for each file."""
STOCK_FILES, STOCK_FRAMES = 32, 16
"""Files for the slower ways."""


def paths_of(setting: Setting) -> list[Path]:
    """H.264 of 10 s in 1280 x 720."""
    few = {"count": 6, "size": "360p", "seconds": 1} if setting.tiny else {"count": 96}
    return make_files(setting.folder / "files", **few)


def ours(setting: Setting, way: str, paths: list[str]) -> tuple[Row, np.ndarray]:
    """A run by our wrapper: the row, and the vectors."""
    encoder, spent = setting.encoder(), EncodeStatistics()
    vectors = encoder.encode(paths, batch_size=BATCH, statistics=spent)
    plans = encoder.processor.plan(paths)
    tokens, patches = sum(plan.tokens for plan in plans), sum(plan.vision for plan in plans) * 4
    work = linear_work(encoder.transformers_model, tokens, patches)
    row = {"way": f"{way}, {len(paths)} files", "rate": round(len(paths) / spent.seconds, 1)}
    row |= {"share": setting.share(work, spent.seconds), "idle": round(spent.idle, 3), "batches": spent.batches}
    return row | {name: round(getattr(spent, name), 2) for name in ("seconds", "waiting", "model")}, vectors


def stock(way: str, encode: Callable[[], np.ndarray], count: int, expected: np.ndarray) -> Row:
    """A run by sentence-transformers."""
    start = time.perf_counter()
    vectors = encode()
    seconds = time.perf_counter() - start
    cosine = float((vectors * expected[:count]).sum(-1).min())
    row = {"way": f"{way}, {count} files", "rate": round(count / seconds, 1), "seconds": round(seconds, 2)}
    return row | {"least cosine to ours": round(cosine, 4)}


def files(setting: Setting) -> Iterator[Row]:
    """From files to vectors: ours, with frames from the cache, with compiled layers, and sentence-transformers."""
    sources = paths_of(setting)
    paths = [str(path) for path in sources]
    encoder = setting.encoder()
    encoder.encode(paths[:BATCH], batch_size=BATCH)
    setting.deadline.check()
    row, vectors = ours(setting, "ours", paths)
    yield row
    setting.deadline.check()
    encoder.frame_cache = FrameCache(setting.folder / "frames")
    encoder.encode(paths, batch_size=BATCH)
    yield ours(setting, "ours, cached frames", paths)[0]
    encoder.frame_cache = None
    setting.deadline.check()
    with setting.compiled(encoder.transformers_model):
        encoder.encode(paths[:BATCH], batch_size=BATCH)
        setting.deadline.check()
        yield ours(setting, "ours, compiled", paths)[0]
    setting.deadline.check()
    rival = setting.wrapped(setting.encoder(stock=True).transformers_model, SentenceTransformer)
    rival.encode(paths[:4], batch_size=BATCH)
    setting.deadline.check()
    some = paths[:STOCK_FILES]
    reader = partial(rival.encode, some, batch_size=BATCH)
    yield stock("SentenceTransformer.encode, stock model, our reader", reader, len(some), vectors)
    setting.deadline.check()
    few = sources[: 2 if setting.tiny else STOCK_FRAMES]
    frames = partial(by_load_video(rival), few)
    yield stock("SentenceTransformer.encode, stock model, transformers' frames", frames, len(few), vectors)


# -- decoding ---------------------------------------------------------------------------------------------------------


def hardware() -> HWAccel:
    return HWAccel("cuda", flags=PRIMARY_CONTEXT)


def decode_all(path: Path, accelerator: Callable[[], HWAccel] | None) -> int:
    """Frames of a file, read in order and brought to the CPU, those of a sample turned into RGB."""
    with av.open(str(path), hwaccel=accelerator and accelerator()) as source:
        wanted = set(uniform_indices(source.streams.video[0].frames, FRAMES).tolist())
        count = 0
        for frame in source.decode(video=0):
            if count in wanted:
                frame.to_ndarray(format="rgb24")
            count += 1
    return count


def decode_sparse(path: Path, accelerator: Callable[[], HWAccel] | None) -> int:
    """Eight frames, each sought by its time."""
    with av.open(str(path), hwaccel=accelerator and accelerator()) as source:
        stream = source.streams.video[0]
        step = int(1 / (stream.average_rate * stream.time_base))
        places = uniform_indices(stream.frames, FRAMES).tolist()
        for place in places:
            source.seek(place * step, stream=stream)
            frame = next(frame for frame in source.decode(stream) if frame.pts >= place * step)
            frame.to_ndarray(format="rgb24")
    return len(places)


def decoded(setting: Setting, way: str, read: Callable[[Path], object], paths: list[Path]) -> Row:
    """Files decoded by as many threads as there are processors."""
    workers = min(usable_cpus(), len(paths))
    with ThreadPoolExecutor(workers) as pool:
        seconds = setting.timed(lambda: list(pool.map(read, paths)), 3)
    alone = setting.timed(lambda: read(paths[-1]), 3)
    numbers = {"ms": round(alone * 1e3, 1), "rate": round(len(paths) / seconds, 1), "threads": workers}
    return {"way": f"{way}, {len(paths)} files"} | numbers


def nvdec(setting: Setting) -> Iterator[Row]:
    """PyAV's decoder on the device against the CPU: eight sparse frames, and every frame in order."""
    paths = paths_of(setting)[:2] if setting.tiny else paths_of(setting)[:16]
    yield decoded(setting, "CPU, our reader, 8 frames", lambda path: read_video(path, FRAMES), paths)
    yield decoded(setting, "CPU, PyAV, 8 frames", lambda path: decode_sparse(path, None), paths)
    yield decoded(setting, "CPU, PyAV, every frame", lambda path: decode_all(path, None), paths)
    try:
        decode_all(paths[0], hardware)
    except Exception as error:  # the driver's libraries, the codec or the session may be missing
        yield {"way": "NVDEC", "skipped": f"it does not open: {type(error).__name__}: {error}"}
        return
    yield decoded(setting, "NVDEC, PyAV, 8 frames", lambda path: decode_sparse(path, hardware), paths)
    yield decoded(setting, "NVDEC, PyAV, every frame", lambda path: decode_all(path, hardware), paths)
