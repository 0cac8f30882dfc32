"""The demo's last words: what was reached, where it lies, what to do next."""

import json

from gve.eval.report import to_table
from gve.media_gve import PNG
from gve.trainers.demo.workspace import Workspace


def summarise(workspace: Workspace) -> str:
    """The summary as text.

    Args:
        workspace: The demo, finished.
    """
    root, facts = workspace.root, workspace.facts
    report = json.loads((root / "report.json").read_text())
    spent = sum(workspace.stages.values())
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in workspace.stages.items())
    made = facts["synflow"]
    ranks = ", ".join(f"{query} {rank}" for query, rank in facts["first_right"].items())
    search = f"gve search --model {root / 'model'}"
    return "\n".join(
        [
            to_table(report),
            "",
            f"time        {spent / 60:.1f} minutes ({times})",
            f"V-SynFlow   {made['records']} raw videos, {made['kept']} kept; {sum(made['rows'].values())} pairs",
            f"training    {facts['steps']} steps on {facts['pairs']} pairs, {facts['dtype']}",
            f"memory      {facts['peak_memory_mb']} MB at most in one process",
            f"five queries, rank of the video each was made for: {ranks}",
            "",
            f"model       {root / 'model'}",
            f"report      {root / 'report.md'}, {root / 'report.json'}",
            f"pictures    {root / 'radar.png'}, {root / 'bars.png'}, {root / 'curriculum.png'}, {root / 'queries'}/*{PNG}",
            f"videos      {root / 'data' / 'uvrb' / 'videos'}",
            "",
            f"next        {search} {root / 'corpus.safetensors'} 'a red ring and a blue square in the snow'",
            f"            {search} YOUR_VIDEOS 'your words'",
            f"            gve eval --model {root / 'model'} --data {root / 'data' / 'uvrb'} --split seen",
        ]
    )
