"""Binary images from grey ones, whose values are taken for the probabilities of white."""

from collections.abc import Callable

import torch
from torch import Tensor

from .models import VAE, build

MODULUS = 2**31


class Binarized(VAE):
    """A VAE of binary pixels: dynamic binarization in training, and a fixed one in evaluation.

    The fixed one depends on the image only: a pattern of uniform noise, shifted by a checksum of the image. All metrics
    are therefore of the same binary images, wherever an image is in the data, and binary images stay as they are.

    Parameters
    ----------
    vae : VAE whose encoder, decoder and prior it takes over
    """

    noise: Tensor

    def __init__(self, vae: VAE):
        super().__init__(vae.encoder, vae.decoder, vae.prior, vae.image_shape, vae.conditional)
        pattern = torch.randint(MODULUS, vae.image_shape, generator=torch.Generator().manual_seed(0), device="cpu")
        self.register_buffer("noise", pattern, persistent=False)

    def preprocess(self, x: Tensor) -> Tensor:
        """The binary images (B, C, H, W), as floats, of grey ones."""
        if self.training:
            return (torch.rand_like(x) < x).to(x.dtype)  # takes a third of the time of torch.bernoulli
        checksum = ((255 * x).round().long() * self.noise).flatten(1).sum(1).view(-1, *[1] * (x.ndim - 1))
        return ((self.noise + checksum) % MODULUS < (x * MODULUS).ceil().long()).to(x.dtype)  # exact, without float64


def binarized(image_shape: tuple[int, ...], latent_dim: int, builder: Callable[..., VAE] = build) -> Binarized:
    """Make a model, of the paper's or of another builder's, one of binary pixels: a builder itself."""
    return Binarized(builder(image_shape, latent_dim))
