"""The long trainings of the part "Beyond the paper": `python -m book.machinery.long_runs vae:10 iwae5:11`.

Each is named by its objective and its seed. It is a run like any other: stopped, it goes on at the next call. A
checkpoint in book/records/unfinished, which an earlier call on another machine left, is where it begins.
"""

import argparse
import gzip
from functools import partial
from pathlib import Path

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from vaelib import TrainConfig, burda, data, files, objective, runs, training
from vaelib.binarization import binarized

from . import claims

OBJECTIVES: dict[str, training.Objective] = {"vae": objective.negative_elbo, "iwae5": objective.ImportanceWeighted(5)}
UNFINISHED = Path(__file__).parents[1] / "records" / "unfinished"
EPOCHS = 400


def train(name: str, seed: int, digits: data.Dataset) -> runs.Run:
    """Burda's model of pixels that are binarized afresh, in batches of 20, with one cosine."""
    means = data.to_float(digits.train.images).mean(0)
    config = TrainConfig(50, EPOCHS, seed, batch_size=20)
    builder = partial(binarized, builder=partial(burda.build, means=means))
    schedule = partial(CosineAnnealingLR, T_max=EPOCHS)
    optimizer = partial(torch.optim.Adam, eps=1e-4, fused=True)
    folder = runs.default_root() / runs.name(digits.name, config, builder, OBJECTIVES[name], schedule, optimizer)
    if not folder.exists():
        for kept in (UNFINISHED / f"{name}-s{seed}").glob("*.gz"):
            folder.mkdir(parents=True, exist_ok=True)
            files.write(folder / kept.stem, gzip.decompress(kept.read_bytes()))
    return runs.train(
        digits,
        config,
        builder=builder,
        objective=OBJECTIVES[name],
        schedule=schedule,
        optimizer=optimizer,
        checkpoint_seconds=60,
        tags={"rules": claims.digest(claims.next_rules())},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m book.machinery.long_runs", description=__doc__)
    parser.add_argument("training", nargs="+", help=f"such as vae:10; known are {', '.join(OBJECTIVES)}")
    mnist = data.load("mnist")
    for each in parser.parse_args().training:
        name, _, seed = each.partition(":")
        run = train(name, int(seed), mnist)
        print(f"{run.folder.name}: log p(x) {run.evaluation['log_prob']:.2f} nats", flush=True)
