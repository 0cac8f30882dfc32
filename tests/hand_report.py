"""A report with the paper's scores of a model, made by hand."""

import json
from pathlib import Path

from gve.eval.averages import aggregate
from gve.hub_datasets.uvrb import SETS

GOLDEN = json.loads((Path(__file__).parent / "golden" / "uvrb_tables.json").read_text())


def make_report(model):
    """A report with the paper's scores of a model; its averages unrounded."""
    scores = {name: GOLDEN["table1"][model][name] for name in SETS}
    common = {"chance": 0.01, "standard_error": 0.0125, "chance_error": 0.004, "above_chance": True}
    common["interval"] = [0.4, 0.5]
    sets = {}
    for name, task in SETS.items():
        sizes = {"num_queries": task.official_queries, "num_candidates": task.official_corpus}
        entry = {"metric": task.metric, "abilities": list(task.abilities), "score": scores[name], "in_group": None}
        sets[name] = entry | sizes | common
    values = {name: {"score": value, **common} for name, value in aggregate(scores).items()}
    averages = {name: values.pop(name) for name in ("AVG-D", "AVG-A")}
    parts = {"sets": sets, "abilities": values, "averages": averages}
    return {"schema": "gve-report/1", "model": model, "source": "uvrb", "split": "test"} | parts
