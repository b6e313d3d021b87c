"""Priors: modules whose call, without arguments, returns p(z), a `torch.distributions.Distribution` over codes (K,).

Any such module can stand in their place, and may have weights that are trained along.
"""

from typing import ClassVar

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, register_kl

from . import objective
from .posteriors import DiagonalNormal


class StandardNormal(Distribution):
    """N(0, I) over codes (K,): a distribution without tensors, which is at home on every device.

    Codes are drawn on the CPU, so that a seed means the same codes everywhere.
    """

    arg_constraints: ClassVar[dict] = {}
    has_rsample = True

    def __init__(self, latent_dim: int):
        super().__init__(Size(), Size([latent_dim]), validate_args=False)

    @property
    def mean(self) -> Tensor:
        return torch.zeros(self.event_shape)

    @property
    def variance(self) -> Tensor:
        return torch.ones(self.event_shape)

    def rsample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        return torch.randn(self._extended_shape(Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        origin = torch.zeros_like(value)
        return objective.gaussian_log_prob(value, origin, origin)


@register_kl(DiagonalNormal, StandardNormal)
def _(q: DiagonalNormal, p: StandardNormal) -> Tensor:
    return objective.kl_divergence(q.mean, q.log_variance)


class Standard(nn.Module):
    """The paper's prior, N(0, I).

    Parameters
    ----------
    latent_dim : K
    """

    def __init__(self, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self) -> StandardNormal:
        return StandardNormal(self.latent_dim)
