"""A folder of your own images, as they are seen: upright, on white, all of one size."""

import os
import re
import zlib
from contextlib import suppress
from io import BytesIO
from itertools import chain, takewhile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from .. import progress
from ..objective import positive_number, whole_number
from .dataset import Dataset, Split
from .paths import leave_out, say, some

# The words for a part that is a folder, alone or as in trainset, test_images, seg_train or trainA
PARTS = {
    "train": "train|training|trainval|trn",
    "test": "test|testing|tst|eval|evaluation|holdout",
    "validation": "val|valid|validation|dev",
}
# Classes of which both have such names may be parts as well; and folds share images
PAIRS = ("train", "test"), ("train", "val"), ("tr", "te"), ("tr", "ts"), ("gallery", "query"), ("seen", "unseen")
FOLD = re.compile(r"(?i:fold|split|cv)[\W_]*(\d+|[A-Z])$")
STUBS = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}  # formats that Pillow knows by name, and does not read
HINTS = {
    UnidentifiedImageError: "empty, damaged, or no image; HEIC needs pillow_heif.register_heif_opener() first: ",
    Image.DecompressionBombError: "a larger PIL.Image.MAX_IMAGE_PIXELS is needed: ",
}


def image_folder(
    path: str | Path,
    size: int | tuple[int, int],
    name: str = "",
    grey: bool = False,
    skip_damaged: bool = False,
    maximum: float | None = None,
) -> Dataset:
    """All images in a folder and its subfolders, of any format that Pillow reads, cropped to the middle and scaled.

    Subfolders are classes; if some images are in none, "all" is the only one. Every tenth image, in the order of their
    paths and from the first on, is for testing. But folders such as `train` and `test` (or `val`), at any depth, whose
    names have all else in common, are the two splits, and what is beside them is left out. Links are followed, and no
    folder is read twice. One image at a time is held at full size. Hidden files, and those without an image's suffix,
    are left out. Colours are converted to sRGB. A line is printed that says what was read, and what was not.

    Parameters
    ----------
    path : the folder
    size : (height, width) in pixels, or one number for both
    name : what the data is called in the names of runs; by default as the folder, with the size
    grey : images of one channel instead of three
    skip_damaged : leave what cannot be read out, with a warning, instead of refusing it
    maximum : what white is in files of one channel with more than 8 bits, such as 4095 for 12 bits; by default 65535
        for whole numbers of 16 bits, while files of 32 bits or of floats need it. PGM and JPEG 2000 say it themselves

    Raises
    ------
    ValueError
        If the path is empty, the size cannot be, there are fewer than two images, some cannot be read (all are named),
        or a class may be a part or a fold by its name.
    FileNotFoundError
        If there is no such folder.
    """
    if not str(path):
        raise ValueError("the folder's name is empty; what is meant by it?")
    path = Path(path).expanduser().absolute()
    sides = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    height, width = (whole_number("size, or each of (height, width),", side) for side in sides)
    maximum = None if maximum is None else positive_number("maximum", maximum)
    files, others = _files(path)
    images, damaged, stacks = {}, [], 0
    for file in progress.bar(files, desc="reading images", unit="image"):
        try:
            image, pages = _open(path / file, (width, height), "L" if grey else "RGB", maximum)
            images[file] = torch.from_numpy(np.array(image)).reshape(height, width, -1).permute(2, 0, 1)
            stacks += pages > 1
        except Exception as error:  # Pillow's many readers raise many kinds
            damaged.append(f"{file} ({HINTS.get(type(error), '')}{' '.join(str(error).split())})")
    leave_out(damaged, path, skip_damaged)
    if len(images) < 2:
        found = f"{len(images)} images that can be read, and {some(others)} other files"
        raise ValueError(f"{path} has {found}; a training needs eleven files (of several pages, one counts)")
    train, test, names, labels = _split([*images])
    origin = f"{len(train):,} images for training, {len(test):,} for testing, classes: {some(names, 10)}"
    if unused := len(images) - len(train) - len(test):
        origin += f"; {unused:,} images are in neither of the two folders, and not used"
    pixels = [*images.values()]
    of_training, of_testing = ({hash(pixels[row].numpy().tobytes()) for row in rows} for rows in (train, test))
    if same := len(of_training & of_testing):
        origin += f"; {same:,} images are both for training and for testing"
    if stacks:
        origin += f"; of {stacks:,} files with several pages only the first is read"
    if left_out := [*damaged, *others]:
        origin += f"; left out: {some(left_out)} files"
    say(f"{path.name}: {origin}")
    splits = (Split(torch.stack([pixels[row] for row in rows]), labels[rows]) for rows in (train, test))
    return Dataset(name or f"{_plain(path.name)}-{height}x{width}", *splits, tuple(names), origin=origin)


def _files(path: Path) -> tuple[list[Path], list[str]]:
    """What by its suffix is an image, and what is left out: other files, folders that were read or cannot be read."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder")
    Image.init()
    suffixes = {end for end, kind in Image.registered_extensions().items() if kind in {*Image.OPEN} - STUBS}
    suffixes |= {".heic", ".heif"}  # often a JPEG all the same
    found, others, seen = [], [], set()
    for here, folders, names in os.walk(path, onerror=lambda error: others.append(error.filename), followlinks=True):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        if (real := os.path.realpath(here)) in seen:  # else a link to a folder above would be followed for ever
            others.append(here)
            folders[:], names = [], []
        seen.add(real)
        for name in (name for name in names if not name.startswith(".")):
            (found if Path(name).suffix.lower() in suffixes else others).append(Path(here, name))
    others = sorted(os.path.relpath(each, path) for each in others)
    return sorted(each.relative_to(path) for each in found), others


def _open(file: Path, size: tuple[int, int], mode: str, maximum: float | None) -> tuple[Image.Image, int]:
    """An image as it is seen, of a size (width, height), in mode "RGB" or "L", and the number of pages in its file."""
    if file.exists() and not file.is_file():
        raise ValueError("no file, but a pipe or a device")
    with Image.open(file) as image:
        pages, profile = getattr(image, "n_frames", 1), image.info.get("icc_profile")
        # These say their maximum, and Pillow makes it 65535; but of floats, which are PFM's
        known = image.format in ("PPM", "JPEG2000") and image.mode != "F"
        image.draft("RGB", (2 * max(size), 2 * max(size)))  # a JPEG is decoded at a fraction of its size
        white_is_zero = getattr(image, "tag_v2", {}).get(262) == 0  # which Pillow minds in files of 8 bits only
        image = ImageOps.exif_transpose(image)
    hidden = image.info.get("transparency")
    if (image.mode[0] in "IF" and hidden is not None) or (isinstance(hidden, tuple) and max(hidden) > 255):
        raise ValueError("a transparent colour of 16 bits, which Pillow does not see; save it with an alpha channel")
    if image.mode[0] in "IF":  # more than 8 bits
        if not (maximum or known or image.mode.startswith("I;16")):
            raise ValueError(f"pixels of kind {image.mode}; say by `maximum` what white is")
        pixels = np.asarray(image) * (255 / (65535 if known else maximum or 65535))
        if not np.isfinite(pixels).all():
            raise ValueError("pixels that are not finite")
        pixels = 255 - pixels if white_is_zero else pixels
        image = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    elif maximum:
        raise ValueError("`maximum` is for files of one channel with more than 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if not (profile and image.mode in ("L", "CMYK")):
        image = image.convert("RGB")
    image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if profile:
        with suppress(ImageCms.PyCMSError):  # a damaged profile, or one of another kind of pixels
            image = ImageCms.profileToProfile(image, BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    return image.convert(mode), pages


def _split(read: list[Path]) -> tuple[list[int], list[int], list[str], torch.Tensor]:
    """Which images are for training, which for testing, the classes' names, and each image's class."""
    folders = [file.parts[:-1] for file in read]
    marks = [next(filter(any, map(_part, each)), ("", "")) for each in folders]
    rows = {part: [row for row, (each, _) in enumerate(marks) if each == part] for part in PARTS}
    train, test = rows["train"], rows["test"] or rows["validation"]
    several = len({marks[row][1] for row in (*train, *test)}) > 1  # such as test and test_labels
    if train and test and not several:
        paths = zip(folders, marks, strict=True)
        folders = [tuple(folder for folder in each if _part(folder) != mark) for each, mark in paths]
    else:
        train, test = [row for row in range(len(read)) if row % 10], list(range(0, len(read), 10))
    used = [folders[row] for row in (*train, *test)]
    levels = zip(*(each[:-1] for each in used), strict=False)
    depth = sum(1 for _ in takewhile(lambda level: len({*level}) == 1, levels))  # folders around all are no classes
    names = sorted({each[depth] for each in used}) if all(used) else ["all"]
    classes = [each[depth] if len(each) > depth else "" for each in folders]
    told = sorted({*chain(*folders)}) if several else names
    if (marked := [name for name in told if _is_unclear(name, told)]) and len(told) > 1:
        raise ValueError(
            f"it is unclear whether the folders {', '.join(told[:10])} are classes: name the parts train and test, "
            f"and rename {marked[0]} if it is a class; of several folds, give the folder of one"
        )
    return train, test, names, torch.tensor([names.index(each) if each in names else 0 for each in classes])


def _part(folder: str) -> tuple[str, str]:
    """The part that a folder is for, by a word of its name, and the rest of its name; two empty words if for none."""
    for word in re.finditer(r"[A-Z]?[a-z]+|[A-Z]+", folder):
        for part, known in PARTS.items():
            if re.fullmatch(f"({known})(s?(set|data|daten|images?|imgs?))?", word[0].lower()):
                return part, (folder[: word.start()] + folder[word.end() :]).lower()
    return "", ""


def _is_unclear(name: str, names: list[str]) -> bool:
    """Whether a class of this name may be a part or a fold."""
    twins = {name.lower().replace(*pair) for pair in PAIRS} - {name.lower()}
    return any(_part(name)) or bool(FOLD.search(name)) or not twins.isdisjoint(map(str.lower, names))


def _plain(name: str) -> str:
    """A folder's name with a hyphen for blanks and the like, and a checksum for what else is no letter, as emoji."""
    return re.sub(
        r"[^\w.-]+", lambda it: "-" if it[0].isascii() else f"{zlib.crc32(os.fsencode(it[0])):08x}", name or "images"
    )
