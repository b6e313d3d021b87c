"""Distances between real and sampled images in the features of small classifiers, trained on real images only.

A distance depends on the classifier, so compute it with several and report the range::

    classifiers = features.load(digits)
    distances = [
        features.frechet_distance(*(features.extract(each, images) for images in (real, samples)))
        for each in classifiers
    ]

These classifiers aren't Inception, so the distances aren't comparable with published ones ("FID", "KID").
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from . import files, progress, runs, storage
from .data import Dataset, to_float
from .seeding import seeded
from .training import batches

PUBLISHED = Path(__file__).with_name("classifiers")
FEATURES = 64  # few enough to estimate their covariance from a thousand images
EPOCHS, BATCH = 3, 64


def classifier(image_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Build a network from images (B, C, H, W) to logits (B, outputs). Its last layer gets FEATURES features.

    Features are scaled to mean 0 and variance 1 over the training images. No ReLU precedes the scaling, so no feature
    is constant.
    """
    if len(image_shape) != 3:
        raise ValueError(f"a classifier needs images of shape (C, H, W), not {image_shape}")
    channels, height, width = image_shape
    sizes, layers = (channels, 32, 48, 64, 64), []
    for before, after in pairwise(sizes):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.LeakyReLU(0.1)]
        height, width = (height + 1) // 2, (width + 1) // 2
    hidden, scale = nn.Linear(sizes[-1] * height * width, FEATURES), nn.BatchNorm1d(FEATURES, affine=False)
    return nn.Sequential(*layers, nn.Flatten(), hidden, scale, nn.Linear(FEATURES, outputs))


def load(
    data: Dataset, root: Path | str | None = None, device: torch.device | str | None = None
) -> list[nn.Sequential]:
    """Load the five published classifiers of MNIST or of the book's 9,000 half-size faces. For other data, train one.

    The data is recognised by its fingerprint, so a subset of MNIST counts as other data. Arguments and errors are the
    same as for `train`.
    """
    published = sorted(PUBLISHED.glob(f"*-{data.fingerprint}-s*.safetensors"))
    return [_read(path, data) for path in published] or train(data, root, device)


def train(
    data: Dataset, root: Path | str | None = None, device: torch.device | str | None = None, seeds: Iterable[int] = (0,)
) -> list[nn.Sequential]:
    """Train one classifier per seed for the training images' classes or attributes, or load it if it exists.

    Parameters
    ----------
    data : Dataset
    root : folder of all runs, in which the weights are stored; `runs.default_root()` by default
    device : to train on; a GPU by default if there is one
    seeds : of initial weights and order of images

    Returns
    -------
    list of nn.Sequential, on the CPU, in evaluation mode

    Raises
    ------
    ValueError
        If a file of weights is damaged, or all images have the same labels.
    """
    device, root = runs.choose_device(device), files.expanded(root or runs.default_root())
    if (data.train.labels == data.train.labels[:1]).all():
        raise ValueError(f"all training images of {data.name!r} have the same labels; expected different ones")
    paths = {seed: root / f"classifier-{data.name}-{data.fingerprint}-s{seed}.safetensors" for seed in seeds}
    for seed in (seed for seed, path in paths.items() if not path.exists()):
        root.mkdir(parents=True, exist_ok=True)
        with files.locked(root, wait=True):  # if two notebooks need it, one trains and the other waits
            if not paths[seed].exists():
                weights = _fit(data, seed, device).state_dict()
                files.write(paths[seed], safetensors.torch.save(weights, {"sha256": storage.tensor_digest(weights)}))
    return [_read(path, data) for path in paths.values()]


def _read(path: Path, data: Dataset) -> nn.Sequential:
    with seeded(0):  # building must not change the caller's random state; the weights are overwritten
        network = classifier(data.image_shape, len(data.names))
    try:
        weights, metadata = storage.read(path)
        if path.parent != PUBLISHED and metadata.get("sha256") != storage.tensor_digest(weights):
            raise ValueError("its checksum does not match")
        network.load_state_dict(weights)  # copied into float32
    except (safetensors.SafetensorError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or outdated ({error}); delete it, or reinstall vaelib") from error
    return network.eval()


def _fit(data: Dataset, seed: int, device: torch.device) -> nn.Sequential:
    with seeded(seed):
        network = classifier(data.image_shape, len(data.names)).to(device)
    images, labels = data.train.images.to(device), data.train.labels.to(device)
    loss_of: Callable = binary_cross_entropy_with_logits if labels.ndim == 2 else cross_entropy
    labels = labels.float() if labels.ndim == 2 else labels
    steps = EPOCHS * len(batches(torch.arange(len(images), device="cpu"), BATCH))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    shuffle = torch.Generator().manual_seed(seed)
    with progress.bar(total=steps, desc=f"a classifier for features, seed {seed}", unit="step") as bar:
        for _ in range(EPOCHS):
            for batch in batches(torch.randperm(len(images), generator=shuffle, device="cpu").to(device), BATCH):
                loss = loss_of(network(to_float(images[batch]).float()), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    return network.cpu()


@torch.no_grad()
def extract(network: nn.Sequential, images: Tensor) -> Tensor:
    """Compute features, (N, FEATURES), of images (N, C, H, W), uint8, uint16 or float in [0, 1].

    Raises ValueError if floats have other values.
    """
    if images.is_floating_point() and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"expected floats from 0 to 1, not from {images.min():.4g} to {images.max():.4g}")
    parts, device = progress.bar(images.split(1000), desc="features", delay=2), next(network.parameters()).device
    return torch.cat([network[:-1](to_float(part.to(device)).float()) for part in parts])


def _doubles(real: Tensor, others: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Convert features to double precision. Raise ValueError if there are too few, or some aren't finite."""
    if min(len(real), len(others)) < least:
        raise ValueError(f"expected at least {least} images of each kind, not {len(real)} and {len(others)}")
    if not (real.isfinite().all() and others.isfinite().all()):  # for which LAPACK ends the process
        raise ValueError("some features are not finite; look for images whose values are not")
    return real.double(), others.double()


def frechet_distance(real: Tensor, others: Tensor) -> float:
    """Compute the squared Fréchet distance of two sets of features, as in FID.

    It is the distance of the normal distributions with their means and covariances. Heusel et al., arXiv:1706.08500,
    with our own features. The distance is larger for fewer images, so compare equal numbers of images.

    Parameters
    ----------
    real, others : Tensors of shape (N, F), each with N > F

    Raises
    ------
    ValueError
        If there are too few images for a covariance, or features are not finite.
    """
    real, others = _doubles(real, others, real.shape[1] + 1)
    covariance, other_covariance = torch.cov(real.T), torch.cov(others.T)
    # The trace of the root of a product is the sum of the roots of its eigenvalues, which aren't negative
    root = torch.linalg.eigvals(covariance @ other_covariance).sqrt().real.sum()
    between_means = (real.mean(0) - others.mean(0)).square().sum()
    return (between_means + covariance.trace() + other_covariance.trace() - 2 * root).item()


def kernel_distance(real: Tensor, others: Tensor) -> float:
    """Compute the squared kernel distance, as in KID: an unbiased estimate that doesn't assume normal features.

    Binkowski et al., arXiv:1801.01401, with our own features x, and the kernel (xᵀy / F + 1)³ over all images at once.
    Its mean over sets from one distribution is 0, so it can be negative.

    Parameters
    ----------
    real, others : Tensors of shape (N, F), each with N > 1

    Raises
    ------
    ValueError
        If there are fewer than two images of a kind, or features are not finite.
    """
    real, others = _doubles(real, others, 2)

    def total(x: Tensor, y: Tensor) -> Tensor:  # one block of pairs at a time, to bound memory
        return torch.stack([(part @ y.T / x.shape[1] + 1).pow(3).sum() for part in x.split(1000)]).sum()

    def within(x: Tensor) -> Tensor:  # the mean over pairs of two different images
        paired_with_itself = (x.square().sum(1) / x.shape[1] + 1).pow(3).sum()
        return (total(x, x) - paired_with_itself) / (len(x) * (len(x) - 1))

    return (within(real) + within(others) - 2 * total(real, others) / (len(real) * len(others))).item()
