"""The long trainings of the part "Beyond the paper": `python -m book.machinery.long_runs vae:10 iwae5:11`.

Each is named by its objective and its seed. It is a run like any other: stopped, it goes on at the next call. A
checkpoint in book/records/unfinished, which an earlier call on another machine left, is where it begins.
"""

import argparse
import gzip
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from vaelib import TrainConfig, burda, data, files, objective, runs, training
from vaelib.binarization import binarized

from .claims import digest, next_rules

OBJECTIVES: dict[str, training.Objective] = {"vae": objective.negative_elbo, "iwae5": objective.ImportanceWeighted(5)}
EPOCHS = 400


def train(name: str, seed: int, digits: data.Dataset) -> runs.Run:
    """Burda's model of pixels that are binarized afresh, in batches of 20, with one cosine."""
    means = data.to_float(digits.train.images).mean(0)
    config = TrainConfig(50, EPOCHS, seed, batch_size=20)
    functions: dict[str, Any] = {
        "builder": partial(binarized, builder=partial(burda.build, means=means)),
        "objective": OBJECTIVES[name],
        "schedule": partial(CosineAnnealingLR, T_max=EPOCHS),
        "optimizer": partial(torch.optim.Adam, eps=1e-4, fused=True),
    }
    folder = runs.default_root() / runs.name(digits.name, config, **functions)
    if not folder.exists():
        for kept in (Path(__file__).parents[1] / "records" / "unfinished" / f"{name}-s{seed}").glob("*.gz"):
            folder.mkdir(parents=True, exist_ok=True)
            files.write(folder / kept.stem, gzip.decompress(kept.read_bytes()))
    return runs.train(digits, config, checkpoint_seconds=60, tags={"rules": digest(next_rules())}, **functions)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m book.machinery.long_runs", description=__doc__)
    parser.add_argument("training", nargs="+", help=f"such as vae:10; known are {', '.join(OBJECTIVES)}")
    mnist = data.load("mnist")
    for each in parser.parse_args().training:
        name, seed = each.split(":")
        print(train(name, int(seed), mnist).evaluation, flush=True)
