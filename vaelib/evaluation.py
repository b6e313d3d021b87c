"""What a trained model is worth. All figures in nats are per image: summed over pixels and latents, then averaged.

Every function works in batches of bounded memory, puts the model into evaluation mode, and draws its noise from a seed
of its own, so that the same model and images always give the same figures (on one kind of device).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import objective
from .data import Dataset, to_float
from .models import VAE


def encode(model: VAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior means and log-variances, each (N, K), of uint8 images (N, C, H, W)."""
    return _batched(model, images, model.encode)


def elbo(model: VAE, images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Reconstruction term and KL of each of N uint8 images, each (N,), in nats, from one posterior sample an image."""
    generator = torch.Generator(model.device).manual_seed(seed)
    return _batched(model, images, lambda x: model.elbo(x, generator))


def log_prob(model: VAE, images: Tensor, samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Importance-weighted estimate of log p(x), with the posterior as proposal (Burda et al., arXiv:1509.00519).

    On average it lies below the true value, and climbs towards it with the number of samples.

    Parameters
    ----------
    model : VAE
    images : uint8 Tensor of shape (N, C, H, W)
    samples : number of posterior samples for each image, at least 2
    seed : of the samples

    Returns
    -------
    estimate : Tensor of shape (N,), in nats
    standard_error : Tensor of shape (N,), the estimate's Monte Carlo error by the delta method. It knows only the
        weights it saw: where the posterior fits badly it is too small
    """
    if samples < 2:
        raise ValueError(f"samples must be at least 2 for a standard error, not {samples}")
    generator = torch.Generator(model.device).manual_seed(seed)

    def estimate(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = model.encode(x)
        origin = torch.zeros_like(mean)
        total = total_of_squares = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
        for _ in range(samples):  # one at a time: memory does not grow with their number
            z = objective.reparameterize(mean, log_variance, generator)
            log_weight = (
                objective.bernoulli_log_prob(x, model.decoder(z))
                + objective.gaussian_log_prob(z, origin, origin)
                - objective.gaussian_log_prob(z, mean, log_variance)
            ).double()
            total = torch.logaddexp(total, log_weight)
            total_of_squares = torch.logaddexp(total_of_squares, 2 * log_weight)
        # relative variance of the mean weight, from Σw and Σw²
        variance = (samples * torch.exp(total_of_squares - 2 * total) - 1).clamp(min=0) / (samples - 1)
        return total - math.log(samples), variance.sqrt()

    return _batched(model, images, estimate)


def active_units(means: Tensor, threshold: float = 0.01) -> int:
    """How many latent dimensions are in use: those whose posterior mean varies over the data by more than 0.01.

    Parameters
    ----------
    means : Tensor of shape (N, K), posterior means
    threshold : of the variance (Burda et al., section 5.2)
    """
    return int((means.var(0) > threshold).sum())


def reconstruction_error(model: VAE, images: Tensor) -> Tensor:
    """Mean squared error per pixel, of values in [0, 1], of each uint8 image decoded from its posterior mean: (N,)."""
    (errors,) = _batched(model, images, lambda x: ((model.decode(model.encode(x)[0]) - x).square().flatten(1).mean(1),))
    return errors


def evaluate(model: VAE, data: Dataset, samples: int = 200) -> dict[str, float]:
    """All the figures of a finished training, over the whole of each split.

    Returns
    -------
    dict with, for train and test, `<split>_elbo`, `<split>_reconstruction`, `<split>_kl` (nats per image), and for
    test `elbo_standard_error` (over images), `log_prob` with its `log_prob_samples` and Monte Carlo error
    `log_prob_standard_error`, `active_units`, and `reconstruction_error` (squared, per pixel)
    """
    figures = {}
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
    figures["active_units"] = active_units(encode(model, data.test.images)[0])
    figures["reconstruction_error"] = reconstruction_error(model, data.test.images).mean().item()
    return figures


@torch.inference_mode()
def _batched(model: VAE, images: Tensor, function: Callable, size: int = 1000) -> tuple[Tensor, ...]:
    """Apply a function of float images that returns a tuple of (B, ...) tensors; the results as (N, ...) on the CPU."""
    training = model.training
    model.eval()
    try:
        parts = [function(to_float(batch.to(model.device))) for batch in images.split(size)]
    finally:
        model.train(training)
    return tuple(torch.cat(part).cpu() for part in zip(*parts, strict=True))
