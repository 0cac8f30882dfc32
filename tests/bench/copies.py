"""How many planted copies does `gve duplicates` find, of each kind, and how many false alarms does the world give?

Every clip of the world is rendered for 8 seconds, and a copy of each kind lies beside it. Hashes alone judge a folder;
an index of windows adds vectors. Found: the copy stands in the group of its clip. A false alarm joins two clips. Retakes
(another texture) and twins (one thing changed) are near-identical by construction, and counted by themselves.
"""

import json
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from common import head, make_parser, say
from PIL import Image

from gve.eval.copies.suggestions import REMOVE, find_copies
from gve.eval.index.building import add
from gve.eval.index.rows import Levels
from gve.eval.index.table import Index
from gve.eval.models import load_encoder, model_fingerprint
from gve.hub_datasets.world.render import frame_times, render
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.variants import GROUPED_KINDS, group, retake
from gve.video_gve import read_video
from gve.video_writer import encode_mp4

FPS, SECONDS = 8, 8
SUB = (2.4, 5.6)  # seconds of the sub-clip


def cut(frames, share, left=0.5, top=0.5):
    side = frames[0].shape[0]
    kept = round(side * (1 - share)) // 2 * 2
    x, y = (round((side - kept) * where) for where in (left, top))
    return [frame[y : y + kept, x : x + kept] for frame in frames]


def resized(frames, side):
    return [np.asarray(Image.fromarray(frame).resize((side, side))) for frame in frames]


KINDS = {
    "exact": None,
    "re-encoded (crf 32)": lambda frames, side: encode_mp4(frames, FPS, crf=32),
    "half size": lambda frames, side: encode_mp4(resized(frames, side // 2), FPS, crf=23),
    "letterboxed": lambda frames, side: encode_mp4(
        [np.pad(frame, ((side // 8, side // 8), (0, 0), (0, 0))) for frame in frames], FPS, crf=23
    ),
    "cropped by 8 %": lambda frames, side: encode_mp4(cut(frames, 0.08), FPS, crf=23),
    "cropped by 15 %": lambda frames, side: encode_mp4(cut(frames, 0.15), FPS, crf=23),
    "cropped by 15 %, off centre": lambda frames, side: encode_mp4(cut(frames, 0.15, 0.0, 0.8), FPS, crf=23),
    "mirrored": lambda frames, side: encode_mp4([frame[:, ::-1] for frame in frames], FPS, crf=23),
    "sub-clip (40 %)": lambda frames, side: encode_mp4(frames[round(SUB[0] * FPS) : round(SUB[1] * FPS)], FPS, crf=23),
    "speed x1.25": lambda frames, side: encode_mp4(frames, round(FPS * 1.25), crf=23),
}


def write_clip(path, clip, side):
    path.write_bytes(encode_mp4(render(clip, frame_times(FPS * SECONDS), size=side), FPS))


def plant(folder, clips, side):
    """A file of each clip, and one of each kind of copy; names begin with the clip's number."""
    for number, clip in enumerate(clips):
        original = folder / f"{number:04d}.mp4"
        write_clip(original, clip, side)
        frames = list(read_video(original, FPS * SECONDS).frames)
        for place, make in enumerate(KINDS.values()):
            content = original.read_bytes() if make is None else make(frames, side)
            (folder / f"{number:04d}-{place}.mp4").write_bytes(content)


def clip_of(track):
    return Path(track.path).stem[:4]


def judge(findings):
    """Copies by kind that stand in a group with their clip, those suggested for removal, errors in s, false alarms."""
    found, removed = defaultdict(set), defaultdict(set)
    errors, false = [], 0
    for one in findings.groups:
        tracks = [one.keep, *(told.track for told in one.suggestions)]
        originals = {clip_of(track) for track in tracks if "-" not in Path(track.path).stem}
        for track, told in zip(tracks, [None, *one.suggestions], strict=True):
            false += told is not None and clip_of(track) != clip_of(told.of)
            name, _, place = Path(track.path).stem.partition("-")
            if not place or name not in originals:
                continue
            kind = list(KINDS)[int(place)]
            found[kind].add(name)
            removed[kind] |= {name} if told and told.verdict == REMOVE else set()
            if told and kind.startswith("sub") and told.kind == "partial":
                span = told.copy.spans[0]
                errors.append(abs((span.other_start if told.first else span.start) - round(SUB[0] * FPS) / FPS))
    return found, removed, errors, false


def near_identical(folder, clips, side, rng):
    """Pairs reported among clips and their retakes, and among twins of each kind."""
    told = {}
    for name in ("retake", *GROUPED_KINDS):
        place = folder / name
        place.mkdir()
        for number, clip in enumerate(clips):
            made = [clip, retake(clip, rng)] if name == "retake" else group(name, rng, "seen")[:2]
            for part, one in enumerate(made):
                write_clip(place / f"{number:04d}{part}.mp4", one, side)
        found = find_copies(sorted(place.iterdir()), least=2.0)
        verdicts = Counter(one.verdict for each in found.groups for one in each.suggestions)
        told[name] = {"pairs": len(clips), **verdicts}
    return told


def main():
    parser = make_parser(__doc__, clips=100, side=96, others=400, near=40)
    parser.add_argument("--model", default="modeling_gve/tiny/checkpoint")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "media"
        folder.mkdir()
        clips = [sample_clip(rng, "seen") for _ in range(arguments.clips + arguments.others)]
        plant(folder, clips[: arguments.clips], arguments.side)
        for number in range(arguments.clips, len(clips)):
            write_clip(folder / f"{number:04d}.mp4", clips[number], arguments.side)
        paths = sorted(folder.iterdir())
        begun = time.perf_counter()
        by_hashes = judge(find_copies(paths, least=2.0))
        hashing = time.perf_counter() - begun
        where = str(Path(name) / "index")
        fingerprint = model_fingerprint(arguments.model)
        encoder = load_encoder(arguments.model)
        levels = Levels(window=4.0, stride=2.0)
        add(
            where,
            [str(folder)],
            encoder,
            model=arguments.model,
            fingerprint=fingerprint,
            levels=levels,
        )
        begun = time.perf_counter()
        by_both = judge(find_copies(paths, least=2.0, index=Index.open(where)))
        both = time.perf_counter() - begun
        say(head("| copy | found in a folder | found in an index | suggested for removal |"))
        for kind in KINDS:
            shares = [len(each[kind]) / arguments.clips for each in (by_hashes[0], by_both[0], by_hashes[1])]
            say(f"| {kind} | {' | '.join(f'{share:.2f}' for share in shares)} |")
        spent = [round(hashing, 1), round(both, 1)]
        result = {"files": len(paths), "false alarms": [by_hashes[3], by_both[3]], "seconds": spent}
        say(json.dumps({**result, "median error of a sub-clip's start, s": round(float(np.median(by_hashes[2])), 3)}))
        say(json.dumps({"near-identical": near_identical(Path(name), clips[: arguments.near], arguments.side, rng)}))


if __name__ == "__main__":
    main()
