"""MNIST and its siblings; torchvision knows where they are to be had, and what their checksums are."""

import gzip
import hashlib
import math
import zlib
from functools import partial
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import EMNIST, KMNIST, MNIST, QMNIST, FashionMNIST
from torchvision.datasets.utils import download_url

from . import paths
from .dataset import Dataset, Split

DIGITS = tuple("0123456789")
SOURCES: dict[str, type[MNIST]] = {"mnist": MNIST, "fashion-mnist": FashionMNIST, "kmnist": KMNIST}
COUNTS = {"train": 60_000, "t10k": 10_000}
LIMIT = 100_000_000  # bytes unpacked: twice the largest of these files
CONTENT = {  # SHA-256 sums of MNIST's files, unpacked
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def load(folder: Path, name: str) -> Dataset:
    """60,000 training and 10,000 test images, 1 x 28 x 28, with class numbers as labels.

    The files lie in `folder/MNIST/raw` (or that of the sibling's name), as torchvision lays them, packed (`.gz`) or
    unpacked; other places and spellings that copies of them have are looked at too. They are only read, so the folder
    may be read-only. Those that are missing are downloaded (11 to 31 MB). MNIST's files are known by their content, a
    sibling's packed ones by their MD5 sum; unpacked ones of a sibling are trusted if they have the right shape.

    Raises
    ------
    ValueError
        If a file is damaged, or another than its name says.
    FileNotFoundError
        If files are missing and the download fails.
    """
    if name not in SOURCES:
        return _load_by_torchvision(folder, name)
    source = SOURCES[name]
    resources = {file.removesuffix(".gz"): md5 for file, md5 in source.resources}  # the sums are of the packed files
    missing = {f"{stem}.gz": md5 for stem, md5 in resources.items() if not _find(folder, source, stem)}
    if missing:
        _download(folder / source.__name__ / "raw", source, missing)
    images, labels, test_images, test_labels = (
        _read(_find(folder, source, stem), stem, source, md5) for stem, md5 in resources.items()
    )
    return Dataset(
        name,
        Split(images.unsqueeze(1), labels.long()),
        Split(test_images.unsqueeze(1), test_labels.long()),
        DIGITS if source is MNIST else tuple(source.classes),
    )


def _load_by_torchvision(folder: Path, name: str) -> Dataset:
    """QMNIST, or a part of EMNIST such as "emnist-letters", which torchvision unpacks in the folder and reads."""
    kind = partial(QMNIST, folder) if name == "qmnist" else partial(EMNIST, folder, name.removeprefix("emnist-"))
    raw = folder / name.partition("-")[0].upper() / "raw"
    try:
        try:
            parts = [kind(train=train) for train in (True, False)]
        except RuntimeError as error:
            if "Dataset not found" not in str(error):
                raise
            with paths.fetching([name], raw, "Put its files there by hand"):
                parts = [kind(train=train, download=True) for train in (True, False)]
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"a file of {name} in {raw} is damaged ({error}); put a good copy in its place") from error
    if name != "qmnist":  # EMNIST's images lie on their side
        splits = [Split(part.data.mT.unsqueeze(1).contiguous(), part.targets) for part in parts]
        return Dataset(name, *splits, tuple(parts[0].classes))
    return Dataset(name, *(Split(part.data.unsqueeze(1), part.targets[:, 0]) for part in parts), DIGITS)


def _find(folder: Path, source: type[MNIST], stem: str) -> Path | None:
    """The packed file, else the unpacked one, else None; also spelt with a dot, and in a folder of its own name."""
    name, pattern = source.__name__, stem.replace("-idx", "[-.]idx")
    homes = [folder / name / "raw", folder / name, folder / name.lower() / "raw", folder / name.lower()]
    if source is MNIST:  # whose files are known by their content, while siblings have the same names
        homes.append(folder)
    patterns = (f"{pattern}.gz", pattern, f"{pattern}/{pattern}")
    found = (path for home in homes for pattern in patterns for path in sorted(home.glob(pattern)) if path.is_file())
    return next(found, None)


def _download(raw: Path, source: type[MNIST], missing: dict[str, str]) -> None:
    """Fetch files, one by one, so that what arrived stays."""
    with paths.fetching(list(missing), raw, "Put the files there by hand"):
        for name, md5 in missing.items():
            for mirror in source.mirrors:
                try:
                    paths.fetch(raw / name, md5, partial(download_url, mirror + name, raw, md5=md5))
                    break
                except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: another file arrived
                    reason = error
            else:
                raise reason


def _read(path: Path, stem: str, source: type[MNIST], md5: str) -> Tensor:
    """One file in the IDX format: zero, zero, type 8 (uint8), number of axes; each axis's length; the values."""
    advice = "put a good copy in its place, or remove it to have it downloaded"
    packed = path.read_bytes()
    try:
        content = packed
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                content = file.read(LIMIT)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}); {advice}") from error
    axes = 3 if "idx3" in stem else 1
    header, shape = 4 + 4 * axes, ()
    if content[:4] == bytes([0, 0, 8, axes]) and len(content) >= header:
        shape = tuple(np.frombuffer(content[4:header], ">u4").tolist())
    if not shape or len(content) != header + math.prod(shape):
        raise ValueError(f"{path} is damaged: {len(content):,} bytes do not fit its header; {advice}")
    known = {digest: file for file, digest in CONTENT.items()}.get(hashlib.sha256(content).hexdigest())
    values = torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy())
    if source is MNIST:
        right = known == stem
    elif path.suffix == ".gz":
        right = hashlib.md5(packed, usedforsecurity=False).hexdigest() == md5
    else:
        expected = (COUNTS[stem.partition("-")[0]], 28, 28)[:axes]
        right = known is None and shape == expected and (axes == 3 or values.max() < len(source.classes))
    if not right:
        what = f"MNIST's {known}" if known else "another data set's, changed, or (of a sibling) packed again"
        raise ValueError(f"{path} is not {source.__name__}'s {stem}: its content is {what}; {advice}")
    return values
