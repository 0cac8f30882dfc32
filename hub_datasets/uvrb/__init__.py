"""UVRB: the sixteen retrieval sets of the universal video retrieval benchmark, and their loader."""

from gve.hub_datasets.uvrb.load import EvaluationSet, load_set
from gve.hub_datasets.uvrb.tasks import ABILITIES, SETS, RetrievalSet, instructions, resolve

__all__ = ["ABILITIES", "SETS", "EvaluationSet", "RetrievalSet", "instructions", "load_set", "resolve"]
