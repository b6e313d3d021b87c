"""The objective as pure functions of tensors, and related objectives for training. All values are in nats per image.

Sums run over pixels and latent dimensions, never over images. The training loop averages over the batch. [KW] is Kingma
& Welling, Auto-Encoding Variational Bayes, arXiv:1312.6114.
"""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """Compute log p(x | z) = Σ_j [x_j log p_j + (1 - x_j) log(1 - p_j)], p = sigmoid(logits). [KW], appendix C.1.

    It is computed from logits, so it stays finite and accurate for large logits. For grey pixels (0 < x < 1) it is the
    paper's objective, but not a normalised density.

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
    """Compute log N(z; mean, diag(exp(log_variance))).

    Parameters
    ----------
    z, mean, log_variance : Tensors of shape (..., K), or shapes that broadcast to it

    Returns
    -------
    Tensor of shape (...), nats, summed over the K latent dimensions
    """
    squared = ((z - mean) * torch.exp(-0.5 * log_variance)).square()  # exp(-log_variance) would overflow earlier
    return -0.5 * (math.log(2 * math.pi) + log_variance + squared).sum(-1)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute KL(N(mean, diag(exp(log_variance))) || N(0, I)) in closed form. [KW], appendix B.

    Parameters
    ----------
    mean, log_variance : Tensors of shape (..., K)

    Returns
    -------
    Tensor of shape (...), nats, summed over the K latent dimensions
    """
    return kl_by_dimension(mean, log_variance).sum(-1)


def kl_by_dimension(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute the KL of each latent dimension, (..., K). Dimensions are independent, so `kl_divergence` is the sum."""
    return -0.5 * (1 + log_variance - mean**2 - torch.exp(log_variance))


def reparameterize(mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw z = mean + exp(log_variance / 2) * ε, ε ~ N(0, I), through which gradients flow. [KW], section 2.4.

    Parameters
    ----------
    mean, log_variance : Tensors of shape (..., K)
    generator : source of ε, on the tensors' device; torch's global one by default

    Returns
    -------
    Tensor of shape (..., K)
    """
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + torch.exp(0.5 * log_variance) * noise


def elbo(x: Tensor, logits: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Compute both terms of the ELBO. The ELBO is their difference. [KW], equation 10 with L = 1.

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
    """Compute log (1/S) Σ_s w_s. Burda et al., arXiv:1509.00519, equation 8.

    For S = 1 this is the ELBO. More samples give a tighter bound.

    Parameters
    ----------
    log_weights : Tensor of shape (S, B), log p(x, z_s) - log q(z_s | x) for S samples of each posterior

    Returns
    -------
    Tensor of shape (B,), nats
    """
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


class Terms(NamedTuple):
    """The values from which objectives and metrics are computed, for S samples of each of B posteriors, in nats.

    Parameters
    ----------
    log_likelihood : Tensor of shape (S, B), log p(x | z)
    log_prior : Tensor of shape (S, B), log p(z)
    log_posterior : Tensor of shape (S, B), log q(z | x)
    codes : Tensor of shape (S, B, K), z
    kl : KL(q(z | x) || p(z)) in closed form, Tensor of shape (B, K), by dimension. The shape is (B, 1) if only the
        total has a closed form. None if there is no closed form (see `distributions.kl_by_dimension`)
    """

    log_likelihood: Tensor
    log_prior: Tensor
    log_posterior: Tensor
    codes: Tensor
    kl: Tensor | None

    @property
    def reconstruction(self) -> Tensor:
        """The ELBO's first term, (B,), the mean of log p(x | z) over the samples."""
        return self.log_likelihood.mean(0)

    @property
    def divergence(self) -> Tensor:
        """The ELBO's second term, (B,), the KL in closed form, or else the mean of log q(z | x) - log p(z)."""
        return (self.log_posterior - self.log_prior).mean(0) if self.kl is None else self.kl.sum(1)

    @property
    def log_weights(self) -> Tensor:
        """log p(x, z) - log q(z | x), (S, B)."""
        return self.log_likelihood + self.log_prior - self.log_posterior


def negative_elbo(terms: Terms, fraction: float) -> Tensor:
    """Compute the paper's objective, KL(q(z | x) || p(z)) - E log p(x | z).

    You can train with any function that has these arguments. Three optional attributes set how `models.VAE.terms` is
    called. `samples` is the number of samples per posterior (1 by default). `fixed_posterior` and `reparameterized` are
    passed on.

    Parameters
    ----------
    terms : Terms
    fraction : of training that is done, from 0 to 1

    Returns
    -------
    Tensor of shape (B,), whose mean is minimised
    """
    return terms.divergence - terms.reconstruction


def options(objective: object) -> dict[str, Any]:
    """Return an objective's arguments for `models.VAE.terms`. Raises ValueError if `samples` isn't positive."""
    flags = "fixed_posterior", "reparameterized"
    asked = {name: getattr(objective, name) for name in flags if hasattr(objective, name)}
    return asked | {"samples": whole_number("the objective's samples", getattr(objective, "samples", 1))}


@dataclass(frozen=True)
class BetaELBO:
    """The negative ELBO with its KL multiplied by β (Higgins et al., 2017), optionally with annealing.

    Parameters
    ----------
    beta : factor of the KL
    warm_up : fraction of training, from 0 to 1, in which the factor grows linearly from 0 to beta
    """

    beta: float = 1.0
    warm_up: float = 0.0

    def __post_init__(self):
        if not (0 <= self.beta < math.inf and 0 <= self.warm_up <= 1):
            raise ValueError(f"expected a beta of at least 0 and a warm_up from 0 to 1, not {self}")
        for name, value in (("beta", self.beta), ("warm_up", self.warm_up)):
            object.__setattr__(self, name, float(value))  # so that 4 and 4.0 have the same name in records

    def __call__(self, terms: Terms, fraction: float) -> Tensor:
        beta = self.beta * min(1.0, fraction / self.warm_up) if self.warm_up else self.beta
        return beta * terms.divergence - terms.reconstruction


@dataclass(frozen=True)
class FreeBits:
    """The negative ELBO with a lower limit on each dimension's KL, averaged over the batch.

    Kingma et al., arXiv:1606.04934, appendix C.8. It needs a closed-form KL of each dimension.

    Parameters
    ----------
    nats : least KL that counts for each latent dimension
    """

    nats: float = 0.1

    def __post_init__(self):
        if not 0 <= self.nats < math.inf:
            raise ValueError(f"expected nats of at least 0, not {self}")
        object.__setattr__(self, "nats", float(self.nats))

    def __call__(self, terms: Terms, fraction: float) -> Tensor:
        if terms.kl is None or terms.kl.shape[1] != terms.codes.shape[-1]:
            raise ValueError("free bits need each dimension's KL, which this model lacks; use BetaELBO's warm_up")
        return terms.kl.mean(0).clamp(min=self.nats).sum() - terms.reconstruction


@dataclass(frozen=True)
class _Sampled:
    samples: int = 5

    def __post_init__(self):
        object.__setattr__(self, "samples", whole_number("samples", self.samples))


class MeanELBO(_Sampled):
    """The negative ELBO, averaged over several samples of each posterior: [KW], equation 10 with L = samples.

    More samples reduce the gradient's noise and leave its mean unchanged. Without a closed-form KL, it is equation 8.

    Parameters
    ----------
    samples : number of samples per posterior
    """

    def __call__(self, terms: Terms, fraction: float) -> Tensor:
        return negative_elbo(terms, fraction)


class ImportanceWeighted(_Sampled):
    """The negative importance-weighted bound, see `importance_weighted_bound`.

    Parameters
    ----------
    samples : number of samples per posterior
    """

    def __call__(self, terms: Terms, fraction: float) -> Tensor:
        return -importance_weighted_bound(terms.log_weights)


def positive_number(name: str, value: object) -> float:
    """Convert a positive and finite number to float. Raises ValueError for others."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a positive number, not {value!r}")
    return float(value)


def whole_number(name: str, value: object, least: int = 1) -> int:
    """Convert Python's and NumPy's whole numbers to int. Raises ValueError if a value is of another kind or range."""
    if isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < 2**31:
        return int(value)  # below 2**31, because from there on torch's generators repeat themselves
    raise ValueError(f"{name} must be a whole number of at least {least} and below 2**31, not {value!r}")
