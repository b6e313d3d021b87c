"""Measure the authors' pictures and briefly trained models of faces for book/verdict/pictures, into book/records.

`python -m book.experiments.authors_records pictures` needs VAELIB_AUTHORS. With `trained`, it trains eight models for
200 updates and stores a picture of samples. Both need CelebA. `pictures` also needs MNIST.
"""

import argparse
import io
import json
import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from book.machinery.pictures import small
from vaelib import attributes, data, decoders, encoders, evaluation, files, models, priors, seeding, storage, training
from vaelib.objective import reparameterize

from . import authors, verdicts

BOOK = Path(__file__).parents[1]
FACES, SQUARES, DIGITS = (2, 8, 16, 32, 64, 96, 128), (64, 96, 128, 256), (1, 2, 3, 4, 6, 10, 16, 24, 32)
WALKS = ("Smiling", "Male", "Eyeglasses", "Bald", "Black_Hair", "Gray_Hair")
STOPS = (20, 40, 60, 80, 100, 150, 200)  # updates, of 128 images each
SEEDS = (0, 1)


def pictures(root: Path) -> dict[str, dict]:
    """Measure all pictures in a clone of the authors' repository, and compare photographs and published models."""

    def tiles(name: str, rows: int, columns: int, size: tuple[int, int] = (64, 48)) -> Tensor:
        images, error = authors.tiles(authors.read(root, f"models/{name}.png"), rows, columns, size)
        right = error < authors.EXACT
        errors[name] = [len(error), int(right.sum()), round(error[right].max().item(), 2)]
        return images[right]

    errors: dict[str, list[float]] = {}
    photos, real = data.load("celeba"), data.load("mnist")
    face = storage.from_pretrained("celeba-k64")
    samples = {f"K = {K}": tiles(f"celeba_vae_dims/{K}d_generated_images", 8, 8) for K in FACES}
    samples["K = 64, other codes"] = tiles("celeba_vae_64/generated_images2", 3, 10)
    samples |= {"celeba-k64": face.sample(1000, seed=0), "photographs": data.to_float(photos.test.images)}
    samples["the authors' 16 photographs"] = originals = tiles("celeba_vae_64/original_images", 4, 4)
    others = data.to_float(photos.train.images[:900])

    average = data.to_float(photos.train.images).mean(0)
    means, log_variances = evaluation.encode(face, (255 * originals).round().byte())
    walks = {name: tiles(f"celeba_vae_64/{name}_traversal", 5, 11).unflatten(0, (5, 11)) for name in WALKS}
    with torch.no_grad():
        copies = {
            "the authors' K = 64, sampled code": tiles("celeba_vae_64/reconstructed_images", 4, 4),
            "celeba-k64, sampled code": face.decode(
                reparameterize(means, log_variances, torch.Generator().manual_seed(0))
            ),
            "celeba-k64, mean code": face.decode(means),
        }
    rows = {name: authors.reconstructions(each, originals, average) for name, each in copies.items()}
    theirs, ours, _ = rows.values()
    digits = {
        f"{width}, K = {K}": tiles(f"mnist_vae_dims_{width}/vae_{K}d_images", 10, 10, (28, 28))[:, :1]
        for width in (512, 1024)
        for K in DIGITS
    }
    digits |= {f"mnist-k{K}": storage.from_pretrained(f"mnist-k{K}").sample(1000, seed=0) for K in (1, 2)}
    digits["MNIST, test"] = data.to_float(real.test.images[:1000])
    unseen = {"photographs": others}, {"MNIST": data.to_float(real.train.images[:1000])}  # by the distances
    return {
        "samples": {name: authors.samples(images, others) for name, images in samples.items()},
        "squares": {f"K = {K}": authors.samples(_squares(root, K)) for K in SQUARES},
        "reconstructions": {
            name: {measure: authors.interval(each, f) for measure, f in authors.RECONSTRUCTIONS.items()}
            for name, each in rows.items()
        },
        "differences": {
            "squared error": authors.interval((ours - theirs)[:, 0]),
            "nats": authors.interval((ours - theirs)[:, 1]),
        },
        "walks": {name: authors.walks(each) for name, each in walks.items()},
        "our walks": {name: authors.walks(each) for name, each in _our_walks(face, photos).items()},
        "digits": {name: authors.digits(images) for name, images in digits.items()},
        "tiles": errors,
        "classified": {
            "samples": {
                name: {
                    "kernel distance": _interval(verdicts.kernel_distance("celeba", images)),
                    "pass": _interval(verdicts.passes("celeba", images)),
                }
                for name, images in (samples | unseen[0]).items()
            },
            "reconstructions": {name: _interval(_kept(originals, each)) for name, each in copies.items()},
            "walks": {name: _changes(each, name) for name, each in walks.items()},
            "our walks": {name: _changes(each, name) for name, each in _our_walks(face, photos).items()},
            "digits": {
                name: {
                    "sure": _interval(verdicts.sure(authors.stretched(images))),
                    "kernel distance": _interval(verdicts.kernel_distance("mnist", authors.stretched(images))),
                }
                for name, images in (digits | unseen[1]).items()
            },
        },
    }


def _interval(values: Tensor) -> list[float]:
    """Return a value and its 95% bootstrap interval, from a measure in `verdicts`, (R,)."""
    ends = values[1:].quantile(torch.tensor([0.025, 0.975]))
    return [round(each, 4) for each in (values[0].item(), *ends.tolist())]


def _kept(originals: Tensor, decoded: Tensor) -> Tensor:
    """Compute the share of 40 attributes for which classifiers agree on reconstructions and originals, (R,)."""
    before, after = (verdicts.logits("celeba", each) > 0 for each in (originals, decoded))
    return verdicts.over_classifiers(verdicts.mean((before == after).float().mean(2), verdicts.IMAGES))


def _changes(images: Tensor, name: str) -> dict[str, list[float]]:
    """Measure how far the ends of walks (R, T, C, H, W) differ in an attribute's log-odds, and in the 39 others.

    Units are standard deviations of the log-odds over test photographs. The others give a mean of absolute values.
    """
    column = verdicts.dataset("celeba").column(name)
    ends = verdicts.logits("celeba", images[:, [0, -1]].flatten(0, 1)).unflatten(0, (-1, 2))
    changes = (ends[:, 1] - ends[:, 0]) / _scales()  # (N, C, A)
    others = [each for each in range(changes.shape[2]) if each != column]
    means = verdicts.mean(changes.flatten(1), verdicts.DRAWS).unflatten(1, changes.shape[1:])
    return {
        "itself": _interval(verdicts.over_classifiers(means[..., column])),
        "the others": _interval(verdicts.over_classifiers(means[..., others].abs().mean(2))),
    }


@cache
def _scales() -> Tensor:
    """Compute each classifier's standard deviation of each attribute's log-odds over test photographs, (C, A)."""
    return verdicts.logits("celeba", verdicts.dataset("celeba").test.images).std(0)


def _squares(root: Path, K: int) -> Tensor:
    """Return the inner 60 x 60 pixels of tiles of 62.5 pixels, which are smaller than the authors' images."""
    picture = authors.read(root, f"models/celeba_square_vae_dims/{K}d_generated_images.png")
    starts = [int(62.5 * i) + 1 for i in range(8)]
    return torch.stack([picture[:, y : y + 60, x : x + 60] for y in starts for x in starts]) / 255


def _our_walks(model: models.VAE, photos: data.Dataset) -> dict[str, Tensor]:
    """Decode walks of `celeba-k64` in the authors' way: from zero and four prior codes, along unscaled weights."""
    means, _ = evaluation.encode(model, photos.train.images)
    columns = [photos.column(name) for name in WALKS]
    starts = torch.randn(5, model.latent_dim, generator=torch.Generator().manual_seed(0))
    starts[0] = 0
    found = attributes.fit(means, photos.train.labels[:, columns], WALKS)
    steps = torch.linspace(-4, 4, 11)
    return {
        name: attributes.traverse(model, starts, each.standardised_direction, steps) for name, each in found.items()
    }


def scripts_model(image_shape: tuple[int, ...], latent_dim: int, width: int = 64) -> models.VAE:
    """Build the model of the authors' scripts, with twice the text's channels, and no batch norm in block four."""
    sizes = (3, width, 2 * width, 4 * width, 8 * width)
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    for outer, inner in pairwise(sizes):
        down += [nn.Conv2d(outer, inner, 4, 2, 1), nn.BatchNorm2d(inner), nn.ReLU()]
        up = [nn.ReLU(), nn.ConvTranspose2d(inner, outer, 4, 2, 1), *up]
    del down[-2]
    encoder = encoders.Gaussian(nn.Sequential(*down, nn.Flatten()), sizes[-1] * 12, latent_dim)
    output = nn.Sequential(nn.Linear(latent_dim, sizes[-1] * 12), nn.Unflatten(1, (sizes[-1], 4, 3)), *up)
    return models.VAE(encoder, decoders.Bernoulli(output), priors.Standard(latent_dim), image_shape)


CASES: dict[str, tuple[Callable[..., models.VAE], float]] = {
    "the text's model": (models.conv, 0.001),
    "without the fourth norm": (partial(scripts_model, width=32), 0.001),
    "without the fourth norm, learning rate 0.01": (partial(scripts_model, width=32), 0.01),
    "the scripts' model: without the fourth norm, twice as wide": (scripts_model, 0.001),
}


def course(case: str, photos: data.Dataset, seed: int) -> Iterator[tuple[int, models.VAE]]:
    """Yield the model, in evaluation mode, after each number of updates in `STOPS`. Batches may share images."""
    builder, rate = CASES[case]
    with seeding.seeded(seed):
        model = builder(photos.image_shape, 96)
        optimizer = training.adam(model.parameters(), lr=rate)
        for step in range(1, max(STOPS) + 1):
            batch = photos.train.images[torch.randint(len(photos.train), (128,))]
            reconstruction, kl = model.train().elbo(data.to_float(batch))
            optimizer.zero_grad()
            (kl - reconstruction).mean().backward()
            optimizer.step()
            if step in STOPS:
                yield step, model.eval()


def stopped(model: models.VAE, photos: data.Dataset) -> dict[str, Any]:
    """Measure 256 samples, samples around the mean code of test images, and these images."""
    images, codes = photos.test.images[:256], torch.randn(256, 96, generator=torch.Generator().manual_seed(0))
    means, _ = evaluation.encode(model, images)
    reconstruction, kl = evaluation.elbo(model, images)
    with torch.no_grad():
        centred = model.decode(codes + means.mean(0)).mean((1, 2, 3))
        measures: dict[str, Any] = authors.samples(model.decode(codes))
    return measures | {
        "elbo": round((reconstruction - kl).mean().item(), 1),
        "kl": round(kl.mean().item(), 1),
        "distance": round(means.mean(0).norm().item(), 3),  # of the codes' mean from zero
        "centred": [round(centred.mean().item(), 4), round(centred.std().item(), 4)],  # brightness about that mean
    }


def trained(photos: data.Dataset) -> dict[str, dict]:
    """Measure every case, by case, seed and number of updates, and store the last samples as a picture."""
    measured: dict[str, dict] = {}
    strips = []
    for case in CASES:
        for seed in SEEDS:
            found = {
                str(step): (stopped(model, photos), model.sample(12, seed=0))
                for step, model in course(case, photos, seed)
            }
            measured[f"{case}, seed {seed}"] = {step: measures for step, (measures, _) in found.items()}
            strips += [images for _, images in list(found.values())[-1:]] if seed == 0 else []
    to_pil_image(make_grid(torch.cat(strips), 12, padding=1, pad_value=1)).save(content := io.BytesIO(), "png")
    files.write(BOOK / "pictures" / "authors-trained.png", small(content))
    return measured


def record(name: str, found: dict) -> None:
    """Write measures to a file of the book."""
    files.write(BOOK / "records" / f"{name}.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m book.experiments.authors_records", description=__doc__)
    parser.add_argument("part", choices=("pictures", "trained"))
    if parser.parse_args().part == "trained":
        record("authors_trained", trained(data.load("celeba")))
    elif root := os.environ.get("VAELIB_AUTHORS"):
        record("authors", pictures(Path(root)))
    else:
        parser.error("VAELIB_AUTHORS isn't set; set it to the path of a clone of github.com/patrickmastorga/ML-Project")
