"""A run: training on disk, in a folder that is named after the run's settings, data and functions.

During training, the folder contains these files:

`config.json`
    the run's settings, functions, data, versions and device. After training, also its metrics and a checksum of the
    weights, which an interrupted evaluation checks when it is repeated
`metrics.jsonl`
    one line per epoch, see `training.fit`
`checkpoint`
    the state of training

Two files replace them when the run is complete:

`model.safetensors`
    the weights
`run.json`
    the content of `config.json` and `metrics.jsonl`, the evaluation (see `evaluation.evaluate`), and a checksum of the
    weights. This file is the run's record. You can copy it without the weights
"""

import hashlib
import json
import math
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from . import evaluation, files, models, naming, storage, training
from .checks import attempt, check_run
from .data import Dataset, paths
from .objective import negative_elbo
from .seeding import seeded
from .training import TrainConfig, adam

RECORD, WEIGHTS = "run.json", "model.safetensors"
CONFIG, METRICS, CHECKPOINT = "config.json", "metrics.jsonl", "checkpoint"
OLD = ("evaluation.json", "SHA256SUMS")  # files of complete runs, other than CONFIG and METRICS, before RECORD existed
FILES = RECORD, WEIGHTS, CONFIG, METRICS, CHECKPOINT, *OLD
DEFAULTS = asdict(TrainConfig(1))


@dataclass(frozen=True)
class Run:
    """A complete run. Its metrics are in memory. Its weights stay on disk until you call `model()`.

    Parameters
    ----------
    folder : the run's folder. If there are no weights, the record's path without ".json"
    config : its settings
    record : the other content of `run.json`: functions, data, versions and device
    metrics : one line per epoch, see `training.fit`
    evaluation : see `evaluation.evaluate`
    builder : the function that built its model
    """

    folder: Path
    config: TrainConfig
    record: dict
    metrics: list[dict]
    evaluation: dict[str, float]
    builder: Callable[..., models.VAE] | None = models.build

    def model(self, device: torch.device | str = "cpu") -> models.VAE:
        """Load the trained model in evaluation mode.

        Raises
        ------
        FileNotFoundError
            If only the run's record is there, not its weights.
        ValueError
            If another function built the model (the message names it), or the weights don't belong to this run.
        """
        path = self.folder / WEIGHTS
        if not files.exists(path):
            raise FileNotFoundError(f"{path} doesn't exist: a record alone has a run's metrics, not its weights")
        return storage.load(path, device, self.builder or models.build, self.record.get("weights"))

    def dumps(self) -> str:
        """Return the text of `run.json`: tables of names and values, a line per epoch, and a checksum of both."""
        head = self.record | {"evaluation": self.evaluation}
        lines = ",\n  ".join(map(json.dumps, self.metrics))
        sha256 = _checksum(head | {"metrics": self.metrics})
        return f'{json.dumps(head, indent=1)[:-2]},\n "metrics": [\n  {lines}\n ],\n "sha256": "{sha256}"\n}}\n'


def default_root() -> Path:
    """Return the folder of all runs: VAELIB_RUNS, else `runs` in this project, else `runs` in the current folder."""
    project = Path(__file__).resolve().parents[1]
    inside = project if (project / "pyproject.toml").exists() else Path()
    return paths.named("VAELIB_RUNS", inside / "runs")


def name(
    dataset: str,
    config: TrainConfig,
    builder: Callable[..., models.VAE] = models.build,
    objective: Callable = negative_elbo,
    schedule: Callable | None = None,
    optimizer: Callable = adam,
) -> str:
    """Return the folder's name, such as `mnist-k2-e10-s0`: data, K, epochs, seed, and values other than the paper's.

    With custom functions, it ends with the first digits of `naming.meaning`.
    """
    functions = {"builder": builder, "objective": objective, "schedule": schedule, "optimizer": optimizer}
    meaning = naming.meaning(*functions.values())
    return naming.folder_name(naming.record(config, {"name": dataset}, functions, meaning), DEFAULTS)


def train(
    data: Dataset,
    config: TrainConfig,
    root: Path | str | None = None,
    device: torch.device | str | None = None,
    builder: Callable[..., models.VAE] = models.build,
    objective: Callable = negative_elbo,
    schedule: Callable | None = None,
    on_epoch: Callable[[models.VAE, dict], None] | None = None,
    checkpoint_seconds: float = 10,
    optimizer: Callable = adam,
    stream: bool = False,
    tags: Mapping[str, str] | None = None,
    name: str = "",
) -> Run:
    """Train and evaluate a model, resume an interrupted run, or load a complete one.

    The record lists builder, objective, schedule and optimizer, each with its module, its name, and arguments fixed by
    functools.partial or stored in a dataclass. The name of the run's folder includes every function that isn't the
    paper's, and every setting that isn't the default, such as the batch size. It also includes a hash of your own
    functions' source code (see `naming.meaning`). If you change such a function, you get another run.

    Parameters
    ----------
    data : Dataset
    config : TrainConfig
    root : folder of all runs; `default_root()` by default
    device : to train on; a GPU by default if there is one
    builder : makes the model from an image shape (C, H, W) and a latent dimension; the paper's models by default
    objective, schedule, on_epoch, checkpoint_seconds, optimizer, stream : see `training.fit`
    tags : names and values to store in the record when training starts. They don't distinguish runs
    name : replaces the functions' names and the hash of their source code. Choose another name if you change the
        functions. You only need it if the source code is missing

    Raises
    ------
    ValueError
        If one of these conditions holds:

        - The builder fails for these images, the model can't be stored, or its parts or the functions don't fit (see
          `checks.check_run`).
        - The run's folder contains another run, or a damaged file.
        - The trained model's metrics can't be right (see `evaluation.evaluate`).
    RuntimeError
        If the device is missing or its memory is too small, or another process or thread is training the same run.
    FloatingPointError
        If the loss isn't finite.
    OSError
        If the run's folder can't be made or written.
    """
    asked: tuple[tuple[str, object, Any, str], ...] = (
        ("data", data, Dataset, "data.load('digits')"),
        ("config", config, TrainConfig, "TrainConfig(latent_dim=2)"),
        ("name", name, str, "'mine'"),
        ("on_epoch", on_epoch or print, Callable, "a function of the model and a line of metrics"),
        ("tags", tags or {}, Mapping, "{'machine': 'mine'}"),
    )
    for key, value, kind, example in asked:
        if not isinstance(value, kind):
            raise ValueError(f"{key} must be a {kind.__name__}, such as {example}, not a {type(value).__name__}")
    if not re.fullmatch(r"[\w.=-]*", name):
        raise ValueError(f"a name becomes part of a folder's, so it has letters, digits, . - _ = only: {name!r}")
    device = choose_device(device)
    functions = {"builder": builder, "objective": objective, "schedule": schedule, "optimizer": optimizer}
    known = {key: getattr(data, key) for key in ("name", "fingerprint", "image_shape", "origin")}
    record = naming.record(config, known, functions, name or naming.meaning(*functions.values()))
    folder = files.expanded(root or default_root()).absolute() / naming.folder_name(record, DEFAULTS, bool(name))
    if taken := [path for path in (folder / name for name in FILES) if path.is_dir()]:
        raise IsADirectoryError(f"{taken[0]} is a folder, but a run has a file there; delete or move it")
    if not is_complete(folder):
        model = _build(data, config, device, builder, objective, schedule, optimizer)
        with files.locked(folder):
            if not is_complete(folder):  # another process may have completed it meanwhile
                begun = _claim(folder, record, tags or {}, device)
                options = (objective, schedule, on_epoch, checkpoint_seconds, optimizer, begun["meaning"], stream)
                _complete(folder, model, data, begun, config, builder, *options)
    run = load(folder, builder)
    _refuse_another(folder, run.record, record)
    return run


def _build(data: Dataset, config: TrainConfig, device: torch.device, builder: Callable, *functions: Any) -> models.VAE:
    """Build the model in its initial state on the device, and check that all parts of the run fit each other."""
    if len(data.test) < 2:
        raise ValueError("the test split has one image; expected two or more, for a standard error")
    if torch.is_autocast_enabled(device.type):
        raise ValueError("training within torch.autocast can't be recorded; leave it, and set `precision` instead")
    with seeded(config.seed):  # the seed affects the initial weights only
        called = "builder, called as builder(image_shape, latent_dim),"
        model = attempt(called, builder, data.image_shape, config.latent_dim)
    if not isinstance(models.unwrap(model), models.VAE):
        raise ValueError(f"the builder must build a vaelib.models.VAE, not a {type(model).__name__}")
    objective, *others = functions
    check_run(model.to(device), data, config, training.is_mixed(config, device), training.make(objective), *others)
    storage.serialize(model, builder)  # so that a model that can't be stored fails before training
    return model


def _claim(folder: Path, record: dict, tags: Mapping[str, str], device: torch.device) -> dict:
    """Write the run's configuration, or compare it with the one on disk and note that the run is resumed."""
    begun = next((path for path in (folder / CONFIG, folder / RECORD) if files.exists(path)), None)
    if begun is None:
        record |= {"environment": environment(device)}
        if tags:
            record["tags"] = {str(key): str(value) for key, value in tags.items()}
    else:
        found = _read(begun)
        _refuse_another(folder, found, record)
        outdated = ("metrics", "evaluation", "weights") if begun.name == RECORD else ()  # of deleted weights
        record = {"meaning": ""} | {key: value for key, value in found.items() if key not in outdated}
        record["resumed"] = [*record.get("resumed", []), environment(device)]
    _write_config(folder, record)
    return record


def _write_config(folder: Path, record: dict) -> None:
    files.write(folder / CONFIG, json.dumps(record | {"sha256": _checksum(record)}, indent=1) + "\n")


def _complete(
    folder: Path, model: models.VAE, data: Dataset, record: dict, config: TrainConfig, builder: Callable, *options: Any
) -> None:
    """Train, write the weights, evaluate them, and write the record. Whatever an interrupted call has done is kept.

    `options` are the other arguments of `training.fit`, in its order.
    """
    path, device = folder / WEIGHTS, model.device
    try:
        if not (files.exists(path) and "weights" in record):
            lines = training.fit(model, data, config, folder, *options)
            if data.fingerprint != record["data"]["fingerprint"]:
                raise ValueError(
                    f"the images or labels of {data.name!r} changed while {folder.name} was trained on them; delete "
                    f"{folder}, and train again on data that don't change"
                )
            for outdated in (RECORD, *OLD):  # of weights that were deleted
                (folder / outdated).unlink(missing_ok=True)
            storage.save(model, path, builder)
            record |= {"weights": storage.sha256(path), "metrics": lines}  # a copy of METRICS, which lacks a checksum
            _write_config(folder, record)
        metrics = evaluation.evaluate(storage.load(path, device, builder, record["weights"]), data)
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"{device} has too little memory for {folder.name}; make batch_size ({config.batch_size}) smaller, keep "
            "the images where they are (stream=True), or use 'cpu'"
        ) from error
    except KeyboardInterrupt as stop:
        saved = any(files.exists(folder / name) for name in (CHECKPOINT, WEIGHTS))
        again = "resume from its last checkpoint" if saved else "start anew, because it has no checkpoint yet"
        stop.add_note(f"{folder.name} was stopped; run this again to {again}")
        raise
    if wrong := [name for name, value in metrics.items() if not math.isfinite(value)]:
        raise ValueError(
            f"{folder.name} is trained, and its weights are in {path}, but its {', '.join(wrong)} is not finite, so "
            "there is no record: look for a posterior without a finite mean, or a log_prob that isn't finite"
        )
    lines = record.pop("metrics")
    last = lines[training.best_epoch(lines) - 1 if config.patience else -1]["test_elbo"]
    tolerance = 1e-5 if device.type == "cpu" else 1e-3  # a GPU's rounding depends on the layout of the weights
    if not math.isclose(metrics["test_elbo"], last, rel_tol=tolerance):
        raise ValueError(
            f"{folder.name} is trained, with a test ELBO of {last:.6g} nats, but the model in {path} has "
            f"{metrics['test_elbo']:.6g}: a value that it uses isn't stored with its weights, such as an attribute or "
            "a constant that the builder draws; make it a buffer. (Or another thread draws random numbers; stop it)"
        )
    files.write(folder / RECORD, Run(folder, config, record, lines, metrics).dumps())
    for leftover in (*(folder / name for name in (CHECKPOINT, METRICS, CONFIG, *OLD)), *folder.glob("*.part")):
        leftover.unlink(missing_ok=True)


def train_all(data: Dataset, configs: Sequence[TrainConfig], root: Path | str | None = None) -> dict[int, list[Run]]:
    """Call `train` with each configuration in turn. Returns the runs of each latent dimension, in the given order."""
    trained: dict[int, list[Run]] = {}
    for each in configs if isinstance(configs, Iterable) else [configs]:
        run = train(data, each, root)
        trained.setdefault(run.config.latent_dim, []).append(run)
    return trained


def is_complete(folder: Path) -> bool:
    """Return whether a run was trained and evaluated, and its files still exist."""
    return files.exists(folder / WEIGHTS) and any(files.exists(folder / each) for each in (RECORD, OLD[0]))


def load(path: Path | str, builder: Callable[..., models.VAE] | None = models.build) -> Run:
    """Read a complete run, or a published record, which is a run without its weights.

    Parameters
    ----------
    path : the run's folder, or a record with or without ".json"
    builder : the function that built its model, if it isn't the paper's. You need it for `Run.model` only

    Raises
    ------
    FileNotFoundError
        If a file is missing, or the run isn't finished.
    ValueError
        If a file is damaged, or another vaelib wrote it.
    """
    folder = path = files.expanded(path).absolute()
    if folder.is_dir():
        path = folder / RECORD
    elif folder.suffix == ".json":
        folder = folder.with_suffix("")
    else:
        path = folder.with_name(f"{folder.name}.json")
    if files.exists(path) or not files.exists(folder / CONFIG):
        record = _read(path)
    elif files.exists(folder / OLD[0]):
        record = _read_old(folder)
    else:
        raise FileNotFoundError(f"{folder} is not finished; `train` resumes it")
    config, metrics, evaluated = TrainConfig(**record["settings"]), record.pop("metrics"), record.pop("evaluation")
    if len(metrics) != config.epochs and not (config.patience and 0 < len(metrics) < config.epochs):
        raise ValueError(f"{folder} is damaged: {len(metrics)} epochs, not {config.epochs}; take an undamaged copy")
    return Run(folder, config, record, metrics, evaluated, builder)


def mean_and_std(runs: Sequence[Run], metric: str) -> tuple[float, float]:
    """Return mean and standard deviation of a metric over the evaluations of two or more runs."""
    values = [run.evaluation[metric] for run in runs]
    return mean(values), stdev(values)


def plus_minus(values: Sequence[float], form: str = ".1f") -> str:
    """Format the mean ± standard deviation of numbers, or the number itself if there is only one.

    A standard deviation that rounds to zero is shown as its upper limit, or as 0 if all numbers are equal.
    """
    values = [float(value) for value in values]
    if len(values) == 1:
        return format(values[0], form)
    deviation = stdev(values)
    shown = format(deviation, form.replace("+", ""))
    if not re.search("[1-9]", shown):
        shown = re.sub(r"(.*)0", r"<\g<1>1", shown) if deviation else "0"
    return f"{format(mean(values), form)} ± {shown}"


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """Return the requested device, else the first NVIDIA GPU, else the CPU. Apple GPUs ("mps") must be requested.

    Raises RuntimeError if the device is missing or of another kind.
    """
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    device = str(device or ("cuda" if found["cuda"] else "cpu"))
    if not found.get(device.partition(":")[0]):
        there = " and ".join(repr(kind) for kind in found if found[kind])
        raise RuntimeError(f"the device is {device!r}, but torch finds {there} here; choose one of these")
    return torch.device(device)


def device_name(device: torch.device) -> str:
    """Return the device's name, such as "NVIDIA H100", or "CPU, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type.upper()}, {torch.get_num_threads()} threads"


def environment(device: torch.device) -> dict[str, str]:
    """Return the versions and the device that a record names. A package that isn't installed is "unknown"."""
    found = dict.fromkeys(("vaelib", "torch", "torchvision", "numpy"), "unknown")
    for package in found:
        with suppress(PackageNotFoundError):  # vaelib is imported from a folder
            found[package] = version(package)
    found |= {"python": platform.python_version(), "device": device_name(device)}
    return found | {"float32_matmul_precision": torch.get_float32_matmul_precision()}


def _refuse_another(folder: Path, found: dict, expected: dict) -> None:
    if different := naming.difference(naming.identity(found), naming.identity(expected)):
        raise ValueError(f"{folder} holds a run {different}; delete it, or choose another `root`, or VAELIB_RUNS")


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (AttributeError, IsADirectoryError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged, or was written by another version of vaelib ({error!r:.200}); take an undamaged copy, "
            "use that version, or delete it, and `train` resumes the run or trains it again"
        ) from error


def _read(path: Path) -> dict:
    """Read a run's record, or the configuration of an incomplete run."""
    with _refusing_damage(path):
        record = json.loads(path.read_bytes())
        without = path.name == CONFIG and record.keys().isdisjoint(("sha256", "meaning"))  # that of version 0.1.0
        if record.pop("sha256", None) != _checksum(record) and not without:
            raise ValueError("its checksum does not match")
        if record["settings"].get("block", 0) is None:  # version 0.1.0 recorded it even if unused
            del record["settings"]["block"]
        TrainConfig(**record["settings"])
        functions = record.get("functions", naming.PAPER)  # the first records don't name the paper's
        record["functions"] = {key: name and naming.current_name(name) for key, name in functions.items()}
        naming.identity(record)
    return record


def _read_old(folder: Path) -> dict:
    """Read a complete run of version 0.1.0: three files, and perhaps a fourth with the checksums of all."""
    record, sums = _read(folder / CONFIG), folder / OLD[1]
    with _refusing_damage(folder):
        for line in sums.read_text("utf-8").splitlines() if files.exists(sums) else ():
            checksum, name = line.split("  ")
            if storage.sha256(folder / name) != checksum:
                raise ValueError(f"the checksum of {name} does not match")
        metrics = [json.loads(line) for line in (folder / METRICS).read_bytes().splitlines()]
        return record | {"metrics": metrics, "evaluation": json.loads((folder / OLD[0]).read_bytes())}


def _checksum(record: dict) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
