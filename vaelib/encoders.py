"""Encoders: modules from images (B, C, H, W) to the posterior q(z | x), a `torch.distributions.Distribution`.

You can use any module whose call returns a distribution over codes (K,) with `log_prob` and `rsample`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor, nn
from torch.distributions import Distribution

from .distributions import DiagonalNormal, at_least_float32, full_precision


class Encoder(Protocol):
    """The interface that `models.VAE` expects from an encoder.

    A module is called in full precision, even when training is in bfloat16. If it has an attribute `autocast = True`,
    it is called in mixed precision. It must then return a distribution in full precision.
    """

    def __call__(self, x: Tensor, *labels: Tensor) -> Distribution:
        """Return q(z | x) of images (B, C, H, W), with batch_shape (B,) and event_shape (K,)."""


class Gaussian(nn.Module):
    """The paper's encoder: q(z | x) = N(μ(x), diag(σ²(x))), with μ and log σ² linear in the same features.

    Parameters
    ----------
    features : module from images (B, C, H, W) to features (B, F)
    size : F
    latent_dim : K
    """

    autocast = True

    def __init__(self, features: nn.Module, size: int, latent_dim: int):
        super().__init__()
        self.features = features
        self.mean = nn.Linear(size, latent_dim)
        self.log_variance = nn.Linear(size, latent_dim)

    def forward(self, x: Tensor) -> Distribution:
        return self.gaussian(self.features(x))

    def gaussian(self, features: Tensor) -> DiagonalNormal:
        """Return the posterior for features (B, F)."""
        with full_precision(features.device):  # rounding can move a mean by more than σ
            features = at_least_float32(features)
            return DiagonalNormal(self.mean(features), self.log_variance(features))


class InverseAutoregressive(Gaussian):
    """The paper's posterior, transformed by two inverse autoregressive layers. Kingma et al., arXiv:1606.04934.

    It needs the package zuko (`pip install zuko`). A sample and its density together take one pass. The density of
    other codes takes K passes, one per dimension.

    Parameters
    ----------
    features : module from images (B, C, H, W) to features (B, F)
    size : F
    latent_dim : K
    """

    def __init__(self, features: nn.Module, size: int, latent_dim: int):
        super().__init__(features, size, latent_dim)
        from zuko import distributions, flows

        self.flow = distributions.NormalizingFlow
        self.bend = flows.MAF(latent_dim, context=size, transforms=2).transform.inv  # fast from noise to codes

    def forward(self, x: Tensor) -> Distribution:
        features = at_least_float32(self.features(x))  # (B, F)
        with full_precision(features.device):
            return self.flow(self.bend(features), self.gaussian(features))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module and its submodules into evaluation mode, and restore each one's mode at the end of the block."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
