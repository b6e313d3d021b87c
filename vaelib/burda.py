"""The model of Burda, Grosse and Salakhutdinov (arXiv:1509.00519), a common benchmark."""

import math
from itertools import pairwise

from torch import Tensor, nn

from . import decoders, encoders, priors
from .models import VAE


def layers(*sizes: int) -> list[nn.Module]:
    """Make linear layers between these sizes, each followed by tanh, with Glorot's weights and zero biases."""
    found: list[nn.Module] = []
    for before, after in pairwise(sizes):
        linear = nn.Linear(before, after)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        found += [linear, nn.Tanh()]
    return found


def build(image_shape: tuple[int, ...], latent_dim: int, means: Tensor) -> VAE:
    """Build their model of binary pixels with one stochastic layer: pixels - 200 - 200 - K, and the reverse.

    Parameters
    ----------
    image_shape : (C, H, W)
    latent_dim : K, 50 in their paper
    means : mean of each pixel over the training images, (C, H, W), from 0 to 1. Their code initialises the output
        biases from it
    """
    pixels = math.prod(image_shape)
    features = nn.Sequential(nn.Flatten(), *layers(pixels, 200, 200))
    *decoder, last, _ = layers(latent_dim, 200, 200, pixels)
    last.bias.data = means.clamp(0.001, 0.999).logit().flatten()
    output = nn.Sequential(*decoder, last, nn.Unflatten(1, image_shape))
    encoder = encoders.Gaussian(features, 200, latent_dim)  # made last, as for the published weights
    return VAE(encoder, decoders.Bernoulli(output), priors.Standard(latent_dim), image_shape)
