"""The ways to use more latent dimensions that the page `beyond/collapse` compares, and their scores.

Every model has binary pixels and 50 latent dimensions. All have the same number of weights, within 0.1%: where a way
adds none, the encoder's first layer has 54 more units.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from book.machinery import claims
from vaelib import TrainConfig, data, decoders, distributions, encoders, evaluation, objective, priors, runs
from vaelib.binarization import binarized
from vaelib.burda import layers
from vaelib.models import VAE

LATENT_DIM, EPOCHS = 50, 15
SAMPLES = 2000  # for log p(x)
WEIGHTS = claims.RECORDS / "beyond" / "collapse-plain.safetensors"  # of plain training with the first seed


def one_level(
    image_shape: tuple[int, ...], latent_dim: int, means: Tensor, encoder_width: int = 254, decoder_width: int = 200
) -> VAE:
    """Build the model of `vaelib.burda` with other widths. `means` are each pixel's mean, (C, H, W)."""
    pixels = math.prod(image_shape)
    features = nn.Sequential(nn.Flatten(), *layers(pixels, encoder_width, 200))
    *decoder, last, _ = layers(latent_dim, 200, decoder_width, pixels)
    last.bias.data = means.clamp(0.001, 0.999).logit().flatten()
    output = nn.Sequential(*decoder, last, nn.Unflatten(1, image_shape))
    encoder = encoders.Gaussian(features, 200, latent_dim)
    return VAE(encoder, decoders.Bernoulli(output), priors.Standard(latent_dim), image_shape)


class Chain(Distribution):
    """Codes from one distribution, followed by codes from another that depends on them.

    Parameters
    ----------
    first : Distribution over the first codes
    then : function from these codes to a distribution over the others
    sizes : the numbers of both
    roll : number of places by which the codes are rotated, so that both levels have the same place in q and p
    """

    arg_constraints: ClassVar[dict] = {}
    has_rsample = True

    def __init__(self, first: Distribution, then: nn.Module, sizes: tuple[int, int], roll: int):
        self.first, self.then, self.sizes, self.roll = first, then, sizes, roll
        super().__init__(first.batch_shape, torch.Size([sum(sizes)]), validate_args=False)

    def rsample(self, sample_shape: distributions.Shape = ()) -> Tensor:
        first = self.first.rsample(sample_shape)
        return torch.cat([first, self.then(first).rsample()], -1).roll(self.roll, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        first, other = value.roll(-self.roll, -1).split(self.sizes, -1)
        return self.first.log_prob(first) + self.then(first).log_prob(other)


class Chained(nn.Module):
    """An encoder or a prior: a module for the first codes, and a network for the others. See `Chain`."""

    def __init__(self, first: nn.Module, sizes: tuple[int, int], roll: int = 0):
        super().__init__()
        self.first, self.sizes, self.roll = first, sizes, roll
        self.then = encoders.Gaussian(nn.Sequential(*layers(sizes[0], 235)), 235, sizes[1])

    def forward(self, *x: Tensor) -> Distribution:
        return Chain(self.first(*x), self.then, self.sizes, self.roll)


class Below(nn.Module):
    """A decoder of the first codes only."""

    def __init__(self, decoder: nn.Module, size: int):
        super().__init__()
        self.decoder, self.size = decoder, size

    def forward(self, z: Tensor) -> Distribution:
        return self.decoder(z[..., : self.size])


def two_levels(image_shape: tuple[int, ...], latent_dim: int, means: Tensor) -> VAE:
    """Build a model whose first level of codes has two thirds of the dimensions and depends on the second."""
    top = latent_dim // 3
    low = latent_dim - top
    model: Any = one_level(image_shape, low, means, encoder_width=200)
    encoder, prior = Chained(model.encoder, (low, top)), Chained(priors.Standard(top), (top, low), roll=low)
    return VAE(encoder, Below(model.decoder, low), prior, image_shape)


@dataclass(frozen=True)
class Way:
    """A way to train: the objective, the model's builder without `means`, and the number of latent dimensions."""

    objective: Any = objective.negative_elbo
    model: Any = one_level
    latent_dim: int = LATENT_DIM

    def functions(self, digits: data.Dataset) -> dict[str, Any]:
        """Return the builder and the objective for `runs.train`."""
        means = digits.train.images.sum(0) / (255 * len(digits.train))  # exact sums, so the same on every machine
        return {"builder": partial(binarized, builder=partial(self.model, means=means)), "objective": self.objective}


WAYS = {
    "plain": Way(),
    "sampled KL": Way(objective.ImportanceWeighted(1)),  # of one sample, this is log q(z|x) - log p(x, z)
    "annealing": Way(objective.BetaELBO(warm_up=0.5)),
    "free bits": Way(objective.FreeBits(0.25)),
    "two levels": Way(model=two_levels, latent_dim=LATENT_DIM * 3 // 2),
    "wider decoder": Way(model=partial(one_level, encoder_width=200, decoder_width=254)),
}
CURVE = {f"β = {beta}": Way(objective.BetaELBO(beta)) for beta in (0.1, 0.3, 2, 4, 10)}  # one seed each


def fewer(digits: data.Dataset) -> data.Dataset:
    """Keep every fifth test image, because log p(x) takes long."""
    test = data.Split(digits.test.images[::5], digits.test.labels[::5])
    return replace(digits, name=f"{digits.name}-fifth", test=test)


def train(way: Way, seed: int, digits: data.Dataset, epochs: int = EPOCHS) -> runs.Run:
    """Train one way, resume it, or load its run."""
    config, tags = TrainConfig(way.latent_dim, epochs, seed), {"rules": claims.digest(claims.next_rules())}
    return runs.train(digits, config, checkpoint_seconds=60, tags=tags, **way.functions(digits))


def published(way: Way, seed: int, digits: data.Dataset) -> runs.Run:
    """Load the published record of a run."""
    name = runs.name(digits.name, TrainConfig(way.latent_dim, EPOCHS, seed), **way.functions(digits))
    return runs.load(claims.RECORDS / "fresh" / name, builder=None)


def score(run: runs.Run, images: Tensor, samples: int = SAMPLES) -> tuple[Tensor, runs.Run]:
    """Estimate log p(x) of images, (N,), and return the run with more values in its evaluation.

    These are the mean estimate, its error and the earlier estimate (`log_prob_of_200`, after its samples), the variance
    of each dimension's posterior mean over images, the number of principal directions in which it is above 0.01, and
    each dimension's KL if there is a closed form.
    """
    model = run.model()
    estimates, errors = evaluation.log_prob(model, images, samples)
    (means, _), (again, _) = (evaluation.encode(model, images, seed) for seed in (0, 1))
    covariance = (means - means.mean(0)).T @ (again - again.mean(0)) / (len(means) - 1)
    along = torch.linalg.eigvalsh((covariance + covariance.T) / 2)
    with torch.inference_mode():
        kl = distributions.kl_by_dimension(model.posterior(data.to_float(images)), model.prior())
    found: dict[str, Any] = {
        "log_prob": estimates.mean().item(),
        "log_prob_samples": samples,
        "log_prob_standard_error": errors.square().mean().sqrt().item() / math.sqrt(len(errors)),
        "log_prob_of_200": run.evaluation["log_prob"],
        "log_prob_of_fourth": estimates[::4].mean().item(),
        "variances": covariance.diag().tolist(),
        "active_directions": int((along > 0.01).sum()),
        "kl_by_dimension": None if kl is None else kl.mean(0).tolist(),
    }
    return estimates, replace(run, evaluation=run.evaluation | found)
