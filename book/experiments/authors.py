"""The pictures that the paper's authors published: their files, their tiles, and measures of tiles."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaelib import storage
from vaelib.objective import bernoulli_log_prob

COMMIT = "c1001592b5daee698b85f6e0e77b0bfef12a47b1"
ADDRESS = f"https://github.com/patrickmastorga/ML-Project/blob/{COMMIT}"
CHECKSUMS = Path(__file__).with_name("authors.sha256")
EXACT = 3  # in steps of 1/255: a round trip changes a tile of the right geometry by less
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
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


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


def waves(images: Tensor) -> Tensor:
    """Compute Fourier coefficients of images (N, C, H, W) for waves shorter than 8 pixels, (N, M), in a Hann window."""
    height, width = images.shape[2:]
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width))
    return torch.fft.fft2(images * window)[..., frequency > 1 / 8].flatten(1)


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
        "fine": interval(waves(images).abs().square().sum(1) / pixels),
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
    first, second = waves(originals - average), waves(copies - average)
    powers = [each.abs().square().sum(1) for each in (first, second)]
    return torch.stack([squared, nats, about, (first * second.conj()).real.sum(1), *powers], dim=1)


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
