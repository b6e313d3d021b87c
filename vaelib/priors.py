"""Priors: modules whose call, without arguments, returns p(z), a `torch.distributions.Distribution` over codes (K,).

You can use any such module. If it has weights, they are trained jointly with the model.
"""

from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints

from . import objective
from .distributions import DiagonalNormal, Shape, StandardNormal, code_mixture
from .encoders import evaluating

if TYPE_CHECKING:
    from .models import VAE


class Prior(Protocol):
    """The interface that `models.VAE` expects from a prior, which is called in full precision even in bfloat16 runs."""

    def __call__(self, *labels: Tensor) -> Distribution:
        """Return p(z), with event_shape (K,). For a conditional VAE, return p(z | y), with batch_shape () or (B,)."""


class Standard(nn.Module):
    """The paper's prior, N(0, I).

    Parameters
    ----------
    latent_dim : K
    """

    origin: Tensor

    def __init__(self, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("origin", torch.zeros(()), persistent=False)  # follows the model to its device and type

    def forward(self, *labels: Tensor) -> StandardNormal:
        return StandardNormal(self.latent_dim, self.origin)


class Mixture(nn.Module):
    """A mixture of Gaussians whose means, diagonal covariances and weights are learned.

    Parameters
    ----------
    latent_dim : K
    components : number of Gaussians
    """

    def __init__(self, latent_dim: int, components: int = 10):
        super().__init__()
        self.mean = nn.Parameter(torch.randn(components, latent_dim))
        self.log_variance = nn.Parameter(torch.zeros(components, latent_dim))
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self, *labels: Tensor) -> Distribution:
        return code_mixture(self.logits, DiagonalNormal(self.mean, self.log_variance))


class Vamp(nn.Module):
    """The average of the posteriors of learned images, the pseudo-inputs. Tomczak & Welling, arXiv:1705.07120.

    Make it with the model's own encoder: `model.prior = Vamp(model.encoder, image_shape)`.

    Parameters
    ----------
    encoder : the model's encoder, used in evaluation mode (so that batch norm keeps the statistics of real images)
    image_shape : (C, H, W)
    components : number of pseudo-inputs
    """

    encoder: nn.Module

    def __init__(self, encoder: nn.Module, image_shape: tuple[int, ...], components: int = 20):
        super().__init__()
        vars(self)["encoder"] = encoder  # so that its weights are registered and stored with the model only
        self.pseudo_inputs = nn.Parameter(torch.randn(components, *image_shape))  # logits, because pixels are in [0, 1]

    def forward(self, *labels: Tensor) -> Distribution:
        with evaluating(self.encoder):
            q = self.encoder(self.pseudo_inputs.sigmoid())
        return code_mixture(self.pseudo_inputs.new_zeros(len(self.pseudo_inputs)), q)


class Marginal(Distribution):
    """The distribution of codes under a second VAE, p(z) = ∫ p(z | u) p(u) du. Dai & Wipf, arXiv:1903.05789.

    The second VAE is trained on codes as if they were images. `log_prob` is an importance-weighted estimate. It is
    noisy, and a lower bound on average.

    Parameters
    ----------
    vae : VAE of codes, whose `image_shape` is (K,)
    samples : number of posterior samples per code, for the density
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.real_vector

    def __init__(self, vae: "VAE", samples: int = 100):
        self.vae, self.samples = vae, samples
        super().__init__(Size(), Size(vae.image_shape), validate_args=False)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        codes = self.vae.prior().sample(Size([Size(sample_shape).numel()]))
        return self.vae.decoder(codes).sample().reshape(*sample_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        terms = self.vae.terms(value.reshape(-1, *self.event_shape), self.samples)
        return objective.importance_weighted_bound(terms.log_weights).reshape(value.shape[:-1])
