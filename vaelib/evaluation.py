"""Evaluation metrics. All values in nats are per image: summed over pixels and latents, then averaged.

Every function works in batches of bounded memory, in evaluation mode, and draws its noise from its own seed. The same
model and images therefore always give the same values on one kind of device.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import objective, progress
from .checks import check_bound, check_model
from .data import Dataset, to_float
from .encoders import evaluating
from .models import VAE, unwrap
from .seeding import seeded

MAX_CODE_VALUES = 16_000_000  # code values in an evaluation batch, over all samples: 64 MB


def encode(model: VAE, images: Tensor, seed: int = 0, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compute posterior means and log-variances, each (N, K), of images (N, C, H, W) as in a `Split`.

    The seed only matters for posteriors without a known mean, such as flows, because that mean is estimated from
    samples.
    """
    return _batched(model, images, labels, unwrap(model).encode, seed)


def elbo(model: VAE, images: Tensor, seed: int = 0, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compute each image's reconstruction term and KL, each (N,), in nats, from one posterior sample per image."""
    return _batched(model, images, labels, unwrap(model).elbo, seed)


def log_prob(
    model: VAE, images: Tensor, samples: int, seed: int = 0, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Estimate log p(x) by importance weighting with the posterior as proposal (Burda et al., arXiv:1509.00519).

    The estimate is a lower bound on average. It approaches log p(x) as the number of samples grows.

    Parameters
    ----------
    model : VAE
    images : Tensor of shape (N, C, H, W), as in a `Split`
    samples : number of posterior samples per image, at least 2
    seed : of the samples
    labels : of the images, for a conditional model; the estimate is then log p(x | y)

    Returns
    -------
    estimate : Tensor of shape (N,), in nats
    standard_error : Tensor of shape (N,), the estimate's standard deviation over seeds, by the jackknife: how far the
        estimate moves if one of the samples is left out. It doesn't measure the gap between the bound and log p(x)

    Raises
    ------
    ValueError
        If there are fewer than two samples, or their number isn't whole.
    """
    samples = objective.whole_number("samples", samples, least=2)  # for a standard error

    def estimate(x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        log_weights = unwrap(model).terms(x, samples, labels).log_weights.cpu().double()
        # The estimates without one of the samples, less a constant. A share of 1 would give an infinite error
        left_out = torch.log1p(-log_weights.softmax(0).clamp(max=1 - 1e-15))
        bar.update(len(x))
        return objective.importance_weighted_bound(log_weights), ((samples - 1) * left_out.var(0, correction=0)).sqrt()

    with progress.bar(total=len(images), desc="log p(x)", unit="image", delay=2) as bar:
        return _batched(model, images, labels, estimate, seed, samples)


def active_units(means: Tensor, threshold: float = 0.01, again: Tensor | None = None) -> float:
    """Count the active latent dimensions, whose posterior mean has a variance above the threshold. NaN if means are.

    Parameters
    ----------
    means : Tensor of shape (N, K), posterior means
    threshold : of the variance over the N images (0.01 as in Burda et al., section 5.2)
    again : Tensor of shape (N, K), means from other samples, if the means are estimated from samples. The covariance of
        both is the variance without sampling noise. For 100 draws from N(0, 1), this noise alone equals the threshold
    """
    other = means if again is None else again
    covariance = ((means - means.mean(0)) * (other - other.mean(0))).sum(0) / (len(means) - 1)
    return int((covariance > threshold).sum()) if covariance.isfinite().all() else math.nan


def reconstruction_error(model: VAE, images: Tensor, labels: Tensor | None = None) -> Tensor:
    """Compute the mean squared error per pixel of each image decoded from its posterior mean, (N,).

    Values are in [0, 1]. Originals aren't preprocessed, so the error isn't meaningful if the model's `preprocess`
    changes their scale.
    """

    plain = unwrap(model)

    def error(x: Tensor, labels: Tensor | None) -> tuple[Tensor]:
        return ((plain.decode(plain.encode(x, labels)[0], labels) - x).square().flatten(1).mean(1),)

    return _batched(model, images, labels, error)[0]


def max_bernoulli_elbo(images: Tensor) -> Tensor:
    """Compute the highest ELBO that a Bernoulli likelihood allows for each of N images: (N,), in nats.

    For a grey pixel x, x log p + (1 - x) log (1 - p) is highest at p = x, where it equals minus the pixel's binary
    entropy. The KL can only lower the ELBO.
    """
    parts = (to_float(part).flatten(1) for part in images.split(1000))
    highest = torch.cat([-(torch.special.entr(x) + torch.special.entr(1 - x)).sum(1) for x in parts])
    if not highest.isfinite().all():
        raise ValueError("expected pixels in [0, 1]: a Bernoulli likelihood has no highest ELBO for others")
    return highest


def evaluate(model: VAE, data: Dataset, samples: int | None = None) -> dict[str, float]:
    """Compute all metrics of a finished run, on the complete splits.

    Parameters
    ----------
    model : VAE
    data : Dataset
    samples : for `log_prob`; by default 200, or 50 for images of more than 1,000 values, which are slow to decode

    Returns
    -------
    dict
        In nats per image, unless noted:

        - for train and test: `<split>_elbo`, `<split>_reconstruction`, `<split>_kl`
        - for test: `elbo_standard_error` (over images), `log_prob` with `log_prob_samples` and its Monte Carlo error
          `log_prob_standard_error`, `active_units` (a count), `reconstruction_error` (squared, per pixel)

    Raises
    ------
    ValueError
        If the test ELBO exceeds log p(x), its upper bound, or the KL is negative, by more than the error. A density is
        then wrong.
    """
    samples = (200 if math.prod(data.image_shape) <= 1000 else 50) if samples is None else samples
    metrics: dict[str, float] = {}
    terms = {}
    for name, split in (("train", data.train), ("test", data.test)):
        reconstruction, kl = elbo(model, split.images, labels=split.labels)
        terms[name] = {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}
        metrics |= {f"{name}_{key}": values.mean().item() for key, values in terms[name].items()}
    images, labels, count = data.test.images, data.test.labels, len(data.test)
    metrics["elbo_standard_error"] = terms["test"]["elbo"].std().item() / math.sqrt(count)
    estimate, error = log_prob(model, images, samples, labels=labels)
    metrics["log_prob"] = estimate.mean().item()
    metrics["log_prob_standard_error"] = error.square().sum().sqrt().item() / count
    metrics["log_prob_samples"] = samples
    check_bound(terms["test"]["elbo"].double(), estimate.double(), terms["test"]["kl"].double())
    means, again = (encode(model, images, seed, labels)[0] for seed in (0, 1))
    metrics["active_units"] = active_units(means, again=again)
    metrics["reconstruction_error"] = reconstruction_error(model, images, labels).mean().item()
    return metrics


@torch.no_grad()
def _batched(
    model: VAE, images: Tensor, labels: Tensor | None, function: Callable, seed: int = 0, samples: int = 1
) -> Any:
    """Apply a function from float images to a tuple of (B, ...) tensors, and return (N, ...) tensors on the CPU."""
    if len(images) == 0:
        raise ValueError("there are no images to evaluate")
    plain = unwrap(model)
    device = plain.device
    check_model(plain, to_float(images[:2]), labels)
    with evaluating(plain), seeded(seed, device):
        size = min(plain.rows(device), max(1, MAX_CODE_VALUES // (samples * plain.latent_dim)))
        parts = []
        for number, batch in enumerate(images.split(size)):
            given = None if labels is None else labels[number * size : (number + 1) * size].to(device)
            parts.append(function(to_float(batch.to(device)), given))
    return tuple(torch.cat(part).cpu() for part in zip(*parts, strict=True))
