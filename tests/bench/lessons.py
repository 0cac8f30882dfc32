"""What the demo's pre-training teaches, by learning rate: `python tests/bench/lessons.py --rates 0.6 1 2.5 --lessons 1200`.

Rates are factors of the demo's; `--temperatures` does the same for finding the long video that holds a clip. Scores are on
unseen combinations, before any pairs: the order of events among four clips that differ in nothing else (CRB-T), the long
video of a clip among 64 (LoVR-C2V), and the share of clips whose attribute is told right. 1,200 lessons take ten minutes
on one thread.
"""

import math
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import torch
from common import head, make_parser, quiet, say
from two_videos import POOL, embed, rate

from gve.eval.models import load_encoder
from gve.hub_datasets.uvrb import instructions
from gve.hub_datasets.world.rows import Side
from gve.hub_datasets.world.sets import Sizes, build_sets
from gve.hub_datasets.world.texts import training_texts
from gve.hub_datasets.world.variants import GROUP_SIZE
from gve.sentence_gve import save_embedder
from gve.tiny import build_tiny
from gve.trainers.demo import pretraining
from gve.trainers.demo.learning import pick_dtype
from gve.trainers.demo.pretraining import LONG_TEMPERATURE, Course

TOLD = ("first_actor", "second_actor", "first_action", "second_action")
SIZES = Sizes(base=8, groups=120, programs=4, themes=4, longs=3 * POOL, composed=4)


def found(encoder, task):
    """(Q, N) cosines of a set's queries and corpus."""
    queries = embed(encoder, task.queries.values(), task.task.instruction)
    return queries @ embed(encoder, [Side(clips=clips) for clips in task.corpus.values()]).T


def order_in_groups(scores):
    """Share of queries whose own clip comes first among those of its group."""
    own = np.arange(len(scores))
    groups = (own // GROUP_SIZE * GROUP_SIZE)[:, None] + np.arange(GROUP_SIZE)
    return (groups[own, scores[own[:, None], groups].argmax(1)] == own).mean()


def teach(folder, lessons, factor):
    """Train a fresh model with `lessons` lessons; returns what it tells right."""
    model, processor = build_tiny(training_texts(0, 20000), seed=0)
    model = model.to(pick_dtype())
    model.set_attn_implementation("eager")
    learnt = pretraining.pretrain(model, processor, Course(folder / "course", lessons, math.inf, 0, rate=factor), say)
    save_embedder(folder / "model", model.float().eval(), processor, prompts=instructions())
    return learnt.right


def main():
    """Print a line a model."""
    parser = make_parser(__doc__, lessons=1200)
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[LONG_TEMPERATURE])
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    sets = build_sets("unseen", 77, SIZES)
    say(head(f"| rate | temperature | order | C2V | {' | '.join(TOLD)} |"))
    for factor, temperature in product(arguments.rates, arguments.temperatures):
        pretraining.LONG_TEMPERATURE = temperature
        with tempfile.TemporaryDirectory() as folder:
            right = teach(Path(folder), arguments.lessons, factor)
            encoder = load_encoder(str(Path(folder) / "model"))
            order = order_in_groups(found(encoder, sets["CRB-T"]))
            c2v = rate(found(encoder, sets["LoVR-C2V"]), np.arange(SIZES.longs)).mean()
        told = " | ".join(f"{right[name]:.3f}" for name in TOLD)
        say(f"| {factor:g} | {temperature:g} | {order:.3f} | {c2v:.3f} | {told} |")


if __name__ == "__main__":
    main()
