"""Profiles: the same experiments in several sizes, as `profiles.yml` lists them."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from vaelib.training import TrainConfig

KNOWN_KEYS = ConfigDict(extra="forbid")
PROFILES = Path(__file__).with_name("profiles.yml")
Count = Annotated[int, Field(ge=1, strict=True)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31, strict=True)]], Field(min_length=1)]


@dataclass(frozen=True)
class Schedule:
    """How long to train, and with which seeds; `more_seeds` are of single latent dimensions, for the spread there."""

    __pydantic_config__: ClassVar = KNOWN_KEYS
    epochs: Count
    seeds: Seeds
    more_seeds: dict[Count, Seeds] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One experiment of one profile: which data and latent dimensions, the paper's training, perhaps a longer one."""

    __pydantic_config__: ClassVar = KNOWN_KEYS
    dataset: str
    latent_dims: Annotated[list[Count], Field(min_length=1)]
    short: Schedule
    long: Schedule | None = None
    batch_size: Count = TrainConfig.batch_size

    def __post_init__(self):
        for settings, count in Counter(self.settings(self.short) + self.settings(self.long)).items():
            if count > 1:
                raise ValueError(f"{settings} occurs {count} times; each training is made once")

    def settings(self, schedule: Schedule | None) -> list[TrainConfig]:
        """The settings of every training of a schedule, seed by seed; none without a schedule."""
        if schedule is None:
            return []
        pairs = [(latent_dim, seed) for seed in schedule.seeds for latent_dim in self.latent_dims]
        pairs += [(latent_dim, seed) for latent_dim, seeds in schedule.more_seeds.items() for seed in seeds]
        return [TrainConfig(latent_dim, schedule.epochs, seed, self.batch_size) for latent_dim, seed in pairs]


def load(profile: str, experiment: str) -> Experiment:
    """The experiment ("mnist", "celeba", "faces") of a profile ("quick", "paper").

    Raises
    ------
    ValueError
        If either is unknown (lists the known ones), or the file has a mistake (names the file, the key, what is
        expected there and what was found).
    """
    try:
        table = TypeAdapter(dict[str, dict[str, Experiment]]).validate_python(yaml.safe_load(PROFILES.read_bytes()))
    except yaml.YAMLError as error:
        raise ValueError(f"{PROFILES} is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        mistakes = (
            f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}, not {wrong['input']!r}" for wrong in error.errors()
        )
        raise ValueError(f"{PROFILES}: {'; '.join(mistakes)}") from error
    for kind, key in (("profile", profile), ("experiment", experiment)):
        if key not in table:
            raise ValueError(f"unknown {kind} {key!r}; {PROFILES} has: {', '.join(table)}")
        table = table[key]
    return table
