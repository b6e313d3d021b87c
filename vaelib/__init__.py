"""Variational autoencoders, small enough to read.

>>> from vaelib import Settings, data, train
>>> run = train(data.load("digits"), Settings(latent_dim=2))
>>> run.evaluation["test_elbo"], run.model().sample(16)

A VAE is three modules that return distributions; each can be another one.

likelihoods, posteriors, priors    what decoder, encoder and prior return
models          the paper's two models, and the VAE that ties three modules together; weights on disk
binarization    models of binary pixels
burda           the model and schedule that much of the field compares by
objective       the ELBO and its relatives, as pure functions, and what a training minimises
data            data sets by name, a folder of images of one's own, or tensors
training, runs  the loop; a training on disk, which is resumed or loaded by the call that began it
evaluation      ELBO, log p(x), active units, reconstruction error
rivals          wake-sleep, Monte Carlo EM with HMC, exact EM on a grid
attributes      directions of the code space, found and walked along
figures         grids and curves
"""

from importlib import import_module

import torch

from . import (
    binarization,
    burda,
    data,
    evaluation,
    likelihoods,
    models,
    objective,
    posteriors,
    priors,
    rivals,
    runs,
    training,
)
from .runs import Run, train
from .training import Settings

_LATER = ("attributes", "figures")  # imported when they are asked for: scikit-learn and matplotlib take seconds

__all__ = ["Run", "Settings", "train", *_LATER]
__all__ += ["binarization", "burda", "data", "evaluation", "likelihoods", "models", "objective", "posteriors", "priors"]
__all__ += ["rivals", "runs", "training"]


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
