"""A run is training on disk: a folder with its configuration, its metrics, its weights and its evaluation.

`config.json`
    settings, functions (names, checksum of their text), data (name, fingerprint), versions, device
`metrics.jsonl`
    one line an epoch, see `training.fit`
`model.safetensors`
    the weights; there as soon as the training is finished
`SHA256SUMS`
    of those files and the next one: `sha256sum --check SHA256SUMS` tells whether they are as written
`evaluation.json`
    see `evaluation.evaluate`; there as soon as the run is complete
`checkpoint`
    only while the training is unfinished
"""

import hashlib
import json
import math
import platform
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from . import evaluation, files, models, storage, training
from .checks import check_run
from .data import Dataset, paths
from .naming import current_name, fingerprint, qualified_name
from .objective import negative_elbo
from .seeding import seeded
from .training import TrainConfig, adam

ADVICE = "delete the run's folder to train it again"
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Run:
    """A complete run. Its metrics are in memory; its weights stay on disk until `model()` is called.

    Parameters
    ----------
    folder : where it is
    config : what it was trained with
    record : the content of `config.json`
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
        """The trained model in evaluation mode.

        Raises
        ------
        FileNotFoundError
            If only the run's records are here.
        ValueError
            If the run was read without its builder.
        """
        if not self.builder:
            raise ValueError(f"{self.folder} was read without the function that built its model; give it to `load`")
        return storage.load(self.folder / "model.safetensors", device, self.builder)


def default_root() -> Path:
    """Where runs are kept: the environment variable VAELIB_RUNS, else `runs` in this project, else in this folder."""
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
    """The folder's name, such as `mnist-k2-e10-s0`: data, K, epochs, seed, and whatever is not the paper's."""
    parts = [f"{dataset}-k{config.latent_dim}-e{config.epochs}-s{config.seed}"]
    if config.batch_size != TrainConfig.batch_size:
        parts.append(f"b{config.batch_size}")
    if config.learning_rate != TrainConfig.learning_rate:
        parts.append(f"r{config.learning_rate:g}")
    if config.precision:
        parts.append(config.precision)
    named = {"clip": config.max_grad_norm, "patience": config.patience}
    parts += [f"{name}{value:g}" for name, value in named.items() if value]
    for key, function in _functions(builder, objective, schedule, optimizer).items():
        if function and function != PAPER.get(key):
            without_modules = re.sub(r"\b(\w+\.)+(?=[A-Za-z_])", "", function)
            parts.append(re.sub(r"[^\w.=-]+", "_", without_modules).strip("_"))
    return "-".join(parts)


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
) -> Run:
    """Train a model and evaluate it; go on where an earlier call stopped; or only load what is complete.

    The record has the names of builder, objective, schedule and optimizer: module, name, and the arguments that
    functools.partial fixes (or a dataclass has). Each that differs from the paper's is added to the name of the run's
    folder, as are another batch size, learning rate, precision and so on. If you change a function's source code and
    keep its name, you get the earlier run, with a warning.

    Parameters
    ----------
    data : Dataset
    config : TrainConfig
    root : folder of all runs; `default_root()` if not given
    device : where to train; a GPU if there is one
    builder : makes the model of an image's shape (C, H, W) and a latent dimension; the paper's models if not given
    objective, schedule, on_epoch, checkpoint_seconds, optimizer, stream : see `training.fit`
    tags : names and values that the record keeps from the moment when training starts; they make no other run

    Raises
    ------
    ValueError
        If no model can be built for such images, it cannot be stored, its parts or the functions are of a wrong kind
        (see `checks.check_run`), the run's folder holds a run with another configuration or other data, or a damaged
        file, or the trained model's metrics cannot be right (see `evaluation.evaluate`).
    RuntimeError
        If the device is not there or its memory too small, or another process or thread is training the same run.
    FloatingPointError
        If the loss stops being finite.
    OSError
        If the run's folder cannot be made or written.

    Warns
    -----
    UserWarning
        If the run's folder holds one of functions with the same names, but another text.
    """
    if not isinstance(data, Dataset) or not isinstance(config, TrainConfig):
        raise ValueError(
            f"expected a data set, such as vaelib.data.load('digits'), and TrainConfig(latent_dim=...), "
            f"not {type(data).__name__} and {type(config).__name__}"
        )
    device = choose_device(device)
    functions = _functions(builder, objective, schedule, optimizer)
    if len(data.test) < 2:
        raise ValueError("the test split has one image; the spread over images, which is recorded, needs two or more")
    with seeded(config.seed):  # the seed decides the initial weights, and nothing outside
        model = builder(data.image_shape, config.latent_dim)
    if not isinstance(models.unwrap(model), models.VAE):
        raise ValueError(f"{qualified_name(builder)} must build a vaelib.models.VAE, not a {type(model).__name__}")
    folder = Path(root or default_root()).expanduser() / name(
        data.name, config, builder, objective, schedule, optimizer
    )
    if not is_complete(folder):
        made, mixed = training.make(objective), training.is_mixed(config, device)
        check_run(model.to(device), data, config, mixed, made, schedule, optimizer)
        storage.serialize(model, builder)  # what cannot be stored is found out before it is trained
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        where = "name another folder for the runs (argument `root`, --runs, or VAELIB_RUNS)"
        raise type(error)(f"{folder} cannot be made ({error.strerror}); {where}") from error
    with nullcontext() if is_complete(folder) else files.locked(folder):
        own = [each for each in (builder, objective, schedule, optimizer) if each not in (None, adam)]
        text = fingerprint(*own)
        _claim(folder, data, config, functions, text, device, tags)
        if not is_complete(folder):
            options = (objective, schedule, on_epoch, checkpoint_seconds, optimizer, stream)
            try:
                _complete(folder, model.to(device), data, config, builder, *options)
            except KeyboardInterrupt as stop:
                saved = (
                    "where it was last saved" if (folder / "checkpoint").exists() else "the start, as nothing was saved"
                )
                stop.add_note(f"{folder.name} was stopped; run this again, and it goes on from {saved}")
                raise
    return load(folder, builder)


def _complete(folder: Path, model: models.VAE, data: Dataset, config: TrainConfig, builder: Callable, *options) -> None:
    path, device = folder / "model.safetensors", model.device
    try:
        if not (path.exists() and (folder / "metrics.jsonl").exists()):
            (folder / SUMS).unlink(missing_ok=True)
            training.fit(model, data, config, folder, *options)
            storage.save(model, path, builder)
        metrics = evaluation.evaluate(storage.load(path, device, builder), data)
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"{device} has too little memory for {folder.name}; make batch_size ({config.batch_size}) smaller, leave "
            f"the images where they are (stream=True), or use 'cpu'"
        ) from error
    if wrong := [name for name, value in metrics.items() if not math.isfinite(value)]:
        raise ValueError(f"{folder.name} is trained, but its {', '.join(wrong)} is not finite; {ADVICE}")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = lines[training.best_epoch(lines) - 1 if config.patience else -1]["test_elbo"]
    if not math.isclose(metrics["test_elbo"], last, rel_tol=1e-3):
        raise ValueError(
            f"{folder.name} is trained, with a test ELBO of {last:.2f} nats, but the model in {path} has "
            f"{metrics['test_elbo']:.2f}: something that it computes with is not stored with its weights, such as a "
            f"Python attribute, a buffer with persistent=False, or a constant that the builder draws; make it a buffer"
        )
    record = json.dumps(metrics, indent=1) + "\n"
    sums = [_sum(name, _content(folder / name, ADVICE)) for name in ("config.json", "metrics.jsonl", path.name)]
    files.write(folder / SUMS, "".join([*sums, _sum("evaluation.json", record.encode())]))
    files.write(folder / "evaluation.json", record)
    for leftover in (folder / "checkpoint", *folder.glob("*.part")):  # killed processes leave half-written files
        leftover.unlink(missing_ok=True)


def train_all(data: Dataset, configs: Sequence[TrainConfig], root: Path | str | None = None) -> dict[int, list[Run]]:
    """`train` with each of the configurations in turn; the runs of each latent dimension, in the order given."""
    trained: dict[int, list[Run]] = {}
    for each in configs:
        trained.setdefault(each.latent_dim, []).append(train(data, each, root))
    return trained


def is_complete(folder: Path) -> bool:
    """Whether a run was trained and evaluated, and nothing of it was deleted since."""
    return all((folder / file).exists() for file in ("metrics.jsonl", "model.safetensors", "evaluation.json"))


def load(folder: Path | str, builder: Callable[..., models.VAE] | None = models.build) -> Run:
    """Read a complete run, or the published record of one, which is the same without its weights.

    Parameters
    ----------
    folder : the run's
    builder : the function that built its model, if it is not the paper's; None if the model will not be asked for

    Raises
    ------
    FileNotFoundError
        If a file is missing: the run is not complete.
    ValueError
        If a file is damaged, or another function built the model (the message names it).
    """
    folder = Path(folder).expanduser()
    record, config = _read_config(folder / "config.json")
    if builder and record["functions"].get("builder") != qualified_name(builder):
        raise ValueError(
            f"{folder} holds a run of a model that {record['functions'].get('builder')} built, "
            f"not {qualified_name(builder)}; give that function as `builder`"
        )
    path = folder / "metrics.jsonl"
    metrics = [_parse(line, path) for line in _content(path, ADVICE).splitlines()]
    if len(metrics) != config.epochs and not (config.patience and 0 < len(metrics) < config.epochs):
        raise ValueError(f"{path} is damaged: {len(metrics)} epochs, not {config.epochs}; {ADVICE}")
    evaluated = _read(folder / "evaluation.json", "delete that file, and the run is evaluated again")
    return Run(folder, config, record, metrics, evaluated, builder)


def mean_and_std(runs: Sequence[Run], metric: str) -> tuple[float, float]:
    """Mean and standard deviation over two runs or more, of one metric of their evaluations."""
    values = [run.evaluation[metric] for run in runs]
    return mean(values), stdev(values)


def plus_minus(values: Sequence[float], form: str = ".1f") -> str:
    """Mean ± standard deviation of numbers in that format, or the number itself if there is one.

    A deviation that the format would round to zero is told as what it is below, or as 0 if all numbers are the same.
    """
    values = [float(value) for value in values]
    if len(values) == 1:
        return format(values[0], form)
    form_of_deviation = form.replace("+", "")
    zero, deviation = format(0.0, form_of_deviation), stdev(values)
    shown = format(deviation, form_of_deviation)
    if shown == zero:
        last = zero.rindex("0")
        shown = f"<{zero[:last]}1{zero[last + 1 :]}" if deviation else "0"
    return f"{format(mean(values), form)} ± {shown}"


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """The device asked for, else the first of NVIDIA's GPUs, else the CPU; Apple's, "mps", is taken only if asked for.

    Raises RuntimeError if it is not there.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type in ("cuda", "mps") and not torch.get_device_module(device).is_available():
        raise RuntimeError(
            f"device {device.type!r} was asked for, but torch sees no GPU of that kind here; use 'cpu', or leave it out"
        )
    return device


def _functions(builder: Callable, objective: Callable, schedule: Callable | None, optimizer: Callable) -> dict:
    named = {"builder": builder, "objective": objective, "schedule": schedule}
    named["optimizer"] = None if optimizer is adam else optimizer
    return {name: function and qualified_name(function) for name, function in named.items()}


PAPER = _functions(models.build, negative_elbo, None, adam)


def _claim(
    folder: Path,
    data: Dataset,
    config: TrainConfig,
    functions: dict,
    text: str,
    device: torch.device,
    tags: Mapping[str, str] | None,
) -> None:
    """Write the run's configuration, or make sure that the one there is the same."""
    path = folder / "config.json"
    record: dict[str, Any] = {
        "settings": asdict(config),
        "functions": functions,
        "data": {"name": data.name, "fingerprint": data.fingerprint, "image_shape": list(data.image_shape)},
    }
    if path.exists():
        found, _ = _read_config(path)
        for part, expected in record.items():
            for key, value in expected.items():
                there = found[part].get(key)
                if there != value:
                    what = "on other images or labels: fingerprint" if key == "fingerprint" else f"with {key}"
                    raise ValueError(
                        f"{folder} holds a run {what} {there!r}, not {value!r}; "
                        f"delete that folder, or choose another one for runs (argument `root`, or VAELIB_RUNS)"
                    )
        if (earlier := found.get("text")) and earlier != text:
            warnings.warn(
                f"{folder.name} was begun with functions of these names whose source code has changed since; if they "
                f"do something else now, give them another name, or delete {folder}",
                stacklevel=3,
            )
        return
    record["data"]["origin"] = data.origin
    if text:
        record["text"] = text
    if tags:
        record["tags"] = dict(tags)
    record["environment"] = {package: version(package) for package in ("vaelib", "torch", "torchvision", "numpy")}
    record["environment"] |= {"python": platform.python_version(), "device": device_name(device)}
    files.write(path, json.dumps(record, indent=1) + "\n")


def device_name(device: torch.device) -> str:
    """Such as "NVIDIA H100", or "CPU, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type.upper()}, {torch.get_num_threads()} threads"


def _read_config(path: Path) -> tuple[dict, TrainConfig]:
    record = {"functions": PAPER} | _read(path)  # the first records have none, because there were no others
    try:
        for part in ("functions", "data"):
            if not isinstance(record[part], dict):
                raise TypeError(f"{part} is not a table of names and values")
        record["functions"] = {key: name and current_name(str(name)) for key, name in record["functions"].items()}
        settings = {key: value for key, value in record["settings"].items() if (key, value) != ("block", None)}
        return record, TrainConfig(**settings)  # version 0.1.0 had a block
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); {ADVICE}") from error


def _read(path: Path, advice: str = ADVICE) -> dict:
    return _parse(_content(path, advice), path, advice)


def _content(path: Path, advice: str) -> bytes:
    """A file's bytes, which must be those that the run was completed with, if their checksum was noted."""
    content, sums = path.read_bytes(), path.with_name(SUMS)
    if sums.exists() and _sum(path.name, content).encode() not in sums.read_bytes():
        raise ValueError(f"{path} is damaged: its checksum is not in {sums}; {advice}")
    return content


def _sum(name: str, content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n"


def _parse(text: bytes, path: Path, advice: str = ADVICE) -> dict:
    try:
        parsed = json.loads(text)
    except ValueError as error:  # JSONDecodeError, or UnicodeDecodeError
        raise ValueError(f"{path} is damaged ({error}); {advice}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{path} is damaged: no table of names and values; {advice}")
    return parsed
