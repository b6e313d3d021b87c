"""Variational autoencoders, small enough to read.

>>> from vaelib import TrainConfig, data, train
>>> run = train(data.load("digits"), TrainConfig(latent_dim=2))
>>> run.evaluation["test_elbo"], run.model().sample(16)

A VAE is three modules that return distributions. Each can be replaced.

encoders, decoders, priors    the modules
distributions   what torch.distributions lacks, and closed-form KL divergences
models          the paper's two models, and the VAE that ties three modules together
checks          errors that are found before training
storage         a model's weights on disk, and the trained models that come with the package
binarization    models of binary pixels
burda           the model and schedule that much of the field compares by
objective       the ELBO and its relatives, as pure functions, and what training minimises
data            data sets by name, a folder of your own images, or tensors
training, runs  the loop; a run on disk, which is resumed or loaded by the call that began it
evaluation      ELBO, log p(x), active units, reconstruction error
baselines       wake-sleep, Monte Carlo EM with HMC, exact EM on a grid
attributes      directions of the code space
plots           grids and curves
"""

import getpass
import os
from importlib import import_module

import torch

try:
    getpass.getuser()
except (KeyError, OSError):  # a container's user without a name, for which torchvision and torch's Adam would ask
    os.environ["LOGNAME"] = str(os.getuid())

from . import (
    baselines,
    binarization,
    burda,
    checks,
    data,
    decoders,
    distributions,
    encoders,
    evaluation,
    models,
    objective,
    priors,
    runs,
    storage,
    training,
)
from .runs import Run, train
from .training import TrainConfig

_LATER = ("attributes", "plots")  # imported when they are asked for: scikit-learn and matplotlib take seconds

__all__ = ["Run", "TrainConfig", "train", *_LATER]
__all__ += ["baselines", "binarization", "burda", "checks", "data", "decoders", "distributions", "encoders"]
__all__ += ["evaluation", "models", "objective", "priors", "runs", "storage", "training"]


def __getattr__(name: str):
    if name in _LATER:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# On the CPU, numbers too small for float32's normal range (Adam's moments of weights whose gradient has died) make
# training half as fast as it could be. Rounding them to zero changes no result that float32 can show. Threads inherit
# this when they start, so it is set before torch starts any.
torch.set_flush_denormal(True)
