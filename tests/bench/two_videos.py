"""Why a model fails on videos by videos: `python tests/bench/two_videos.py --model FOLDER`; the demo's model by default.

LoVR-C2V: R@1 by the place of the clip in its long video, beside two bounds that need no long video, from vectors of its
clips (their mean, the best of them), and what exact lists of attributes would reach if they did not say which belong
together. MS-TV: precision by what the words change, and how the wrong choices differ from the target. Last, what a linear
probe reads off the vectors: share of the variance explained of what a clip shows, and of how often a long video shows it.
"""

from collections import Counter
from functools import partial

import numpy as np
import torch
from common import head, make_parser, quiet, say

from gve.eval.encode import encode_rows
from gve.hub_datasets.world.attributes import ATTRIBUTES, MOVING, clip_labels
from gve.hub_datasets.world.rows import Side, stream
from gve.hub_datasets.world.sets import Sizes, build_sets
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.variants import MODIFICATIONS
from gve.hub_datasets.world.video import LONG_CLIPS

POOL, RIDGE = 64, 3.0
FIELDS = ("things", "scene", "camera", "events")


def rate(scores, own):
    """(Q,) probability that a query's own candidate comes first in its pool of POOL, ties drawn by lot; scores (Q, N)."""
    found = []
    for start in range(0, len(own), POOL):
        pool = scores[start : start + POOL, start : start + POOL]
        right = pool[np.arange(POOL), own[start : start + POOL] - start, None]
        found += list((pool <= right).all(1) / (pool == right).sum(1))
    return np.array(found)


def embed(model, sides, instruction=None):
    """(N, D) vectors of sides: of queries if there is an instruction, else of documents."""
    role = "document" if instruction is None else "query"
    rows = [side.render() for side in sides]
    with torch.inference_mode():
        return encode_rows(model, rows, role=role, instruction=instruction, progress=False)


def clip_to_long(encode, sets):
    """The table of LoVR-C2V."""
    task, longs = sets["LoVR-C2V"], list(sets["LoVR-C2V"].corpus.values())
    asked = [side.clips[0] for side in task.queries.values()]
    own, place = np.arange(len(longs)), np.array([clips.index(clip) for clips, clip in zip(longs, asked, strict=True)])
    queries = encode(list(task.queries.values()), task.task.instruction)
    found = rate(queries @ encode([Side(clips=clips) for clips in longs]).T, own)
    single = encode([Side(clips=(clip,)) for clips in longs for clip in clips]).reshape(
        len(longs), -1, queries.shape[1]
    )
    mean = single.mean(1) / np.linalg.norm(single.mean(1), axis=1, keepdims=True)
    say(head("| long videos by | R@1 |"))
    say(f"| their vector | {found.mean():.3f} |")
    for index in range(single.shape[1]):
        say(f"| their vector, clip {index + 1} of it asked | {found[place == index].mean():.3f} |")
    say(f"| mean of their clips' vectors | {rate(queries @ mean.T, own).mean():.3f} |")
    say(f"| best of their clips' vectors | {rate(np.einsum('qd,nkd->qnk', queries, single).max(2), own).mean():.3f} |")
    shown = np.array([[clip_labels(clip) for clip in clips] for clips in longs])  # (N, 4, A)
    hits = (shown[None] == np.array([clip_labels(clip) for clip in asked])[:, None, None]).any(2)  # (Q, N, A)
    still = [name not in MOVING for name in ATTRIBUTES]
    say(f"| lists of what single frames show | {rate(hits[..., still].sum(2), own).mean():.3f} |")
    say(f"| lists of all attributes | {rate(hits.sum(2), own).mean():.3f} |")


def modified_clips(encode, sets):
    """The table of MS-TV."""
    task, right, wrong = (
        sets["MS-TV"],
        {kind: [] for kind in MODIFICATIONS},
        {kind: Counter() for kind in MODIFICATIONS},
    )
    vectors = dict(zip(task.corpus, encode([Side(clips=clips) for clips in task.corpus.values()]), strict=True))
    queries = encode(list(task.queries.values()), task.task.instruction)
    for number, (name, query) in enumerate(zip(task.queries, queries, strict=True)):
        kind, (answer,) = MODIFICATIONS[number % len(MODIFICATIONS)], task.positives[name]
        chosen = max(task.pools[name], key=lambda one: vectors[one] @ query)
        right[kind].append(chosen == answer)
        if chosen != answer:
            target, other = task.corpus[answer][0], task.corpus[chosen][0]
            differs = [field for field in FIELDS if getattr(target, field) != getattr(other, field)]
            wrong[kind]["another clip" if len(differs) > 2 else " and ".join(differs)] += 1
    say(head("| words change | P@1 | the clip chosen instead differs from the target in |"))
    for kind in MODIFICATIONS:
        listed = ", ".join(f"{what} ({count})" for what, count in wrong[kind].most_common(4))
        say(f"| {kind} | {np.mean(right[kind]):.3f} | {listed} |")


def explained(vectors, shown):
    """By attribute the share of variance that ridge regression explains of (N, K, A) labels, on the last quarter of N."""
    train = len(vectors) * 3 // 4
    inputs = np.hstack([np.sqrt(vectors.shape[1]) * (vectors - vectors[:train].mean(0)), np.ones((len(vectors), 1))])
    shares = []
    for place, options in enumerate(ATTRIBUTES.values()):
        counts = np.stack([(shown[..., place] == one).mean(1) for one in range(len(options))], axis=1)  # (N, options)
        normal = inputs[:train].T @ inputs[:train] + RIDGE * np.eye(inputs.shape[1])
        left = counts[train:] - inputs[train:] @ np.linalg.solve(normal, inputs[:train].T @ counts[:train])
        shares.append(1 - (left**2).sum() / ((counts[train:] - counts[:train].mean(0)) ** 2).sum())
    return shares


def linear_probe(encode, longs):
    """The table of what vectors hold."""
    rng = stream(77, "probe")
    groups = [tuple(sample_clip(rng, "seen") for _ in range(LONG_CLIPS)) for _ in range(longs)]
    shown = np.array([[clip_labels(clip) for clip in clips] for clips in groups])  # (N, 4, A)
    of_longs = explained(encode([Side(clips=clips) for clips in groups]), shown)
    of_clips = explained(encode([Side(clips=clips[:1]) for clips in groups]), shown[:, :1])
    say(head("| attribute | single clips | long videos |"))
    for name, single, several in zip(ATTRIBUTES, of_clips, of_longs, strict=True):
        say(f"| {name} | {single:.2f} | {several:.2f} |")


def main():
    """Print the tables."""
    arguments = make_parser(__doc__, model="", longs=192, composed=96, probed=1600).parse_args()
    quiet()
    import gve
    from gve.eval.models import load_encoder

    model = load_encoder(arguments.model) if arguments.model else gve.load_demo()
    sets = build_sets("unseen", 77, Sizes(longs=arguments.longs // POOL * POOL, composed=arguments.composed))
    encode = partial(embed, model)
    clip_to_long(encode, sets)
    modified_clips(encode, sets)
    linear_probe(encode, arguments.probed)


if __name__ == "__main__":
    main()
