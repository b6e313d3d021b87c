"""`load(name)` returns a data set by name, `image_folder(path, size)` your own images; `Dataset` wraps tensors."""

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
    name : "mnist" (60,000 + 10,000 handwritten digits, downloaded once),
        "digits" (1,497 + 300 smaller ones that come with scikit-learn: no folder, no network),
        "celeba" (162,770 + 19,962 photographs of faces with 40 attributes, or any subset of them, decoded once),
        "faces" (4,000 + 1,000 drawn ones with 15 attributes, from known factors: no folder, no network),
        "faces-small" (1,024 + 160 such, for what must be quick), or one of
        MNIST's siblings: "fashion-mnist", "kmnist", "qmnist", "emnist-letters" and EMNIST's other parts
    folder : where the files are, or where a download goes;
        by default the environment variable VAELIB_DATA, else `~/.cache/vaelib`
    skip_damaged : leave CelebA's damaged photographs out, with a warning, instead of refusing them

    Raises
    ------
    ValueError
        If the name is unknown, or a file is damaged (the message names it).
    FileNotFoundError
        If files are missing and cannot be downloaded (the message says which, and where to put them), or the folder
        that was named for them is not there.
    OSError
        If a file cannot be read, or CelebA's decoded images cannot be written.
    """
    if name not in _MODULES:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(_MODULES)}")
    if skip_damaged and name != "celeba":
        raise ValueError(f"skip_damaged is for CelebA's photographs; {name!r} has none that could be left out")
    module = import_module(f".{_MODULES[name]}", __name__)  # only now: torchvision takes longer to import than torch
    with torch.device("cpu"):  # whatever the default device is
        if name in WITHOUT_FILES:
            return module.load(name)
        place = paths.root(folder)
        if (folder or os.environ.get("VAELIB_DATA")) and not place.is_dir():  # its name may be mistyped
            raise FileNotFoundError(f"there is no folder {place}; make it, if {name} is to be fetched, {paths.ADVICE}")
        return module.load(place, skip_damaged) if name == "celeba" else module.load(place, name)
