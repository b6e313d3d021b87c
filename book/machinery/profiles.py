"""Profiles: the same experiments in several sizes. A sweep of your own is an entry of your own in `PROFILES`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vaelib.training import TrainConfig


@dataclass(frozen=True)
class Schedule:
    """How long to train, and with which seeds; `more_seeds` are of single latent dimensions, for the spread there."""

    epochs: int
    seeds: Sequence[int]
    more_seeds: Mapping[int, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """What to train: `short` is the training to be judged; `long`, where there is one, shows what becomes of it.

    Raises ValueError if a training occurs twice.
    """

    dataset: str
    latent_dims: Sequence[int]
    short: Schedule
    long: Schedule | None = None
    batch_size: int = TrainConfig.batch_size

    def __post_init__(self):
        settings = self.settings(self.short) + self.settings(self.long)
        if twice := {str(each) for each in settings if settings.count(each) > 1}:
            raise ValueError(f"each training is made once, but these occur again: {', '.join(sorted(twice))}")

    def settings(self, schedule: Schedule | None) -> list[TrainConfig]:
        """The settings of every training of a schedule, seed by seed; none without a schedule."""
        if schedule is None:
            return []
        pairs = [(latent_dim, seed) for seed in schedule.seeds for latent_dim in self.latent_dims]
        pairs += [(latent_dim, seed) for latent_dim, seeds in schedule.more_seeds.items() for seed in seeds]
        return [TrainConfig(latent_dim, schedule.epochs, seed, self.batch_size) for latent_dim, seed in pairs]


QUICK_FACES = Schedule(epochs=6, seeds=[0])
PROFILES = {
    "quick": {  # embedded data, minutes on two CPU cores
        "mnist": Experiment("digits", [1, 2, 4, 8, 16, 64], Schedule(15, [0, 1]), Schedule(30, [0])),
        "celeba": Experiment("faces-small", [2, 64], QUICK_FACES, batch_size=32),
        "faces": Experiment("faces-small", [64], QUICK_FACES, batch_size=32),  # whose true factors are known
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
    """The experiment ("mnist", "celeba", "faces") of a profile ("quick", "paper"). Raises ValueError if there is none."""
    for name, known in ((profile, PROFILES), (experiment, PROFILES.get(profile, {}))):
        if name not in known:
            raise ValueError(f"unknown profile or experiment {name!r}; known here: {', '.join(known)}; see {__file__}")
    return PROFILES[profile][experiment]
