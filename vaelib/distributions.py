"""Distributions that torch lacks or computes less accurately, and closed-form KL divergences.

Each is a `torch.distributions.Distribution`. Values of `log_prob` are in nats.
"""

import math
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, MixtureSameFamily, constraints
from torch.distributions.kl import _KL_REGISTRY, kl_divergence, register_kl
from torch.distributions.transformed_distribution import TransformedDistribution
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from . import objective

LEVELS = 256  # grey levels in uint8, k / 255
Shape = Size | list[int] | tuple[int, ...]


def at_least_float32(x: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 if it is. 16 bits are too coarse for sums of thousands of terms."""
    return x if x.dtype is torch.float32 else x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(device: torch.device) -> AbstractContextManager:
    """Return a context that switches mixed precision off, if it is on.

    Leaving such a context costs more than checking whether it's needed.
    """
    mixed = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if mixed else nullcontext()


class DiagonalNormal(Distribution):
    """N(mean, diag(exp(log_variance))) over codes (K,): functions of `vaelib.objective` as a distribution.

    Unlike `torch.distributions.Normal`, it stores the logarithm of the variance, which encoders return.

    Parameters
    ----------
    mean, log_variance : Tensors of shape (..., K)
    """

    arg_constraints: ClassVar[dict] = {}  # so that nothing is checked in each step of training
    support = constraints.real_vector
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

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        return self.rsample_and_log_prob(sample_shape)[0]

    def rsample_and_log_prob(self, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        """Draw a sample and compute its log-density from its noise, which is exact for any variance."""
        noise = torch.randn(self._extended_shape(Size(sample_shape)), dtype=self._mean.dtype, device=self._mean.device)
        log_prob = -0.5 * (math.log(2 * math.pi) + self.log_variance + noise.square()).sum(-1)
        return self._mean + torch.exp(0.5 * self.log_variance) * noise, log_prob

    def log_prob(self, value: Tensor) -> Tensor:
        return objective.gaussian_log_prob(value, self._mean, self.log_variance)


class StandardNormal(DiagonalNormal):
    """N(0, I) over codes (K,).

    Codes are drawn on the CPU and then moved, so that a seed gives the same codes on every device.

    Parameters
    ----------
    latent_dim : K
    like : tensor with the device and type of the codes; by default the CPU and torch's default type
    """

    def __init__(self, latent_dim: int, like: Tensor | None = None):
        zeros = (torch.zeros((), device="cpu") if like is None else like).new_zeros(latent_dim)
        super().__init__(zeros, zeros)

    def rsample_and_log_prob(self, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        shape, like = self._extended_shape(Size(sample_shape)), self._mean
        z = torch.randn(shape, dtype=like.dtype, device="cpu").to(like.device)
        return z, self.log_prob(z)

    def log_prob(self, value: Tensor) -> Tensor:
        return -0.5 * (math.log(2 * math.pi) + value.square()).sum(-1)


@register_kl(DiagonalNormal, DiagonalNormal)
def _(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    return objective.kl_divergence(*_standardized(q, p))


def _standardized(q: DiagonalNormal, p: DiagonalNormal) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance of q in coordinates in which p is N(0, I). This leaves the KL unchanged."""
    if isinstance(p, StandardNormal):
        return q.mean, q.log_variance
    return (q.mean - p.mean) * torch.exp(-0.5 * p.log_variance), q.log_variance - p.log_variance


def kl_by_dimension(q: Distribution, p: Distribution) -> Tensor | None:
    """Compute KL(q || p) in closed form if there is one for exactly these classes; otherwise return None.

    torch falls back to the parent class of a subclass. That is wrong if the subclass has another density.

    Parameters
    ----------
    q, p : distributions over codes (K,)

    Returns
    -------
    Tensor of shape (..., K), or None
        In nats, by dimension, if the dimensions are independent. Of shape (..., 1) if only the total has a closed form
    """
    if type(q) is DiagonalNormal and (type(p) is DiagonalNormal or type(p) is StandardNormal):
        return objective.kl_by_dimension(*_standardized(q, p))
    bases = [each.base_dist for each in (q, p) if type(each) is Independent and each.reinterpreted_batch_ndims == 1]
    if len(bases) == 2:
        q, p = bases
    # These contain distributions. torch would compute the KL of the inner ones by its own rule for subclasses
    containers = Independent, TransformedDistribution, MixtureSameFamily
    if (type(q), type(p)) not in _KL_REGISTRY or isinstance(q, containers) or isinstance(p, containers):
        return None
    return kl_divergence(q, p) if len(bases) == 2 else kl_divergence(q, p).unsqueeze(-1)


def mean_and_log_variance(q: Distribution, samples: int = 100) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance of a distribution over codes, (..., K) each, estimated from samples if necessary."""
    if type(q) is DiagonalNormal:
        return q.mean, q.log_variance
    with suppress(NotImplementedError):  # raised by flows
        mean, variance = q.mean, q.variance
        # torch gives NaN as the mean of a Categorical
        if not (mean.isnan().all() and getattr(q.support, "is_discrete", False)):
            return mean, variance.log()
    z = torch.stack([q.sample() for _ in range(samples)])
    return z.mean(0), z.var(0).log()


class CodeMixture(MixtureSameFamily):
    """A mixture over codes (K,) that passes a copy of the codes to each component, because zuko's flows require it."""

    def log_prob(self, value: Tensor) -> Tensor:
        logits, components = self.mixture_distribution.logits, self.component_distribution
        copies = value.unsqueeze(-2).expand(*value.shape[:-1], *components.batch_shape, value.shape[-1])
        return torch.logsumexp(components.log_prob(copies) + logits.log_softmax(-1), -1)


def code_mixture(logits: Tensor, components: Distribution) -> CodeMixture:
    """Make the mixture of a batch (M,) of distributions over codes, with weights softmax(logits), (M,)."""
    return CodeMixture(Categorical(logits=logits, validate_args=False), components, validate_args=False)


class IndependentBernoulli(Independent):
    """One Bernoulli distribution per pixel, with `objective.bernoulli_log_prob` as log_prob. Pixels may be grey.

    torch's distribution gives the same values in twice the time, and refuses grey pixels if it validates.

    Parameters
    ----------
    logits : Tensor of shape (B, C, H, W)
    """

    def __init__(self, logits: Tensor):
        super().__init__(Bernoulli(logits=logits, validate_args=False), logits.ndim - 1, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.base_dist.logits
        if value.shape != logits.shape:
            value, logits = torch.broadcast_tensors(value, logits)
        pixels = binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -pixels.flatten(-len(self.event_shape)).sum(-1)


class ContinuousBernoulli(Distribution):
    """The density proportional to p^x (1 - p)^(1 - x) on [0, 1], from logits. Loaiza-Ganem & Cunningham, 2019.

    It is normalised for every logit. `torch.distributions.ContinuousBernoulli` isn't, because it keeps p away from 0
    and 1.

    Parameters
    ----------
    logits : Tensor of any shape, log p - log (1 - p)
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.unit_interval

    def __init__(self, logits: Tensor):
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        # The normaliser is log (sinh h / h) with h = logits / 2. Near 0 this cancels, so we use its Taylor series
        half = self.logits.abs() / 2
        large, square = half.clamp(min=0.25), half.clamp(max=0.25).square()
        far = large + torch.log1p(-torch.exp(-2 * large)) - torch.log(2 * large)
        near = square / 6 - square**2 / 180 + square**3 / 2835
        return self.logits * (value - 0.5) - torch.where(half > 0.25, far, near)

    @property
    def mean(self) -> Tensor:
        small = self.logits.clamp(-0.5, 0.5)
        large = torch.where(self.logits.abs() > 0.5, self.logits, 1)
        near = 0.5 + small / 12 - small**3 / 720 + small**5 / 30240
        return torch.where(self.logits.abs() > 0.5, -1 / torch.expm1(-large) - 1 / large, near)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        slope = self.logits.abs().clamp(min=1e-5).expand(shape)  # below 1e-5, it is uniform to all digits
        falling = -torch.log1p(uniform * torch.expm1(-slope)) / slope
        return torch.where(self.logits > 0, 1 - falling, falling).clamp(0, 1)


class LogisticMixture(Distribution):
    """Images of 256 grey levels, k / 255, each from a mixture of logistic distributions rounded to these levels.

    The lowest and highest level include the tails. Salimans et al., arXiv:1701.05517, without dependence between
    channels. Other values are rounded to the nearest level.

    Parameters
    ----------
    logits, mean, log_scale : Tensors of shape (B, M, C, H, W) for M components, on the scale of the values in [0, 1]
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.independent(constraints.unit_interval, 3)

    def __init__(self, logits: Tensor, mean: Tensor, log_scale: Tensor):
        self.logits, self.locations, self.log_scale = logits, mean, log_scale
        super().__init__(mean.shape[:1], mean.shape[2:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        component = -len(self.event_shape) - 1
        level = (value * (LEVELS - 1)).round().unsqueeze(component)
        width = torch.exp(-self.log_scale) / (LEVELS - 1)  # the width of a level, in units of the scale
        above = (level + 0.5 - self.locations * (LEVELS - 1)) * width
        below = above - width
        # log (σ(above) - σ(below)) without cancellation
        inside = logsigmoid(above) + logsigmoid(-below) + torch.log(-torch.expm1(-width))
        lowest, highest = level == 0, level == LEVELS - 1
        terms = torch.where(lowest, logsigmoid(above), torch.where(highest, logsigmoid(-below), inside))
        pixels = torch.logsumexp(self.logits.log_softmax(component) + terms, component)
        return pixels.flatten(component + 1).sum(-1)

    @property
    def mean(self) -> Tensor:
        """The mean of the mixture clipped to [0, 1], before rounding, which moves it by at most half a level."""
        scale = self.log_scale.exp()
        cut = scale * (softplus(self.locations / scale) - softplus((self.locations - 1) / scale))
        return (self.logits.softmax(1) * cut).sum(1)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        component = -len(self.event_shape) - 1
        weights = Categorical(logits=self.logits.movedim(component, -1), validate_args=False)
        chosen = weights.sample(sample_shape).unsqueeze(component)
        shape = Size(sample_shape) + self.logits.shape
        locations = self.locations.expand(shape).gather(component, chosen)
        log_scale = self.log_scale.expand(shape).gather(component, chosen)
        noise = torch.rand(chosen.shape, dtype=self.logits.dtype, device=self.logits.device).logit(1e-7)
        value = (locations + log_scale.exp() * noise).squeeze(component)
        return (value * (LEVELS - 1)).round().clamp(0, LEVELS - 1) / (LEVELS - 1)
