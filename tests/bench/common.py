"""What the benchmarks share: arguments, output, times, memory, child processes and videos made for one run."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path


def make_parser(doc, **numbers):
    """A parser that prints the script's docstring as its help; every number becomes an option with that default."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    return parser


def say(line):
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def show(width, *cells):
    """Print the cells of a row at once, each padded to the width."""
    say("  ".join(f"{cell!s:<{width}}" for cell in cells).rstrip())


def head(titles):
    """The first two lines of a Markdown table."""
    return f"{titles}\n|{'---|' * (titles.count('|') - 1)}"


def milliseconds(call, rounds, clock=time.process_time):
    """Median time of a call."""
    spent = []
    for _ in range(rounds):
        start = clock()
        call()
        spent.append((clock() - start) * 1e3)
    return statistics.median(spent)


def resident(name):
    """MiB of memory now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def reset_peak():
    """Forget the highest VmHWM so far."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak():
    """MiB that this process has held at most since it began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_child(script, *arguments, env=None):
    """Run a script in a process of its own: (the JSON in its last line, None), or (None, why it failed)."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | (env or {}), capture_output=True, text=True)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
    return json.loads(done.stdout.splitlines()[-1]), None


def write_video(file, frames, size, *, rate, codec="libx264", container="mp4", options=None):
    """Encode frames (H, W, 3) uint8 as yuv420p; `size` is (width, height)."""
    import av
    import numpy as np

    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        output.mux(stream.encode())


def quiet():
    """No progress bars, no advice of the libraries."""
    from datasets import disable_progress_bars
    from transformers.utils import logging

    disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def save_fixed(folder, model, processor, side):
    """Save an embedder whose frames all have side x side pixels."""
    from gve import save_embedder

    for settings in (processor.video_processor, processor.image_processor):
        settings.size = {"shortest_edge": side**2, "longest_edge": side**2}
    save_embedder(folder, model, processor)
