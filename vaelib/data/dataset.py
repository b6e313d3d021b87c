"""What every loader returns: two splits of uint8 images, what they are labelled with, and a fingerprint."""

import hashlib
import re
import warnings
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Parameters
    ----------
    images : uint8 Tensor of shape (N, C, H, W)
    labels : Tensor of shape (N,) with class numbers, or bool Tensor of shape (N, A), one column an attribute; without
        labels, of no attributes

    Raises
    ------
    ValueError
        If the images are no uint8 tensor of four dimensions, have their channels last, or there are not as many labels
        as images.

    Warns
    -----
    UserWarning
        If no pixel value reaches 128, the middle of the scale.
    """

    images: Tensor
    labels: Tensor = None

    def __post_init__(self):
        if self.labels is None:
            object.__setattr__(self, "labels", torch.empty(len(self.images), 0, dtype=torch.bool))
        if not isinstance(self.images, Tensor) or not isinstance(self.labels, Tensor):
            raise ValueError("images and labels must be tensors; torch.as_tensor makes them of arrays and lists")
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or len(self.images) == 0:
            raise ValueError(
                f"images must be a uint8 tensor of shape (N, C, H, W) with N > 0, "
                f"not {self.images.dtype} of shape {tuple(self.images.shape)}"
            )
        if self.images.shape[3] <= 4 < self.images.shape[1]:
            raise ValueError(
                f"images of shape {tuple(self.images.shape)} look like (N, H, W, C), but (N, C, H, W) is expected: "
                "images.permute(0, 3, 1, 2)"
            )
        if len(self.labels) != len(self.images):
            raise ValueError(f"{len(self.images)} images but {len(self.labels)} labels; there must be as many")
        # Of most data the first images tell; then a file of many gigabytes is not read for this
        if self.images[:100].max() < 128 and (largest := self.images.max().item()) < 128:
            warnings.warn(
                f"the largest pixel value is {largest}; white is 255: are they on another scale?", stacklevel=3
            )

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A training and a test split of the same kind of image.

    Parameters
    ----------
    name : what the data is called in the names of runs; letters, digits, dots, hyphens and underscores
    train, test : Split
    names : the names of the classes (labels count into it), or of the attributes (a column each); none without labels
    fingerprint : 16 hexadecimal digits that change with any pixel or label; computed when not given
    origin : what was read, and how it was split, in words

    Raises
    ------
    ValueError
        If the name cannot be part of a folder's, the parts have images of different shapes, or labels do not fit the
        names.
    """

    name: str
    train: Split
    test: Split
    names: tuple[str, ...] = ()
    fingerprint: str = ""
    origin: str = ""

    def __post_init__(self):
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"a name becomes part of a folder's, so it has letters, digits, . - _ only: {self.name!r}")
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            shapes = [tuple(split.images.shape[1:]) for split in (self.train, self.test)]
            raise ValueError(f"train and test images must have one shape, not {shapes[0]} and {shapes[1]}")
        for part in ("train", "test"):
            self._check_labels(part, getattr(self, part).labels)
        if not self.fingerprint:
            digest = hashlib.sha256(repr(self.image_shape).encode())
            for split in (self.train, self.test):
                for tensor in (split.images, split.labels):
                    digest.update(tensor.contiguous().numpy())
            object.__setattr__(self, "fingerprint", digest.hexdigest()[:16])

    def _check_labels(self, part: str, labels: Tensor) -> None:
        count = len(self.names)
        if labels.dtype == torch.bool:
            fits = labels.shape[1:] == (count,)
        else:
            fits = not (labels.is_floating_point() or labels.is_complex()) and labels.ndim == 1
            fits = fits and labels.min() >= 0 and labels.max() < count
        if not fits:
            span = f", from {labels.min()} to {labels.max()}" if not labels.is_complex() else ""
            raise ValueError(
                f"the {part} labels are {labels.dtype} of shape {tuple(labels.shape)}{span}; with {count} names they "
                f"must be whole numbers of shape (N,), from 0 to {count - 1}, or torch.bool of shape (N, {count})"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return tuple(self.train.images.shape[1:])

    def column(self, name: str) -> int:
        """Which column of the labels an attribute is.

        Raises
        ------
        ValueError
            If there is no such attribute; the message has those with names like it, or else all.
        """
        if name not in self.names:
            near = ", ".join(get_close_matches(name, self.names) or self.names)
            raise ValueError(f"{name!r} is none of the {len(self.names)} attributes of {self.name!r}; there is {near}")
        return self.names.index(name)


def to_float(images: Tensor) -> Tensor:
    """uint8 pixels in 0..255 as float32 in [0, 1], the shape unchanged."""
    if images.dtype != torch.uint8:
        raise ValueError(f"expected uint8 pixels, got {images.dtype}")
    return images.to(torch.float32).div_(255)
