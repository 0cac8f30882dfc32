"""`gve serve` under load on the loopback: `python tests/bench/serve.py [--clients 64] [--seconds 300]`.

The tiny model that ships, one server process, and so many clients that each ask for one input after another: of 20
requests 12 are short texts, 3 long texts, 3 pictures, and 2 videos, of 2 s and of 60 s. The table has latencies in ms;
then come the throughput beside `encode` of the same inputs one by one and in one list, in a process of its own, and the
server's memory over the run: growth is the median of the last fifth over that of the second fifth.
"""

import asyncio
import base64
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx2
import numpy as np
from common import head, in_child, make_parser, quiet, say, write_video

sys.path.insert(0, str(Path(__file__).parents[1]))
from serving import metric, serve_process

MODEL = Path(__file__).parents[2] / "modeling_gve" / "tiny" / "checkpoint"
MIX = {"short text": 12, "long text": 3, "picture": 3, "video of 2 s": 1, "video of 60 s": 1}
KINDS = [kind for kind, share in MIX.items() for _ in range(share)]
VARIANTS = 8
WORDS = ["a", "red", "blue", "ball", "box", "moves", "left", "right"]


def inputs(folder, kind, number):
    """One of the inputs of a kind, as a row of paths."""
    draw = random.Random(f"{kind}{number}")
    if kind.endswith("text"):
        return {"text": " ".join(draw.choices(WORDS, k=6 if "short" in kind else 400))}
    name = "image" if kind == "picture" else "video"
    path = folder / f"{kind.replace(' ', '-')}-{number}.{'png' if name == 'image' else 'mp4'}"
    if not path.exists():
        from PIL import Image

        noise = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
        frames = (
            np.roll(noise, step // 5, 1).repeat(20, 0).repeat(20, 1)
            for step in range(10 * (60 if "60" in kind else 2))
        )
        if name == "image":
            Image.fromarray(next(frames)).save(path)
        else:
            write_video(str(path), frames, (320, 240), rate=10)
    return {name: str(path)}


def sent(row):
    """The row as a client sends it: the bytes of files."""
    kinds = {"image": "image/png", "video": "video/mp4"}
    return {
        kind: value
        if kind == "text"
        else f"data:{kinds[kind]};base64,{base64.b64encode(Path(value).read_bytes()).decode()}"
        for kind, value in row.items()
    }


async def client(url, bodies, until, spent, errors, number):
    draw = random.Random(number)
    async with httpx2.AsyncClient(timeout=120) as session:
        while time.monotonic() < until:
            kind = draw.choice(KINDS)
            start = time.monotonic()
            try:
                got = await session.post(
                    f"{url}/v1/embeddings",
                    content=draw.choice(bodies[kind]),
                    headers={"Content-Type": "application/json"},
                )
                if got.status_code != 200 or b'"embedding"' not in got.content:
                    errors.append(f"{got.status_code} {got.text[:200]}")
            except httpx2.HTTPError as error:
                errors.append(repr(error))
            spent[kind].append(time.monotonic() - start)


async def watch(process, until, memory):
    """Note the server's resident MiB four times a second."""
    status = Path(f"/proc/{process.pid}/status")
    while time.monotonic() < until:
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmRSS"))
        memory.append(int(line.split()[1]) / 1024)
        await asyncio.sleep(0.25)


async def load(process, url, bodies, seconds, clients):
    spent, errors, memory = {kind: [] for kind in MIX}, [], []
    until = time.monotonic() + seconds
    asking = [client(url, bodies, until, spent, errors, number) for number in range(clients)]
    await asyncio.gather(watch(process, until, memory), *asking)
    return spent, errors, memory


def serial(folder):
    """Inputs a second of `encode`, one by one and in one list."""
    import gve

    quiet()
    encoder = gve.GVESentenceTransformer(str(MODEL), device="cpu")
    draw = random.Random(0)
    rows = [inputs(Path(folder), draw.choice(KINDS), draw.randrange(VARIANTS)) for _ in range(400)]
    encoder.encode(rows[:40], show_progress_bar=False)
    start = time.monotonic()
    for row in rows:
        encoder.encode([row], show_progress_bar=False)
    single = len(rows) / (time.monotonic() - start)
    start = time.monotonic()
    encoder.encode(rows, show_progress_bar=False)
    say(json.dumps([single, len(rows) / (time.monotonic() - start)]))


def report(spent, errors, memory, seconds, counters):
    every = sorted(time for times in spent.values() for time in times)
    say(head("| input | requests | p50 | p95 | most |"))
    for kind, times in {**spent, "all": every}.items():
        cuts = statistics.quantiles(times, n=20) if len(times) > 1 else [0] * 19
        cells = [f"{value * 1e3:.0f}" for value in (cuts[9], cuts[18], max(times, default=0))]
        say(f"| {kind} | {len(times)} | {' | '.join(cells)} |")
    fifth = max(1, len(memory) // 5)
    before, after = statistics.median(memory[fifth : 2 * fifth]), statistics.median(memory[-fifth:])
    say(
        f"\n{len(every) / seconds:.0f} requests a second, {len(errors)} errors{': ' if errors else ''}{errors[:3] or ''}"
    )
    say(
        f"{counters['inputs'] / counters['batches']:.1f} inputs a batch; the model ran {counters['model']:.0%} of the time"
    )
    say(f"memory {before:.0f} -> {after:.0f} MiB ({after - before:+.0f}), at most {max(memory):.0f} MiB")


def main():
    if sys.argv[1:2] == ["--serial"]:
        serial(sys.argv[2])
        return
    options = make_parser(__doc__, clients=64, seconds=300).parse_args()
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = {
            kind: [json.dumps({"input": [sent(inputs(folder, kind, number))]}).encode() for number in range(VARIANTS)]
            for kind in MIX
        }
        (single, listed), failure = in_child(__file__, "--serial", name, env={"OMP_NUM_THREADS": "1"})
        assert failure is None, failure
        with serve_process(MODEL) as (process, url):
            found = asyncio.run(load(process, url, bodies, options.seconds, options.clients))
            with httpx2.Client(base_url=url) as session:
                lines = session.get("/metrics").text.splitlines()
                batches = sum(float(line.split()[-1]) for line in lines if line.startswith("gve_batches_total"))
                counters = {
                    "inputs": metric(session, "gve_inputs_total"),
                    "batches": batches,
                    "model": metric(session, "gve_model_seconds_total") / options.seconds,
                }
        say(f"{options.clients} clients, {options.seconds} s, load of the machine before: {busy:.1f}\n")
        report(*found, options.seconds, counters)
        say(f"`encode` on the same inputs: one by one {single:.0f}, in one list {listed:.0f} inputs a second")


if __name__ == "__main__":
    main()
