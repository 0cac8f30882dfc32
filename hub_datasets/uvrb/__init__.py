"""UVRB: the sixteen retrieval sets of the universal video retrieval benchmark, and their loader."""

from gve.hub_datasets.uvrb.load import EvaluationSet, load_set
from gve.hub_datasets.uvrb.tasks import ABILITIES, SETS, RetrievalSet, resolve

__all__ = ["ABILITIES", "SETS", "EvaluationSet", "RetrievalSet", "load_set", "resolve"]
