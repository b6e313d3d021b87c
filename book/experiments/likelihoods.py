"""Six likelihoods of the same digits, for claims B2 and B3: their models, training, bits and samples.

`python -m book.experiments.verdicts B2 B3` trains and measures them. After that, `python -m book.experiments.likelihoods`
writes what the page shows of the first seed, to book/records/beyond/likelihoods.safetensors.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from book.machinery.claims import digest, next_rules
from vaelib import TrainConfig, data, decoders, evaluation, files, models, objective, runs
from vaelib.seeding import seeded

PUBLISHED = Path(__file__).parents[1] / "records" / "beyond" / "likelihoods.safetensors"
FIRST = 10  # of the seeds
EVALUATED = 500  # number of test images in a run's own evaluation, which draws 200 codes for each
CHECKED = "Gaussian, σ learned"  # the page recomputes log p(x) of this likelihood's model
SHOWN = 6  # number of reconstructions, and of samples, in the figure


class Dequantized(models.VAE):
    """A VAE of the density of images, with noise that spreads each of 256 grey levels over its own interval."""

    def preprocess(self, x: Tensor) -> Tensor:
        """Turn grey levels k / 255 into (k + u) / 256, with u uniform in [0, 1)."""
        return (255 * x + torch.rand_like(x)) / 256


def dequantized(image_shape: models.Shape, latent_dim: int, decoder: Callable[..., nn.Module]) -> Dequantized:
    """Build the paper's fully connected model with a density of pixels in [0, 1] as likelihood."""
    vae = models.mlp(image_shape, latent_dim, decoder=decoder)
    return Dequantized(vae.encoder, vae.decoder, vae.prior, image_shape)


class UnitGaussian(decoders.Gaussian):
    """Pixels from normal distributions with σ = 1, so that the loss is half the squared error."""

    def __init__(self, mean: nn.Module):
        super().__init__(mean)
        self.log_sigma.data.zero_()
        self.log_sigma.requires_grad_(False)


BUILDERS: dict[str, Callable[..., models.VAE]] = {
    "Bernoulli": partial(models.mlp, decoder=decoders.Bernoulli),
    "continuous Bernoulli": partial(dequantized, decoder=decoders.ContinuousBernoulli),
    "Gaussian, σ = 1": partial(dequantized, decoder=UnitGaussian),
    "Gaussian, σ learned": partial(dequantized, decoder=decoders.Gaussian),
    "Gaussian, best σ": partial(dequantized, decoder=decoders.OptimalGaussian),
    "logistic mixture": partial(models.mlp, decoder=decoders.DiscretizedLogisticMixture),
}
WITH_BITS = [name for name in BUILDERS if name != "Bernoulli"]


def train(name: str, seed: int, digits: data.Dataset, epochs: int = 10, evaluated: int = EVALUATED) -> runs.Run:
    """Train a likelihood's model with K = 16."""
    test = data.Split(digits.test.images[:evaluated], digits.test.labels[:evaluated])
    images = data.Dataset(f"{digits.name}-test{evaluated}", digits.train, test, digits.names, origin=digits.origin)
    tags = {"rules": digest(next_rules())}
    config = TrainConfig(16, epochs, seed)
    return runs.train(images, config, builder=BUILDERS[name], checkpoint_seconds=60, tags=tags)


def record(name: str, seed: int) -> runs.Run:
    """Load the published record of a run."""
    run = runs.name(f"mnist-test{EVALUATED}", TrainConfig(16, 10, seed), BUILDERS[name])
    return runs.load(PUBLISHED.parents[1] / "fresh" / run, builder=None)


def bits(name: str, elbo: Tensor, values: int) -> Tensor:
    """Compute bits per value of images with so many values, at most, from their ELBO in nats."""
    levels = 1 if name == "logistic mixture" else 256  # a density of (k + u) / 256 is 256 times the probability of k
    return (math.log(levels) - elbo / values) / math.log(2)


def sigma(model: models.VAE) -> dict[str, float]:
    """Return the σ of a Gaussian likelihood, or nothing for other likelihoods."""
    decoder = model.decoder
    if isinstance(decoder, decoders.Gaussian):
        return {"sigma": decoder.log_sigma.exp().item()}
    return {"sigma": decoder.variance.sqrt().item()} if isinstance(decoder, decoders.OptimalGaussian) else {}


@torch.no_grad()
def sample(model: models.VAE, count: int) -> tuple[Tensor, Tensor]:
    """Decode codes from the prior into mean images, and into images with drawn pixels, in [0, 1]."""
    averages, drawn = [], []
    with seeded(0):
        for codes in model.prior().sample((count,)).split(250):
            likelihood = model.decoder(codes)
            averages.append(likelihood.mean.clamp(0, 1))
            drawn.append((256 * likelihood.sample()).floor().clamp(0, 255) / 255)  # undoes dequantization
    return torch.cat(averages), torch.cat(drawn)


def laplacian(images: Tensor) -> Tensor:
    """Compute four times each inner pixel minus its four neighbours, (N, M), of images (N, 1, H, W)."""
    around = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    return conv2d(images, around[None, None]).flatten(1)


def pictures(name: str, model: models.VAE, images: Tensor) -> dict[str, Tensor]:
    """Return a few reconstructions, mean images of samples, and samples with drawn pixels, uint8."""
    with seeded(0):
        codes = objective.reparameterize(*evaluation.encode(model, images[:SHOWN]))
    averages, drawn = sample(model, SHOWN)
    with torch.no_grad():
        copies = model.decode(codes)
    found = {"reconstructions": copies, "mean images": averages, "drawn pixels": drawn}
    return {f"{name}: {key}": (255 * each).round().byte() for key, each in found.items()}


def publish(digits: data.Dataset) -> None:
    """Write pictures of the first seed, and one decoder in half precision with the posteriors of some test images."""
    found: dict[str, Tensor] = {}
    for name in BUILDERS:
        found |= pictures(name, train(name, FIRST, digits).model(), digits.test.images)
    model = train(CHECKED, FIRST, digits).model()
    found |= {key: each.half() for key, each in model.state_dict().items() if key.startswith("decoder.")}
    means, log_variances = evaluation.encode(model, digits.test.images[:EVALUATED])
    found |= {"posterior mean": means.half(), "posterior log-variance": log_variances.half()}
    files.write(PUBLISHED, safetensors.torch.save(found))


if __name__ == "__main__":
    publish(data.load("mnist"))
