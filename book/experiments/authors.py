"""Measure the pictures that the paper's authors published, and briefly trained models of faces, into book/records.

The page book/verdict/pictures measures the pictures. `python -m book.experiments.authors` trains eight models for 200
updates and stores a picture of samples. Both need CelebA.
"""

import io
import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.io import decode_image
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from book.machinery.pictures import small
from vaelib import attributes, data, decoders, encoders, evaluation, files, models, priors, seeding, storage, training
from vaelib.objective import bernoulli_log_prob

from . import verdicts

BOOK = Path(__file__).parents[1]
COMMIT = "c1001592b5daee698b85f6e0e77b0bfef12a47b1"
ADDRESS = f"https://github.com/patrickmastorga/ML-Project/blob/{COMMIT}"
CHECKSUMS = Path(__file__).with_name("authors.sha256")
EXACT = 3  # in steps of 1/255: a round trip changes a tile of the right geometry by less
FACES, SQUARES, DIGITS = (2, 8, 16, 32, 64, 96, 128), (64, 96, 128, 256), (1, 2, 3, 4, 6, 10, 16, 24, 32)
WALKS = ("Smiling", "Male", "Eyeglasses", "Bald", "Black_Hair", "Gray_Hair")
STOPS = (20, 40, 60, 80, 100, 150, 200)  # updates, of 128 images each
SEEDS = (0, 1)
DARK, BRIGHT = 0.15, 0.75  # mean pixel values; hardly any photograph exceeds them


def read(root: Path, name: str) -> Tensor:
    """Read a picture by the authors as uint8, of shape (C, H, W), and check its checksum.

    Raises
    ------
    ValueError
        If the file is missing, or isn't the one that was measured.
    """
    expected = dict(line.split()[::-1] for line in CHECKSUMS.read_text("utf-8").splitlines())[name]
    path = root / name
    found = storage.sha256(path) if path.is_file() else "no such file"
    if found != expected:
        raise ValueError(
            f"{path}: expected SHA-256 {expected}, found {found}. Set VAELIB_AUTHORS to a clone of "
            f"github.com/patrickmastorga/ML-Project at commit {COMMIT}"
        )
    return decode_image(path, "RGB")


def enlargement(source: int, target: int) -> Tensor:
    """Return matplotlib's enlargement of `source` to `target` values along an axis, as a matrix (target, source).

    From three times on, it repeats the nearest value. Where a tile is one pixel longer than the others, its repeats are
    shifted by up to one pixel. The rows of pixels next to another value are therefore zero, so that they don't count.
    Below three times, it mixes the two nearest values, weighted by a Hann window.
    """
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * source / target
    if target >= 3 * source:
        inside = (centres % 1 - 0.5).abs() < 0.5 - source / target
        return torch.nn.functional.one_hot(centres.long(), source) * inside.double()[:, None]
    distance = ((centres[:, None] - 0.5).clamp(0, source - 1) - torch.arange(source)).abs()
    return torch.where(distance < 1, 0.5 + 0.5 * torch.cos(torch.pi * distance), 0)


def tiles(picture: Tensor, rows: int, columns: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Undo the enlargement of every tile of a picture.

    Parameters
    ----------
    picture : uint8 Tensor of shape (C, H, W): rows x columns tiles without margins
    size : (h, w) of a tile before its enlargement

    Returns
    -------
    images : Tensor of shape (rows * columns, C, h, w), values in [0, 1] up to rounding
    error : Tensor of shape (rows * columns,), the largest difference from a tile when its image is enlarged again, in
        steps of 1/255. If it's below 1, the geometry is right and only rounding to bytes remains
    """
    channels, height, width = picture.shape
    parts = picture.double().reshape(channels, rows, height // rows, columns, width // columns)
    parts = parts.permute(1, 3, 0, 2, 4).flatten(0, 1)
    down, across = (enlargement(*pair) for pair in zip(size, parts.shape[2:], strict=True))
    parts, down, across = parts[:, :, down.any(1)][..., across.any(1)], down[down.any(1)], across[across.any(1)]
    images = torch.linalg.pinv(down) @ parts @ torch.linalg.pinv(across).T
    error = (down @ images @ across.T - parts).abs().flatten(1).amax(1)
    return (images / 255).float(), error


def interval(values: Tensor, statistic: Callable[[Tensor], Tensor] = torch.mean) -> list[float]:
    """Compute a statistic of N tiles, and its 95% bootstrap interval over them, from values of shape (N, ...)."""
    picks = torch.randint(len(values), (1000, len(values)), generator=torch.Generator().manual_seed(0))
    draws = torch.stack([statistic(values[pick]) for pick in picks]).double()
    ends = draws.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return [round(each, 5) for each in (statistic(values).item(), *ends.tolist())]


def samples(images: Tensor, photos: Tensor | None = None) -> dict[str, list[float]]:
    """Measure images (N, C, H, W), with intervals. Distances are between images, per pixel value (RMS)."""
    brightness = images.mean((1, 2, 3))
    levels = brightness.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    some, pixels = images[:64].flatten(1), images[0].numel()
    apart = torch.cdist(some, some).fill_diagonal_(torch.inf)
    measures = {
        "quantiles": [round(each, 4) for each in levels.tolist()],  # of the brightness
        "brightness": interval(brightness),
        "spread": interval(brightness, torch.std),
        "variance": interval((images - images.mean(0)).square().mean((1, 2, 3))),
        "nearly black": interval((brightness < DARK).float()),
        "nearly white": interval((brightness > BRIGHT).float()),
        "fine": interval(verdicts.waves(images).abs().square().sum(1) / pixels),
        "nearest sample": interval(apart.amin(1) / pixels**0.5, torch.median),
    }
    if photos is not None:
        apart = torch.cdist(some, photos.flatten(1))
        measures["nearest photograph"] = interval(apart.amin(1) / pixels**0.5, torch.median)
    return measures


def reconstructions(copies: Tensor, originals: Tensor, average: Tensor) -> Tensor:
    """Compute the rows for the measures in `RECONSTRUCTIONS`, one for each of N pairs of images (N, C, H, W)."""
    nats = bernoulli_log_prob(originals, copies.logit(0.5 / 255))  # as close to black and white as bytes allow
    squared, about = ((each - originals).square().flatten(1).mean(1) for each in (copies, average))
    return torch.cat([torch.stack([squared, nats, about], 1), verdicts.spectra(copies, originals, average)], 1)


RECONSTRUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {  # statistics of the rows of `reconstructions`
    "squared error": lambda rows: rows[:, 0].mean(),
    "nats": lambda rows: rows[:, 1].mean(),
    "variance explained": lambda rows: 1 - rows[:, 0].sum() / rows[:, 2].sum(),
    "fine coherence": lambda rows: rows[:, 3].sum() ** 2 / (rows[:, 4].sum() * rows[:, 5].sum()),
}


def walks(images: Tensor) -> dict[str, list[float]]:
    """Measure R walks of an odd number of steps, images (R, T, C, H, W), with intervals over the walks."""
    change, middle = images[:, -1] - images[:, 0], images[:, images.shape[1] // 2]
    thirds = torch.stack([part.square().sum((1, 2, 3)) for part in change.tensor_split(3, dim=2)], dim=1)
    shares = (thirds / thirds.sum(1, keepdim=True)).T
    return {
        "brightness": interval(change.mean((1, 2, 3))),
        "distance": interval((images[:, [0, -1]] - middle[:, None]).square().mean((1, 2, 3, 4)).sqrt()),
        **{name: interval(share) for name, share in zip(("top", "middle", "bottom"), shares, strict=True)},
    }


def digits(images: Tensor) -> dict[str, list[float]]:
    """Measure digits (N, 1, H, W)."""
    images = stretched(images)
    return {
        "brightness": interval(images.mean((1, 2, 3))),
        "greyness": interval(4 * (images * (1 - images)).mean((1, 2, 3))),
        "variance": interval((images - images.mean(0)).square().mean((1, 2, 3))),
    }


def stretched(images: Tensor) -> Tensor:
    """Images (N, 1, H, W), each from black to white, as matplotlib shows grey images."""
    low, high = (each[:, None, None, None] for each in images.flatten(1).aminmax(dim=1))
    return (images - low) / (high - low)


def pictures(root: Path) -> dict[str, dict]:
    """Measure all pictures in a clone of the authors' repository, and compare photographs and published models."""

    def tiles_of(name: str, rows: int, columns: int, size: tuple[int, int] = (64, 48)) -> Tensor:
        images, error = tiles(read(root, f"models/{name}.png"), rows, columns, size)
        right = error < EXACT
        errors[name] = [len(error), int(right.sum()), round(error[right].max().item(), 2)]
        return images[right]

    errors: dict[str, list[float]] = {}
    photos, real = verdicts.dataset("celeba"), verdicts.dataset("mnist")
    face = storage.from_pretrained("celeba-k64")
    faces = {f"K = {K}": tiles_of(f"celeba_vae_dims/{K}d_generated_images", 8, 8) for K in FACES}
    faces["K = 64, other codes"] = tiles_of("celeba_vae_64/generated_images2", 3, 10)
    faces |= {"celeba-k64": face.sample(1000, seed=0), "photographs": data.to_float(photos.test.images)}
    faces["the authors' 16 photographs"] = originals = tiles_of("celeba_vae_64/original_images", 4, 4)
    theirs = {name: tiles_of(f"celeba_vae_64/{name}_traversal", 5, 11).unflatten(0, (5, 11)) for name in WALKS}
    ours = _our_walks(face, photos)

    pixels = (255 * originals).round().byte()
    copies = {
        "the authors' K = 64, sampled code": tiles_of("celeba_vae_64/reconstructed_images", 4, 4),
        "celeba-k64, sampled code": verdicts.copies(face, pixels),
        "celeba-k64, mean code": verdicts.decode(face, evaluation.encode(face, pixels)[0]),
    }
    average = data.to_float(photos.train.images).mean(0)
    rows = [reconstructions(each, originals, average) for each in copies.values()]
    less = rows[1] - rows[0]

    numbers = {
        f"{width}, K = {K}": tiles_of(f"mnist_vae_dims_{width}/vae_{K}d_images", 10, 10, (28, 28))[:, :1]
        for width, K in product((512, 1024), DIGITS)
    }
    numbers |= {f"mnist-k{K}": storage.from_pretrained(f"mnist-k{K}").sample(1000, seed=0) for K in (1, 2)}
    numbers["MNIST, test"] = data.to_float(real.test.images[:1000])
    others, digits_seen = data.to_float(photos.train.images[:900]), data.to_float(real.train.images[:1000])
    return {
        "samples": {name: samples(images, others) for name, images in faces.items()},
        "squares": {f"K = {K}": samples(_squares(root, K)) for K in SQUARES},
        "reconstructions": {name: _intervals(each) for name, each in zip(copies, rows, strict=True)},
        "differences": {"squared error": interval(less[:, 0]), "nats": interval(less[:, 1])},
        "walks": {name: walks(each) for name, each in theirs.items()},
        "our walks": {name: walks(each) for name, each in ours.items()},
        "digits": {name: digits(images) for name, images in numbers.items()},
        "tiles": errors,
        "classified": {
            "samples": {name: _seen(images) for name, images in (faces | {"photographs": others}).items()},
            "reconstructions": {name: _interval(_kept(originals, each)) for name, each in copies.items()},
            "walks": _changes(theirs),
            "our walks": _changes(ours),
            "digits": {name: _recognised(images) for name, images in (numbers | {"MNIST": digits_seen}).items()},
        },
    }


def _intervals(rows: Tensor) -> dict[str, list[float]]:
    """Return each statistic of the rows of `reconstructions`, and its interval."""
    return {measure: interval(rows, statistic) for measure, statistic in RECONSTRUCTIONS.items()}


def _interval(values: Tensor) -> list[float]:
    """Return a value and its 95% bootstrap interval, from a measure in `verdicts`, (R,)."""
    ends = values[1:].quantile(torch.tensor([0.025, 0.975]))
    return [round(each, 4) for each in (values[0].item(), *ends.tolist())]


def _seen(images: Tensor) -> dict[str, list[float]]:
    """Compare the features of faces with those of test photographs."""
    images = images.clamp(0, 1)  # undone enlargements are within [0, 1] up to rounding
    distance = verdicts.kernel_distance("celeba", images)
    share = verdicts.over_classifiers(verdicts.mean(verdicts.passes("celeba", images), verdicts.DRAWS))
    return {"kernel distance": _interval(distance), "pass": _interval(share)}


def _recognised(images: Tensor) -> dict[str, list[float]]:
    """Classify digits, and compare their features with those of test digits."""
    images = stretched(images)
    distance = verdicts.kernel_distance("mnist", images)
    return {"sure": _interval(verdicts.sure(images)), "kernel distance": _interval(distance)}


def _kept(originals: Tensor, decoded: Tensor) -> Tensor:
    """Compute the share of 40 attributes for which classifiers agree on reconstructions and originals, (R,)."""
    before, after = (verdicts.logits("celeba", each) > 0 for each in (originals, decoded))
    return verdicts.over_classifiers(verdicts.mean((before == after).float().mean(2), verdicts.IMAGES))


def _changes(pictures: dict[str, Tensor]) -> dict[str, dict]:
    """Measure how far the ends of walks (R, T, C, H, W) differ in their attribute's log-odds, and in the 39 others.

    Units are standard deviations of the log-odds over test photographs. The others give a mean of absolute values.
    """
    photos, found = verdicts.dataset("celeba"), {}
    scales = verdicts.logits("celeba", photos.test.images).std(0)  # (C, A)
    for name, images in pictures.items():
        ends = verdicts.logits("celeba", images[:, [0, -1]].flatten(0, 1)).unflatten(0, (-1, 2))
        changes = (ends[:, 1] - ends[:, 0]) / scales
        means = verdicts.mean(changes.flatten(1), verdicts.DRAWS).unflatten(1, scales.shape)  # (R, C, A)
        its = photos.column(name)
        others = torch.cat([means[..., :its], means[..., its + 1 :]], 2).abs().mean(2)
        both = {"itself": means[..., its], "the others": others}
        found[name] = {key: _interval(verdicts.over_classifiers(each)) for key, each in both.items()}
    return found


def _squares(root: Path, K: int) -> Tensor:
    """Return the inner 60 x 60 pixels of tiles of 62.5 pixels, which are smaller than the authors' images."""
    picture = read(root, f"models/celeba_square_vae_dims/{K}d_generated_images.png")
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
    return {name: attributes.traverse(model, starts, it.standardised_direction, steps) for name, it in found.items()}


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


def course(case: str, photos: data.Dataset, seed: int) -> tuple[dict[str, dict], Tensor]:
    """Measure the model after each number of updates in `STOPS`, and sample it at the end. Batches may share images."""
    builder, rate = CASES[case]
    measured = {}
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
                measured[str(step)] = stopped(model.eval(), photos)
    return measured, model.sample(12, seed=0)


def stopped(model: models.VAE, photos: data.Dataset) -> dict[str, Any]:
    """Measure 256 samples, samples around the mean code of test images, and these images."""
    images, codes = photos.test.images[:256], torch.randn(256, 96, generator=torch.Generator().manual_seed(0))
    centre = evaluation.encode(model, images)[0].mean(0)
    reconstruction, kl = evaluation.elbo(model, images)
    centred = verdicts.decode(model, codes + centre).mean((1, 2, 3))
    return samples(verdicts.decode(model, codes)) | {
        "elbo": round((reconstruction - kl).mean().item(), 1),
        "kl": round(kl.mean().item(), 1),
        "distance": round(centre.norm().item(), 3),  # of the codes' mean from zero
        "centred": [round(centred.mean().item(), 4), round(centred.std().item(), 4)],  # brightness about that mean
    }


def trained(photos: data.Dataset) -> dict[str, dict]:
    """Measure every case, by case, seed and number of updates, and store the last samples as a picture."""
    measured, strips = {}, []
    for case, seed in product(CASES, SEEDS):
        measured[f"{case}, seed {seed}"], last = course(case, photos, seed)
        if seed == SEEDS[0]:
            strips.append(last)
    to_pil_image(make_grid(torch.cat(strips), 12, padding=1, pad_value=1)).save(content := io.BytesIO(), "png")
    files.write(BOOK / "pictures" / "authors-trained.png", small(content))
    return measured


def record(name: str, found: dict) -> None:
    """Write measures to a file of the book."""
    files.write(BOOK / "records" / f"{name}.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    record("authors_trained", trained(data.load("celeba")))
