"""Variational autoencoders, small enough to read.

>>> from vaelib import TrainConfig, data, train
>>> run = train(data.load("digits"), TrainConfig(latent_dim=2))
>>> run.evaluation["test_elbo"], run.model().sample(16)

A VAE consists of three modules that return distributions. You can replace each of them.

encoders, decoders, priors    the three modules
distributions   distributions that torch lacks, and closed-form KL divergences
models          the VAE that joins the three modules, and the paper's two models
checks          errors that are found before training
storage         weights on disk, and the published models
binarization    models of binary pixels
burda           the model and the schedule of Burda et al., a common benchmark
objective       the ELBO and related objectives, as pure functions
data            data sets by name, a folder of your own images, or tensors
training, runs  the training loop, and runs on disk, which can be resumed and loaded
evaluation      ELBO, log p(x), active units, reconstruction error
baselines       wake-sleep, Monte Carlo EM with HMC, exact EM on a grid
attributes      directions of attributes in the code space
features        classifiers, and distances between the features of images
plots           grids and curves
"""

import getpass
import os
from importlib import import_module

import torch

try:
    getpass.getuser()
except (KeyError, OSError):  # torchvision and torch's Adam ask for the user's name, which a container's user may lack
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

_LATER = ("attributes", "features", "plots")  # imported on first use, because scikit-learn and matplotlib take seconds

__all__ = ["Run", "TrainConfig", "train", *_LATER]
__all__ += ["baselines", "binarization", "burda", "checks", "data", "decoders", "distributions", "encoders"]
__all__ += ["evaluation", "models", "objective", "priors", "runs", "storage", "training"]


def __getattr__(name: str):
    if name in _LATER:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# On the CPU, numbers below float32's normal range slow training down to half its speed. They occur in Adam's moments of
# weights whose gradient is zero. Rounding them to zero changes no result that float32 can show. Threads inherit this
# setting when they start, so we set it before torch starts any.
torch.set_flush_denormal(True)
