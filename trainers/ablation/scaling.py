"""How AVG-D grows with pairs, steps and parameters: runs along each axis, two fits, and a picture.

Along each axis one thing grows and the others stay: more pairs are as many steps on fewer repeats.
Shapes: N points of an axis, S seeds, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gve.eval.charts import new_figure
from gve.hub_datasets.files import write_json
from gve.trainers.ablation.arms import Arm
from gve.trainers.ablation.jobs import Machine, run_jobs
from gve.trainers.ablation.outcomes import value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gve.trainers.ablation.study import Study

AXES = ("pairs", "steps", "parameters")
WHOLE = Arm("scaling-whole", "all pairs, steps and parameters of the study")
SHARES = (0.001, 0.00316, 0.01, 0.0316, 0.1, 0.316)
"""Shares of the rows, half a decade apart, from the first on that has `LEAST_MEAN` rows a source."""
LEAST_MEAN = 8
FACTORS = (0.125, 0.25, 0.5, 2.0, 4.0)
WIDTHS = (0.25, 0.5, 2.0)
"""Steps, and widths of both towers, as multiples of the study's."""
TOWERS = {"text_hidden": 128, "vision_hidden": 96}
"""Widths of `build_tiny`."""
PAPER_GAIN = 0.074
"""Relative gain of AVG-D for a decade of data (Figure 6, 3B)."""
RESAMPLES = 2000
COLOR, MUTED = "#1f5a96", "#9aa5b1"


def run_scaling(study: "Study", axes: Sequence[str], seeds: Sequence[int], machine: Machine) -> None:
    """Run what is missing along the axes, seed by seed, and write scaling.json.

    Raises:
        ValueError: If the time ends before two seeds are whole.
    """
    from gve.trainers.ablation.preparation import build_models
    from gve.trainers.ablation.study import run_one, source_names

    points = points_of(study, axes, len(source_names(study)))
    own = dict.fromkeys(one.root for one, _ in points[1:] if one.root != study.root)
    run_jobs([(build_models, one) for one, _ in points if one.root in own], machine, title="models")
    jobs = [(run_one, one, arm, seed) for seed in seeds for one, arm in points]
    runs = run_jobs(jobs, machine, title="scaling")
    rounds = [runs[start : start + len(points)] for start in range(0, len(runs), len(points))]
    whole = [found for found in rounds if None not in found]
    if len(whole) < 2:
        raise ValueError(
            "--minutes: the time ended before two seeds of the scaling were whole. Run again to continue."
        )
    found = {}
    for axis in axes:
        places = [place for place, (_, arm) in enumerate(points) if arm == WHOLE or arm.name.startswith(axis)]
        table = [(float(whole[0][place][axis]), [value(one[place], "AVG-D") for one in whole]) for place in places]
        found[axis] = summarise(sorted(table))
    write_json(study.root / "scaling.json", {"seeds": [run["seed"] for run, *_ in whole], "axes": found})


def points_of(study: "Study", axes: Sequence[str], sources: int) -> list[tuple["Study", Arm]]:
    """The runs of a seed; a model of another width is a study of its own, on the same data."""
    plain = replace(study, held_out=False)  # no schedule looks at the probes
    points = [(plain, WHOLE)]
    if "pairs" in axes:
        least = LEAST_MEAN * sources / (sum(study.pairs.values()) + study.raw)
        points += [(plain, Arm(f"pairs-{share:g}", "", share=share)) for share in SHARES if share >= least]
    if "steps" in axes:
        points += [(plain, Arm(f"steps-{factor:g}", "", steps=factor)) for factor in FACTORS]
    for factor in WIDTHS if "parameters" in axes else ():
        step = 4 * study.architecture.get("heads", 4)  # rotary positions need four numbers a head
        widths = {name: study.architecture.get(name, width) * factor for name, width in TOWERS.items()}
        sizes = {name: max(step, int(width) // step * step) for name, width in widths.items()}
        wide = {"root": study.root / "widths" / f"{factor:g}", "shared": study.root}
        one = replace(plain, **wide, architecture=dict(study.architecture) | sizes)
        points.append((one, Arm(f"parameters-{factor:g}", "")))
    return points


def summarise(table: Sequence[tuple[float, Sequence[float]]]) -> dict[str, Any]:
    """Points, and two straight fits with 95 % intervals that resample seeds, of N sizes with S scores each.

    Returns:
        `log`: slope a decade of score = a + b log10(size). `power`: exponent c of 1 - score = d size^-c. `relative`: the
        log fit's gain a decade over its value in the middle, as the paper's.
    """
    sizes, scores = (
        np.log10([size for size, _ in table]),
        np.array([of_seeds for _, of_seeds in table]),
    )  # (N,), (N, S)
    draws = np.random.default_rng(0).integers(scores.shape[1], size=(RESAMPLES, scores.shape[1]))
    means = np.concatenate([scores.mean(1, keepdims=True), scores[:, draws].mean(-1)], axis=1)  # (N, 1 + R)
    slopes, starts = np.polyfit(sizes, means, 1)  # (1 + R,) each
    exponents, errors = np.polyfit(sizes, np.log10(1 - means), 1)
    middle = starts + slopes * sizes.mean()
    fits = {"log": slopes, "relative": slopes / middle, "power": -exponents}
    return {
        "sizes": [size for size, _ in table],
        "scores": scores.round(4).tolist(),
        "intercepts": {"log": round(float(starts[0]), 5), "power": round(float(errors[0]), 5)},
        **{
            name: {"value": round(float(of[0]), 5), "interval": np.percentile(of[1:], [2.5, 97.5]).round(5).tolist()}
            for name, of in fits.items()
        },
    }


def draw_scaling(found: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """A panel for each axis: runs, means, both fits, and the paper's slope through the middle of the pairs."""
    figure = new_figure(4.6 * len(found), 3.8)
    panels = np.atleast_1d(figure.subplots(1, len(found), sharey=True))
    for axes, (axis, of_axis) in zip(panels, found.items(), strict=True):
        _draw_axis(axes, axis, of_axis)
    panels[0].set_ylabel("AVG-D")
    return figure


def _draw_axis(axes: "Axes", axis: str, found: Mapping[str, Any]) -> None:
    sizes, scores = np.array(found["sizes"]), np.array(found["scores"])  # (N,), (N, S)
    axes.plot(np.repeat(sizes, scores.shape[1]), scores.ravel(), "o", color=MUTED, markersize=3)
    axes.plot(sizes, scores.mean(1), "s", color=COLOR)
    places = np.geomspace(sizes[0], sizes[-1], 50)
    start, (low, high) = found["intercepts"], found["relative"]["interval"]
    line = start["log"] + found["log"]["value"] * np.log10(places)
    axes.plot(places, line, color=COLOR, label=f"{found['relative']['value']:+.1%} a decade [{low:+.1%}, {high:+.1%}]")
    exponent = found["power"]["value"]
    curve = 1 - 10 ** start["power"] * places**-exponent
    axes.plot(places, curve, "--", color=COLOR, label=f"1 - AVG-D ~ size^{-exponent:.3f}")
    if axis == "pairs":
        decades = np.log10(places) - np.log10(sizes).mean()
        centre = start["log"] + found["log"]["value"] * np.log10(sizes).mean()
        paper = f"the paper's Figure 6: {PAPER_GAIN:+.1%} a decade"
        axes.plot(places, centre * (1 + PAPER_GAIN * decades), ":", color="black", label=paper)
    axes.set(xscale="log", xlabel=axis)
    ticks = sizes[::-2]  # every other one has room
    axes.set_xticks(ticks, [f"{size:,.0f}" for size in ticks])
    axes.set_xticks([], minor=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
