"""The objective, as pure functions of tensors, and what a training minimises: every value in nats, one for each image.

Sums run over pixels and over latent dimensions, never over images, and nothing is averaged here: whoever trains takes
the mean over a batch. [KW] is Kingma & Welling, Auto-Encoding Variational Bayes, arXiv:1312.6114.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributions, nn
from torch.nn.functional import binary_cross_entropy_with_logits


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x | z) = Σ_j [x_j log p_j + (1 - x_j) log(1 - p_j)] with p = sigmoid(logits). [KW], appendix C.1.

    Computed from logits, so that it stays finite and exact however sure the decoder is. With grey pixels
    (0 < x < 1) it is the paper's objective, but no normalised density.

    Parameters
    ----------
    x : Tensor of shape (B, ...), values in [0, 1]
    logits : Tensor of the same shape

    Returns
    -------
    Tensor of shape (B,), nats per image, summed over pixels
    """
    return -binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def gaussian_log_prob(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(z; mean, diag(exp(log_variance))).

    Parameters
    ----------
    z, mean, log_variance : Tensors of shape (..., K), or ones that broadcast

    Returns
    -------
    Tensor of shape (...), nats, summed over the K latent dimensions
    """
    squared = (z - mean) ** 2 * torch.exp(-log_variance)
    return -0.5 * (math.log(2 * math.pi) + log_variance + squared).sum(-1)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag(exp(log_variance))) || N(0, I)) in closed form. [KW], appendix B.

    Parameters
    ----------
    mean, log_variance : Tensors of shape (..., K)

    Returns
    -------
    Tensor of shape (...), nats, summed over the K latent dimensions
    """
    return -0.5 * (1 + log_variance - mean**2 - torch.exp(log_variance)).sum(-1)


def reparameterize(mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A sample z = mean + exp(log_variance / 2) * ε, ε ~ N(0, I), through which gradients flow. [KW], section 2.4.

    Parameters
    ----------
    mean, log_variance : Tensors of shape (..., K)
    generator : source of ε, on the tensors' device; torch's global one by default

    Returns
    -------
    Tensor of shape (..., K)
    """
    if generator is None:
        noise = torch.randn_like(mean)
    else:
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + torch.exp(0.5 * log_variance) * noise


def elbo(x: Tensor, logits: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of the evidence lower bound; the bound is their difference. [KW], equation 10 with L = 1.

    Parameters
    ----------
    x : Tensor of shape (B, ...), values in [0, 1]
    logits : Tensor of the same shape, decoded from one sample of the posterior
    mean, log_variance : Tensors of shape (B, K), the posterior

    Returns
    -------
    reconstruction : Tensor of shape (B,), log p(x | z) in nats
    kl : Tensor of shape (B,), KL(q(z | x) || p(z)) in nats
    """
    return bernoulli_log_prob(x, logits), kl_divergence(mean, log_variance)


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """log (1/S) Σ_s w_s: one sample gives the ELBO, more a tighter bound. Burda et al., arXiv:1509.00519, equation 8.

    Parameters
    ----------
    log_weights : Tensor of shape (S, B), log p(x, z_s) - log q(z_s | x) for S samples of each posterior

    Returns
    -------
    Tensor of shape (B,), nats
    """
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


def negative_elbo(model: nn.Module, x: Tensor, progress: float) -> tuple[Tensor, Tensor, Tensor]:
    """What the paper minimises. Any function of this form can stand in its place in a training.

    Parameters
    ----------
    model : VAE
    x : Tensor of shape (B, C, H, W), values in [0, 1]
    progress : of the training, from 0 to 1

    Returns
    -------
    loss : Tensor of shape (B,), whose mean is minimised
    reconstruction, kl : Tensors of shape (B,), the terms of the ELBO, which are recorded
    """
    reconstruction, kl = model(x)
    return kl - reconstruction, reconstruction, kl


@dataclass(frozen=True)
class BetaELBO:
    """The negative ELBO whose KL counts β-fold (Higgins et al., 2017), or comes in little by little (annealing).

    Parameters
    ----------
    beta : factor of the KL
    warm_up : part of the training, from 0 to 1, in which the factor grows from 0 to beta, linearly
    """

    beta: float = 1.0
    warm_up: float = 0.0

    def __post_init__(self):
        if not (0 <= self.beta < math.inf and 0 <= self.warm_up <= 1):
            raise ValueError(f"expected a beta of at least 0 and a warm_up from 0 to 1, not {self}")
        for name, value in (("beta", self.beta), ("warm_up", self.warm_up)):
            object.__setattr__(self, name, float(value))  # 4 and 4.0 are one objective, with one name

    def __call__(self, model: nn.Module, x: Tensor, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        reconstruction, kl = model(x)
        beta = self.beta * min(1.0, progress / self.warm_up) if self.warm_up else self.beta
        return beta * kl - reconstruction, reconstruction, kl


@dataclass(frozen=True)
class FreeBits:
    """The negative ELBO in which no latent dimension's KL, averaged over the batch, counts as less than some nats.

    Kingma et al., arXiv:1606.04934, appendix C.8. It needs a posterior and a prior whose dimensions are independent:
    those that have a method `by_dimension`, as a diagonal Gaussian and N(0, I).

    Parameters
    ----------
    nats : for each latent dimension
    """

    nats: float = 0.1

    def __post_init__(self):
        if not 0 <= self.nats < math.inf:
            raise ValueError(f"expected nats of at least 0, not {self}")
        object.__setattr__(self, "nats", float(self.nats))

    def __call__(self, model: Any, x: Tensor, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        x = model.observe(x)
        q, p = model.encoder(x), model.prior()
        for each in (q, p):
            if not hasattr(each, "by_dimension"):
                raise ValueError(
                    f"free bits need independent latent dimensions, and {type(each).__name__} has no `by_dimension`; "
                    f"BetaELBO with a warm_up keeps latents alive in any model"
                )
        kl = distributions.kl_divergence(q.by_dimension(), p.by_dimension())  # (B, K)
        reconstruction = model.decoder(q.rsample()).log_prob(x)
        return kl.mean(0).clamp(min=self.nats).sum() - reconstruction, reconstruction, kl.sum(1)


@dataclass(frozen=True)
class _Sampled:
    samples: int = 5

    def __post_init__(self):
        if not isinstance(self.samples, int) or self.samples < 1:
            raise ValueError(f"expected a whole number of samples, at least 1, not {self}")


class MeanELBO(_Sampled):
    """The negative ELBO, as a mean over several samples of each posterior: [KW], equation 10 with L = samples.

    Its expectation is that of one sample; what more samples take away is noise of its gradient. It needs a posterior
    and a prior whose KL is known in closed form, as a diagonal Gaussian and N(0, I).

    Parameters
    ----------
    samples : of each posterior
    """

    def __call__(self, model: Any, x: Tensor, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        x = model.observe(x)
        q, p = model.encoder(x), model.prior()
        try:
            kl = distributions.kl_divergence(q, p)
        except NotImplementedError as error:
            raise ValueError(
                f"a mean of samples needs a KL in closed form, and torch knows none of {type(q).__name__} and "
                f"{type(p).__name__}; ImportanceWeighted needs none"
            ) from error
        reconstruction = model.log_likelihood(x, torch.stack([q.rsample() for _ in range(self.samples)])).mean(0)
        return kl - reconstruction, reconstruction, kl


class ImportanceWeighted(_Sampled):
    """The negative importance-weighted bound: see `importance_weighted_bound`. What is recorded are the ELBO's terms.

    Parameters
    ----------
    samples : of each posterior
    """

    def __call__(self, model: Any, x: Tensor, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        likelihood, prior, posterior = model.log_densities(x, self.samples)
        bound = importance_weighted_bound(likelihood + prior - posterior)
        return -bound, likelihood.mean(0), (posterior - prior).mean(0)
