"""Variational autoencoders, small enough to read.

>>> from vaelib import Settings, data, train
>>> run = train(data.load("digits"), Settings(latent_dim=2))
>>> run.evaluation["test_elbo"], run.model().sample(16)
"""

import torch

from . import data
from .runs import Run, train
from .training import Settings

__all__ = ["Run", "Settings", "data", "train"]

# On the CPU, numbers too small for float32's normal range (Adam's moments of weights whose gradient has died) make
# training half as fast as it could be. Rounding them to zero changes no result that float32 can show. Threads inherit
# this when they start, so it is set before torch starts any.
torch.set_flush_denormal(True)
