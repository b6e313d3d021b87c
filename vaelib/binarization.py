"""Binary images from grey ones, whose values are taken for the probabilities of white."""

from collections.abc import Callable

import torch
from torch import Tensor

from .models import VAE, build

MODULUS = 2**31


class Binarized(VAE):
    """A VAE of binary pixels: in training, grey images are drawn afresh at each look; in evaluation, once and for all.

    That one drawing depends on the image alone: a pattern of uniform noise, shifted by a checksum of the image. So all
    figures are of the same binary images, wherever an image stands, and binary images stay as they are.

    Parameters
    ----------
    vae : VAE whose encoder, decoder and prior it takes over
    """

    noise: Tensor

    def __init__(self, vae: VAE):
        super().__init__(vae.encoder, vae.decoder, vae.prior, vae.image_shape)
        pattern = torch.randint(MODULUS, vae.image_shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", pattern, persistent=False)

    def observe(self, x: Tensor) -> Tensor:
        """The binary images (B, C, H, W), as floats, of grey ones; raises as `VAE.observe`."""
        x = super().observe(x)
        if self.training:
            return torch.bernoulli(x)
        checksum = ((255 * x).round().long() * self.noise).sum((1, 2, 3), keepdim=True)
        return ((self.noise + checksum) % MODULUS < (x * MODULUS).ceil().long()).float()  # exact, without float64


def binarized(image_shape: tuple[int, int, int], latent_dim: int, builder: Callable[..., VAE] = build) -> Binarized:
    """Make a model, of the paper's or of another builder's, one of binary pixels: a builder itself."""
    return Binarized(builder(image_shape, latent_dim))
