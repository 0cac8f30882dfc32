"""Wrong titles that the consistency filter finds with a real encoder, by what is wrong in them.

    python tests/bench/consistency.py --model FOLDER [--videos 1000] [--wrong 0.3] [--seed 0] [--json]

Each video is a two-second clip with a weak title like those of the raw corpus. A share of the titles name another
colour, shape, scene or action, or describe another clip; where the mistake does not show, the title is drawn again. The
filter rejects the lowest fifth and everything below a floor: the lowest twentieth of correct titles of another seed.
`auc` is the chance that a wrong title scores below a correct one.
"""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import make_parser, say

from gve.eval.models import load_encoder
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.quality.consistency import Consistency, Similarity
from gve.hub_datasets.vsynflow.quality.measure import measure
from gve.hub_datasets.vsynflow.records import make_record
from gve.hub_datasets.vsynflow.stages import Context, Kept
from gve.hub_datasets.world.raw import weak_title
from gve.hub_datasets.world.rows import stream
from gve.hub_datasets.world.spec import COLORS, SCENES, SHAPES, choice, sample_action, sample_clip
from gve.hub_datasets.world.video import video_bytes

KINDS = ("colour", "shape", "scene", "action", "unrelated")
SHARE, LOWEST = 0.2, 0.05


def mistaken(clip, kind, rng):
    """What the writer of a wrong title thinks that the clip shows."""
    if kind == "unrelated":
        return sample_clip(rng, "seen")
    if kind == "scene":
        return replace(clip, scene=choice(rng, [scene for scene in SCENES if scene != clip.scene]))
    if kind == "action":
        events = []
        for index, action in clip.events:
            while (new := sample_action(rng, "seen", clip.things[index].shape)) == action:
                pass
            events.append((index, new))
        return replace(clip, events=tuple(events))
    name, values = ("color", tuple(COLORS)) if kind == "colour" else ("shape", SHAPES)
    taken = {getattr(thing, name) for thing in clip.things}
    new = [choice(rng, [value for value in values if value not in taken]) for _ in clip.things]
    things = (replace(thing, **{name: value}) for thing, value in zip(clip.things, new, strict=True))
    return replace(clip, things=tuple(things))


def titled(clip, kind, seed, number):
    """A weak title, and for a wrong one the first draw in which the mistake shows."""
    for attempt in range(1000):
        rng = stream(seed, "consistency", number, attempt)
        if kind == "correct":
            return weak_title(clip, rng)
        other = mistaken(clip, kind, rng)
        state = rng.bit_generator.state
        title = weak_title(other, rng)
        rng.bit_generator.state = state
        if title != weak_title(clip, rng):
            return title
    raise RuntimeError(f"no title of {clip} shows a wrong {kind}")


def corpus(folder, count, wrong, seed):
    """Records and the kind of their titles."""
    for number in range(count):
        rng = stream(seed, "consistency", number)
        clip = sample_clip(rng, "seen")
        kind = choice(rng, KINDS) if rng.random() < wrong else "correct"
        path = folder / f"{seed}-{number}.mp4"
        path.write_bytes(video_bytes((clip,)))
        record = make_record(path.stem, str(path), titled(clip, kind, seed, number), source="world", licence="CC0-1.0")
        yield {**record, "duration": measure(record["video"])["duration"]}, kind


def scored(encoder, count, wrong, seed):
    """Records with their similarity, and the kinds of their titles."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        records, kinds = zip(*corpus(folder, count, wrong, seed), strict=True)
        context = Context(folder, "bench", Journal(folder / "journal"), encoder=encoder)
        outcomes = Similarity("bench").run(records, context)
    assert all(isinstance(outcome, Kept) for outcome in outcomes)
    return [{**row, **outcome.columns} for row, outcome in zip(records, outcomes, strict=True)], np.array(kinds)


def report(records, kinds, floor):
    """Rows of the table: a kind, its titles, its AUC, and the shares refused by quantile, floor and both."""
    scores = np.array([row["similarity"] for row in records])
    stages = {"quantile": Consistency(SHARE), "floor": Consistency(0.0, floor), "both": Consistency(SHARE, floor)}
    ranks = [outcome.columns for outcome in stages["both"].run(records, None)]
    refused = {
        name: np.array([stage.judge({**row, **rank}) is not None for row, rank in zip(records, ranks, strict=True)])
        for name, stage in stages.items()
    }
    wrong, correct = kinds != "correct", scores[kinds == "correct"]
    rows = []
    for kind in (*KINDS, "any", "correct"):
        chosen = wrong if kind == "any" else kinds == kind
        low, high = scores[chosen, None], correct[None]
        auc = None if kind == "correct" else round(float((low < high).mean() + 0.5 * (low == high).mean()), 3)
        shares = {name: round(float(gone[chosen].mean()), 3) for name, gone in refused.items()}
        rows.append({"title": kind, "videos": int(chosen.sum()), "auc": auc, **shares})
    precision = {name: round(float(wrong[gone].mean()), 3) if gone.any() else None for name, gone in refused.items()}
    return {"rows": rows, "precision": precision, "floor": round(floor, 4), "wrong": round(float(wrong.mean()), 3)}


def main():
    parser = make_parser(__doc__, videos=1000, wrong=0.3, seed=0)
    parser.add_argument("--model", required=True, help="folder or Hub name of an embedder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    encoder = load_encoder(given.model)
    records, _ = scored(encoder, max(given.videos // 5, 50), 0.0, given.seed + 1)
    floor = float(np.quantile([row["similarity"] for row in records], LOWEST))
    found = report(*scored(encoder, given.videos, given.wrong, given.seed), floor)
    if given.json:
        say(json.dumps(found))
        return
    say("| title | videos | AUC | lowest fifth | floor | both |\n| --- | --- | --- | --- | --- | --- |")
    for row in found["rows"]:
        say(f"| {' | '.join('' if cell is None else str(cell) for cell in row.values())} |")
    say(f"| precision | | | {' | '.join(map(str, found['precision'].values()))} |\nfloor {found['floor']}")


if __name__ == "__main__":
    main()
