"""Encoders: modules from images (B, C, H, W) to the posterior q(z | x), a `torch.distributions.Distribution`.

Any module whose call returns a distribution over codes (K,), with `log_prob` and `rsample`, can stand in their place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor, nn
from torch.distributions import Distribution

from .distributions import DiagonalNormal, at_least_float32, full_precision


class Encoder(Protocol):
    """What `models.VAE` needs of an encoder.

    A module is called in full precision, also where training is in bfloat16. If it has an attribute
    `autocast = True`, it is called in mixed precision, and then it must return a distribution in full precision itself.
    """

    def __call__(self, x: Tensor, *labels: Tensor) -> Distribution:
        """q(z | x) of images (B, C, H, W), as a distribution with batch_shape (B,) and event_shape (K,)."""


class Gaussian(nn.Module):
    """The paper's encoder: q(z | x) = N(μ(x), diag(σ²(x))), both linear in the same features.

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
        """The distribution of features (B, F)."""
        with full_precision(features.device):  # a rounded mean can be off by more than σ
            features = at_least_float32(features)
            return DiagonalNormal(self.mean(features), self.log_variance(features))


class InverseAutoregressive(Gaussian):
    """The paper's posterior, bent by two inverse autoregressive layers. Kingma et al., arXiv:1606.04934.

    Needs the package zuko. A sample and its density take one pass, as training needs them; the density of other codes
    takes a pass for each of their K numbers.

    Parameters
    ----------
    features : module from images (B, C, H, W) to features (B, F)
    size : F
    latent_dim : K

    Raises
    ------
    ModuleNotFoundError
        If zuko is not installed.
    """

    def __init__(self, features: nn.Module, size: int, latent_dim: int):
        super().__init__(features, size, latent_dim)
        try:
            from zuko import distributions, flows
        except ModuleNotFoundError as error:
            advice = "the inverse autoregressive posterior needs the package zuko: pip install zuko"
            raise ModuleNotFoundError(advice, name="zuko") from error
        self.flow = distributions.NormalizingFlow
        self.bend = flows.MAF(latent_dim, context=size, transforms=2).transform.inv  # quick from noise to codes

    def forward(self, x: Tensor) -> Distribution:
        features = at_least_float32(self.features(x))  # (B, F)
        with full_precision(features.device):
            return self.flow(self.bend(features), self.gaussian(features))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module and all its parts into evaluation mode, and afterwards each into the mode that it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
