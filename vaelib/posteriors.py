"""Encoders: modules from images (B, C, H, W) to the posterior q(z | x), a `torch.distributions.Distribution`.

Any module whose call returns a distribution over codes (K,), with `rsample` and `log_prob`, can stand in their place.
"""

from typing import ClassVar

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution

from . import objective


class DiagonalNormal(Distribution):
    """N(mean, diag(exp(log_variance))) over codes (K,): the functions of `vaelib.objective` as a distribution.

    Unlike `torch.distributions.Normal` it keeps the logarithm of the variance, as the encoder gives it: exact however
    small the variance is.

    Parameters
    ----------
    mean, log_variance : Tensors of shape (..., K)
    """

    arg_constraints: ClassVar[dict] = {}  # nothing is checked at each step of a training
    has_rsample = True

    def __init__(self, mean: Tensor, log_variance: Tensor):
        self._mean, self.log_variance = mean, log_variance
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        return self.log_variance.exp()

    def rsample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        return objective.reparameterize(self._mean.expand(shape), self.log_variance.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return objective.gaussian_log_prob(value, self._mean, self.log_variance)

    def by_dimension(self) -> "DiagonalNormal":
        """The K marginals: a batch (..., K) of distributions over one number."""
        return DiagonalNormal(self._mean.unsqueeze(-1), self.log_variance.unsqueeze(-1))


class Gaussian(nn.Module):
    """The paper's encoder: q(z | x) = N(μ(x), diag(σ²(x))), both linear in the same features.

    Parameters
    ----------
    features : module from images (B, C, H, W) to features (B, F)
    size : F
    latent_dim : K
    """

    def __init__(self, features: nn.Module, size: int, latent_dim: int):
        super().__init__()
        self.features = features
        self.mean = nn.Linear(size, latent_dim)
        self.log_variance = nn.Linear(size, latent_dim)

    def forward(self, x: Tensor) -> Distribution:
        return self.gaussian(self.features(x))

    def gaussian(self, features: Tensor) -> DiagonalNormal:
        """The distribution of features (B, F)."""
        # float(): under mixed precision the linear layers answer in bfloat16, too coarse for sums of thousands of terms
        return DiagonalNormal(self.mean(features).float(), self.log_variance(features).float())


class InverseAutoregressive(Gaussian):
    """The paper's posterior, bent by two inverse autoregressive layers. Kingma et al., arXiv:1606.04934.

    Needs the package zuko. Samples are drawn with their density in one pass, as training wants it; the density of other
    codes takes a pass for each of their K numbers.

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
        features = self.features(x).float()  # (B, F)
        return self.flow(self.bend(features), self.gaussian(features))


def moments(q: Distribution, samples: int = 100) -> tuple[Tensor, Tensor]:
    """Mean and log-variance, (..., K) each, of a distribution over codes; of that many samples if it does not know."""
    if isinstance(q, DiagonalNormal):
        return q.mean, q.log_variance
    try:
        return q.mean, q.variance.log()
    except NotImplementedError:  # flows
        z = torch.stack([q.sample() for _ in range(samples)])
        return z.mean(0), z.var(0).log()
