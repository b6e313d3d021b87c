"""The objective as pure functions of tensors, and what training minimises. All values are in nats, one per image.

Sums run over pixels and latent dimensions, never over images: the training loop averages over the batch.
[KW] is Kingma & Welling, Auto-Encoding Variational Bayes, arXiv:1312.6114.
"""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x | z) = Σ_j [x_j log p_j + (1 - x_j) log(1 - p_j)] with p = sigmoid(logits). [KW], appendix C.1.

    It is computed from logits, so it stays finite and exact however large they are. With grey pixels
    (0 < x < 1) it is the paper's objective, but not a normalised density.

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
    squared = ((z - mean) * torch.exp(-0.5 * log_variance)).square()  # exp(-log_variance) would overflow earlier
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
    return kl_by_dimension(mean, log_variance).sum(-1)


def kl_by_dimension(mean: Tensor, log_variance: Tensor) -> Tensor:
    """The summands of `kl_divergence`, (..., K): the KL of each latent dimension, which are independent."""
    return -0.5 * (1 + log_variance - mean**2 - torch.exp(log_variance))


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


class Terms(NamedTuple):
    """Everything that an objective or an evaluation is computed from: S samples of each of B posteriors, in nats.

    Parameters
    ----------
    log_likelihood : Tensor of shape (S, B), log p(x | z)
    log_prior : Tensor of shape (S, B), log p(z)
    log_posterior : Tensor of shape (S, B), log q(z | x)
    codes : Tensor of shape (S, B, K), z
    kl : Tensor of shape (B, K), KL(q(z | x) || p(z)) by dimension, in closed form; of shape (B, 1), if there is only
        one of the whole; None if there is none (see `distributions.kl_by_dimension`)
    """

    log_likelihood: Tensor
    log_prior: Tensor
    log_posterior: Tensor
    codes: Tensor
    kl: Tensor | None

    @property
    def reconstruction(self) -> Tensor:
        """The ELBO's first term, (B,), which is the mean of log p(x | z) over the samples."""
        return _mean(self.log_likelihood)

    @property
    def divergence(self) -> Tensor:
        """The ELBO's second term, (B,), which is the KL in closed form, or else the mean of log q(z | x) - log p(z)."""
        return _mean(self.log_posterior - self.log_prior) if self.kl is None else self.kl.sum(1)

    @property
    def log_weights(self) -> Tensor:
        """log p(x, z) - log q(z | x), (S, B)."""
        return self.log_likelihood + self.log_prior - self.log_posterior


def _mean(values: Tensor) -> Tensor:
    return values.squeeze(0) if len(values) == 1 else values.mean(0)  # a mean of one costs as much as of many


def negative_elbo(terms: Terms, fraction: float) -> Tensor:
    """What the paper minimises: KL(q(z | x) || p(z)) - E log p(x | z).

    Any function of this form can stand in its place in a training run. If it has an attribute `samples`, there are that
    many of each posterior (one by default); the attributes `fixed_posterior` and `reparameterized` are those arguments
    of `models.VAE.terms`.

    Parameters
    ----------
    terms : Terms
    fraction : of the training that is done, from 0 to 1

    Returns
    -------
    Tensor of shape (B,), whose mean is minimised
    """
    return terms.divergence - terms.reconstruction


def options(objective: object) -> dict[str, Any]:
    """What an objective asks of `models.VAE.terms`, by attributes. Raises ValueError if `samples` isn't positive."""
    names = "samples", "fixed_posterior", "reparameterized"
    asked = {name: getattr(objective, name) for name in names if hasattr(objective, name)}
    if "samples" in asked:
        asked["samples"] = whole_number("the objective's samples", asked["samples"])
    return asked


@dataclass(frozen=True)
class BetaELBO:
    """The negative ELBO with the KL multiplied by β (Higgins et al., 2017), at once or by annealing.

    Parameters
    ----------
    beta : factor of the KL
    warm_up : fraction of the training, from 0 to 1, in which the factor grows from 0 to beta, linearly
    """

    beta: float = 1.0
    warm_up: float = 0.0

    def __post_init__(self):
        if not (0 <= self.beta < math.inf and 0 <= self.warm_up <= 1):
            raise ValueError(f"expected a beta of at least 0 and a warm_up from 0 to 1, not {self}")
        for name, value in (("beta", self.beta), ("warm_up", self.warm_up)):
            object.__setattr__(self, name, float(value))  # 4 and 4.0 are one objective, with one name

    def __call__(self, terms: Terms, fraction: float) -> Tensor:
        beta = self.beta * min(1.0, fraction / self.warm_up) if self.warm_up else self.beta
        return beta * terms.divergence - terms.reconstruction


@dataclass(frozen=True)
class FreeBits:
    """The negative ELBO in which each latent dimension's KL, averaged over the batch, counts at least some nats.

    Kingma et al., arXiv:1606.04934, appendix C.8. It needs a closed form of each dimension's KL.

    Parameters
    ----------
    nats : for each latent dimension
    """

    nats: float = 0.1

    def __post_init__(self):
        if not 0 <= self.nats < math.inf:
            raise ValueError(f"expected nats of at least 0, not {self}")
        object.__setattr__(self, "nats", float(self.nats))

    def __call__(self, terms: Terms, fraction: float) -> Tensor:
        if terms.kl is None or terms.kl.shape[1] != terms.codes.shape[-1]:
            raise ValueError(
                "free bits need the KL of each latent dimension in closed form, and this posterior and prior have "
                "none; BetaELBO with a warm_up keeps latent dimensions alive in any model"
            )
        return terms.kl.mean(0).clamp(min=self.nats).sum() - terms.reconstruction


@dataclass(frozen=True)
class _Sampled:
    samples: int = 5

    def __post_init__(self):
        object.__setattr__(self, "samples", whole_number("samples", self.samples))


class MeanELBO(_Sampled):
    """The negative ELBO as a mean over several samples of each posterior: [KW], equation 10 with L = samples.

    More samples leave its expectation as it is and take noise from its gradient. It needs a KL in closed form.

    Parameters
    ----------
    samples : of each posterior
    """

    def __call__(self, terms: Terms, fraction: float) -> Tensor:
        if terms.kl is None:
            raise ValueError(
                "a mean of samples needs a KL in closed form, and this posterior and prior have none; "
                "ImportanceWeighted needs none"
            )
        return terms.divergence - terms.reconstruction


class ImportanceWeighted(_Sampled):
    """The negative importance-weighted bound: see `importance_weighted_bound`.

    Parameters
    ----------
    samples : of each posterior
    """

    def __call__(self, terms: Terms, fraction: float) -> Tensor:
        return -importance_weighted_bound(terms.log_weights)


def positive_number(name: str, value: object) -> float:
    """The value as a float. Raises ValueError if it is not a positive and finite number."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a positive number, not {value!r}")
    return float(value)


def whole_number(name: str, value: object, least: int = 1) -> int:
    """The value as an int. Raises ValueError if it is not a whole number, Python's or NumPy's, of at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)
