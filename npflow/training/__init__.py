"""Training: Adam by hand, schedules, the loop, its history, distillation, importance sampling, checkpoints."""

from npflow.training.adam import Adam
from npflow.training.checkpoint import load, save
from npflow.training.distill import distill, kl_divergence
from npflow.training.fit import fit
from npflow.training.history import History
from npflow.training.importance import ImportanceSample, importance_sample
from npflow.training.schedules import Constant, WarmupCosine

__all__ = [
    "Adam",
    "Constant",
    "History",
    "ImportanceSample",
    "WarmupCosine",
    "distill",
    "fit",
    "importance_sample",
    "kl_divergence",
    "load",
    "save",
]
