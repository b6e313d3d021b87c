"""Scores of images by several classifiers, and their spread over training seeds, draws and classifiers.

C classifiers see the same images. Features have the shape (C, N, F).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaelib import data, features


@torch.inference_mode()
def logits(classifiers: Sequence[nn.Module], images: Tensor) -> Tensor:
    """Compute the classifiers' logits for images, (N, C, A)."""
    parts = images.split(500)
    return torch.stack([torch.cat([each(data.to_float(part)) for part in parts]) for each in classifiers], 1)


def extract(classifiers: Sequence[nn.Sequential], images: Tensor) -> Tensor:
    """Compute the classifiers' features of images, (C, N, F)."""
    return torch.stack([features.extract(each, images) for each in classifiers])


def distances(real: Tensor, found: Tensor) -> Tensor:
    """Compute each classifier's Fréchet distance of two sets of features (C, N, F), (C,)."""
    return torch.tensor([features.frechet_distance(*pair) for pair in zip(real, found, strict=True)])


def passes(real: Tensor, found: Tensor) -> Tensor:
    """Compare each sample's distance from a real image with that image's nearest neighbour's, in features (C, N, F).

    Returns a tensor (N, C), True where a sample is closer to some real image.

    Kynkäänniemi et al., arXiv:1904.06991, with one neighbour.
    """
    radius = torch.cdist(real, real).kthvalue(2, dim=2).values.unsqueeze(1)  # the first is the image itself
    return torch.cat([(torch.cdist(part, real) < radius).any(2) for part in found.split(1000, 1)], 1).T


def shown(values: Tensor, form: str = ".2f") -> list[str]:
    """Format the mean of values, and for each axis the standard deviation of the means over the other axes."""
    spreads = [values.transpose(0, axis).flatten(1).mean(1) for axis in range(values.ndim)]
    return [format(values.mean(), form), *(f"{each.std():{form}}" if len(each) > 1 else "–" for each in spreads)]
