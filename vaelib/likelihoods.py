"""Decoders: modules from codes (B, K) to the likelihood p(x | z), a `torch.distributions.Distribution` over images.

Any module whose call returns a distribution over images (C, H, W), with `log_prob`, `mean` and `sample`, can stand in
their place.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Size, Tensor, nn
from torch.distributions import Bernoulli as PixelBernoulli
from torch.distributions import Categorical, Distribution, Independent, Normal
from torch.distributions import ContinuousBernoulli as PixelContinuousBernoulli
from torch.nn.functional import logsigmoid, softplus

LEVELS = 256  # of grey, as uint8 has them: k / 255


class Bernoulli(nn.Module):
    """The paper's decoder: every pixel is 1 with a probability of its own.

    With grey pixels its log-density is `objective.bernoulli_log_prob`, the paper's objective, but that of no
    distribution.

    Parameters
    ----------
    logits : module from codes (B, K) to logits (B, C, H, W)
    """

    def __init__(self, logits: nn.Module):
        super().__init__()
        self.logits = logits

    def forward(self, z: Tensor) -> Distribution:
        # without validation, which would refuse grey pixels
        return Independent(PixelBernoulli(logits=self.logits(z).float(), validate_args=False), 3, validate_args=False)


class ContinuousBernoulli(Bernoulli):
    """Pixels between 0 and 1, with the density that the paper's objective lacks. Loaiza-Ganem & Cunningham, 2019.

    Parameters
    ----------
    logits : module from codes (B, K) to logits (B, C, H, W)
    """

    def forward(self, z: Tensor) -> Distribution:
        pixels = PixelContinuousBernoulli(logits=self.logits(z).float(), validate_args=False)
        return Independent(pixels, 3, validate_args=False)


class Gaussian(nn.Module):
    """Pixels from normal distributions with means of their own and one σ, which is learned.

    Parameters
    ----------
    mean : module from codes (B, K) to the logits (B, C, H, W) of the means, which so lie between 0 and 1
    """

    def __init__(self, mean: nn.Module):
        super().__init__()
        self.mean = mean
        self.log_sigma = nn.Parameter(torch.tensor(-1.0))  # about the spread of pixel values in images

    def forward(self, z: Tensor) -> Distribution:
        return _normal(self.mean(z).float().sigmoid(), self.log_sigma.exp())


class OptimalGaussian(nn.Module):
    """As `Gaussian`, but σ is not learned: it is the best one for the images. Rybkin et al., arXiv:2006.13202.

    In training that is the batch's own, the root of its mean squared error, so that the log-density is no density of
    single images. In evaluation it is fixed: the root of the error averaged over the last hundred batches or so.

    Parameters
    ----------
    mean : module from codes (B, K) to the logits (B, C, H, W) of the means, which so lie between 0 and 1
    """

    variance: Tensor
    batches: Tensor

    def __init__(self, mean: nn.Module):
        super().__init__()
        self.mean = mean
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, z: Tensor) -> Distribution:
        mean = self.mean(z).float().sigmoid()
        return _OptimalNormal(mean, self._follow) if self.training else _normal(mean, self.variance.sqrt())

    def _follow(self, error: Tensor) -> None:
        self.batches += 1
        self.variance += (error - self.variance) / self.batches.clamp(max=100)


class _OptimalNormal(Independent):
    """N(mean, σ² I) whose σ is the best one for the images (B, C, H, W) that it is asked about."""

    def __init__(self, mean: Tensor, follow: Callable[[Tensor], None]):
        super().__init__(Normal(mean, 1.0, validate_args=False), 3, validate_args=False)
        self.follow = follow

    def log_prob(self, value: Tensor) -> Tensor:
        error = (value - self.mean).square().mean()
        self.follow(error.detach())
        return _normal(self.mean, error.sqrt()).log_prob(value)


def _normal(mean: Tensor, sigma: Tensor) -> Distribution:
    return Independent(Normal(mean, sigma, validate_args=False), 3, validate_args=False)


class LogisticMixture(Distribution):
    """Images of 256 grey levels, k / 255, each from a mixture of logistic distributions that is rounded to levels.

    The outermost levels take what lies beyond them. Salimans et al., arXiv:1701.05517, without its dependence between
    channels; a value that is no level is taken for the nearest.

    Parameters
    ----------
    logits, mean, log_scale : Tensors of shape (B, M, C, H, W), of M components, on the scale of the values in [0, 1]
    """

    arg_constraints: ClassVar[dict] = {}

    def __init__(self, logits: Tensor, mean: Tensor, log_scale: Tensor):
        self.logits, self.locations, self.log_scale = logits, mean, log_scale
        super().__init__(mean.shape[:1], mean.shape[2:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        level = (value * (LEVELS - 1)).round().unsqueeze(-4)
        width = torch.exp(-self.log_scale) / (LEVELS - 1)  # of a level, in units of the scale
        above = (level + 0.5 - self.locations * (LEVELS - 1)) * width
        below = above - width
        # log (σ(above) - σ(below)), which cancels nothing
        inside = logsigmoid(above) + logsigmoid(-below) + torch.log(-torch.expm1(-width))
        lowest, highest = level == 0, level == LEVELS - 1
        terms = torch.where(lowest, logsigmoid(above), torch.where(highest, logsigmoid(-below), inside))
        return torch.logsumexp(self.logits.log_softmax(-4) + terms, -4).flatten(-3).sum(-1)

    @property
    def mean(self) -> Tensor:
        """The mean of the mixture cut off at 0 and 1, before rounding, which moves it by half a level at most."""
        scale = self.log_scale.exp()
        cut = scale * (softplus(self.locations / scale) - softplus((self.locations - 1) / scale))
        return (self.logits.softmax(-4) * cut).sum(-4)

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        chosen = Categorical(logits=self.logits.movedim(-4, -1), validate_args=False).sample(sample_shape).unsqueeze(-4)
        shape = Size(sample_shape) + self.logits.shape
        locations, log_scale = (each.expand(shape).gather(-4, chosen) for each in (self.locations, self.log_scale))
        noise = torch.rand(chosen.shape, device=self.logits.device).logit(1e-7)
        value = (locations + log_scale.exp() * noise).squeeze(-4)
        return (value * (LEVELS - 1)).round().clamp(0, LEVELS - 1) / (LEVELS - 1)


class DiscretizedLogisticMixture(nn.Module):
    """Pixels of 256 grey levels, each from a `LogisticMixture` of its own.

    Five components, of three numbers each; a subclass whose `outputs` is another multiple of three has others.

    Parameters
    ----------
    network : module from codes (B, K) to (B, outputs * C, H, W)
    """

    outputs = 15

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Distribution:
        components = self.outputs // 3
        logits, mean, log_scale = self.network(z).float().unflatten(1, (3, components, -1)).unbind(1)
        start = torch.linspace(0, 1, components, device=z.device).view(-1, 1, 1, 1)  # from black to white
        return LogisticMixture(logits, start + mean, (log_scale - 2).clamp(min=-7))
