"""Profiles: the same experiments in several sizes, as `profiles.yml` lists them."""

from dataclasses import dataclass, field
from importlib.resources import files

import yaml

from .training import Settings


@dataclass(frozen=True)
class Schedule:
    """How long to train, and with which seeds; `more_seeds` are of single latent dimensions, for the spread there."""

    epochs: int
    seeds: list[int]
    more_seeds: dict[int, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One experiment of one profile: which data and latent dimensions, the paper's training, perhaps a longer one."""

    dataset: str
    latent_dims: list[int]
    short: Schedule
    long: Schedule | None = None

    def settings(self, schedule: Schedule | None) -> list[Settings]:
        """The settings of every training of a schedule, seed by seed; none without a schedule."""
        if schedule is None:
            return []
        pairs = [(latent_dim, seed) for seed in schedule.seeds for latent_dim in self.latent_dims]
        pairs += [(latent_dim, seed) for latent_dim, seeds in schedule.more_seeds.items() for seed in seeds]
        return [Settings(latent_dim=latent_dim, epochs=schedule.epochs, seed=seed) for latent_dim, seed in pairs]


def load(profile: str, experiment: str) -> Experiment:
    """The experiment ("mnist", "celeba", "faces") of a profile ("quick", "paper").

    Raises
    ------
    ValueError
        If either is unknown; lists the known ones.
    """
    table = yaml.safe_load(files("vaelib").joinpath("profiles.yml").read_text())
    for kind, key in (("profile", profile), ("experiment", experiment)):
        if key not in table:
            raise ValueError(f"unknown {kind} {key!r}; known: {', '.join(table)}")
        table = table[key]
    schedules = {name: Schedule(**table.pop(name)) for name in ("short", "long") if name in table}
    return Experiment(**table, **schedules)
