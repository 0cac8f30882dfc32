"""Training: the Modality Pyramid on sentence-transformers' trainer (paper, section 3.3)."""

from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.collator import PairCollator
from gve.trainers.curriculum.schedule import SCHEDULES, CurriculumHistory, Schedule, TaskScores
from gve.trainers.gradcache.loss import CachedGVELoss
from gve.trainers.losses import GVELoss, info_nce
from gve.trainers.optimizer import MasterWeightOptimizer, build_optimizer
from gve.trainers.prober import LiveEncoder, OutsideEncoder, Prober
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
