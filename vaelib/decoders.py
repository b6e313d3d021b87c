"""Decoders: modules from codes (B, K) to the likelihood p(x | z), a `torch.distributions.Distribution` over images.

You can use any module whose call returns a distribution over images (C, H, W) with `log_prob`, `mean` and `sample`.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints

from . import distributions
from .distributions import LogisticMixture, at_least_float32


class Decoder(Protocol):
    """The interface that `models.VAE` expects from a decoder.

    The decoder, or a module in it, can have an attribute `support`, an interval of `torch.distributions.constraints`.
    Images with values outside this interval are refused.

    A module is called in full precision, even when training is in bfloat16. If it has an attribute `autocast = True`,
    it is called in mixed precision. It must then return a distribution in full precision.
    """

    def __call__(self, z: Tensor, *labels: Tensor) -> Distribution:
        """Return p(x | z) of codes (B, K), with batch_shape (B,) and event_shape (C, H, W)."""


class Bernoulli(nn.Module):
    """The paper's decoder: each pixel is 1 with its own probability.

    For grey pixels, its log-density is the paper's objective, `objective.bernoulli_log_prob`. This isn't a normalised
    density.

    Parameters
    ----------
    logits : module from codes (B, K) to logits (B, C, H, W)
    """

    autocast, support = True, constraints.unit_interval

    def __init__(self, logits: nn.Module):
        super().__init__()
        self.logits = logits

    def forward(self, z: Tensor) -> Distribution:
        return distributions.IndependentBernoulli(at_least_float32(self.logits(z)))


class ContinuousBernoulli(Bernoulli):
    """Pixels in [0, 1] with a normalised density, `distributions.ContinuousBernoulli`, unlike the paper's objective.

    Parameters
    ----------
    logits : module from codes (B, K) to logits (B, C, H, W)
    """

    def forward(self, z: Tensor) -> Distribution:
        logits = at_least_float32(self.logits(z))
        return Independent(distributions.ContinuousBernoulli(logits), logits.ndim - 1, validate_args=False)


class Gaussian(nn.Module):
    """Pixels from normal distributions, each with its own mean, and with one σ that is learned.

    Parameters
    ----------
    mean : module from codes (B, K) to the logits (B, C, H, W) of the means. The means are therefore between 0 and 1
    """

    autocast, support = True, constraints.unit_interval

    def __init__(self, mean: nn.Module):
        super().__init__()
        self.mean = mean
        self.log_sigma = nn.Parameter(torch.tensor(-1.0))  # about the standard deviation of pixel values in images

    def forward(self, z: Tensor) -> Distribution:
        return _normal(at_least_float32(self.mean(z)).sigmoid(), self.log_sigma.exp())


class OptimalGaussian(nn.Module):
    """Like `Gaussian`, but σ is computed from the images instead of learned. Rybkin et al., arXiv:2006.13202.

    In training, σ is the root mean squared error of the batch, so the log-density isn't a density of single images. In
    evaluation, σ is fixed. It is the root of the error averaged over about the last hundred batches.

    Parameters
    ----------
    mean : module from codes (B, K) to the logits (B, C, H, W) of the means. The means are therefore between 0 and 1
    """

    autocast, support = True, constraints.unit_interval
    variance: Tensor
    batches: Tensor

    def __init__(self, mean: nn.Module):
        super().__init__()
        self.mean = mean
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, z: Tensor) -> Distribution:
        mean = at_least_float32(self.mean(z)).sigmoid()
        return _OptimalNormal(mean, self._follow) if self.training else _normal(mean, self.variance.sqrt())

    def _follow(self, error: Tensor) -> None:
        self.batches += 1
        self.variance += (error - self.variance) / self.batches.clamp(max=100)


class _OptimalNormal(Independent):
    """N(mean, σ² I), with the σ that maximises the density of the images (B, C, H, W) passed to `log_prob`."""

    def __init__(self, mean: Tensor, follow: Callable[[Tensor], None]):
        super().__init__(Normal(mean, 1.0, validate_args=False), mean.ndim - 1, validate_args=False)
        self.follow = follow

    def log_prob(self, value: Tensor) -> Tensor:
        error = (value - self.mean).square().mean()
        self.follow(error.detach())
        return _normal(self.mean, error.sqrt()).log_prob(value)


def _normal(mean: Tensor, sigma: Tensor) -> Distribution:
    return Independent(Normal(mean, sigma, validate_args=False), mean.ndim - 1, validate_args=False)


class DiscretizedLogisticMixture(nn.Module):
    """Pixels of 256 grey levels, each from its own `distributions.LogisticMixture`.

    It has 5 components with 3 numbers each. For another number of components, make a subclass whose `outputs` is
    another multiple of 3.

    Parameters
    ----------
    network : module from codes (B, K) to (B, outputs * C, H, W)
    """

    autocast, support = True, constraints.unit_interval
    outputs = 15

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Distribution:
        components = self.outputs // 3
        logits, mean, log_scale = at_least_float32(self.network(z)).unflatten(1, (3, components, -1)).unbind(1)
        start = torch.linspace(0, 1, components, dtype=mean.dtype, device=z.device)  # from black to white
        start = start.view(components, *[1] * (mean.ndim - 2))
        return LogisticMixture(logits, start + mean, (log_scale - 2).clamp(min=-7))
