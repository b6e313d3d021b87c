"""Measure C1 and C3 on MNIST, for `book.experiments.verdicts`: how noisy the ELBO's gradient is.

Each measure is a tensor (R,), as in that module: its first value counts each item once, and the others are resamples.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from vaelib import TrainConfig, data, evaluation, models, objective

BATCH = TrainConfig.batch_size
DRAWS_EACH, IMAGES_EACH, ROUNDS = 256, 64, 200


def flat_gradient(model: models.VAE, images: Tensor) -> Tensor:
    """Compute the gradient in all weights of the loss of one code for each image, from torch's global generator."""
    model.zero_grad()
    objective.negative_elbo(model(images), 0.0).mean().backward()
    return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


def codes_and_all(model: models.VAE, images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Estimate a minibatch gradient's variance that codes cause, and all of it, in each of several rounds, (ROUNDS,).

    Two gradients with the same images and separate codes differ by the codes alone. A third has other images.
    """
    model, found = copy.deepcopy(model).train(), []
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        for _ in range(ROUNDS):
            same, others = (data.to_float(images[torch.randint(len(images), (BATCH,))]) for _ in range(2))
            first, again, other = (flat_gradient(model, each) for each in (same, same, others))
            found.append(((first - again).square().sum() / 2, (first - other).square().sum() / 2))
    by_codes, whole = map(torch.stack, zip(*found, strict=True))
    return by_codes, whole


def estimates(
    f: Callable[[Tensor], Tensor], mean: Tensor, log_variance: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Estimate the gradient of E[f(z)] in means and log-variances from each draw: by the path, and by the score.

    Parameters
    ----------
    f : from codes (..., K) to values (...)
    mean, log_variance : Tensors of shape (..., K)
    noise : Tensor of shape (S, ..., K)

    Returns
    -------
    Two Tensors of shape (S, ..., 2K)
    """
    mean, log_variance = (each.expand_as(noise).clone().requires_grad_() for each in (mean, log_variance))
    z = mean + torch.exp(log_variance / 2) * noise
    values, log_q = f(z), objective.gaussian_log_prob(z.detach(), mean, log_variance)
    path, score = (torch.cat(torch.autograd.grad(each.sum(), (mean, log_variance)), -1) for each in (values, log_q))
    return path, values.detach()[..., None] * score


def ratios(model: models.VAE, images: Tensor, counts: Tensor, seed: int) -> Tensor:
    """Compute the score function's variance over the path derivative's, for means and log-variances, (R, 2).

    Variances are summed over latent dimensions and averaged over images.

    Parameters
    ----------
    counts : Tensor of shape (R, DRAWS_EACH), how often each resample contains each draw
    """
    x = data.to_float(images[:IMAGES_EACH])

    def log_likelihoods(z: Tensor) -> Tensor:
        repeated = x.expand(len(z), *x.shape).flatten(0, 1)
        return model.decoder(z.flatten(0, 1)).log_prob(repeated).unflatten(0, z.shape[:2])

    mean, log_variance = evaluation.encode(model, images[:IMAGES_EACH])
    noise = torch.randn(DRAWS_EACH, *mean.shape, generator=torch.Generator().manual_seed(seed))
    spreads = []
    for each in estimates(log_likelihoods, mean, log_variance, noise):
        centred = (each - each.mean(0)).flatten(1)
        first, second = (counts @ power / DRAWS_EACH for power in (centred, centred.square()))
        spreads.append((second - first.square()).unflatten(1, (IMAGES_EACH, 2, -1)).sum((1, 3)))
    path, score = spreads
    return score / path


def largest_z(seed: int, draws: int = 250_000) -> float:
    """Compute the largest of 8 z-scores of path derivatives against exact gradients, for two functions of two codes."""
    mean, log_variance = (torch.tensor(each, dtype=torch.float64) for each in ([0.7, -1.2], [-1.0, 0.6]))
    c, a = (torch.tensor(each, dtype=torch.float64) for each in ([-0.3, 0.4], [0.5, -0.3]))
    variance = log_variance.exp()
    J = torch.exp(a @ mean + (a.square() * variance).sum() / 2)
    noise = torch.randn(draws, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = []
    for f, exact in (
        (lambda z: (z - c).square().sum(-1), torch.cat([2 * (mean - c), variance])),
        (lambda z: torch.exp(z @ a), torch.cat([a * J, a.square() * variance * J / 2])),
    ):
        path, _ = estimates(f, mean, log_variance, noise)
        found.append((path.mean(0) - exact) / (path.std(0) / draws**0.5))
    return torch.cat(found).abs().max().item()
