"""MNIST, read from its four files; torchvision knows where they are to be had and what their checksums are."""

import gzip
import math
import tempfile
import zlib
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import MNIST
from torchvision.datasets.utils import check_md5

from .dataset import Dataset, Split


def load(folder: Path) -> Dataset:
    """60,000 training and 10,000 test images, 1 x 28 x 28, with the digits as labels.

    The files lie in `folder/MNIST/raw`, as torchvision lays them, packed (`.gz`) or unpacked. They are only read, so
    the folder may be read-only. If some are missing they are downloaded (11 MB).

    Raises
    ------
    ValueError
        If a file is damaged.
    FileNotFoundError
        If files are missing and the download fails.
    """
    raw = folder / "MNIST" / "raw"
    if missing := [name for name, _ in MNIST.resources if _find(raw, name) is None]:
        _download(folder, raw, missing)
    images, labels, test_images, test_labels = (_read(_find(raw, name), md5) for name, md5 in MNIST.resources)
    return Dataset(
        name="mnist",
        train=Split(images.unsqueeze(1), labels.long()),
        test=Split(test_images.unsqueeze(1), test_labels.long()),
        names=tuple("0123456789"),
    )


def _find(raw: Path, name: str) -> Path | None:
    """The packed file, else the unpacked one, else None."""
    return next((path for path in (raw / name, raw / name.removesuffix(".gz")) if path.exists()), None)


def _download(folder: Path, raw: Path, missing: list[str]) -> None:
    """Fetch into a temporary folder beside the final one, so that a broken download leaves nothing behind."""
    try:
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=raw) as temporary:
            fetched = MNIST(temporary, download=True).raw_folder
            for name in missing:
                Path(fetched, name).replace(raw / name)
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: torchvision found no mirror that answers
        reason = " ".join(str(error).split())  # torchvision tells it in several lines
        raise FileNotFoundError(
            f"MNIST is incomplete: {', '.join(missing)} missing in {raw}, and the download failed ({reason}). "
            f"Put the files there by hand, or name another folder (argument `folder`, or VAELIB_DATA)"
        ) from error


def _read(path: Path, md5: str) -> Tensor:
    """One file in the IDX format: zero, zero, type 8 (uint8), number of axes; each axis's length; the values."""
    advice = "delete it to have it downloaded again, or put a good copy in its place"
    if path.suffix == ".gz" and not check_md5(path, md5):
        raise ValueError(f"{path} is damaged: its MD5 sum is not {md5}; {advice}")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}); {advice}") from error
    axes = 3 if "idx3" in path.name else 1
    header, shape = 4 + 4 * axes, ()
    if content[:4] == bytes([0, 0, 8, axes]) and len(content) >= header:
        shape = tuple(np.frombuffer(content[4:header], ">u4").tolist())
    if not shape or len(content) != header + math.prod(shape):
        raise ValueError(f"{path} is damaged: {len(content):,} bytes do not fit its header; {advice}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy())
