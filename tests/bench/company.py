"""The demo's training and encoding beside another program: `python tests/bench/company.py`.

Steps of the demo's pre-training (48 clips each, drawn by a worker meanwhile) and videos a second of `encode` with the
model that ships, alone and with a busy loop for each core that `--taken` names; with fixed numbers of torch's threads, with
two that wait passively (OMP_WAIT_POLICY), and with `CoreShare`, which chooses by itself. Each cell is a process of its own.
"""

import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

from common import head, in_child, make_parser, quiet, say

WAYS = {"1 thread": 1, "2 threads": 2, "4 threads": 4, "2, passive": 2, "by itself": None}
VIDEOS = 40
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}


def spin():
    """Hold a core."""
    while True:
        pass


def steps_a_second(seconds):
    """Of the demo's pre-training."""
    from gve import build_tiny
    from gve.hub_datasets.world.texts import training_texts
    from gve.trainers.demo.pretraining import Course, pretrain

    model, processor = build_tiny(training_texts(0, 2000), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        learnt = pretrain(model, processor, Course(Path(folder), 1 << 20, seconds, 0), lambda _: None)
    return learnt.lessons / seconds


def videos_a_second(seconds, folder):
    """Of `encode`."""
    import gve

    paths = sorted(map(str, (Path(folder) / "videos").glob("*.mp4")))
    model = gve.load_demo()
    model.encode(paths[:8])
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += len(model.encode(paths * 8))
    return count / (time.perf_counter() - start)


def measure(work, way, seconds, folder):
    """In a child: one number as JSON."""
    import torch

    from gve.encoding.cores import CoreShare

    quiet()
    if WAYS[way] is not None:
        torch.set_num_threads(WAYS[way])
        CoreShare.adjust = lambda _: WAYS[way]
    value = steps_a_second(seconds) if work == "train" else videos_a_second(seconds, folder)
    say(json.dumps(value))


def main():
    """One table."""
    parser = make_parser(__doc__, seconds=30.0, taken=1)
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS), help="ways to choose threads")
    parser.add_argument("--work", nargs="+", choices=["train", "encode"], default=["train", "encode"])
    parser.add_argument("--child", nargs=3, help="for the processes that it starts")
    arguments = parser.parse_args()
    if arguments.child:
        work, way, folder = arguments.child
        measure(work, way, arguments.seconds, folder)
        return
    from gve.hub_datasets.world.raw import write_raw_videos

    say(head("| work | threads | alone | beside | kept |"))
    with tempfile.TemporaryDirectory() as folder:
        write_raw_videos(Path(folder), VIDEOS, 0, 0, VIDEOS)
        for work, way in itertools.product(arguments.work, arguments.only):
            rates = []
            for taken in (0, arguments.taken):
                loops = [multiprocessing.Process(target=spin, daemon=True) for _ in range(taken)]
                for loop in loops:
                    loop.start()
                call = (__file__, "--seconds", arguments.seconds, "--child", work, way, folder)
                rate, why = in_child(*call, env=PASSIVE if "passive" in way else None)
                for loop in loops:
                    loop.kill()
                if why:
                    sys.exit(f"{work}, {way}: {why}")
                rates.append(rate)
            say(f"| {work} | {way} | {rates[0]:.2f} | {rates[1]:.2f} | {rates[1] / rates[0]:.2f} |")


if __name__ == "__main__":
    main()
