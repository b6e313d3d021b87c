"""Priors: modules whose call, without arguments, returns p(z), a `torch.distributions.Distribution` over codes (K,).

Any such module can stand in their place, and may have weights that are trained along.
"""

from typing import Any, ClassVar

import torch
from torch import Size, Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, register_kl

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

    def rsample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        return torch.randn(self._extended_shape(Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        origin = torch.zeros_like(value)
        return objective.gaussian_log_prob(value, origin, origin)

    def by_dimension(self) -> "StandardNormal":
        """The marginal of every dimension."""
        return StandardNormal(1)


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


class Mixture(nn.Module):
    """A mixture of Gaussians, N(0, I) with a mean, a variance and a weight that are learned.

    Parameters
    ----------
    latent_dim : K
    components : how many Gaussians
    """

    def __init__(self, latent_dim: int, components: int = 10):
        super().__init__()
        self.mean = nn.Parameter(torch.randn(components, latent_dim))
        self.log_variance = nn.Parameter(torch.zeros(components, latent_dim))
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self) -> Distribution:
        return _mixture(self.logits, DiagonalNormal(self.mean, self.log_variance))


class Vamp(nn.Module):
    """The mean of the posteriors of images that are learned, "pseudo-inputs". Tomczak & Welling, arXiv:1705.07120.

    It belongs to an encoder, so it is put into a model that has one: `model.prior = Vamp(model.encoder, image_shape)`.

    Parameters
    ----------
    encoder : the model's, whose weights it uses in evaluation mode (batch norm keeps to the statistics of real images)
    image_shape : (C, H, W)
    components : how many pseudo-inputs
    """

    def __init__(self, encoder: nn.Module, image_shape: tuple[int, int, int], components: int = 20):
        super().__init__()
        self._encoder = [encoder]  # in a list, since the weights are the model's, and in a file once
        self.pseudo_inputs = nn.Parameter(torch.randn(components, *image_shape))  # logits: pixels are in [0, 1]

    def forward(self) -> Distribution:
        (encoder,) = self._encoder
        training = encoder.training
        q = encoder.eval()(self.pseudo_inputs.sigmoid())
        encoder.train(training)
        return _mixture(torch.zeros_like(self.pseudo_inputs[:, 0, 0, 0]), q)


class _CodeMixture(MixtureSameFamily):
    """Gives each component a copy of the codes (..., K), as flows of zuko want it, instead of leaving that to torch."""

    def log_prob(self, value: Tensor) -> Tensor:
        logits, components = self.mixture_distribution.logits, self.component_distribution
        copies = value.unsqueeze(-2).expand(*value.shape[:-1], *components.batch_shape, value.shape[-1])
        return torch.logsumexp(components.log_prob(copies) + logits.log_softmax(-1), -1)


def _mixture(logits: Tensor, components: Distribution) -> Distribution:
    return _CodeMixture(Categorical(logits=logits, validate_args=False), components, validate_args=False)


class Marginal(Distribution):
    """What a VAE whose "images" are codes makes of them, p(z) = ∫ p(z | u) p(u) du. Dai & Wipf, arXiv:1903.05789.

    Its log density is a lower bound of the true one on average, importance-weighted, and has noise.

    Parameters
    ----------
    vae : VAE of codes; its `image_shape` is (K,)
    samples : of each code's posterior, for the density
    """

    arg_constraints: ClassVar[dict] = {}

    def __init__(self, vae: Any, samples: int = 100):
        self.vae, self.samples = vae, samples
        super().__init__(Size(), Size(vae.image_shape), validate_args=False)

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        return self.vae.decoder(self.vae.prior().sample(sample_shape).to(self.vae.device)).sample()

    def log_prob(self, value: Tensor) -> Tensor:
        likelihood, prior, posterior = self.vae.log_densities(value, self.samples)
        return objective.importance_weighted_bound(likelihood + prior - posterior)
