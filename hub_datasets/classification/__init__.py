"""Video classification as retrieval: five declared tasks, and their loader from a folder of videos."""

from gve.hub_datasets.classification.load import load_folder
from gve.hub_datasets.classification.tasks import CLASSIFICATION, ClassificationTask

__all__ = ["CLASSIFICATION", "ClassificationTask", "load_folder"]
