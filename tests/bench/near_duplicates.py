"""How long do near-duplicates among N videos take, in how much memory, and which planted copies are found?

    python tests/bench/near_duplicates.py --videos 1000000 [--peers]

Hashes are synthetic, eight a video. Videos come in families of 100 that share three quarters of their bits, and one in a
hundred begins with the same title card. A copy has six frames at a stated distance from its original's and two that are
others; every second one is mirrored. Peers get the first frame of each and search for it within 31 bits, without the
mirror images: an eighth to a sixteenth of the work. The gate is a shard of 256 records against as many known hashes.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import head, in_child, make_parser, peak, say

from gve.hub_datasets.vsynflow.quality.near_hashes import HashIndex, nearest_earlier

DISTANCES, COPIES, FRAMES = (0, 8, 16, 24, 31), 400, 8
CHUNK, NEAR, QUERIES = 1 << 18, 31, 2000
NAMES = ("hashes", "mirrored")


def changed(hashes, bits, rng):
    flips = np.zeros((len(hashes), 256), np.uint8)
    flips[:, :bits] = 1
    return hashes ^ np.packbits(rng.permuted(flips, axis=1), axis=1)


def opened(folder, mode="r", shape=None):
    return [np.lib.format.open_memmap(folder / f"{name}.npy", mode, np.uint8, shape) for name in NAMES]


def plant(folder, count):
    """Write hashes; returns the places of originals and copies, and their distances."""
    rng = np.random.default_rng(0)
    both = opened(folder, "w+", (count, FRAMES, 32))
    families, card = rng.integers(0, 256, (max(1, count // 100), 32), np.uint8), rng.integers(0, 256, 32, np.uint8)
    for array in both:
        for start in range(0, count, CHUNK):
            size = min(CHUNK, count - start)
            first, second = (rng.integers(0, 256, (size, FRAMES, 32), np.uint8) for _ in range(2))
            array[start : start + size] = (first & second) ^ families[rng.integers(len(families), size=size)][:, None]
        array[rng.choice(count, count // 100, replace=False), 0] = card
    planted = min(COPIES, count // 20)
    bits = np.repeat(DISTANCES, planted)
    originals = rng.choice(count // 2, len(bits), replace=False)
    copies = count // 2 + rng.choice(count - count // 2, len(bits), replace=False)
    for number, (original, copy, far) in enumerate(zip(originals, copies, bits, strict=True)):
        both[number % 2][copy, :6] = changed(both[0][original, :6], far, rng)
    return originals, copies, bits


def ours(folder):
    start = time.perf_counter()
    places, bits = nearest_earlier(*opened(folder), 6)
    seconds = time.perf_counter() - start
    np.save(folder / "found.npy", np.stack([places, bits]))
    return {"seconds": seconds, "processor": time.process_time(), "peak": peak()}


def gate(folder):
    hashes = opened(folder)[0]
    count, rng = min(len(hashes), 4_000_000), np.random.default_rng(1)
    known = np.ascontiguousarray(hashes[:count, 1])
    queries = changed(known[rng.choice(count, 2048)], NEAR, rng)
    start = time.perf_counter()
    index = HashIndex(known, thorough=True)
    index.nearest(queries[:1])
    built = time.perf_counter()
    found = index.nearest(queries)
    return {
        "built": built - start,
        "seconds": time.perf_counter() - built,
        "peak": peak(),
        "recall": (found <= 31).mean(),
    }


def peer(folder, kind):
    """Seconds to build and to search for all videos, measured on some."""
    import faiss

    faiss.omp_set_num_threads(1)
    column = np.ascontiguousarray(opened(folder)[0][:, 0])
    size, lists = max(16, len(column).bit_length() - 1), 4 * int(len(column) ** 0.5)
    makers = {
        "IndexBinaryFlat": lambda: faiss.IndexBinaryFlat(256),
        "IndexBinaryMultiHash": lambda: faiss.IndexBinaryMultiHash(256, 8, size),
        "IndexBinaryIVF": lambda: faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(256), 256, lists),
    }
    start, index = time.perf_counter(), makers[kind]()
    if kind == "IndexBinaryIVF":
        index.nprobe, index.cp.niter = 16, 5
        index.train(column[:200_000])
    index.add(column)
    built = time.perf_counter()
    some = column[:: max(1, len(column) // QUERIES)]
    index.range_search(some, NEAR + 1)
    seconds, hits = (time.perf_counter() - built) * len(column) / len(some), {}
    for bits, pairs in json.loads((folder / "straight.json").read_text()).items():
        ends, _, found = index.range_search(column[[copy for _, copy in pairs]], NEAR + 1)
        told = zip(pairs, np.split(found, ends[1:-1].astype(int)), strict=True)
        hits[bits] = float(np.mean([original in each for (original, _), each in told]))
    return {"built": built - start, "seconds": seconds, "peak": peak(), "recall": hits}


def main():
    if len(sys.argv) > 1 and sys.argv[1] in ("ours", "gate", "peer"):
        part, folder, *rest = sys.argv[1:]
        say(json.dumps(globals()[part](Path(folder), *rest)))
        return
    parser = make_parser(__doc__, videos=1_000_000)
    parser.add_argument("--peers", action="store_true", help="faiss's binary indexes too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        originals, copies, bits = plant(folder, arguments.videos)
        straight = {int(far): np.stack([originals, copies], 1)[::2][bits[::2] == far].tolist() for far in DISTANCES}
        (folder / "straight.json").write_text(json.dumps(straight))
        columns = " | ".join(f"recall at {far}" for far in DISTANCES)
        say(head(f"| {arguments.videos:,} videos | built, s | all found, s | peak, MiB | {columns} | pairs |"))
        told, error = in_child(__file__, "ours", folder)
        assert told, error
        places, found = np.load(folder / "found.npy")
        right = (places[copies] == originals) & (found[copies] == bits)
        recall = " | ".join(f"{right[bits == far].mean():.3f}" for far in DISTANCES)
        pairs = f"{(found <= NEAR).sum()} of {len(bits)}, {told['processor']:.0f} s of processor time"
        say(f"| six of eight frames | | {told['seconds']:.1f} | {told['peak']:.0f} | {recall} | {pairs} |")
        for kind in ("IndexBinaryFlat", "IndexBinaryMultiHash", "IndexBinaryIVF") if arguments.peers else ():
            told, error = in_child(__file__, "peer", folder, kind)
            recall = " | ".join(f"{each:.3f}" for each in told["recall"].values()) if told else error
            say(f"| faiss {kind} | {told['built']:.1f} | {told['seconds']:.1f} | {told['peak']:.0f} | {recall} | |")
        told, error = in_child(__file__, "gate", folder)
        assert told, error
        say(f"\nThe gate, {json.dumps({key: round(float(value), 3) for key, value in told.items()})}")


if __name__ == "__main__":
    main()
