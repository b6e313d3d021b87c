"""MNIST, whose files are identified by their content, and its siblings, as torchvision reads and downloads them."""

import gzip
import hashlib
import zlib
from contextlib import nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torchvision.datasets import EMNIST, KMNIST, MNIST, QMNIST, FashionMNIST

from . import paths
from .dataset import Dataset, Split

DIGITS = tuple("0123456789")
SIBLINGS = {"fashion-mnist": FashionMNIST, "kmnist": KMNIST, "qmnist": QMNIST}  # and EMNIST's parts
LIMIT = 50_000_000  # bytes unpacked; the largest of MNIST's files has 47 million
CONTENT = {  # SHA-256 sums of MNIST's files, unpacked
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db": "train-images-idx3-ubyte",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5": "train-labels-idx1-ubyte",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7": "t10k-images-idx3-ubyte",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2": "t10k-labels-idx1-ubyte",
}
# Where copies have the files, or folders of one
COPIES = "[Mm][Nn][Ii][Ss][Tt]/**/*ubyte*", "*ubyte*", "*ubyte*/*ubyte*"
ADVICE = "put a good copy in its place, or remove it to have it downloaded"


def load(folder: Path, name: str) -> Dataset:
    """Load 60,000 training and 10,000 test images, 1 x 28 x 28, with class numbers as labels.

    MNIST's files are identified by their content, so any copy works, packed (`.gz`) or not, with the names and folders
    of torchvision or Kaggle. The folder may be read-only. If a file is missing, all are downloaded (11 MB). A sibling's
    files are in `folder/FashionMNIST/raw`, or the folder of its class in torchvision, which unpacks them there.

    Raises
    ------
    ValueError
        If a file is damaged, or belongs to another data set.
    FileNotFoundError
        If files are missing and the download fails.
    """
    if name != "mnist":
        return _sibling(folder, name)
    found, others = _read(folder)
    missing = [file for file in CONTENT.values() if file not in found]
    if missing and others:
        raise ValueError(f"MNIST's {missing[0]} is missing: damaged, or another's, is {paths.some(others)}; {ADVICE}")
    if missing:
        raw = folder / "MNIST" / "raw"
        with paths.fetching(missing, raw, "Put the files there by hand"), TemporaryDirectory(dir=raw) as arrived:
            MNIST(arrived, download=True)
            for path in Path(arrived).rglob("*.gz"):
                path.replace(raw / path.name)
        found, _ = _read(folder)
    images, labels, test_images, test_labels = (found[file] for file in CONTENT.values())
    splits = (Split(x.view(-1, 1, 28, 28), y) for x, y in ((images, labels), (test_images, test_labels)))
    return Dataset(name, *splits, DIGITS)


def _read(folder: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the content of MNIST's existing files, by name, and the paths of the other files."""
    found, others = {}, []
    for path in (path for pattern in COPIES for path in sorted(folder.glob(pattern)) if path.is_file()):
        content = path.read_bytes()
        with suppress(EOFError, OSError, zlib.error), gzip.open(path) as packed:  # or it isn't packed, or it's damaged
            content = packed.read(LIMIT)
        if name := CONTENT.get(hashlib.sha256(content).hexdigest()):
            found[name] = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=16 if "idx3" in name else 8)
        else:
            others.append(str(path))
    return found, others


def _sibling(folder: Path, name: str) -> Dataset:
    source = SIBLINGS.get(name, EMNIST)
    options = {"split": name.removeprefix("emnist-")} if source is EMNIST else {}
    raw = folder / source.__name__ / "raw"
    try:
        with nullcontext() if any(raw.glob("*ubyte")) else paths.fetching([name], raw, "Put its files there by hand"):
            parts = [source(folder, train=train, download=True, **options) for train in (True, False)]
        of_mnist = any(hashlib.sha256(path.read_bytes()).hexdigest() in CONTENT for path in raw.glob("t*-ubyte"))
        if of_mnist or len(parts[0]) < len(parts[1]):
            raise ValueError("some are MNIST's, or training and test images are swapped")
        images = [part.data.mT.contiguous() if source is EMNIST else part.data for part in parts]  # EMNIST: transposed
        labels = [part.targets[:, 0] if source is QMNIST else part.targets for part in parts]
        splits = [Split(each.unsqueeze(1), number) for each, number in zip(images, labels, strict=True)]
        return Dataset(name, *splits, DIGITS if source is QMNIST else tuple(parts[0].classes))
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"a file of {name} in {raw} is damaged, or another's ({error}); {ADVICE}") from error
