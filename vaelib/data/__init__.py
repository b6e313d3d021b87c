"""Data sets: `load(name)` for known ones, `image_folder(path, size)` for your own images, `Dataset` for tensors."""

import os
from importlib import import_module
from pathlib import Path

import torch

from . import paths
from .dataset import Dataset, Split, to_float
from .images import image_folder

__all__ = ["Dataset", "Split", "image_folder", "load", "to_float"]

_MODULES = {"digits": "digits", "celeba": "celeba"}
_MODULES |= dict.fromkeys(("faces", "faces-small"), "synthetic_faces")
_MODULES |= dict.fromkeys(("mnist", "fashion-mnist", "kmnist", "qmnist"), "mnist")
_MODULES |= {f"emnist-{part}": "mnist" for part in ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")}
WITHOUT_FILES = ("digits", "faces", "faces-small")


def load(name: str, folder: str | Path | None = None, skip_damaged: bool = False) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : one of these names:

        - "mnist": 60,000 + 10,000 handwritten digits, downloaded once
        - "digits": 1,497 + 300 smaller digits from scikit-learn, without folder or network
        - "celeba": 162,770 + 19,962 photographs of faces with 40 attributes, or any subset of them, decoded once
        - "faces": 4,000 + 1,000 drawn faces with 15 attributes and known factors, without folder or network
        - "faces-small": the first 1,024 + 160 of the drawn faces, for quick runs
        - "fashion-mnist", "kmnist", "qmnist", "emnist-letters" and the other parts of EMNIST
    folder : folder of the files or for the download; by default the environment variable VAELIB_DATA, else
        `~/.cache/vaelib`
    skip_damaged : whether to omit CelebA's damaged photographs, with a warning, instead of raising an error

    Raises
    ------
    ValueError
        If the name is unknown, or a file is damaged (the message names it).
    FileNotFoundError
        If the given folder doesn't exist, or files are missing and can't be downloaded. The message says which files,
        and where to put them.
    OSError
        If a file can't be read, or CelebA's decoded images can't be written.
    """
    if name not in [*_MODULES]:  # a list can't be a key
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(_MODULES)}")
    if skip_damaged and name != "celeba":
        raise ValueError(f"skip_damaged is for CelebA's photographs, not for {name!r}; omit it")
    module = import_module(f".{_MODULES[name]}", __name__)  # late, as torchvision's import takes longer than torch's
    with torch.device("cpu"):  # for any default device
        if name in WITHOUT_FILES:
            return module.load(name)
        place = paths.root(folder)
        if (folder or os.environ.get("VAELIB_DATA")) and not place.is_dir():  # it may be misspelt
            raise FileNotFoundError(f"{place} doesn't exist; create it to download {name} there, {paths.ADVICE}")
        return module.load(place, skip_damaged) if name == "celeba" else module.load(place, name)
