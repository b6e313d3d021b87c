"""A run is a training on disk: a folder with its settings, its metrics, its weights and its evaluation.

`config.json`          settings, data (name, fingerprint), environment (versions, device)
`metrics.jsonl`        one line an epoch, see `training.fit`
`model.safetensors`    the weights; there as soon as the training is finished
`evaluation.json`      see `evaluation.evaluate`; there as soon as the run is complete
`checkpoint`           only while the training is unfinished
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev

import torch

from . import evaluation, files, models, training
from .data import Dataset
from .training import Settings

ADVICE = "delete the run's folder to train it again"


@dataclass(frozen=True)
class Run:
    """A complete run; its figures are read, its weights stay on disk until `model()` asks for them."""

    folder: Path
    settings: Settings
    config: dict
    metrics: list[dict]
    evaluation: dict[str, float]

    def model(self, device: torch.device | str = "cpu") -> models.VAE:
        """The trained model in evaluation mode. Raises FileNotFoundError if only the run's records are here."""
        return models.load(self.folder / "model.safetensors", device)


def default_root() -> Path:
    """Where runs are kept: the environment variable VAELIB_RUNS, else `runs` in this project, else in this folder."""
    project = Path(__file__).resolve().parents[1]
    inside = project if (project / "pyproject.toml").exists() else Path()
    return Path(os.environ.get("VAELIB_RUNS") or inside / "runs").expanduser()


def name(dataset: str, settings: Settings) -> str:
    """The folder's name, such as `mnist-k2-e10-s0`: data, latent dimension, epochs, seed."""
    return f"{dataset}-k{settings.latent_dim}-e{settings.epochs}-s{settings.seed}"


def train(
    data: Dataset, settings: Settings, root: Path | str | None = None, device: torch.device | str | None = None
) -> Run:
    """Train a model and evaluate it; go on where an earlier call stopped; or only load what is complete.

    Parameters
    ----------
    data : Dataset
    settings : Settings
    root : folder of all runs; `default_root()` if not given
    device : where to train; a GPU if there is one

    Raises
    ------
    ValueError
        If the run's folder holds a run with other settings or other data, or a damaged file.
    RuntimeError
        If the device is not there, or another process is training the same run.
    FloatingPointError
        If the loss stops being finite.
    """
    device = choose_device(device)
    folder = Path(root or default_root()).expanduser() / name(data.name, settings)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, data, settings, device)
    if not is_complete(folder):
        with files.locked(folder):
            _complete(folder, data, settings, device)
    return load(folder)


def _complete(folder: Path, data: Dataset, settings: Settings, device: torch.device) -> None:
    weights, figures = folder / "model.safetensors", folder / "evaluation.json"
    if not (weights.exists() and (folder / "metrics.jsonl").exists()):
        with torch.random.fork_rng():  # the seed decides the initial weights, and nothing outside
            torch.manual_seed(settings.seed)
            model = models.build(data.image_shape, settings.latent_dim)
        training.fit(model.to(device), data, settings, folder)
        models.save(model, weights)
    files.write(figures, json.dumps(evaluation.evaluate(models.load(weights, device), data), indent=1) + "\n")
    for leftover in (folder / "checkpoint", *folder.glob("*.part")):  # killed processes leave half-written files
        leftover.unlink(missing_ok=True)


def train_all(data: Dataset, settings: Sequence[Settings], root: Path | str | None = None) -> dict[int, list[Run]]:
    """`train` for each of the settings in turn; the runs of each latent dimension, in the order given."""
    runs: dict[int, list[Run]] = {}
    for each in settings:
        runs.setdefault(each.latent_dim, []).append(train(data, each, root))
    return runs


def is_complete(folder: Path) -> bool:
    """Whether a run was trained and evaluated, and nothing of it was deleted since."""
    return all((folder / file).exists() for file in ("metrics.jsonl", "model.safetensors", "evaluation.json"))


def load(folder: Path) -> Run:
    """Read a complete run, or the published record of one, which is the same without its weights.

    Raises
    ------
    FileNotFoundError
        If a file is missing: the run is not complete.
    ValueError
        If a file is damaged (the message names it).
    """
    config, settings = _read_config(folder / "config.json")
    path = folder / "metrics.jsonl"
    metrics = [_parse(line, path) for line in path.read_bytes().splitlines()]
    if len(metrics) != settings.epochs:
        raise ValueError(f"{path} is damaged: {len(metrics)} epochs, not {settings.epochs}; {ADVICE}")
    return Run(folder, settings, config, metrics, _read_json(folder / "evaluation.json"))


def spread(runs: Sequence[Run], figure: str) -> tuple[float, float]:
    """Mean and standard deviation over two runs or more, of one figure of their evaluations."""
    values = [run.evaluation[figure] for run in runs]
    return mean(values), stdev(values)


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """The device asked for, else the first GPU, else the CPU. Raises RuntimeError if it is not there."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("device 'cuda' was asked for, but torch sees no GPU here; use 'cpu', or leave it out")
    return device


def _claim(folder: Path, data: Dataset, settings: Settings, device: torch.device) -> None:
    """Write the run's configuration, or make sure that the one there is the same."""
    path = folder / "config.json"
    config = {
        "settings": asdict(settings),
        "data": {"name": data.name, "fingerprint": data.fingerprint, "image_shape": list(data.image_shape)},
    }
    if path.exists():
        found, _ = _read_config(path)
        for part, wanted in config.items():
            for key, value in wanted.items():
                there = found.get(part, {}).get(key)
                if there != value:
                    what = "on other images or labels: fingerprint" if key == "fingerprint" else f"with {key}"
                    raise ValueError(
                        f"{folder} holds a run {what} {there!r}, not {value!r}; "
                        f"delete it, or choose another folder for runs"
                    )
        return
    config["environment"] = {package: version(package) for package in ("vaelib", "torch", "torchvision", "numpy")}
    config["environment"] |= {"python": platform.python_version(), "device": device_name(device)}
    files.write(path, json.dumps(config, indent=1) + "\n")


def device_name(device: torch.device) -> str:
    """Such as "NVIDIA H100", or "CPU, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type.upper()}, {torch.get_num_threads()} threads"


def _read_json(path: Path) -> dict:
    return _parse(path.read_bytes(), path)


def _read_config(path: Path) -> tuple[dict, Settings]:
    config = _read_json(path)
    try:
        return config, Settings(**config["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); {ADVICE}") from error


def _parse(text: bytes, path: Path) -> dict:
    try:
        parsed = json.loads(text)
    except ValueError as error:  # JSONDecodeError, or UnicodeDecodeError
        raise ValueError(f"{path} is damaged ({error}); {ADVICE}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{path} is damaged: no table of names and values; {ADVICE}")
    return parsed
