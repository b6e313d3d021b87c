"""`load(name)` gives a data set as uint8 tensors; `Dataset` and `Split` wrap images of your own."""

import os
from pathlib import Path

from . import celeba, digits, faces, mnist
from .dataset import Dataset, Split, to_float

__all__ = ["Dataset", "Split", "load", "to_float"]

LOADERS = {"mnist": mnist.load, "digits": digits.load, "celeba": celeba.load, "faces": faces.load}


def load(name: str, folder: str | Path | None = None) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : "mnist" (60,000 + 10,000 handwritten digits, downloaded once),
        "digits" (1,497 + 300 smaller ones that come with scikit-learn: no folder, no network),
        "celeba" (162,770 + 19,962 photographs of faces with 40 attributes, or any subset of them, decoded once) or
        "faces" (4,000 + 1,000 drawn ones with 15 attributes, from known factors: no folder, no network)
    folder : where the files are, or where a download goes;
        by default the environment variable VAELIB_DATA, else `~/.cache/vaelib`

    Raises
    ------
    ValueError
        If the name is unknown, or a file is damaged (the message names it).
    FileNotFoundError
        If files are missing and cannot be downloaded (the message says which, and where to put them).
    OSError
        If CelebA's decoded images cannot be written.
    """
    if name not in LOADERS:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(LOADERS)}")
    folder = folder or os.environ.get("VAELIB_DATA") or Path.home() / ".cache" / "vaelib"
    return LOADERS[name](Path(folder).expanduser())
