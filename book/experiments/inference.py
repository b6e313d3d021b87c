"""Train one decoder in many ways: `python -m book.experiments.inference rates exact:10 aevb:10-60000`.

All models are of binary digits of half the width and height. A run sees ten million images in batches of 100. Its record
in book/records/inference has log p(x) against the number of images and against seconds. It is named after its method,
its seed and its number of training images. If it was stopped, the next call resumes it. `rates` chooses each method's
learning rate from shorter runs, with a seed that no other run uses.

Eight of the methods differ in three choices: how we average over an image's posterior (exactly, or by one drawn code),
which shape it has (any, or Gaussian), and whose it is (the image's own, or an encoder's). Exact EM has the first of each
pair, AEVB the second. (An encoder's posterior of any shape is a flow. We average over eight drawn codes of it.)
"""

import argparse
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from vaelib import baselines, data, decoders, encoders, files, objective, priors, runs
from vaelib.distributions import DiagonalNormal
from vaelib.models import VAE

RECORDS = Path(__file__).parents[1] / "records" / "inference"
LENGTH, BATCH, HIDDEN = 10_000_000, 100, 100
SIDES, FINE, REACH = {2: 41, 3: 21}, {2: 121, 3: 61}, 4.0  # codes on a side of the grids, to train and to score
RATES, RATES_SEED = (0.0003, 0.001, 0.003), 0
MARKS = sorted({round(100 * 10 ** (step / 6)) for step in range(19)} | {80_000})  # batches after which we score


def half_size(images: Tensor, seed: int = 0) -> Tensor:
    """Halve width and height of images (N, 1, H, W), and draw each pixel as 0 or 1 with its grey value as chance."""
    grey = nn.functional.avg_pool2d(data.to_float(images), 2)
    return grey.bernoulli(generator=torch.Generator().manual_seed(seed))


def plane(side: int, latent_dim: int, reach: float = REACH) -> Tensor:
    """Return evenly spaced codes in [-reach, reach]^K, (side**K, K)."""
    line = torch.linspace(-reach, reach, side)
    return torch.cartesian_prod(*[line] * latent_dim)


def build(image_shape: tuple[int, ...], latent_dim: int, encoder: type = encoders.Gaussian) -> VAE:
    """Build a VAE whose networks have one hidden layer with tanh, as Kingma and Welling's."""
    pixels = math.prod(image_shape)
    features = nn.Sequential(nn.Flatten(), nn.Linear(pixels, HIDDEN), nn.Tanh())
    hidden = nn.Linear(latent_dim, HIDDEN), nn.Tanh()
    output = nn.Sequential(*hidden, nn.Linear(HIDDEN, pixels), nn.Unflatten(1, image_shape))
    parts = encoder(features, HIDDEN, latent_dim), decoders.Bernoulli(output), priors.Standard(latent_dim)
    return VAE(*parts, image_shape)


@torch.no_grad()
def exactly(model: VAE, images: Tensor) -> Tensor:
    """Compute log p(x) of images, (N,), by a sum over a fine grid of codes."""
    latent_dim = model.latent_dim
    grid = plane(FINE[latent_dim], latent_dim, 1.5 * REACH)
    parts = images.split(20_000_000 // len(grid))
    return torch.cat([baselines.grid_log_joint(model, each, grid).logsumexp(1) for each in parts])


def quadrature(latent_dim: int, nodes: int = 4) -> tuple[Tensor, Tensor]:
    """Return nodes (S, K) and weights (S,) with which a sum gives the mean under N(0, I) (Gauss-Hermite)."""
    places, weights = (torch.tensor(each).float() for each in np.polynomial.hermite_e.hermegauss(nodes))
    weights = torch.cartesian_prod(*[weights / weights.sum()] * latent_dim).prod(1)
    return torch.cartesian_prod(*[places] * latent_dim), weights


def log_joints(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    """Compute log p(x, z), (B, S), of S codes (B, S, K) for each image."""
    repeated = x.repeat_interleave(z.shape[1], 0)
    return baselines.log_joint(model, repeated, z.flatten(0, 1)).unflatten(0, z.shape[:2])


def expected_elbo(model: VAE, x: Tensor, q: Any) -> Tensor:
    """Compute the ELBO, (B,), of Gaussian posteriors, by quadrature instead of drawn codes."""
    places, weights = quadrature(model.latent_dim)
    z = q.mean[:, None] + places * q.variance.sqrt()[:, None]
    entropy = 0.5 * (q.log_variance + math.log(2 * math.pi * math.e)).sum(1)
    return log_joints(model, x, z) @ weights + entropy


@torch.no_grad()
def best_gaussian(model: VAE, x: Tensor, grid: Tensor, steps: int = 5) -> DiagonalNormal:
    """Find each image's diagonal Gaussian with the highest ELBO, from the grid's most probable code on.

    Each step is Newton's, with the mean slope and curvature of log p(x, z) under the Gaussian. Both follow from values
    alone, by Stein's identity. Precisions stay at or above the prior's, and the curvature positive definite. Of all
    steps, each image's best is returned, because a step can go too far.
    """
    (places, weights), K = quadrature(model.latent_dim), model.latent_dim
    pairs = places[:, :, None] * places[:, None] - torch.eye(K)  # (S, K, K)
    mean = best_mean = grid[baselines.grid_log_joint(model, x, grid).argmax(1)]
    precision = best_precision = torch.full_like(mean, 100.0)
    highest = torch.full((len(x),), -math.inf)
    for _ in range(steps):
        root = precision.sqrt()
        values = log_joints(model, x, mean[:, None] + places / root[:, None]) * weights
        elbo = values.sum(1) - precision.log().sum(1) / 2  # plus a constant
        better = (elbo > highest)[:, None]
        best_mean, best_precision = mean.where(better, best_mean), precision.where(better, best_precision)
        highest = highest.maximum(elbo)
        curvature = -torch.einsum("bs,sij,bi,bj->bij", values, pairs, root, root)
        precision = curvature.diagonal(dim1=1, dim2=2).clamp(1, 1e4)
        most = 0.95 / (K - 1) * (precision[:, :, None] * precision[:, None]).sqrt()
        curvature = curvature.clamp(-most, most).diagonal_scatter(precision, dim1=1, dim2=2)
        mean = mean + torch.linalg.solve(curvature, values @ places * root).clamp(-0.5, 0.5)
    return DiagonalNormal(best_mean, -best_precision.log())


@dataclass
class Codes:
    """A grid of codes and, for Monte Carlo EM, each image's code and HMC's step size."""

    grid: Tensor
    kept: Tensor
    step_size: float = 0.05

    def shifted(self) -> Tensor:
        """Return the grid, shifted at random by up to half its spacing, so that no decoder can hide between codes."""
        spacing = (self.grid[1] - self.grid[0]).max()
        return self.grid + spacing * (torch.rand(self.grid.shape[1]) - 0.5)


Loss = Callable[[VAE, Tensor, Tensor, Codes], Tensor]


def exact(model: VAE, x: Tensor, which: Tensor, codes: Codes) -> Tensor:
    """Return -log p(x). Exact EM with one update for each batch follows its gradient."""
    return -baselines.grid_log_joint(model, x, codes.shifted()).logsumexp(1)


def drawn(model: VAE, x: Tensor, which: Tensor, codes: Codes) -> Tensor:
    grid = codes.shifted()
    with torch.no_grad():
        z = grid[Categorical(logits=baselines.grid_log_joint(model, x, grid)).sample()]
    return -baselines.log_joint(model, x, z)


def gaussian(model: VAE, x: Tensor, which: Tensor, codes: Codes) -> Tensor:
    return -expected_elbo(model, x, best_gaussian(model, x, codes.grid))


def gaussian_drawn(model: VAE, x: Tensor, which: Tensor, codes: Codes) -> Tensor:
    return -baselines.log_joint(model, x, best_gaussian(model, x, codes.grid).sample())


def encoded(model: VAE, x: Tensor, which: Tensor, codes: Codes) -> Tensor:
    return -expected_elbo(model, x, model.encoder(x))


def wake_sleep(model: VAE, x: Tensor, which: Tensor, codes: Codes) -> Tensor:
    return torch.stack(baselines.wake_sleep(model, x)).sum(0)


def minimised(aim: Any) -> Loss:
    """Return the loss of an objective of the package."""
    options = objective.options(aim)
    return lambda model, x, which, codes: aim(model(x, **options), 0.0)


def monte_carlo_em(proposals: int) -> Loss:
    """Return the loss of Monte Carlo EM, which moves each image's code by HMC, and keeps it for the next time."""

    def loss(model: VAE, x: Tensor, which: Tensor, codes: Codes) -> Tensor:
        density = partial(baselines.log_joint, model, x)
        chain, codes.step_size, _ = baselines.hmc(density, codes.kept[which], proposals, codes.step_size)
        codes.kept[which] = chain[-1]
        return -baselines.log_joint(model, x, chain[-1])

    return loss


FLOW = encoders.InverseAutoregressive
GAUSSIAN_ENCODERS = ("encoded", "aevb", "wake-sleep", "iwae5", "iwae50")  # the methods that train one
METHODS: dict[str, tuple[Loss, type]] = {
    # averaged exactly or drawn, of any shape or Gaussian, the image's own or an encoder's
    "exact": (exact, encoders.Gaussian),
    "drawn": (drawn, encoders.Gaussian),
    "gaussian": (gaussian, encoders.Gaussian),
    "gaussian-drawn": (gaussian_drawn, encoders.Gaussian),
    "encoded-flow": (minimised(objective.MeanELBO(8)), FLOW),
    "flow": (minimised(objective.negative_elbo), FLOW),
    "encoded": (encoded, encoders.Gaussian),
    "aevb": (minimised(objective.negative_elbo), encoders.Gaussian),
    # others
    "wake-sleep": (wake_sleep, encoders.Gaussian),
    "mcem1": (monte_carlo_em(1), encoders.Gaussian),
    "mcem5": (monte_carlo_em(5), encoders.Gaussian),
    "iwae5": (minimised(objective.ImportanceWeighted(5)), encoders.Gaussian),
    "iwae50": (minimised(objective.ImportanceWeighted(50)), encoders.Gaussian),
}


@dataclass(frozen=True)
class Training:
    """One training: `method:seed-images`, with `K3` for three latent dimensions, and `@other` to start from a decoder.

    `start` names the method whose last decoder is the first one here. Such a run has a fifth of the length. AEVB then
    trains its encoder alone in the first tenth.
    """

    method: str
    seed: int
    images: int = 1000
    latent_dim: int = 2
    start: str | None = None
    rate: float | None = None

    @property
    def name(self) -> str:
        start, rate = f"@{self.start}" if self.start else "", f"-rate{self.rate}" if self.rate else ""
        return f"{self.method}{start}-n{self.images}-k{self.latent_dim}-s{self.seed}{rate}"

    @property
    def steps(self) -> int:
        """The number of batches. Runs that start from another one, or choose a rate, are shorter."""
        return LENGTH // BATCH // (5 if self.start else 10 if self.rate else 1)

    def path(self, name: str | None = None) -> Path:
        return runs.default_root() / "inference" / f"{name or self.name}.pt"


def chosen_rate(method: str, images: int) -> float:
    """Return the learning rate that `rates` has chosen."""
    return json.loads((RECORDS / "rates.json").read_bytes())[f"{method}-{images}"]["chosen"]


class State:
    """A training in progress: model, optimizer, codes, random state and course, all of which a checkpoint stores."""

    def __init__(self, training: Training, images: Tensor):
        torch.manual_seed(training.seed)
        K, encoder = training.latent_dim, METHODS[training.method][1]
        self.model = build(images.shape[1:], K, encoder)
        self.codes = Codes(plane(SIDES[K], K), torch.randn(len(images), K))
        rate = training.rate or chosen_rate(training.method, training.images)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=rate, fused=True)
        self.decoder = [each for name, each in self.model.named_parameters() if name.startswith("decoder.")]
        self.step, self.seconds = 0, 0.0
        self.course: list[list[float]] = []
        if training.start:
            name = Training(training.start, training.seed, training.images, K).name
            weights = torch.load(training.path(name), weights_only=True)["model"]
            kept = {key: value for key, value in weights.items() if key.startswith("decoder.")}
            self.model.load_state_dict(self.model.state_dict() | kept)

    def content(self) -> dict:
        """Return the content of a checkpoint."""
        state: dict = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"kept": self.codes.kept, "step_size": self.codes.step_size, "random": torch.get_rng_state()}
        return state | {"step": self.step, "seconds": self.seconds, "course": self.course}

    def load(self, state: dict) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.codes.kept, self.codes.step_size = state["kept"], state["step_size"]
        torch.set_rng_state(state["random"])
        self.step, self.seconds, self.course = state["step"], state["seconds"], state["course"]


def train(training: Training, images: Tensor, tests: Tensor, checkpoint_seconds: float = 60) -> State:
    """Train, or go on from the checkpoint, and return the final state.

    Seconds are the processor's, so that other programs don't count. Scoring doesn't count, either.
    """
    path, loss = training.path(), METHODS[training.method][0]
    with torch.random.fork_rng(devices=()):
        state = State(training, images)
        if path.exists():
            state.load(torch.load(path, weights_only=True))
        saved, began = time.monotonic(), time.process_time() - state.seconds
        while state.step < training.steps:
            alone = training.start and training.method == "aevb" and state.step < training.steps // 10
            for weight in state.decoder:
                weight.requires_grad_(not alone)
            which = torch.randint(len(images), (BATCH,))
            state.optimizer.zero_grad()
            loss(state.model, images[which], which, state.codes).mean().backward()
            state.optimizer.step()
            state.step += 1
            if state.step in MARKS or state.step == training.steps:
                state.seconds = time.process_time() - began
                scores = [exactly(state.model, each[:1000]).mean().item() for each in (images, tests)]
                state.course.append([state.step * BATCH, state.seconds, *scores])
                began = time.process_time() - state.seconds
            if time.monotonic() - saved > checkpoint_seconds or state.step == training.steps:
                state.seconds = time.process_time() - began
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.save(state.content(), buffer := io.BytesIO())
                files.write(path, buffer.getvalue())
                saved = time.monotonic()
    return state


def measured(training: Training, state: State, images: Tensor, tests: Tensor) -> dict:
    """Return the record of a finished training: its course, and its final values in nats per image."""
    model, some = state.model, tests[:1000]
    log_p = exactly(model, tests)
    values = {"train": exactly(model, images[:10_000]).mean().item(), "test": log_p.mean().item()}
    values |= {"test_error": log_p.std().item() / len(tests) ** 0.5}
    with torch.no_grad():
        best = expected_elbo(model, some, best_gaussian(model, some, state.codes.grid, steps=20))
        values["shape_gap"] = (log_p[:1000] - best).mean().item()
        if training.method in GAUSSIAN_ENCODERS:
            values["encoder_gap"] = (best - expected_elbo(model, some, model.encoder(some))).mean().item()
    return asdict(training) | {"course": state.course} | values


def parse(text: str) -> Training:
    """Read `method:seed`, `method:seed-60000`, `method:seed-60000-K3` or `method@start:seed`."""
    method, _, rest = text.partition(":")
    seed, *more = rest.split("-")
    latent_dim, images = 3 if "K3" in more else 2, [int(each) for each in more if each != "K3"]
    name, _, start = method.partition("@")
    return Training(name, int(seed), images[0] if images else 1000, latent_dim, start or None)


def choose_rates(images: dict[int, Tensor], tests: Tensor) -> None:
    """Choose each method's learning rate by log p of training images, and write the choice and all scores."""
    path, chosen = RECORDS / "rates.json", {}
    for count, train_images in images.items():
        for method in METHODS:
            scores = {}
            for rate in RATES:
                tried = train(Training(method, RATES_SEED, count, rate=rate), train_images, tests)
                scores[rate] = exactly(tried.model, train_images[:10_000]).mean().item()
            chosen[f"{method}-{count}"] = {"chosen": max(scores, key=scores.__getitem__), "log_prob": scores}
            print(count, method, scores, flush=True)
            files.write(path, json.dumps(chosen, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m book.experiments.inference", description=__doc__)
    parser.add_argument("training", nargs="+", help=f"rates, or such as aevb:10-60000; methods: {', '.join(METHODS)}")
    mnist = data.load("mnist")
    seen, unseen = half_size(mnist.train.images), half_size(mnist.test.images)
    for each in parser.parse_args().training:
        if each == "rates":
            choose_rates({1000: seen[:1000], 60_000: seen}, unseen)
            continue
        training = parse(each)
        ended = train(training, seen[: training.images], unseen)
        record = measured(training, ended, seen[: training.images], unseen)
        files.write(RECORDS / f"{training.name}.json", json.dumps(record, indent=1) + "\n")
        print(training.name, {key: record[key] for key in ("train", "test")}, flush=True)
