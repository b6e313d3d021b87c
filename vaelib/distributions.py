"""Distributions that torch lacks, or has in a form that loses digits; and which KL divergences have a closed form.

Each is a `torch.distributions.Distribution`. Values of `log_prob` are in nats.
"""

import math
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    constraints,
    register_kl,
)
from torch.distributions import kl_divergence as torch_kl
from torch.distributions.kl import _KL_REGISTRY
from torch.distributions.transformed_distribution import TransformedDistribution
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from . import objective

LEVELS = 256  # of grey, as uint8 has them: k / 255
Shape = Size | list[int] | tuple[int, ...]


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it has that: 16 bits are too coarse for sums of thousands of terms."""
    return x if x.dtype is torch.float32 else x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(device: torch.device) -> AbstractContextManager:
    """A block outside mixed precision. (Leaving it costs more than asking whether one is in it.)"""
    mixed = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if mixed else nullcontext()


class DiagonalNormal(Distribution):
    """N(mean, diag(exp(log_variance))) over codes (K,): the functions of `vaelib.objective` as a distribution.

    Unlike `torch.distributions.Normal` it keeps the logarithm of the variance, which is what an encoder returns.

    Parameters
    ----------
    mean, log_variance : Tensors of shape (..., K)
    """

    arg_constraints: ClassVar[dict] = {}  # nothing is checked at each step of a training run
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
        """A sample and its log-density, which comes from the noise: exact however small the variance is."""
        noise = torch.randn(self._extended_shape(Size(sample_shape)), dtype=self._mean.dtype, device=self._mean.device)
        log_prob = -0.5 * (math.log(2 * math.pi) + self.log_variance + noise.square()).sum(-1)
        return self._mean + torch.exp(0.5 * self.log_variance) * noise, log_prob

    def log_prob(self, value: Tensor) -> Tensor:
        return objective.gaussian_log_prob(value, self._mean, self.log_variance)


class StandardNormal(Distribution):
    """N(0, I) over codes (K,).

    Codes are drawn on the CPU and then moved, so that a seed means the same codes on every device.

    Parameters
    ----------
    latent_dim : K
    like : a tensor whose device and type the codes have; by default the CPU and torch's default type
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, latent_dim: int, like: Tensor | None = None):
        self.like = torch.zeros((), device="cpu") if like is None else like
        super().__init__(Size(), Size([latent_dim]), validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.like.new_zeros(self.event_shape)

    @property
    def variance(self) -> Tensor:
        return self.like.new_ones(self.event_shape)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        return torch.randn(shape, dtype=self.like.dtype, device="cpu").to(self.like.device)

    def log_prob(self, value: Tensor) -> Tensor:
        return -0.5 * (math.log(2 * math.pi) + value.square()).sum(-1)


@register_kl(DiagonalNormal, StandardNormal)
def _(q: DiagonalNormal, p: StandardNormal) -> Tensor:
    return objective.kl_divergence(q.mean, q.log_variance)


@register_kl(DiagonalNormal, DiagonalNormal)
def _(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    return objective.kl_divergence(*_standardized(q, p))


def _standardized(q: DiagonalNormal, p: DiagonalNormal) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of q in the coordinates in which p is N(0, I); the KL is the same there."""
    return (q.mean - p.mean) * torch.exp(-0.5 * p.log_variance), q.log_variance - p.log_variance


def kl_by_dimension(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p) in closed form, where it is known for exactly these classes, and otherwise None.

    torch takes a subclass for its parent; but a subclass can have another density, and then its parent's KL is wrong.

    Parameters
    ----------
    q, p : distributions over codes (K,)

    Returns
    -------
    Tensor of shape (..., K), nats: one column for each dimension, where the dimensions are independent; of shape
    (..., 1) where there is a closed form of the whole only; or None
    """
    if type(q) is DiagonalNormal and type(p) is StandardNormal:
        return objective.kl_by_dimension(q.mean, q.log_variance)
    if type(q) is type(p) is DiagonalNormal:
        return objective.kl_by_dimension(*_standardized(q, p))
    bases = [each.base_dist for each in (q, p) if type(each) is Independent and each.reinterpreted_batch_ndims == 1]
    if len(bases) == 2:
        q, p = bases
    # These contain distributions, and torch asks for the KL of what they contain by its own rule for subclasses
    containers = Independent, TransformedDistribution, MixtureSameFamily
    if (type(q), type(p)) not in _KL_REGISTRY or isinstance(q, containers) or isinstance(p, containers):
        return None
    return torch_kl(q, p) if len(bases) == 2 else torch_kl(q, p).unsqueeze(-1)


def mean_and_log_variance(q: Distribution, samples: int = 100) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of a distribution over codes, (..., K) each; estimated from samples if it has neither."""
    if type(q) is DiagonalNormal:
        return q.mean, q.log_variance
    with suppress(NotImplementedError):  # flows raise it
        mean, variance = q.mean, q.variance
        # Of a Categorical torch says that the mean is NaN
        if not (mean.isnan().all() and getattr(q.support, "is_discrete", False)):
            return mean, variance.log()
    z = torch.stack([q.sample() for _ in range(samples)])
    return z.mean(0), z.var(0).log()


class CodeMixture(MixtureSameFamily):
    """A mixture over codes (K,) that gives each component its own copy of the codes, as zuko's flows need it."""

    def log_prob(self, value: Tensor) -> Tensor:
        logits, components = self.mixture_distribution.logits, self.component_distribution
        copies = value.unsqueeze(-2).expand(*value.shape[:-1], *components.batch_shape, value.shape[-1])
        return torch.logsumexp(components.log_prob(copies) + logits.log_softmax(-1), -1)


def code_mixture(logits: Tensor, components: Distribution) -> CodeMixture:
    """The mixture of a batch (M,) of distributions over codes with weights softmax(logits), logits of shape (M,)."""
    return CodeMixture(Categorical(logits=logits, validate_args=False), components, validate_args=False)


class IndependentBernoulli(Independent):
    """One Bernoulli distribution per pixel, also for grey pixels: its log_prob is `objective.bernoulli_log_prob`.

    torch's does the same in twice the time, and refuses grey pixels when it validates.

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

    Unlike `torch.distributions.ContinuousBernoulli` it has mass one for every logit: torch keeps p away from 0 and 1.

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
        # The normaliser is log (sinh h / h) with h = logits / 2; near 0, where h / h cancels, its Taylor series
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
        slope = self.logits.abs().clamp(min=1e-5).expand(shape)  # below, it is uniform to all digits
        falling = -torch.log1p(uniform * torch.expm1(-slope)) / slope
        return torch.where(self.logits > 0, 1 - falling, falling).clamp(0, 1)


class LogisticMixture(Distribution):
    """Images of 256 grey levels, k / 255, each from a mixture of logistic distributions that is rounded to levels.

    The outermost levels take what lies beyond them. Salimans et al., arXiv:1701.05517, without its dependence between
    channels. A value that is not a level counts as the nearest level.

    Parameters
    ----------
    logits, mean, log_scale : Tensors of shape (B, M, C, H, W), of M components, on the scale of the values in [0, 1]
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.independent(constraints.unit_interval, 3)

    def __init__(self, logits: Tensor, mean: Tensor, log_scale: Tensor):
        self.logits, self.locations, self.log_scale = logits, mean, log_scale
        super().__init__(mean.shape[:1], mean.shape[2:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        component = -len(self.event_shape) - 1
        level = (value * (LEVELS - 1)).round().unsqueeze(component)
        width = torch.exp(-self.log_scale) / (LEVELS - 1)  # of a level, in units of the scale
        above = (level + 0.5 - self.locations * (LEVELS - 1)) * width
        below = above - width
        # log (σ(above) - σ(below)), which cancels nothing
        inside = logsigmoid(above) + logsigmoid(-below) + torch.log(-torch.expm1(-width))
        lowest, highest = level == 0, level == LEVELS - 1
        terms = torch.where(lowest, logsigmoid(above), torch.where(highest, logsigmoid(-below), inside))
        pixels = torch.logsumexp(self.logits.log_softmax(component) + terms, component)
        return pixels.flatten(component + 1).sum(-1)

    @property
    def mean(self) -> Tensor:
        """The mean of the mixture cut off at 0 and 1, before rounding, which moves it by half a level at most."""
        scale = self.log_scale.exp()
        cut = scale * (softplus(self.locations / scale) - softplus((self.locations - 1) / scale))
        return (self.logits.softmax(1) * cut).sum(1)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        component = -len(self.event_shape) - 1
        weights = Categorical(logits=self.logits.movedim(component, -1), validate_args=False)
        chosen = weights.sample(sample_shape).unsqueeze(component)
        shape = Size(sample_shape) + self.logits.shape
        locations, log_scale = (
            each.expand(shape).gather(component, chosen) for each in (self.locations, self.log_scale)
        )
        noise = torch.rand(chosen.shape, dtype=self.logits.dtype, device=self.logits.device).logit(1e-7)
        value = (locations + log_scale.exp() * noise).squeeze(component)
        return (value * (LEVELS - 1)).round().clamp(0, LEVELS - 1) / (LEVELS - 1)
