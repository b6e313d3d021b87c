"""What several test files share: small data, small models and objectives of every kind, and trainings of them."""

import math
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import zuko
from torch import nn
from torch.distributions import Independent, Normal, StudentT

from book.machinery import pdf
from vaelib import TrainConfig, data, decoders, distributions, encoders, objective, priors, runs
from vaelib.binarization import binarized
from vaelib.data import Dataset, Split, to_float
from vaelib.models import VAE
from vaelib.seeding import seeded

# A shell's background jobs ignore an interrupt, and so do the processes that they start. Tests interrupt processes
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
BOOK, PAGES = ROOT / "book", ROOT / "_build" / "html" / "book"
# The same draws in every run: two rounded numbers of a page must not agree by chance
DRAWS = "let drawn = 1; Math.random = () => (drawn = (drawn * 16807) % 2147483647) / 2147483647"


def is_alive(number: int) -> bool:
    """Whether there is a process of that number that has not ended."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# Models, by functions with the arguments of `models.mlp`


def small(image_shape, latent_dim, encoder=encoders.Gaussian, decoder=decoders.Bernoulli, prior=priors.Standard):
    """`models.mlp` with one hidden layer of 16 units, not two of 512."""
    pixels, times = math.prod(image_shape), getattr(decoder, "outputs", 1)
    features = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 16), nn.ReLU())
    shape = (times * image_shape[0], *image_shape[1:])
    output = nn.Sequential(nn.Linear(latent_dim, 16), nn.ReLU(), nn.Linear(16, times * pixels), nn.Unflatten(1, shape))
    return VAE(encoder(features, 16, latent_dim), decoder(output), prior(latent_dim), image_shape)


def compiled(image_shape, latent_dim, builder=small, backend="eager", **options):
    return torch.compile(builder(image_shape, latent_dim, **options), backend=backend)


def vamp(image_shape, latent_dim, **options):
    model = small(image_shape, latent_dim, **options)
    model.prior = priors.Vamp(model.encoder, image_shape, components=5)
    return model


def normalised(image_shape, latent_dim):
    model = small(image_shape, latent_dim)
    model.encoder.features.append(nn.BatchNorm1d(16))
    model.decoder.logits.insert(1, nn.BatchNorm1d(16))
    return model


def tied(image_shape, latent_dim):
    model = small(image_shape, latent_dim)
    model.decoder.logits.insert(1, nn.Linear(16, 16))
    model.encoder.features.append(nn.Linear(16, 16))
    model.decoder.logits[1].weight = model.encoder.features[3].weight
    return model


class NormalPixels(nn.Module):
    """A decoder that says nothing of the values that it expects."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def forward(self, z):
        return Independent(Normal(self.mean(z), 0.5), 3)


class StudentPixels(NormalPixels):
    def forward(self, z):
        return Independent(StudentT(3.0, self.mean(z), 0.5), 3)


class Labelled(nn.Module):
    """A module of images or codes, which each label moves first."""

    def __init__(self, module, size):
        super().__init__()
        self.module, self.label = module, nn.Embedding(10, size)

    def forward(self, inputs, y):
        return self.module(inputs + self.label(y).view_as(inputs))


class LabelPrior(nn.Module):
    def __init__(self, latent_dim):
        super().__init__()
        self.mean = nn.Embedding(10, latent_dim)

    def forward(self, y):
        mean = self.mean(y)
        return distributions.DiagonalNormal(mean, torch.zeros_like(mean))


def conditional(image_shape, latent_dim, prior=LabelPrior):
    model = small(image_shape, latent_dim, decoder=decoders.Gaussian)
    encoder, decoder = Labelled(model.encoder, math.prod(image_shape)), Labelled(model.decoder, latent_dim)
    return VAE(encoder, decoder, prior(latent_dim), image_shape, conditional=True)


MODELS = {
    "paper": small,
    "tied weights": tied,
    "conditional": conditional,
    "binarized": partial(binarized, builder=normalised),
    "Student-t": partial(small, decoder=StudentPixels, prior=priors.Mixture),
    "continuous Bernoulli": partial(small, decoder=decoders.ContinuousBernoulli),
    "optimal Gaussian": partial(small, decoder=decoders.OptimalGaussian),
    "logistic mixture": partial(vamp, decoder=decoders.DiscretizedLogisticMixture),
    "flows": partial(small, encoder=encoders.InverseAutoregressive, prior=zuko.flows.MAF),
}
NOT_CLOSED = {"Student-t", "logistic mixture", "flows"}  # the KL


# Objectives


@dataclass(frozen=True)
class StickingTheLanding:
    """log q(z | x) with its parameters held fixed."""

    samples: int = 2
    fixed_posterior = True

    def __call__(self, terms, fraction):
        return -objective.importance_weighted_bound(terms.log_weights)


@dataclass(frozen=True)
class ScoreFunction:
    """REINFORCE, with the batch's mean as a baseline."""

    reparameterized = False

    def __call__(self, terms, fraction):
        bound = terms.log_weights.detach()
        score = terms.log_posterior * (bound - bound.mean())
        return -(terms.log_likelihood + terms.log_prior + score).mean(0)


class Geco(nn.Module):
    """A constraint on the reconstruction: its weight grows while it is missed. Rezende and Viola, arXiv:1810.00597."""

    def __init__(self, target=10.0):
        super().__init__()
        self.target = target
        self.register_buffer("weight", torch.ones(()))

    def forward(self, terms, fraction):
        missed = -terms.reconstruction - self.target
        self.weight *= (0.02 * missed.detach().mean().clamp(-1, 1)).exp()
        return terms.divergence + self.weight * missed


OBJECTIVES = {
    "free bits": objective.FreeBits(0.01),
    "mean of samples": objective.MeanELBO(2),
    "paper": objective.negative_elbo,
    "annealing": objective.BetaELBO(2.0, warm_up=0.5),
    "importance-weighted": objective.ImportanceWeighted(3),
    "sticking the landing": StickingTheLanding(),
    "score function": ScoreFunction(),
    "constraint": Geco,
}


# Trainings


def stop_after(epoch):
    """What to do after each epoch: Ctrl-C after that one."""

    def stop(model, line):
        if line["epoch"] == epoch:
            raise KeyboardInterrupt

    return stop


def interrupt(patch, module, name, call):
    """Let the function's n-th call be interrupted, as by Ctrl-C."""
    function, calls = getattr(module, name), []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    patch.setattr(module, name, interrupted)


def same_weights(model, other):
    weights, others = model.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(torch.equal(each, others[name]) for name, each in weights.items())


def same_runs(run, other):
    """Whether weights and figures are the same, bit for bit."""
    metrics = [[line | {"seconds": 0} for line in each.metrics] for each in (run, other)]
    same = metrics[0] == metrics[1] and run.evaluation == other.evaluation
    return same and same_weights(run.model(), other.model())


def flipped(content, position):
    """Bytes, one bit of which has changed."""
    content = bytearray(content)
    content[position] ^= 1
    return bytes(content)


# Data


def tiny_digits(shift=0):
    """Every fourth pixel of a few digits: 200 training and 40 test images of 1 x 7 x 7; shifted, they are others."""
    digits = data.load("digits")

    def cut(split, count):
        rows = slice(shift, shift + count)
        return Split(split.images[rows, :, ::4, ::4].contiguous(), split.labels[rows])

    return Dataset("tiny", cut(digits.train, 200), cut(digits.test, 40), digits.names)


def celeba_attributes(count):
    return np.random.default_rng(0).integers(0, 2, (count, 40), bool)


def lay_out_celeba(root, pictures, parts):
    """Write pictures from 000001.jpg on, and their lists, in the form of CelebA; returns their folder."""
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{number:06}.jpg" for number in range(1, len(parts) + 1)]
    for name, picture in zip(names, pictures, strict=True):
        picture.save(folder / "img_align_celeba" / name, quality=95)
    header = " ".join(f"Attribute_{number}" for number in range(40)) + " "
    signs = np.where(celeba_attributes(len(names)), "1", "-1")
    rows = [" ".join([name, *row]) for name, row in zip(names, signs, strict=True)]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), header, *rows, ""]))
    lines = [f"{name} {part}\n" for name, part in zip(names, parts, strict=True)]
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    return folder


@torch.no_grad()
def exact_log_prob(model, x, labels=None):
    """log p(x), (N,), of float images and one latent dimension, by the trapezoidal rule."""
    grid, found = torch.linspace(-12, 12, 601, dtype=next(model.parameters()).dtype).view(-1, 1), []
    for number, image in enumerate(model.prepare(x)):
        given = model.labels(labels if labels is None else labels[number].expand(len(grid)), len(grid))
        likelihood = model.decoder(grid, *given).log_prob(image.expand(len(grid), *image.shape))
        found.append((likelihood + model.prior(*given).log_prob(grid)).double().logsumexp(0) + math.log(24 / 600))
    return torch.stack(found)


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture(scope="session")
def tiny():
    return tiny_digits()


@pytest.fixture(scope="session")
def colour():
    """40 training and 8 test images of 3 x 16 x 16, noise."""
    pixels = torch.randint(256, (48, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Dataset("colour", Split(pixels[:40]), Split(pixels[40:]))


@pytest.fixture(scope="session")
def x(tiny):
    """The test images as floats."""
    return to_float(tiny.test.images)


@pytest.fixture
def model(tiny):
    """A small model, always with the same weights."""
    with seeded(0):
        return small(tiny.image_shape, 2)


@pytest.fixture
def row_model():
    """A VAE of rows of two numbers, not of images."""
    with seeded(0):
        encoder, decoder = encoders.Gaussian(nn.Identity(), 2, 1), encoders.Gaussian(nn.Identity(), 1, 2)
    return VAE(encoder, decoder, priors.Standard(1), (2,)).eval()


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    """A complete run, trained without interruption: 3 epochs of 7 steps, the last of them of 8 images."""
    settings = TrainConfig(latent_dim=2, epochs=3, batch_size=32)
    return runs.train(tiny, settings, tmp_path_factory.mktemp("runs"), "cpu")


@pytest.fixture(scope="session")
def browser():
    """A Chromium of the system's, without a window."""
    from playwright.sync_api import sync_playwright

    path = pdf.find_browser()
    if path is None:
        pytest.skip("there is no browser for the pages; Debian has chromium-headless-shell, others chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser):
    """Get a built page by its name, without a network, and as the module's last test left it.

    In the end no page may have complained, missed anything, or asked another host.
    """
    pages, trouble = {}, []

    def opened(name, fragment="", **options):
        key = name, fragment, repr(options)
        if key not in pages:
            context = browser.new_context(offline=True, **options)
            context.set_default_timeout(120_000)  # of a machine that is busy otherwise
            context.add_init_script(DRAWS)
            page = pages[key] = context.new_page()
            page.on("console", lambda it: it.type == "error" and trouble.append(f"{page.url}: {it.text}"))
            page.on("pageerror", lambda error: trouble.append(f"{page.url}: {error}"))
            if options.get("java_script_enabled", True):  # else scripts that are preloaded are refused
                page.on("requestfailed", lambda it: trouble.append(f"{page.url} misses {it.url}"))
            page.on("request", lambda it: it.url.startswith(("file:", "data:")) or trouble.append(f"asked: {it.url}"))
            page.goto((PAGES / f"{name}.html").as_uri() + fragment)
        return pages[key]

    yield opened
    for page in pages.values():
        page.context.close()
    assert trouble == [], "\n".join(trouble)
