"""What more frames and more tokens a video bring at test time: a table and a chart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gve.eval.averages import AVERAGE_NAMES, benchmark_name, round_half_up
from gve.eval.charts import new_figure, write_figure
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES


def scaling_header(points: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Titles of the columns, all of them numbers.

    Args:
        points: What a report keeps under `scaling`.

    Returns:
        The setting, abilities and averages (the sets, where no ability has all of its own) and the time.
    """
    whole = any(point["abilities"][name] for point in points for name in ABILITY_NAMES)
    return ("frames", "tokens a frame", *((*ABILITY_NAMES, *AVERAGE_NAMES) if whole else points[0]["sets"]), "seconds")


def scaling_rows(points: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One row a setting.

    Args:
        points: What a report keeps under `scaling`.

    Returns:
        Cells under `scaling_header`; a dash where a set is missing.
    """
    rows, names = [], scaling_header(points)[2:-1]
    for point in points:
        entries = {**point["abilities"], **point["averages"], **point["sets"]}
        scores = ["-" if entries[name] is None else round_half_up(entries[name]["score"]) for name in names]
        seconds = round_half_up(point["throughput"]["encode_seconds"], 1)
        rows.append((_number(point["num_frames"]), _number(point["frame_tokens"]), *scores, seconds))
    return rows


def draw_scaling(report: Mapping[str, Any], target: Path) -> None:
    """Draw the average and the abilities over the tokens that a video may take, to a PNG file.

    Args:
        report: With `scaling`; see `run_benchmark`.
        target: The file to write.

    Raises:
        ValueError: When there is nothing to draw.
    """
    points = report["scaling"]
    if len(points) < 2 or any(None in (point["num_frames"], point["frame_tokens"]) for point in points):
        raise ValueError(f"scaling: {len(points)} settings; at least two of known size are needed; name more")
    figure = new_figure(9.6, 4.2)
    left, right = figure.subplots(1, 2, sharex=True)
    budgets = sorted({point["frame_tokens"] for point in points})
    for tokens in budgets:
        chosen = [point for point in points if point["frame_tokens"] == tokens]
        _curve(left, chosen, [_average(point) for point in chosen], f"{tokens} tokens a frame")
    largest = [point for point in points if point["frame_tokens"] == budgets[-1]]
    names = [name for name in ABILITY_NAMES if all(point["abilities"][name] for point in largest)]
    for name in names:
        _curve(right, largest, [point["abilities"][name] for point in largest], name, band=False)
    if not names:
        for name in report["sets"]:
            _curve(right, largest, [point["sets"][name] for point in largest], name, band=False)
    left.set_title("mean over the sets", fontsize=11)
    right.set_title(f"{'abilities' if names else 'sets'}, {budgets[-1]} tokens a frame", fontsize=11)
    frames = sorted({point["num_frames"] for point in points})
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(frames, [str(count) for count in frames])
        axes.minorticks_off()
        axes.set_xlabel("frames a video")
        axes.set_ylabel("score")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, ncols=2 if axes is right else 1)
    figure.suptitle(
        f"{benchmark_name(report)} over frames and tokens, split {report['split']}  {report.get('model') or ''}".rstrip()
    )
    write_figure(figure, target)


def _average(point: Mapping[str, Any]) -> Mapping[str, Any]:
    """AVG-D, or the mean of the sets that there are."""
    if point["averages"]["AVG-D"] is not None:
        return point["averages"]["AVG-D"]
    entries = list(point["sets"].values())
    score = sum(entry["score"] for entry in entries) / len(entries)
    error = sum(entry["standard_error"] ** 2 for entry in entries) ** 0.5 / len(entries)
    return {"score": score, "interval": [score - 1.96 * error, score + 1.96 * error]}


def _curve(
    axes: Any,
    points: Sequence[Mapping[str, Any]],
    entries: Sequence[Mapping[str, Any]],
    label: str,
    *,
    band: bool = True,
) -> None:
    """One line over frames, with its interval."""
    pairs = sorted(zip((point["num_frames"] for point in points), range(len(points)), strict=True))
    frames = [count for count, _ in pairs]
    chosen = [entries[place] for _, place in pairs]
    (line,) = axes.plot(frames, [entry["score"] for entry in chosen], marker="o", markersize=4, label=label)
    if band:
        low, high = zip(*(entry["interval"] for entry in chosen), strict=True)
        axes.fill_between(frames, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
