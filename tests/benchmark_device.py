"""What a device does right, and how fast: `python tests/benchmark_device.py --device cuda [--data FOLDER]`.

Needs the project's folder and a Python with the package's own dependencies: no Jupyter, and no network but for MNIST.
Checks come first (published weights against the CPU, resuming, too little memory), then images a second, a profile by
torch.profiler, and the twelve trainings of the paper at full size; where MNIST or CelebA is not there, on small digits
or drawn faces, repeated to its size, which is good for times only. `--short` does a little of each, to see that it
works. Results are printed, and written as JSON into `--output`.
"""

import argparse
import contextlib
import functools
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch.profiler import ProfilerActivity, profile

from vaelib import TrainConfig, data, evaluation, models, objective, runs, storage, training
from vaelib.data import Dataset, Split, to_float

MODELS = {"fully connected": ((1, 28, 28), 2), "convolutional": ((3, 64, 48), 64)}
load = functools.cache(data.load)  # faces are drawn anew each time
PAPER = {"mnist": ("digits", 60_000, 10_000, 10, (1, 2, 4, 8, 16, 64))}
PAPER["celeba"] = ("faces-small", 162_770, 19_962, 10, (2, 8, 16, 32, 64, 96))


def cut(given: Dataset, train: int, test: int, name: str | None = None) -> Dataset:
    """A data set's first images, again and again until there are as many."""

    def repeated(split: Split, count: int) -> Split:
        return Split(split.images[torch.arange(count) % len(split)])

    return Dataset(name or given.name, repeated(given.train, train), repeated(given.test, test))


def weights(device: torch.device, samples: int = 10) -> dict:
    """The ELBO of published weights, here and on the CPU, of some samples of each posterior: within a thousandth?"""
    found = {}
    for name in ("mnist-k1", "mnist-k2", "celeba-k64"):
        images = load("digits").test.images if name.startswith("mnist") else load("faces-small").test.images[:20]
        for precision in ("float32", "bfloat16"):
            here, cpu = (
                torch.stack([_elbo(name, images, place, on, seed) for seed in range(samples)]).mean().item()
                for place, on in ((device, precision == "bfloat16"), (torch.device("cpu"), False))
            )
            found[f"{name}, {precision}"] = {"elbo": here, "cpu": cpu, "passed": abs(here / cpu - 1) < 1e-3}
    return found


def _elbo(name: str, images: torch.Tensor, device: torch.device, mixed: bool, seed: int) -> torch.Tensor:
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        reconstruction, kl = evaluation.elbo(storage.from_pretrained(name, device), images, seed)
    return (reconstruction - kl).mean()


def resuming(device: torch.device, folder: Path) -> dict:
    """A training that is stopped after its first epoch ends where one ends that is not."""
    few, settings = cut(load("digits"), 1000, 100), TrainConfig(2, epochs=3)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    whole = runs.train(few, settings, folder / "whole", device)
    with contextlib.suppress(KeyboardInterrupt):
        runs.train(few, settings, folder / "parts", device, on_epoch=stop, checkpoint_seconds=0)
    parts = runs.train(few, settings, folder / "parts", device)
    expected, found = (run.evaluation["test_elbo"] for run in (whole, parts))
    same = all(map(torch.equal, whole.model().state_dict().values(), parts.model().state_dict().values()))
    return {"whole": expected, "parts": found, "same bits": same, "passed": same or abs(found / expected - 1) < 1e-3}


def memory(device: torch.device, folder: Path) -> dict:
    """A training for which there is too little memory says what to make smaller."""
    if device.type != "cuda":
        return {"passed": None, "why": "only a GPU by NVIDIA can be told to have less memory"}
    torch.cuda.set_per_process_memory_fraction(2**30 / torch.cuda.get_device_properties(device).total_memory)
    try:
        runs.train(cut(load("faces-small"), 8192, 10), TrainConfig(64, 1, batch_size=8192), folder, device)
    except RuntimeError as error:
        return {"passed": "batch_size" in str(error), "error": str(error)}
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    return {"passed": False, "error": None}


def speed(device: torch.device, count: int, short: bool) -> dict:
    """Images a second, in epochs of a training and in one evaluation of the ELBO, each after a first one."""
    found = {}
    for name, (shape, latent_dim) in MODELS.items():
        images = cut(load("digits" if shape[0] == 1 else "faces-small"), count, max(10, count // 10))
        for precision in ("float32", "bfloat16"):
            for size in (128,) if short else (128, 1024):
                model = models.build(shape, latent_dim).to(device)
                with tempfile.TemporaryDirectory() as folder:
                    settings = TrainConfig(latent_dim, 3, batch_size=size, precision=precision)
                    lines = training.fit(model, images, settings, Path(folder))
                trained = count / min(line["seconds"] for line in lines[1:])
                for _ in range(2):
                    started = time.perf_counter()
                    evaluation.elbo(model, images.train.images)
                    seconds = time.perf_counter() - started
                found[f"{name}, {precision}, batches of {size}"] = {"train": trained, "evaluate": count / seconds}
    return found


def steps(model: models.VAE, x: torch.Tensor, count: int) -> profile:
    """torch.profiler's record of so many steps of training."""
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if x.is_cuda else [ProfilerActivity.CPU]
    with profile(activities=activities) as record:
        for _ in range(count):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
                terms = model(x)
            loss = objective.negative_elbo(terms, 0.0).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        x.sum().item()  # waits for a GPU
    return record


def profiled(device: torch.device, counted: int) -> dict:
    """torch.profiler's table of so many steps of each model."""
    kind, found = "cuda" if device.type == "cuda" else "cpu", {}
    for name, (shape, latent_dim) in MODELS.items():
        model = models.build(shape, latent_dim).to(device)
        x = to_float(torch.randint(256, (128, *shape), dtype=torch.uint8)).to(device)
        steps(model, x, 3)  # to warm up
        table = steps(model, x, counted).key_averages().table
        found[name] = table(sort_by=f"self_{kind}_time_total", row_limit=15, max_name_column_width=40)
    return found


def trainings(device: torch.device, place: str | None, folder: Path, short: bool) -> dict:
    """The paper's twelve, with the seconds of training and of all."""
    found = {}
    for name, (stand_in, train, test, epochs, latent_dims) in PAPER.items():
        try:
            images = load(stand_in if short else name, place)
        except (OSError, ValueError, RuntimeError) as error:
            print(f"{name} is not there ({error}): {stand_in}, repeated", flush=True)
            images = cut(load(stand_in), train, test, f"{stand_in}-repeated")
        if short:
            images, epochs = cut(images, 16, 10, f"{stand_in}-short"), 1
        for latent_dim in latent_dims:
            started = time.perf_counter()
            run = runs.train(images, TrainConfig(latent_dim, epochs), folder, device)
            whole = {"images": len(images.train), "epochs": epochs, "all_s": time.perf_counter() - started}
            trained = {"trained_s": sum(line["seconds"] for line in run.metrics)}
            found[run.folder.name] = whole | trained | run.evaluation
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", help="folder of the data (default: VAELIB_DATA, else ~/.cache/vaelib)")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"))
    options = parser.parse_args()
    device = runs.choose_device(options.device)
    result = {"device": runs.device_name(device), "torch": torch.__version__, "python": platform.python_version()}
    print(result)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def note(part: str, found: dict) -> None:  # at once, for what comes later may fail
            result[part] = found
            options.output.write_text(json.dumps(result, indent=1))
            for name, row in found.items():
                print(f"{name}:", row, flush=True)

        checks = weights(device, 2 if options.short else 10)
        note("checks", checks | {"resuming": resuming(device, folder), "too little memory": memory(device, folder)})
        note("images a second", speed(device, 16 if options.short else 12_800, options.short))
        note("profile", profiled(device, 2 if options.short else 10))
        note("trainings", trainings(device, options.data, folder, options.short))
    failed = [name for name, check in result["checks"].items() if check["passed"] is False]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
