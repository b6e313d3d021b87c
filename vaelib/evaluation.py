"""What a trained model is worth. All figures in nats are per image: summed over pixels and latents, then averaged.

Every function works in batches of bounded memory, puts the model into evaluation mode, and has its noise from a seed
of its own, so that the same model and images always give the same figures (on one kind of device).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import objective, progress
from .data import Dataset, to_float
from .models import PIXELS, VAE, original
from .seeding import seeded


def encode(model: VAE, images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Posterior means and log-variances, each (N, K), of uint8 images (N, C, H, W).

    The seed matters for posteriors alone that do not know their mean, such as flows: it is one of samples.
    """
    return _batched(model, images, model.encode, seed)


def elbo(model: VAE, images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Reconstruction term and KL of each of N uint8 images, each (N,), in nats, from one posterior sample an image."""
    return _batched(model, images, model.elbo, seed)


def log_prob(model: VAE, images: Tensor, samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Importance-weighted estimate of log p(x), with the posterior as proposal (Burda et al., arXiv:1509.00519).

    On average it lies below the true value, and climbs towards it with the number of samples: a lower bound. Memory
    hardly grows with the number of samples (eight bytes for each, of the at most 1,000 images that are looked at at
    once), nor with that of images.

    Parameters
    ----------
    model : VAE
    images : uint8 Tensor of shape (N, C, H, W)
    samples : number of posterior samples for each image, at least 10
    seed : of the samples

    Returns
    -------
    estimate : Tensor of shape (N,), in nats
    standard_error : Tensor of shape (N,), the estimate's scatter from seed to seed, from the spread of the estimates
        that ten parts of the samples give. It knows only the weights that it saw, and where a few of them dominate it
        is too small; nor does it tell how far the bound is from log p(x)

    Raises
    ------
    ValueError
        If there are fewer than ten samples.
    """
    if samples < 10:
        raise ValueError(f"samples must be at least 10 for a standard error, not {samples}")

    def estimate(x: Tensor) -> tuple[Tensor, Tensor]:
        x = model.observe(x)  # the same in all parts, whatever a model of one's own makes of images
        log_weights = torch.empty(samples, len(x), dtype=torch.float64)
        for part in log_weights.split(
            100
        ):  # of thousands at once, small results lie between large ones, whose memory stays taken
            likelihood, prior, posterior = model.log_densities(x, len(part))
            part.copy_((likelihood + prior - posterior).cpu())
        parts = [objective.importance_weighted_bound(part) for part in log_weights.tensor_split(10)]
        bar.update(len(x))
        return objective.importance_weighted_bound(log_weights), torch.stack(parts).std(0) / math.sqrt(10)

    with progress.bar(total=len(images), desc="log p(x)", unit="image", delay=2) as bar:
        return _batched(model, images, estimate, seed)


def active_units(means: Tensor, threshold: float = 0.01, again: Tensor | None = None) -> int:
    """How many latent dimensions are in use: those whose posterior mean has a variance above the threshold.

    Parameters
    ----------
    means : Tensor of shape (N, K), posterior means
    threshold : of the variance over the N images (0.01 is that of Burda et al., section 5.2)
    again : Tensor of shape (N, K), where the means are of samples: those of other samples. The covariance of both is
        the variance without the samples' noise, which of 100 draws of N(0, 1) is the threshold itself
    """
    other = means if again is None else again
    covariance = ((means - means.mean(0)) * (other - other.mean(0))).sum(0) / (len(means) - 1)
    return int((covariance > threshold).sum())


def reconstruction_error(model: VAE, images: Tensor) -> Tensor:
    """Mean squared error per pixel, of values in [0, 1], of each uint8 image decoded from its posterior mean: (N,).

    The images are taken as they are, grey where they are, whatever the model makes of them (see `VAE.observe`).
    """
    (errors,) = _batched(model, images, lambda x: ((model.decode(model.encode(x)[0]) - x).square().flatten(1).mean(1),))
    return errors


def ceiling(images: Tensor) -> Tensor:
    """The highest ELBO that a Bernoulli likelihood allows each of N uint8 images: (N,), in nats.

    Of a grey pixel x, x log p + (1 - x) log (1 - p) is highest at p = x, where it is minus the pixel's binary entropy;
    and the KL can only take away.
    """
    parts = (to_float(part).flatten(1) for part in images.split(1000))
    return torch.cat([-(torch.special.entr(x) + torch.special.entr(1 - x)).sum(1) for x in parts])


def evaluate(model: VAE, data: Dataset, samples: int | None = None) -> dict[str, float]:
    """All the figures of a finished training, over the whole of each split.

    Parameters
    ----------
    model : VAE
    data : Dataset
    samples : for `log_prob`; 200 if not given, or 50 for images of more than 1,000 values, which take long to decode

    Returns
    -------
    dict with, for train and test, `<split>_elbo`, `<split>_reconstruction`, `<split>_kl` (nats per image), and for
    test `elbo_standard_error` (over images), `log_prob` with its `log_prob_samples` and Monte Carlo error
    `log_prob_standard_error`, `active_units`, and `reconstruction_error` (squared, per pixel)
    """
    if samples is None:
        samples = 200 if math.prod(data.image_shape) <= 1000 else 50
    figures: dict[str, float] = {}
    for name, split in (("train", data.train), ("test", data.test)):
        reconstruction, kl = elbo(model, split.images)
        figures |= {
            f"{name}_elbo": (reconstruction - kl).mean().item(),
            f"{name}_reconstruction": reconstruction.mean().item(),
            f"{name}_kl": kl.mean().item(),
        }
    count = len(data.test)  # the loop ended on the test split
    figures["elbo_standard_error"] = (reconstruction - kl).std().item() / math.sqrt(count)
    estimate, error = log_prob(model, data.test.images, samples)
    figures["log_prob"] = estimate.mean().item()
    figures["log_prob_standard_error"] = error.square().sum().sqrt().item() / count
    figures["log_prob_samples"] = samples
    means, again = (encode(model, data.test.images, seed)[0] for seed in (0, 1))
    figures["active_units"] = active_units(means, again=again)
    figures["reconstruction_error"] = reconstruction_error(model, data.test.images).mean().item()
    return figures


@torch.no_grad()
def _batched(model: VAE, images: Tensor, function: Callable, seed: int = 0) -> Any:
    """Apply a function of float images that returns a tuple of (B, ...) tensors; the results as (N, ...) on the CPU."""
    training = model.training
    size = max(1, PIXELS // images[0].numel())
    original(model).check()
    model.eval()
    try:
        with seeded(seed, model.device):
            parts = [function(to_float(batch.to(model.device))) for batch in images.split(size)]
    finally:
        model.train(training)
    return tuple(torch.cat(part).cpu() for part in zip(*parts, strict=True))
