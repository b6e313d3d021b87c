"""What the book's interactive pages need beside the decoders: codes of test images, directions, and a still picture."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from . import attributes, evaluation, figures
from .data import Dataset
from .models import VAE

PLANE_STEP, LAB_IMAGES = 4, 12  # every fourth digit; a dozen faces
RARE = 10  # an attribute that fewer images have, or lack, is left out


def plane(dataset: Dataset, models: Sequence[VAE]) -> tuple[dict, Figure]:
    """For models of one and of two latent dimensions: labels and codes of every fourth test image; both maps decoded.

    Returns
    -------
    dict with `labels`, a class number for each image, and `codes`, from each K to posterior means (N x K)
    figure : the line from -2.5 to 2.5, and the plane from -2.5 to 2.5 along both dimensions
    """
    images, labels = dataset.test.images[::PLANE_STEP], dataset.test.labels[::PLANE_STEP]
    codes = {str(model.latent_dim): _rounded(evaluation.encode(model, images)[0], 3) for model in models}
    line, square = models
    steps, reading = torch.linspace(-2.5, 2.5, 16), torch.linspace(-2.5, 2.5, 256)
    with torch.inference_mode():
        panels = {
            "one number, row by row": line.decode(reading.unsqueeze(1)),
            "two numbers, rightwards and upwards": square.decode(torch.cartesian_prod(-steps, steps).flip(1)),
        }
    return {"labels": labels.tolist(), "codes": codes}, figures.panels(panels, columns=16, panels_in_row=2)


def lab(dataset: Dataset, models: Sequence[VAE]) -> tuple[dict, Figure]:
    """For one model: a direction for each attribute, those that the codes hold best first; codes of a dozen images.

    Returns
    -------
    dict with `attributes`, a list of name, accuracy, majority (see `attributes.Attribute`), `spread` (the standard
        deviation of the test images' codes along the direction) and direction (K); `images`, the numbers of evenly
        spaced test images; and `codes`, their posterior means
    figure : walks from the code zero along the directions of the five attributes that are held best
    """
    (model,) = models
    means, labels = evaluation.encode(model, dataset.test.images)[0], dataset.test.labels
    usable = (torch.minimum(labels.sum(0), (~labels).sum(0)) >= RARE).nonzero().flatten()
    found = attributes.fit(means, labels[:, usable], [dataset.names[i] for i in usable.tolist()]).values()
    ranked = sorted(found, key=lambda each: each.majority - each.accuracy.mean().item())
    table = [
        {
            "name": each.name,
            "accuracy": round(each.accuracy.mean().item(), 4),
            "majority": round(each.majority, 4),
            "spread": round((means @ each.direction).std().item(), 3),
            "direction": _rounded(each.direction, 4),
        }
        for each in ranked
    ]
    chosen = list(range(0, len(means), max(1, len(means) // LAB_IMAGES)))[:LAB_IMAGES]
    steps, zero = torch.linspace(-4, 4, 11), torch.zeros(1, model.latent_dim)
    walks = {
        each.name.replace("_", " "): attributes.traverse(model, zero, each.direction, steps * row["spread"])[0]
        for each, row in zip(ranked[:5], table, strict=False)
    }
    return {"attributes": table, "images": chosen, "codes": _rounded(means[chosen], 3)}, figures.rows(walks)


def _rounded(numbers: Tensor, digits: int) -> list:
    """As nested lists; rounded in double precision, in which the decimals print as short as they are."""
    return numbers.double().round(decimals=digits).tolist()
