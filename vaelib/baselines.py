"""Baselines: Kingma and Welling's (2013) wake-sleep and Monte Carlo EM with HMC, and exact EM on a grid of codes.

Each takes a `models.VAE`, of which EM uses decoder and prior only, and one batch of float images at a time, which the
model preprocesses.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent, MultivariateNormal
from torch.optim import Optimizer

from .models import VAE


def wake_sleep(model: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """The two losses of wake-sleep (Hinton et al., 1995), nats, each (B,).

    Wake: -log p(x, z) of a code from q(z | x), a gradient for decoder and prior only. Sleep: -log q(z | x) of a code
    and an image dreamt by the model, a gradient for the encoder only. Their sum is no objective of one model.
    """
    with torch.no_grad():
        x = model.prepare(x)
        z = model.encoder(x).sample()
        dreamt = model.prior().sample((len(x),))
        images = model.decoder(dreamt).sample()  # as the model sees them: nothing is preprocessed
    return -_log_joint(model, x, z), -model.encoder(images).log_prob(dreamt)


def log_joint(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z), (B,), of images x (B, C, H, W) and a code z (B, K) for each."""
    return _log_joint(model, model.prepare(x), z)


def _log_joint(model: VAE, prepared: Tensor, z: Tensor) -> Tensor:
    return model.decoder(z).log_prob(prepared) + model.prior().log_prob(z)


def hmc(
    log_density: Callable[[Tensor], Tensor],
    z: Tensor,
    steps: int,
    step_size: float,
    leapfrogs: int = 10,
    target: float | None = 0.9,
) -> tuple[Tensor, float, float]:
    """Hamiltonian Monte Carlo (Neal, 2011) of B chains at once, with one step size.

    Parameters
    ----------
    log_density : from codes (B, K) to unnormalised log-densities (B,), nats
    z : where the chains start, (B, K)
    steps : proposals to each chain
    step_size : of a leapfrog
    leapfrogs : in each proposal
    target : share of proposals to be accepted: after each, the step size grows or shrinks by at most 5%. While it
        still adapts, the chains are not exactly those of the density; None leaves it as it is.

    Returns
    -------
    The chains (steps, B, K), the last step size, and the share accepted.
    """

    def slope(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = log_density(z)
            (gradient,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), gradient

    chain, accepted = [], 0.0
    z = z.detach()
    value, gradient = slope(z)
    for _ in range(steps):
        momentum = torch.randn_like(z)
        energy = value - momentum.square().sum(1) / 2
        moved, new_gradient, new_value = z, gradient, value
        for _ in range(leapfrogs):
            momentum = momentum + step_size / 2 * new_gradient
            moved = moved + step_size * momentum
            new_value, new_gradient = slope(moved)
            momentum = momentum + step_size / 2 * new_gradient
        change = new_value - momentum.square().sum(1) / 2 - energy
        taken = torch.rand_like(change).log() < change  # false for NaN: a path that diverged
        z = torch.where(taken[:, None], moved, z)
        gradient = torch.where(taken[:, None], new_gradient, gradient)
        value = torch.where(taken, new_value, value)
        share = taken.float().mean().item()
        accepted += share / steps
        if target is not None:
            step_size *= math.exp(max(-0.05, min(0.05, 0.5 * (share - target))))
        chain.append(z)
    return torch.stack(chain), step_size, accepted


def mcem_step(
    model: VAE, x: Tensor, z: Tensor, optimizer: Optimizer, step_size: float, proposals: int = 1, updates: int = 5
) -> tuple[Tensor, float, float]:
    """A step of Monte Carlo EM: HMC from the codes z (B, K) of these images, then updates of the weights on its last.

    The optimizer holds the decoder's weights. Returns the new codes (B, K), to start from when these images come
    again, the step size and the share accepted. The paper's appendix: 10 leapfrogs, 90% accepted, 5 updates.
    """
    x = model.prepare(x)
    chain, step_size, accepted = hmc(lambda z: _log_joint(model, x, z), z, proposals, step_size)
    for _ in range(updates):
        optimizer.zero_grad()
        (-_log_joint(model, x, chain[-1]).mean()).backward()
        optimizer.step()
    return chain[-1], step_size, accepted


def grid_log_joint(model: VAE, x: Tensor, grid: Tensor) -> Tensor:
    """log p(x | z) + log P(z), (B, M), where P is the prior on M evenly spaced codes (M, K), summing to one.

    Its logsumexp over the grid is log p(x), its softmax the posterior: exact as the grid becomes fine and wide.
    """
    return _grid_log_joint(model, model.prepare(x), grid)


def _grid_log_joint(model: VAE, x: Tensor, grid: Tensor) -> Tensor:
    likelihood = model.decoder(grid)
    if isinstance(likelihood, Independent) and isinstance(likelihood.base_dist, Bernoulli):
        logits = likelihood.base_dist.logits.flatten(1)  # (M, D); a matrix product in place of B * M * D logarithms
        values = x.flatten(1) @ logits.T - torch.nn.functional.softplus(logits).sum(1)
    else:
        values = likelihood.log_prob(x.unsqueeze(1))
    return values + model.prior().log_prob(grid).log_softmax(0)


def grid_em_step(model: VAE, x: Tensor, grid: Tensor, optimizer: Optimizer, updates: int = 5) -> Tensor:
    """A step of exact EM: the posterior of each image on the grid, then updates of the weights on the expectation.

    Returns log p(x), (B,), before the updates. The prior is taken as fixed.
    """
    x = model.prepare(x)
    with torch.no_grad():
        joint = _grid_log_joint(model, x, grid)
        posterior = joint.softmax(1)
    for _ in range(updates):
        optimizer.zero_grad()
        (-(posterior * _grid_log_joint(model, x, grid)).sum(1).mean()).backward()
        optimizer.step()
    return joint.logsumexp(1)


@torch.no_grad()
def log_prob(model: VAE, x: Tensor, samples: int = 200, proposals: int = 60) -> Tensor:
    """log p(x) of each image, (B,), nats, without an encoder, so that all rivals are scored alike.

    Codes of the prior, weighted by the likelihood, start chains of HMC; the chains' second half gives each image a
    normal distribution, widened by a half, for importance sampling. On average a lower bound, as any such estimate.
    """
    x, codes = model.prepare(x), model.prior().sample((1000,))
    likelihood = _grid_log_joint(model, x, codes) - model.prior().log_prob(codes).log_softmax(0)
    start = torch.distributions.Categorical(logits=likelihood).sample()
    chain, _, _ = hmc(lambda z: _log_joint(model, x, z), codes[start], proposals, 0.05)
    half = chain[proposals // 2 :]  # (T, B, K)
    centred = half - half.mean(0)
    covariance = torch.einsum("tbi,tbj->bij", centred, centred) / len(half)
    proposal = MultivariateNormal(half.mean(0), 1.5 * covariance + 1e-4 * torch.eye(half.shape[2]).to(half))
    weights = []
    for _ in range(samples):
        z = proposal.sample()
        weights.append(_log_joint(model, x, z) - proposal.log_prob(z))
    return torch.stack(weights).logsumexp(0) - math.log(samples)
