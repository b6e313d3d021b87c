"""The long runs of the part "Beyond the paper": `python -m book.experiments.long_runs vae:10 iwae5:11`.

Each run is named after its objective and its seed. If it was stopped, the next call resumes it. It starts from a
checkpoint in book/records/unfinished if an earlier call on another machine left one there. At the end, its record is
published in book/records/fresh with the estimate of log p(x) of each test image, and the first seed's weights in half
precision in book/records/beyond.
"""

import argparse
import gzip
import math
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from book.machinery.claims import digest, next_rules
from vaelib import TrainConfig, burda, data, evaluation, files, objective, runs, storage, training
from vaelib.binarization import binarized


@dataclass(frozen=True)
class DReG:
    """The importance-weighted bound with the encoder's gradient of Tucker et al., arXiv:1810.04152."""

    samples: int = 5
    fixed_posterior: ClassVar[bool] = True

    def __call__(self, terms: objective.Terms, fraction: float) -> torch.Tensor:
        weights = terms.log_weights.detach().softmax(0)  # (S, B)
        if terms.codes.requires_grad:
            by_weight = weights.unsqueeze(-1)
            terms.codes.register_hook(lambda gradient: by_weight * gradient)
        return -(weights * terms.log_weights).sum(0)


weighted, averaged = objective.ImportanceWeighted, objective.MeanELBO
TRAININGS: dict[str, tuple[training.Objective, int]] = {  # objective and number of epochs
    "vae": (objective.negative_elbo, 400),
    "iwae5": (weighted(5), 400),
    "dreg5": (DReG(5), 400),
    "vae-short": (objective.negative_elbo, 12),
    "mean5-short": (averaged(5), 12),
    "iwae5-short": (weighted(5), 12),
    "mean50-short": (averaged(50), 12),
    "iwae50-short": (weighted(50), 12),
}
FIRST = 10  # of the seeds
RECORDS = Path(__file__).parents[1] / "records"


def train(name: str, seed: int, digits: data.Dataset) -> runs.Run:
    """Train Burda's model with dynamic binarization, in batches of 20, with a cosine schedule."""
    means = data.to_float(digits.train.images).mean(0)
    aim, epochs = TRAININGS[name]
    config = TrainConfig(50, epochs, seed, batch_size=20)
    functions: dict[str, Any] = {
        "builder": partial(binarized, builder=partial(burda.build, means=means)),
        "objective": aim,
        "schedule": partial(CosineAnnealingLR, T_max=epochs),
        "optimizer": partial(torch.optim.Adam, eps=1e-4, fused=True),
    }
    folder = runs.default_root() / runs.name(digits.name, config, **functions)
    if not folder.exists():
        for kept in (RECORDS / "unfinished" / f"{name}-s{seed}").glob("*.gz"):
            folder.mkdir(parents=True, exist_ok=True)
            files.write(folder / kept.stem, gzip.decompress(kept.read_bytes()))
    return runs.train(digits, config, checkpoint_seconds=60, tags={"rules": digest(next_rules())}, **functions)


def publish(name: str, seed: int, run: runs.Run, digits: data.Dataset, samples: int = 5000) -> None:
    """Write what a run leaves, and remove its checkpoint, which isn't needed any more."""
    model, path = run.model(), RECORDS / "fresh" / f"burda-{name}-s{seed}.json"
    estimates, errors = evaluation.log_prob(model, digits.test.images, samples)
    found = {
        "log_prob": estimates.mean().item(),
        "log_prob_standard_error": errors.square().mean().sqrt().item() / math.sqrt(len(errors)),
        "log_prob_image_error": estimates.std().item() / math.sqrt(len(estimates)),
        "log_prob_samples": samples,
    }
    files.write(path, replace(run, evaluation=run.evaluation | found).dumps())
    files.write(path.with_suffix(".safetensors"), safetensors.torch.save({"log_prob": estimates.float()}))
    if seed == FIRST and run.builder:
        storage.save(model.half(), RECORDS / "beyond" / f"burda-{name}.safetensors", run.builder)
    shutil.rmtree(RECORDS / "unfinished" / f"{name}-s{seed}", ignore_errors=True)
    print(f"{name}, seed {seed}: {found}", flush=True)


def published(name: str, seed: int, digits: data.Dataset) -> tuple[runs.Run, torch.Tensor]:
    """Return a run's record and its estimates of log p(x) of each test image, (N,), nats. Train it if there is none."""
    path = RECORDS / "fresh" / f"burda-{name}-s{seed}.safetensors"
    if not path.exists():
        publish(name, seed, train(name, seed, digits), digits)
    return runs.load(path.with_suffix(".json"), builder=None), safetensors.torch.load_file(path)["log_prob"]


if __name__ == "__main__":
    # A run names its functions by their module, which must not be __main__
    from book.experiments import long_runs as here

    parser = argparse.ArgumentParser(prog="python -m book.experiments.long_runs", description=__doc__)
    parser.add_argument("training", nargs="+", help=f"runs, such as vae:10; known: {', '.join(TRAININGS)}")
    mnist = data.load("mnist")
    for each in parser.parse_args().training:
        name, seed = each.split(":")
        here.published(name, int(seed), mnist)
