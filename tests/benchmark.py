"""Training throughput of vaelib beside loops as they are usually written: `python tests/benchmark.py [FOLDER]`.

Every loop trains the same model on the same images with the same settings, in a process of its own. The folder is the
one with MNIST in it (default: VAELIB_DATA, else ~/.cache/vaelib). MNIST is unpacked into a temporary folder for
torchvision, which reads it only so.
"""

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from vaelib import Settings, data, models, training

SETTINGS = Settings(latent_dim=2, epochs=10)


def loader(folder: str) -> float:
    """The usual loop: a DataLoader that turns one image after the other into a tensor."""
    torch.set_flush_denormal(False)
    images = MNIST(folder, transform=ToTensor())
    return plain(lambda: (x for x, _ in DataLoader(images, SETTINGS.batch_size, shuffle=True)), fused=False)


def memory(folder: str) -> float:
    """The same loop, but the batches already lie in memory as float32."""
    torch.set_flush_denormal(False)
    batches = (MNIST(folder).data.unsqueeze(1) / 255).split(SETTINGS.batch_size)
    return plain(lambda: batches, fused=False)


def tuned(folder: str) -> float:
    """The same with the two switches that vaelib sets: fused Adam, and tiny numbers rounded to zero."""
    batches = (MNIST(folder).data.unsqueeze(1) / 255).split(SETTINGS.batch_size)
    return plain(lambda: batches, fused=True)


def plain(batches, fused: bool) -> float:
    model = models.mlp((1, 28, 28), SETTINGS.latent_dim)
    optimizer = torch.optim.Adam(model.parameters(), SETTINGS.learning_rate, fused=fused)
    started = time.perf_counter()
    for _ in range(SETTINGS.epochs):
        for x in batches():
            reconstruction, kl = model.elbo(x)
            loss = (kl - reconstruction).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started


def vaelib(folder: str) -> float:
    """vaelib.training.fit, with its random order, progress, metrics on the test set after each epoch, checkpoints."""
    dataset = data.load("mnist", folder)
    with tempfile.TemporaryDirectory() as runs:
        started = time.perf_counter()
        training.fit(models.mlp(dataset.image_shape, SETTINGS.latent_dim), dataset, SETTINGS, Path(runs))
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    dataset = data.load("mnist", options.folder)
    loops = {"DataLoader": loader, "float32 in memory": memory, "the same, tuned": tuned, "vaelib": vaelib}
    with tempfile.TemporaryDirectory() as folder:
        write_unpacked(dataset, Path(folder) / "MNIST" / "raw")
        seconds = {name: [] for name in loops}
        for _ in range(options.repeats):  # in turn, so that a machine that drifts is unfair to nobody
            for name, loop in loops.items():
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
                    seconds[name].append(executor.submit(loop, folder).result())
    rate = {name: len(dataset.train) * SETTINGS.epochs / float(np.median(each)) for name, each in seconds.items()}
    rows = [(name, rate[name], rate["vaelib"] / rate[name], min(each), max(each)) for name, each in seconds.items()]
    print(f"MNIST, K = {SETTINGS.latent_dim}, {SETTINGS.epochs} epochs, {torch.get_num_threads()} threads")
    headers = ["loop", "images/s (median)", "vaelib is faster by", "least s", "most s"]
    print(tabulate(rows, headers=headers, floatfmt=("", ",.0f", ".2f", ".1f", ".1f")))


def write_unpacked(dataset: data.Dataset, raw: Path) -> None:
    raw.mkdir(parents=True)
    for prefix, split in (("train", dataset.train), ("t10k", dataset.test)):
        for name, values in (("images-idx3", split.images[:, 0]), ("labels-idx1", split.labels.to(torch.uint8))):
            header = np.array([0x800 + values.ndim, *values.shape], ">u4").tobytes()
            (raw / f"{prefix}-{name}-ubyte").write_bytes(header + values.numpy().tobytes())


if __name__ == "__main__":
    main()
