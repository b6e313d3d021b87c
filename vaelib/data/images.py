"""A folder of your own images, as they are seen: upright, on white, all of one size."""

import re
import warnings
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from .. import progress
from .dataset import Dataset, Split

TRAIN, TEST = "train", ("test", "val", "valid", "validation")  # folders that are parts; the first of TEST is tested
PHONE = (".heic", ".heif")  # often a JPEG all the same; if not, a reader of its own is needed


def image_folder(
    path: str | Path, size: int | tuple[int, int], name: str = "", grey: bool = False, skip_damaged: bool = False
) -> Dataset:
    """All images in a folder and its subfolders, of any format that Pillow reads, cropped to the middle and scaled.

    Subfolders are classes; if some images are in none, "all" is the only one. Every tenth image, in the order of their
    paths and from the first on, is for testing. But with subfolders `train` and `test` (or `val`), these are the two
    splits, and what is beside them is left out. One image at a time is held at full size. Hidden files, and those
    without an image's suffix, are left out. A line is printed that says what was read, and what was not.

    Parameters
    ----------
    path : the folder
    size : (height, width) in pixels, or one number for both
    name : what the data is called in the names of runs; by default as the folder, with the size
    grey : images of one channel instead of three
    skip_damaged : leave what cannot be read out, with a warning, instead of refusing it

    Raises
    ------
    ValueError
        If the path is empty, the size cannot be, there are fewer than two images, or some cannot be read (all are
        named).
    FileNotFoundError
        If there is no such folder.
    """
    if not str(path):
        raise ValueError("the folder's name is empty; what is meant by it?")
    path = Path(path).expanduser().absolute()
    height, width = shape = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    if not all(isinstance(side, Integral) and side > 0 for side in shape):
        raise ValueError(f"size must be a whole number of pixels, or (height, width), not {size!r}")
    files, others = _files(path)
    images, read, damaged, phone = np.empty((len(files), 1 if grey else 3, height, width), np.uint8), [], [], []
    for file in progress.bar(files, desc=f"reading {path.name}", unit="image"):
        try:
            pixels = np.asarray(_open(file, (width, height), "L" if grey else "RGB"))
        except Exception as error:  # Pillow's many readers raise many kinds
            name_of_file, reason = str(file.relative_to(path)), " ".join(str(error).split())
            if file.suffix.lower() in PHONE:
                phone.append(name_of_file)
            else:
                damaged.append(f"{name_of_file} ({reason})")
        else:
            images[len(read)] = pixels.reshape(height, width, -1).transpose(2, 0, 1)
            read.append(file.relative_to(path).parts)
    if damaged and not skip_damaged:
        count = f"{len(damaged)} of {len(files)} images in {path} cannot be read"
        raise ValueError(
            "\n  ".join([f"{count}; mend or remove them, or leave them out by skip_damaged=True:", *damaged])
        )
    if damaged:
        warnings.warn("\n  ".join([f"left out of {path}, as they cannot be read:", *damaged]), stacklevel=2)
    if phone:
        warnings.warn(
            f"left out of {path}: {len(phone)} photographs such as {phone[0]}; save them as JPEG, or call "
            f"pillow_heif.register_heif_opener(), of the package pillow-heif, before",
            stacklevel=2,
        )
    others = sorted([*phone, *others])
    if len(read) < 2:
        told = f" ({', '.join(others[:3])}{', ...' * (len(others) > 3)})" if others else ""
        raise ValueError(
            f"{path} has {len(read)} images that can be read, and {len(others)} other files{told}; a training needs "
            f"eleven, so that two are for testing"
        )
    train, test, classes = _parts(read)
    used = [classes[row] for row in (*train, *test)]
    mixed = len({label == () for label in used}) > 1
    names = [()] if mixed else sorted(set(used))
    labels = torch.tensor([names.index(label) if label in names else 0 for label in classes])
    images = torch.from_numpy(images)
    origin = f"{len(train):,} images for training, {len(test):,} for testing"
    if len(names) > 1:
        origin += f", {len(names)} classes"
    if mixed:
        origin += ", no classes, as some lie in subfolders and some do not"
    if unused := len(read) - len(train) - len(test):
        origin += f"; not used, as they are neither in {TRAIN} nor in the folder for testing: {unused:,} images"
    if left_out := [*damaged, *others]:
        origin += f"; left out: {len(left_out)} files ({', '.join(left_out[:3])}{', ...' if len(left_out) > 3 else ''})"
    print(f"{path.name}: {origin}", flush=True)
    plain = re.sub(r"[^\w.-]+", "-", path.name)
    return Dataset(
        name or f"{plain}-{height}x{width}",
        Split(images[train], labels[train]),
        Split(images[test], labels[test]),
        tuple(label[0] if label else "all" for label in names),
        origin=origin,
    )


def _files(path: Path) -> tuple[list[Path], list[str]]:
    """The files that by their suffix are images, and the names of the others; hidden ones are neither."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder")
    Image.init()
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files = sorted(file for file in path.rglob("*") if not file.is_dir())
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    suffixes |= {*PHONE}
    images = [file for file in files if file.suffix.lower() in suffixes]
    return images, [str(file.relative_to(path)) for file in files if file.suffix.lower() not in suffixes]


def _open(file: Path, size: tuple[int, int], mode: str) -> Image.Image:
    """An image as it is seen, of a size (width, height), in mode "RGB" or "L"."""
    with Image.open(file) as image:
        image.draft(mode, (2 * max(size), 2 * max(size)))  # a JPEG is decoded at a fraction of its size
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of kind {image.mode}, whose black and white nobody knows")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return ImageOps.fit(image.convert(mode), size, Image.Resampling.LANCZOS)


def _parts(read: list[tuple[str, ...]]) -> tuple[list[int], list[int], list[tuple[str, ...]]]:
    """Which images are for training, which for testing, and the class of each: a folder's name, or () for none."""
    first = [parts[0].lower() if len(parts) > 1 else "" for parts in read]
    tested = next((part for part in TEST if part in first), None)
    if TRAIN in first and tested:
        rows = [[row for row, part in enumerate(first) if part == which] for which in (TRAIN, tested)]
        return *rows, [parts[1:-1][:1] for parts in read]
    count = range(len(read))
    return [row for row in count if row % 10], list(count[::10]), [parts[:-1][:1] for parts in read]
