"""Profiles: the same experiments in several sizes. For your own sweep, add an entry to `PROFILES`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vaelib.training import TrainConfig


@dataclass(frozen=True)
class Schedule:
    """Number of epochs, and seeds. `more_seeds` adds seeds for single latent dimensions, to estimate variation."""

    epochs: int
    seeds: Sequence[int]
    more_seeds: Mapping[int, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """Data and settings of runs. `short` runs are judged; `long` runs, if any, show further training.

    Raises ValueError if two runs have the same settings.
    """

    dataset: str
    latent_dims: Sequence[int]
    short: Schedule
    long: Schedule | None = None
    batch_size: int = TrainConfig.batch_size

    def __post_init__(self):
        settings = self.settings(self.short) + self.settings(self.long)
        if twice := {str(each) for each in settings if settings.count(each) > 1}:
            raise ValueError(f"each run is trained once, but these occur again: {', '.join(sorted(twice))}")

    def settings(self, schedule: Schedule | None) -> list[TrainConfig]:
        """Return the settings of every run of a schedule, by seed, or none without a schedule."""
        if schedule is None:
            return []
        pairs = [(latent_dim, seed) for seed in schedule.seeds for latent_dim in self.latent_dims]
        pairs += [(latent_dim, seed) for latent_dim, seeds in schedule.more_seeds.items() for seed in seeds]
        return [TrainConfig(latent_dim, schedule.epochs, seed, self.batch_size) for latent_dim, seed in pairs]


QUICK_FACES = Schedule(epochs=6, seeds=[0])
PROFILES = {
    "quick": {  # data in the package, minutes on two CPU cores
        "mnist": Experiment("digits", [1, 2, 4, 8, 16, 64], Schedule(15, [0, 1]), Schedule(30, [0])),
        "celeba": Experiment("faces-small", [2, 64], QUICK_FACES, batch_size=32),
        "faces": Experiment("faces-small", [64], QUICK_FACES, batch_size=32),  # with known true factors
    },
    "paper": {  # the paper's data and settings
        "mnist": Experiment("mnist", [1, 2, 4, 8, 16, 64], Schedule(10, [0, 1, 2]), Schedule(100, [0])),
        "celeba": Experiment(
            "celeba", [2, 8, 16, 32, 64, 96], Schedule(30, [0], more_seeds={32: [1], 64: [1, 2], 96: [1]})
        ),
        "faces": Experiment("faces", [32], Schedule(60, [0])),
    },
}


def load(profile: str, experiment: str) -> Experiment:
    """Return a profile's ("quick", "paper") experiment ("mnist", "celeba", "faces"), or raise ValueError."""
    for name, known in ((profile, PROFILES), (experiment, PROFILES.get(profile, {}))):
        if name not in known:
            raise ValueError(f"unknown profile or experiment {name!r}; known here: {', '.join(known)}; see {__file__}")
    return PROFILES[profile][experiment]
