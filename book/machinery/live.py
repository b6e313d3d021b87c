"""Data for the book's interactive pages: codes of test images, directions, and still pictures."""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from vaelib import attributes, decoders, encoders, evaluation, objective, plots, priors
from vaelib.data import Dataset
from vaelib.data.digits import small as small_digits
from vaelib.models import VAE

PLANE_STEP, LAB_IMAGES = 4, 12  # every fourth digit; a dozen faces
CHOICE = (3, 2, 1, 6, 50, 0)  # test images to start from: in MNIST 0, 1, 2, 6, 7, and a 4 that K = 2 can't represent
SMALL, HIDDEN, BATCH_SIZE, LEARNING_RATE = (1, 8, 8), 128, 64, 0.003  # of the VAE that trains in the page
COLOURS = {"encoder": "#1430e4", "mu": "#06756f"}  # as in the book's light theme
CLOUDS = "application/vnd.vaelib.clouds"  # JSON in the output of the notebook that trains them, idea/kl
RARE = 10  # least number of images with and without an attribute that is shown


def plane(dataset: Dataset, models: Sequence[VAE]) -> tuple[dict, Figure]:
    """Make the data and the still picture of the page with models of one and two latent dimensions.

    Returns
    -------
    content : dict of three entries. `labels` has the class number of every fourth test image. `codes` has their
        posterior means (N x K) for each K. `digits` has some test images to choose from, each with number, label and
        pixels (0 to 255, row by row)
    figure : the line from -2.5 to 2.5, and the plane from -2.5 to 2.5 along both dimensions
    """
    images, labels = dataset.test.images[::PLANE_STEP], dataset.test.labels[::PLANE_STEP]
    codes = {str(model.latent_dim): _rounded(evaluation.encode(model, images)[0], 3) for model in models}
    digits = [
        {"number": i, "label": dataset.test.labels[i].item(), "pixels": dataset.test.images[i].flatten().tolist()}
        for i in CHOICE
    ]
    line, square = models
    steps, reading = torch.linspace(-2.5, 2.5, 16), torch.linspace(-2.5, 2.5, 256)
    with torch.inference_mode():
        panels = {
            "one number, row by row": line.decode(reading.unsqueeze(1)),
            "two numbers, rightwards and upwards": square.decode(torch.cartesian_prod(-steps, steps).flip(1)),
        }
    content = {"labels": labels.tolist(), "codes": codes, "digits": digits}
    return content, plots.panels(panels, columns=16, panels_in_row=2)


def lab(dataset: Dataset, models: Sequence[VAE]) -> tuple[dict, Figure]:
    """Make the data and the still picture of the page with the directions of attributes, for one model.

    Returns
    -------
    content : dict of three entries. `attributes` is a list, best encoded first. Each attribute has name, accuracy,
        majority (see `attributes.Attribute`), direction (K), and `spread`, the standard deviation of the test images'
        codes along the direction. `images` has the numbers of a dozen evenly spaced test images. `codes` has their
        posterior means
    figure : walks from the zero code along the directions of the five best encoded attributes
    """
    (model,) = models
    means, labels = evaluation.encode(model, dataset.test.images)[0], dataset.test.labels
    usable = (torch.minimum(labels.sum(0), (~labels).sum(0)) >= RARE).nonzero().flatten()
    found = attributes.fit(means, labels[:, usable], [dataset.names[i] for i in usable.tolist()]).values()
    ranked = sorted(found, key=lambda each: each.majority - each.accuracy.mean().item())
    table = []
    for each in ranked:
        numbers = {"accuracy": round(each.accuracy.mean().item(), 4), "majority": round(each.majority, 4)}
        numbers["spread"] = round((means @ each.direction).std().item(), 3)
        table.append({"name": each.name} | numbers | {"direction": _rounded(each.direction, 4)})
    chosen = list(range(0, len(means), max(1, len(means) // LAB_IMAGES)))[:LAB_IMAGES]
    steps, zero = torch.linspace(-4, 4, 11), torch.zeros(1, model.latent_dim)
    walks = {
        each.name.replace("_", " "): attributes.traverse(model, zero, each.direction, steps * row["spread"])[0]
        for each, row in zip(ranked[:5], table, strict=False)
    }
    return {"attributes": table, "images": chosen, "codes": _rounded(means[chosen], 3)}, plots.rows(walks)


def exact_posteriors(model: VAE, content: Mapping) -> list[dict]:
    """Compute the exact posteriors of some test images for a VAE with one latent dimension, as data for `bound.js`.

    Parameters
    ----------
    model : VAE with K = 1
    content : return value of `plane`, whose `digits` are used

    Returns
    -------
    list of dict
        One per image, with number, label and pixels. `logProb` is log p(x) in nats, an integral over codes from -6 to
        6. `posterior` and `encoder` have mean and sigma of the exact posterior and of the encoder's q. `low` and `high`
        enclose both. `logLikelihood` is log p(x | z) at codes from `start` in steps of `step`. These codes cover twice
        this range around the mean
    """
    model = copy.deepcopy(model).double()
    everywhere, found = torch.linspace(-6, 6, 12001, dtype=torch.float64), []
    for digit in content["digits"]:
        x = torch.tensor(digit["pixels"], dtype=torch.float64).view(1, *model.image_shape) / 255
        joint = _log_likelihood(model, x, everywhere) - everywhere**2 / 2 - math.log(2 * math.pi) / 2
        log_prob = torch.logsumexp(joint, 0).item() + math.log(0.001)
        weights = torch.softmax(joint, 0)
        mean = (weights * everywhere).sum().item()
        sigma = (weights * (everywhere - mean) ** 2).sum().sqrt().item()
        with torch.inference_mode():
            encoder_mean, log_variance = (each.item() for each in model.encode(x))
        encoder_sigma = math.exp(log_variance / 2)
        half = max(6 * sigma, abs(encoder_mean - mean) + 5 * encoder_sigma)
        codes = torch.linspace(mean - 2 * half, mean + 2 * half, 801, dtype=torch.float64)
        exact, approximate = {"mean": mean, "sigma": sigma}, {"mean": encoder_mean, "sigma": encoder_sigma}
        curve = {"start": codes[0].item(), "step": half / 200}
        curve["logLikelihood"] = _rounded(_log_likelihood(model, x, codes), 4)
        curve |= {"low": mean - half, "high": mean + half}
        found.append(digit | {"logProb": log_prob, "posterior": exact, "encoder": approximate} | curve)
    return found


@torch.inference_mode()
def _log_likelihood(model: VAE, x: Tensor, codes: Tensor) -> Tensor:
    """Compute log p(x | z) of one image for many one-dimensional codes."""
    parts = (model.decoder.logits(batch[:, None]) for batch in codes.split(1000))
    return torch.cat([objective.bernoulli_log_prob(x.expand_as(each), each) for each in parts])


def small_vae() -> VAE:
    """Build the VAE that trains in the page, 64 - 128 - 2 - 128 - 64 for scikit-learn's digits, with random weights."""
    pixels = SMALL[1] * SMALL[2]
    features = nn.Sequential(nn.Flatten(), nn.Linear(pixels, HIDDEN), nn.ReLU())
    output = nn.Sequential(nn.Linear(2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, pixels), nn.Unflatten(1, SMALL))
    return VAE(encoders.Gaussian(features, HIDDEN, 2), decoders.Bernoulli(output), priors.Standard(2), SMALL)


def training(updates: int = 3000) -> Figure:
    """Train the page's model with PyTorch, and plot test codes, drawn as their labels, next to the decoded plane."""
    pixels, labels, test = small_digits()
    images, held_out = pixels[~test] / 16, pixels[test] / 16
    torch.manual_seed(0)
    model = small_vae()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    for _ in range(updates):
        reconstruction, kl = model.elbo(images[torch.randperm(len(images))[:BATCH_SIZE]])
        optimizer.zero_grad()
        (kl - reconstruction).mean().backward()
        optimizer.step()
    places = (torch.arange(12) + 0.5) * (8 / 12) - 4  # of the decoded images, from -4 to 4
    with torch.no_grad():
        reconstruction, kl = (terms.mean().item() for terms in model.elbo(held_out))
        codes, decoded = model.encode(held_out)[0], model.decode(torch.cartesian_prod(-places, places).flip(1))
    prices = f"reconstruction {-reconstruction:.1f} + KL {kl:.1f} = {kl - reconstruction:.1f} nats"
    return plots.plane(codes, labels[test], decoded, 4, f"after {updates:,} updates: {prices}")


def information(mean: Tensor, sigma: Tensor, step: float = 0.02) -> float:
    """Compute the mutual information of image and code, in nats.

    It is the entropy of the aggregated posterior minus the mean entropy of the posteriors.

    Parameters
    ----------
    mean, sigma : of N Gaussians in the plane, each (N, 2)
    step : of the grid for the aggregated entropy; each sigma must be at least as large
    """
    mean, sigma = mean.double(), sigma.double()
    low, high = (mean - 6 * sigma).min().item(), (mean + 6 * sigma).max().item()
    axis = torch.arange(low, high, step, dtype=torch.float64)
    x, y = torch.distributions.Normal(mean, sigma).log_prob(axis[:, None, None]).exp().unbind(-1)  # each (n, N)
    aggregated = x @ y.T / len(mean)
    entropy = (torch.log(sigma) + 0.5 * math.log(2 * math.pi * math.e)).sum(1).mean()
    return (torch.special.entr(aggregated).sum() * step**2 - entropy).item()


def shades(images: Tensor) -> str:
    """Encode images in [0, 1] as text, with a digit in base 17 per pixel, by image and row."""
    return "".join("0123456789abcdefg"[value] for value in (16 * images).round().int().flatten().tolist())


def _rounded(numbers: Tensor, digits: int) -> list:
    """Round numbers into nested lists, in double precision, so that they print with few digits."""
    return numbers.double().round(decimals=digits).tolist()
