"""A yardstick for the looks of images: the features of a small classifier that has only seen real ones.

Distances between features mean something for one data set and one such classifier. They are no Inception features, and
the Fréchet distances here are not comparable with published ones ("FID").
"""

from itertools import pairwise
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from . import files, progress, runs
from .data import Dataset, to_float
from .seeding import seeded
from .training import batches

FEATURES = 64  # so few that a thousand images tell their covariance
EPOCHS, BATCH = 8, 128


def classifier(image_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """From images (B, C, H, W) to logits (B, outputs) by three convolutions; all but the last layer give FEATURES.

    The features have mean 0 and variance 1 over the training images, which gives distances between them a scale.
    """
    channels, height, width = image_shape
    if min(height, width) < 8:
        raise ValueError(f"three convolutions halve images of 8 x 8 or more, not of {height} x {width}")
    sizes, layers = (channels, 32, 64, 128), []
    for before, after in pairwise(sizes):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        height, width = height // 2, width // 2
    hidden, scale = nn.Linear(sizes[-1] * height * width, FEATURES), nn.BatchNorm1d(FEATURES, affine=False)
    return nn.Sequential(*layers, nn.Flatten(), hidden, nn.ReLU(), scale, nn.Linear(FEATURES, outputs))


def train(data: Dataset, root: Path | str | None = None, device: torch.device | str | None = None) -> nn.Sequential:
    """A classifier of the training images' classes or attributes, or the one trained before: on the CPU, in eval mode.

    Parameters
    ----------
    data : Dataset
    root : folder of all runs, where the weights are kept; `runs.default_root()` if not given
    device : where to train; a GPU if there is one

    Raises
    ------
    ValueError
        If the file of weights is damaged, or the images' labels are all the same.
    """
    device = runs.choose_device(device)
    path = Path(root or runs.default_root()).expanduser() / f"features-{data.name}-{data.fingerprint}.safetensors"
    with seeded(0):
        network = classifier(data.image_shape, len(data.names))
    if not path.exists():
        labels = data.train.labels if data.train.labels.ndim == 2 else data.train.labels[:, None]
        if (labels == labels[0]).all():
            raise ValueError(f"all training images of {data.name!r} have the same labels: there is nothing to tell")
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(path.parent, wait=True):  # of two notebooks that need it, one trains it and the other waits
            if not path.exists():
                _fit(network.to(device), data.train.images.to(device), data.train.labels.to(device))
                files.write(path, safetensors.torch.save(network.cpu().state_dict()))
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to have the classifier trained") from error
    return network.cpu().eval()


def _fit(network: nn.Sequential, images: Tensor, labels: Tensor) -> None:
    attributes = labels.ndim == 2
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    shuffle = torch.Generator().manual_seed(0)
    steps = EPOCHS * len(batches(torch.arange(len(images), device="cpu"), BATCH))
    with progress.bar(total=steps, desc="a classifier for features", unit="step") as bar:
        for _ in range(EPOCHS):
            for batch in batches(torch.randperm(len(images), generator=shuffle, device="cpu").to(images.device), BATCH):
                logits, expected = network(to_float(images[batch])), labels[batch]
                loss = (
                    binary_cross_entropy_with_logits(logits, expected.float())
                    if attributes
                    else cross_entropy(logits, expected.long())
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.update()


@torch.no_grad()
def extract(network: nn.Sequential, images: Tensor) -> Tensor:
    """Features, (N, FEATURES), of images (N, C, H, W), uint8, uint16 or float in [0, 1]."""
    parts, device = progress.bar(images.split(1000), desc="features", delay=2), next(network.parameters()).device
    return torch.cat([network[:-1](to_float(part.to(device))) for part in parts])


def frechet_distance(real: Tensor, others: Tensor) -> float:
    """Squared Fréchet distance, as in FID, of two normal distributions with these features' means and covariances.

    Heusel et al., arXiv:1706.08500, with features of our own. Fewer images make it larger: compare equal numbers.

    Parameters
    ----------
    real, others : Tensors of shape (N, F), each with N > F
    """
    if min(len(real), len(others)) <= real.shape[1]:
        raise ValueError(
            f"{real.shape[1]} features need more images than that for a covariance, not {len(real)} and {len(others)}"
        )
    (mean, covariance), (other_mean, other_covariance) = (
        (each.mean(0), torch.cov(each.T)) for each in (real.double(), others.double())
    )
    # The trace of the root of a product is the sum of the roots of its eigenvalues, which are not negative
    root = torch.linalg.eigvals(covariance @ other_covariance).sqrt().real.sum()
    return ((mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * root).item()
