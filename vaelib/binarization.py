"""Binary images from grey ones, whose values are used as the probabilities of white."""

from collections.abc import Callable

import torch
from torch import Tensor

from .models import VAE, build

MODULUS = 2**31


class Binarized(VAE):
    """A VAE of binary pixels, with dynamic binarization in training, and fixed binarization in evaluation.

    The fixed binarization depends only on the image. It uses a pattern of uniform noise, shifted by a checksum of the
    image. All metrics therefore refer to the same binary images, in any order of the data. Binary images stay
    unchanged.

    Parameters
    ----------
    vae : VAE that provides encoder, decoder and prior
    """

    noise: Tensor

    def __init__(self, vae: VAE):
        super().__init__(vae.encoder, vae.decoder, vae.prior, vae.image_shape, vae.conditional)
        pattern = torch.randint(MODULUS, vae.image_shape, generator=torch.Generator().manual_seed(0), device="cpu")
        self.register_buffer("noise", pattern, persistent=False)

    def preprocess(self, x: Tensor) -> Tensor:
        """Binarize grey images into floats (B, C, H, W)."""
        if self.training:
            return (torch.rand_like(x) < x).to(x.dtype)  # takes a third of the time of torch.bernoulli
        checksum = ((255 * x).round().long() * self.noise).flatten(1).sum(1).view(-1, *[1] * (x.ndim - 1))
        return ((self.noise + checksum) % MODULUS < (x * MODULUS).ceil().long()).to(x.dtype)  # exact, without float64


def binarized(image_shape: tuple[int, ...], latent_dim: int, builder: Callable[..., VAE] = build) -> Binarized:
    """Build a model of binary pixels from another builder's model, by default the paper's."""
    return Binarized(builder(image_shape, latent_dim))
