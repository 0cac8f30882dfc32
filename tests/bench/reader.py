"""Reading frames beside other readers: `python tests/bench/reader.py [--cases 360p_h264_g12_s10 ...] [--rounds 5]`.

Every reader opens the file, finds the same evenly spread frames and resizes them to the same size; peers that do not
import are named and left out. Files are made once, with PyAV's encoders. Readers take turns, the first round is dropped,
and medians are printed: CPU milliseconds of all threads, wall milliseconds, and the ratio of CPU time to ours. "bound"
decodes only the needed packets, already in memory, and converts nothing. Run it on one core: `taskset -c 0`.
"""

import gc
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
import transformers
from common import head, make_parser, say, write_video
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from gve.container_gve import Container
from gve.index_gve import GroupDecoder
from gve.scan_gve import Table, scan
from gve.source_gve import Budget, Limits, open_source
from gve.video_gve import read_video, resize_frames, uniform_indices

SIZES = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080), "2160p": (3840, 2160)}
CODECS = {
    "h264": ("libx264", "mp4", lambda gop: {"preset": "veryfast", "g": f"{gop}", "x264-params": "scenecut=0"}),
    "hevc": ("libx265", "mp4", lambda gop: {"preset": "ultrafast", "x265-params": f"log-level=none:keyint={gop}"}),
    "vp9": ("libvpx-vp9", "webm", lambda gop: {"g": f"{gop}", "deadline": "realtime", "cpu-used": "8", "b": "2M"}),
    "av1": ("libsvtav1", "mp4", lambda gop: {"preset": "12", "svtav1-params": f"keyint={gop}"}),
}
KEPT = Path(tempfile.gettempdir()) / "gve_bench_videos"


class Case(NamedTuple):
    size: str
    codec: str
    gop: int
    seconds: int

    @property
    def name(self) -> str:
        return f"{self.size}_{self.codec}_g{self.gop}_s{self.seconds}"


_CASES = [
    *(Case(size, "h264", gop, 10) for size in ("360p", "720p", "1080p") for gop in (12, 250)),
    *(Case("720p", codec, gop, 10) for codec in ("hevc", "vp9", "av1") for gop in (12, 250)),
    *(Case("360p", "h264", 250, 600), Case("2160p", "h264", 250, 5)),
]
CASES = {case.name: case for case in _CASES}


def target(height: int, width: int) -> tuple[int, int]:
    return smart_resize(height, width, 28, 4 * 28 * 28, 200 * 28 * 28)


def make(case: Case, folder: Path) -> Path:
    """Encode the case's file, unless it is there: a textured scene that moves, with grain."""
    codec, container, options = CODECS[case.codec]
    path = folder / f"{case.name}.{container}"
    if path.exists():
        return path
    width, height = SIZES[case.size]
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (height // 4, width // 2, 3), dtype=np.uint8)
    scene = resize_frames(small[None], height * 2, width * 2)[0]
    grain = rng.integers(0, 12, (4, height, width, 3), dtype=np.uint8)

    def frame(index: int) -> np.ndarray:
        top, left = (index * 2) % height, (index * 3) % width
        return scene[top : top + height, left : left + width] // 2 + 40 + grain[index % 4]

    unfinished, options = path.with_suffix(".part"), options(case.gop)
    frames = map(frame, range(case.seconds * 30))
    write_video(str(unfinished), frames, (width, height), rate=30, codec=codec, container=container, options=options)
    unfinished.rename(path)
    return path


Reader = Callable[[Path, int], np.ndarray]


def exact(path: Path, count: int) -> np.ndarray:
    return read_video(path, count, target).frames


def sequential(path: Path, count: int) -> np.ndarray:
    """PyAV as its documentation shows it: every frame decoded, the wanted ones kept."""
    with av.open(str(path)) as source:
        total = source.streams.video[0].frames or sum(packet.size > 0 for packet in source.demux(video=0))
    wanted, kept = set(uniform_indices(total, count).tolist()), []
    with av.open(str(path)) as source:
        for index, frame in enumerate(source.decode(video=0)):
            if index in wanted:
                kept.append(frame.to_ndarray(format="rgb24"))
    return _resized(np.stack(kept))


def _resized(frames: np.ndarray) -> np.ndarray:
    return resize_frames(frames, *target(*frames.shape[1:3]))


def load_video(path: Path, count: int) -> np.ndarray:
    video, _ = transformers.video_utils.load_video(str(path), num_frames=count, backend="pyav")
    return _resized(np.asarray(video))


def torchcodec(path: Path, count: int) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC")
    indices = uniform_indices(len(decoder), count).tolist()
    return _resized(decoder.get_frames_at(indices=indices).data.numpy())


def decord(path: Path, count: int) -> np.ndarray:
    from decord import VideoReader

    reader = VideoReader(str(path), num_threads=1)
    return _resized(reader.get_batch(uniform_indices(len(reader), count)).asnumpy())


def cv2(path: Path, count: int) -> np.ndarray:
    import cv2 as opencv

    opencv.setNumThreads(1)
    capture = opencv.VideoCapture(str(path))
    total = int(capture.get(opencv.CAP_PROP_FRAME_COUNT))
    wanted, kept = set(uniform_indices(total, count).tolist()), []
    for index in range(total):
        if not capture.grab():
            break
        if index in wanted:
            kept.append(opencv.cvtColor(capture.retrieve()[1], opencv.COLOR_BGR2RGB))
    return _resized(np.stack(kept))


OURS = {"ours": exact, "ours, fast resize": lambda path, count: read_video(path, count, target, resize="fast").frames}
PEERS: dict[str, tuple[str, Reader]] = {
    "PyAV in a row": ("av", sequential),
    "transformers load_video": ("transformers", load_video),
    "torchcodec": ("torchcodec", torchcodec),
    "decord": ("decord", decord),
    "OpenCV": ("cv2", cv2),
}


def importable() -> tuple[dict[str, Reader], list[str]]:
    """Readers that import, and a line on each library."""
    readers, lines = dict(OURS), []
    for name, (module, reader) in PEERS.items():
        try:
            version = importlib.import_module(module).__version__
        except (ImportError, OSError, RuntimeError) as error:
            lines.append(f"{name}: left out ({type(error).__name__}: {str(error).splitlines()[0][:80]})")
        else:
            readers[name] = reader
            lines.append(f"{name}: {module} {version}")
    return readers, lines


class Bound:
    """Decodes the packets that a reading needs, fetched beforehand, and converts nothing."""

    def __init__(self, path: Path, count: int) -> None:
        with open_source(path, Limits()) as opened:
            self.container = Container(opened, Budget(opened.name, Limits()), quick=True)
        table: Table = scan(self.container)
        wanted = sorted(set(table.order[uniform_indices(len(table.order), count)].tolist()))
        starts = [table.ticks[key] for key in table.keys]
        self.groups: dict[int, list[int]] = {}
        for tick in wanted:
            self.groups.setdefault(table.keys[int(np.searchsorted(starts, tick, side="right")) - 1], []).append(tick)
        self.held = table.held or []

    def __call__(self, *_: object) -> None:
        decoder = GroupDecoder(self.container, lambda frame: None)
        for key, ticks in self.groups.items():
            self.container.context.flush_buffers()
            decoder.decode(self.held[key:], ticks)


def measure(path: Path, count: int, readers: dict[str, Reader], rounds: int) -> tuple[dict[str, list], list[str]]:
    """CPU and wall milliseconds of each reader, and notes on those that failed or gave other frames."""
    spent: dict[str, list[tuple[float, float]]] = {}
    notes, expected = [], exact(path, count)
    works = {**readers, "bound": Bound(path, count)}
    for name, work in list(works.items()):
        try:
            found = work(path, count)
        except Exception as error:  # a peer may raise anything
            notes.append(f"{name} fails: {type(error).__name__}: {str(error).splitlines()[0][:80]}")
            del works[name]
            continue
        if found is not None and found.shape != expected.shape:
            notes.append(f"{name} gives {found.shape[0]} frames of {found.shape[2]} x {found.shape[1]}")
        elif found is not None and (mean := float(np.abs(found.astype(int) - expected).mean())) > 0.01:
            notes.append(f"{name} differs by {mean:.1f} levels a value")
    for _ in range(rounds):
        for name, work in works.items():
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            work(path, count)
            spent.setdefault(name, []).append(((time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3))
    return spent, notes


def table(case: str, count: int, spent: dict[str, list], notes: list[str]) -> str:
    middle = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in spent.items()}
    lines = [f"### {case}, {count} frames", "", head("| | CPU ms | wall ms | CPU / ours |")]
    for name, (cpu, wall) in middle.items():
        lines.append(f"| {name} | {cpu:.1f} | {wall:.1f} | {cpu / middle['ours'][0]:.2f} |")
    return "\n".join([*lines, "", *(f"* {note}" for note in notes), ""])


def main() -> None:
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--frames", nargs="+", type=int, default=[8, 48])
    parser.add_argument("--folder", type=Path, default=KEPT, help="where the files are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    readers, lines = importable()
    say("\n".join(lines) + f"\ntorch {torch.__version__}, numpy {np.__version__}\n")
    for name in arguments.cases:
        path = make(CASES[name], arguments.folder)
        for count in arguments.frames:
            say(table(name, count, *measure(path, count, readers, arguments.rounds)))


if __name__ == "__main__":
    main()
