"""Training: the Modality Pyramid on sentence-transformers' trainer (paper, section 3.3)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gve.trainers.arguments import GVETrainingArguments
    from gve.trainers.collator import PairCollator
    from gve.trainers.curriculum.schedule import SCHEDULES, CurriculumHistory, Schedule, TaskScores
    from gve.trainers.encoders import LiveEncoder, OutsideEncoder
    from gve.trainers.gradcache.loss import CachedGVELoss
    from gve.trainers.losses import GVELoss, info_nce
    from gve.trainers.optimizer import MasterWeightOptimizer, build_optimizer
    from gve.trainers.prober import Prober
    from gve.trainers.sampler import PyramidBatchSampler, TaskIndex
    from gve.trainers.trainer import GVETrainer

__all__ = [
    "SCHEDULES",
    "CachedGVELoss",
    "CurriculumHistory",
    "GVELoss",
    "GVETrainer",
    "GVETrainingArguments",
    "LiveEncoder",
    "MasterWeightOptimizer",
    "OutsideEncoder",
    "PairCollator",
    "Prober",
    "PyramidBatchSampler",
    "Schedule",
    "TaskIndex",
    "TaskScores",
    "build_optimizer",
    "info_nce",
]

_MODULES = {
    "SCHEDULES": "curriculum.schedule",
    "CachedGVELoss": "gradcache.loss",
    "CurriculumHistory": "curriculum.schedule",
    "GVELoss": "losses",
    "GVETrainer": "trainer",
    "GVETrainingArguments": "arguments",
    "LiveEncoder": "encoders",
    "MasterWeightOptimizer": "optimizer",
    "OutsideEncoder": "encoders",
    "PairCollator": "collator",
    "Prober": "prober",
    "PyramidBatchSampler": "sampler",
    "Schedule": "curriculum.schedule",
    "TaskIndex": "sampler",
    "TaskScores": "curriculum.schedule",
    "build_optimizer": "optimizer",
    "info_nce": "losses",
}
"""The module of each name, imported when the name is first used: the commands of this folder need few of them."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
