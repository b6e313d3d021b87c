"""Baselines: Kingma and Welling's (2013) wake-sleep and Monte Carlo EM with HMC, and exact EM on a grid of codes.

Each takes a `models.VAE` and one batch of float images, which the model preprocesses. EM uses only decoder and prior.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent, MultivariateNormal
from torch.optim import Optimizer

from .models import VAE
from .objective import importance_weighted_bound

Density = Callable[[Tensor], Tensor]


def wake_sleep(model: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute both losses of wake-sleep (Hinton et al., 1995), in nats, each (B,).

    The wake loss is -log p(x, z) of a code from q(z | x). Its gradient is for decoder and prior only. The sleep loss is
    -log q(z | x) of a code and an image sampled from the model. Its gradient is for the encoder only. No single
    objective has the sum of both as its loss.
    """
    with torch.no_grad():
        x = model.prepare(x)
        z = model.encoder(x).sample()
        dreamt = model.prior().sample((len(x),))
        images = model.decoder(dreamt).sample()  # not preprocessed, because the decoder returns preprocessed images
    return -_log_joint(model, x, z), -model.encoder(images).log_prob(dreamt)


def log_joint(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    """Compute log p(x, z), (B,), of images x (B, C, H, W) and a code z (B, K) for each."""
    return _log_joint(model, model.prepare(x), z)


def _log_joint(model: VAE, prepared: Tensor, z: Tensor) -> Tensor:
    return model.decoder(z).log_prob(prepared) + model.prior().log_prob(z)


def hmc(
    log_density: Density, z: Tensor, steps: int, step_size: float, leapfrogs: int = 10, target: float | None = 0.9
) -> tuple[Tensor, float, float]:
    """Run Hamiltonian Monte Carlo (Neal, 2011) with B chains at once and one step size.

    Parameters
    ----------
    log_density : from codes (B, K) to unnormalised log-densities (B,), in nats
    z : start of the chains, (B, K)
    steps : proposals per chain
    step_size : of a leapfrog step
    leapfrogs : leapfrog steps per proposal
    target : share of proposals to accept. After each proposal, the step size changes by at most 5% towards it. While it
        adapts, the chains don't exactly follow the density. None keeps the step size fixed

    Returns
    -------
    The chains (steps, B, K), the last step size, and the share of accepted proposals
    """

    def slope(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = log_density(z)
            (gradient,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), gradient

    chain, accepted = [], 0.0
    z = z.detach()
    for _ in range(steps):
        value, gradient = slope(z)
        momentum = torch.randn_like(z)
        energy = value - momentum.square().sum(1) / 2
        moved = z
        for _ in range(leapfrogs):
            momentum = momentum + step_size / 2 * gradient
            moved = moved + step_size * momentum
            value, gradient = slope(moved)
            momentum = momentum + step_size / 2 * gradient
        change = value - momentum.square().sum(1) / 2 - energy
        taken = torch.rand_like(change).log() < change  # false for NaN, which a diverged path gives
        z = torch.where(taken[:, None], moved, z)
        share = taken.float().mean().item()
        accepted += share / steps
        if target is not None:
            step_size *= math.exp(max(-0.05, min(0.05, 0.5 * (share - target))))
        chain.append(z)
    return torch.stack(chain), step_size, accepted


def mcem_step(
    model: VAE, x: Tensor, z: Tensor, optimizer: Optimizer, step_size: float, proposals: int = 1, updates: int = 5
) -> tuple[Tensor, float, float]:
    """Take a step of Monte Carlo EM: HMC from the codes z (B, K), then updates of the weights for its last codes.

    The defaults are from Kingma and Welling's appendix: 10 leapfrog steps, 90% accepted, 5 updates.

    Parameters
    ----------
    model : VAE
    x : float images (B, C, H, W)
    z : codes (B, K) of these images, from which HMC starts
    optimizer : of the decoder's weights
    step_size : of a leapfrog step
    proposals, updates : number of HMC proposals and of weight updates

    Returns
    -------
    The new codes (B, K), from which to start when these images return, the step size, and the share accepted
    """
    x = model.prepare(x)
    chain, step_size, accepted = hmc(lambda z: _log_joint(model, x, z), z, proposals, step_size)
    _maximise(lambda: _log_joint(model, x, chain[-1]), optimizer, updates)
    return chain[-1], step_size, accepted


def _maximise(values: Callable[[], Tensor], optimizer: Optimizer, updates: int) -> None:
    for _ in range(updates):
        optimizer.zero_grad()
        (-values().mean()).backward()
        optimizer.step()


def grid_log_joint(model: VAE, x: Tensor, grid: Tensor) -> Tensor:
    """Compute log p(x | z) + log P(z), (B, M), with P the prior on M evenly spaced codes (M, K), normalised to sum 1.

    Its logsumexp over the grid is log p(x), and its softmax is the posterior. Both become exact as the grid becomes
    fine and wide.
    """
    return _grid_log_joint(model, model.prepare(x), grid)


def _grid_log_joint(model: VAE, x: Tensor, grid: Tensor) -> Tensor:
    likelihood = model.decoder(grid)
    if isinstance(likelihood, Independent) and isinstance(likelihood.base_dist, Bernoulli):
        logits = likelihood.base_dist.logits.flatten(1)  # (M, D). A matrix product replaces B * M * D logarithms
        values = x.flatten(1) @ logits.T - torch.nn.functional.softplus(logits).sum(1)
    else:
        values = likelihood.log_prob(x.unsqueeze(1))
    return values + model.prior().log_prob(grid).log_softmax(0)


def grid_em_step(model: VAE, x: Tensor, grid: Tensor, optimizer: Optimizer, updates: int = 5) -> Tensor:
    """Take a step of exact EM: each image's posterior on the grid, then updates of the weights on the expectation.

    Returns log p(x), (B,), before the updates. The prior stays fixed.
    """
    x = model.prepare(x)
    with torch.no_grad():
        joint = _grid_log_joint(model, x, grid)
        posterior = joint.softmax(1)
    _maximise(lambda: (posterior * _grid_log_joint(model, x, grid)).sum(1), optimizer, updates)
    return joint.logsumexp(1)


@torch.no_grad()
def log_prob(model: VAE, x: Tensor, samples: int = 200, proposals: int = 60) -> Tensor:
    """Estimate log p(x) of each image, (B,), in nats, without an encoder, so that all methods are scored alike.

    Codes sampled from the prior and weighted by the likelihood are the start of HMC chains. The second half of the
    chains gives a normal distribution per image. We multiply its covariance by 1.5 and use it for importance sampling.
    The estimate is a lower bound on average.
    """
    x, codes = model.prepare(x), model.prior().sample((1000,))
    likelihood = _grid_log_joint(model, x, codes) - model.prior().log_prob(codes).log_softmax(0)
    start = torch.distributions.Categorical(logits=likelihood).sample()
    chain, _, _ = hmc(lambda z: _log_joint(model, x, z), codes[start], proposals, 0.05)
    half = chain[proposals // 2 :]  # (T, B, K)
    centred = half - half.mean(0)
    covariance = torch.einsum("tbi,tbj->bij", centred, centred) / len(half)
    proposal = MultivariateNormal(half.mean(0), 1.5 * covariance + 1e-4 * torch.eye(half.shape[2]).to(half))
    draws = [proposal.sample() for _ in range(samples)]
    weights = torch.stack([_log_joint(model, x, z) - proposal.log_prob(z) for z in draws])
    return importance_weighted_bound(weights)
