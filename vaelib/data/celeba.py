"""CelebA, read from its JPEGs and two lists, cropped as in the paper, decoded once, and then mapped from a file."""

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import CelebA
from torchvision.datasets.utils import check_integrity

from .. import files, progress
from . import paths
from .dataset import Dataset, Split

# For each image size (width, height), the box to keep (left, top, right, bottom) and the reduction to 48 x 64
CROPS = {(178, 218): ((41, 60, 137, 188), 2), (89, 109): ((20, 30, 68, 94), 1)}
SHAPE = (3, 64, 48)
IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt"
FORMS = {  # the downloadable files, each with all forms in which copies have it
    IMAGES: ("img_align_celeba/img_align_celeba", "img_align_celeba", IMAGES),
    ATTRIBUTES: (ATTRIBUTES, "list_attr_celeba.csv"),
    PARTITION: (PARTITION, "list_eval_partition.csv"),
}
SOURCE = "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
JPEG = "[!.]*.[jJ][pP][gG]"
ADVICE = f"put a good copy there, from {SOURCE}"

Reader = Callable[[str], bytes]


def load(folder: Path | str, skip_damaged: bool = False) -> Dataset:
    """Load faces, 3 x 64 x 48, with 40 attributes (bool): 162,770 training and 19,962 test images, or a subset.

    The files are in `folder/celeba`, or in `folder`. The images are `img_align_celeba/*.jpg`, all 178 x 218 pixels, or
    all half that size, 89 x 109. They may be one folder deeper, as in Kaggle's copy, or in `img_align_celeba.zip`. The
    lists are `list_attr_celeba` and `list_eval_partition`, as `.txt` or `.csv`. Missing files are downloaded (1.4 GB).

    The split is the official one, without its validation images. If a subset lacks training images, the validation
    images replace them. If it lacks test images, the validation images replace them, or else the last tenth of the
    others by name.

    The images are decoded once, into a file next to the lists. If that folder is read-only, the file is in the folder
    VAELIB_CACHE, by default `~/.cache/vaelib`. Decoding all images takes 2 GB of memory. The file is then mapped into
    memory, so any number of images needs little. The file and the fingerprint identify images by name and size on disk,
    without reading them again. Every load compares the file with its checksum, and decodes it again if it is damaged.

    Parameters
    ----------
    folder : the folder that contains `celeba`, or in which to create it
    skip_damaged : whether to omit damaged JPEGs, with a warning, instead of raising an error

    Raises
    ------
    ValueError
        If a list is malformed or lacks a line for an image, or an image is damaged, grey or of another size.
    FileNotFoundError
        If files are missing, and can't be downloaded.
    OSError
        If an image can't be read, or the decoded images can't be written.
    """
    folder = Path(folder)
    if not any(_find(folder, name) for name in FORMS):
        folder = folder / "celeba"
    _fetch(folder)
    sizes, read = _images(_find(folder, IMAGES))
    attributes = _find(folder, ATTRIBUTES)
    header, labels, listed = _table(attributes, sizes, 40, {"-1": 0, "0": 0, "1": 1})
    names = tuple(header[-40:])
    if len(set(names)) != 40:
        raise ValueError(f"{attributes}: expected a line with 40 different names above the attributes; {ADVICE}")
    parts = _table(_find(folder, PARTITION), sizes, 1, {"0": 0, "1": 1, "2": 2})[1][:, 0]
    train, test, how = _split(parts)
    order = np.concatenate([train, test])
    listing = list(sizes.items())
    images = [listing[row] for row in order.tolist()]
    path, pixels, damaged = _decoded(folder, images, read, skip_damaged)
    whole = ~np.isin([name for name, _ in images], damaged)
    boundary = int(whole[: len(train)].sum())
    origin = f"{boundary:,} images for training and {len(pixels) - boundary:,} for testing, {how}"
    if not 0 < boundary < len(pixels):
        raise ValueError(f"{folder} has {origin}; expected some of each")
    labels = torch.from_numpy(labels[order][whole] == 1)
    if listed > len(sizes):
        origin += f"; {len(sizes):,} of the {listed:,} listed images are there"
    paths.say(f"{folder.name}: {origin}")
    splits = (Split(pixels[rows], labels[rows]) for rows in (slice(boundary), slice(boundary, None)))
    dataset = Dataset("celeba", *splits, names, origin=origin)
    digest = hashlib.sha256(f"{path.stem} {boundary} {names}{damaged or ''}".encode() + labels.numpy().tobytes())
    dataset.loaded[dataset.fingerprint] = digest.hexdigest()[:16]
    return dataset


def _find(folder: Path, name: str) -> Path | None:
    """Return the first existing form of a file. A folder without a JPEG doesn't count."""
    forms = (folder / form for form in FORMS[name])
    return next((path for path in forms if path.is_file() or any(path.glob(JPEG))), None)


def _fetch(folder: Path) -> None:
    """Download the missing files only."""
    missing = [name for name in FORMS if not _find(folder, name)]
    if not missing:
        return
    by_hand = f"Try pip install 'vaelib[celeba]'. Or unpack Kaggle's archive.zip there (lists may be .csv), or {SOURCE}"
    with paths.fetching(missing, folder, by_hand):
        import gdown  # optional

        for identity, md5, name in CelebA.file_list:
            path = folder / name
            if name in missing and not path.exists():  # another process may have fetched it while this one waited
                # Resumes an earlier download. Without cookies, nothing is written elsewhere
                gdown.download(id=identity, output=str(path), resume=True, timeout=paths.PATIENCE, use_cookies=False)
                if not check_integrity(path, md5):
                    path.unlink(missing_ok=True)
                    raise RuntimeError(f"the downloaded file is not {name}: its MD5 sum is not {md5}")


def _images(path: Path) -> tuple[dict[str, int], Reader]:
    """Return the JPEGs' sorted names with their sizes in bytes, and a function that reads a JPEG by name.

    The JPEGs are in a folder or an archive.
    """
    if path.is_dir():
        sizes = {each.name: each.stat().st_size for each in sorted(path.glob(JPEG))}
        return sizes, lambda name: (path / name).read_bytes()
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is damaged or incomplete; {ADVICE}")
    archive = zipfile.ZipFile(path)
    members = {each.filename.rpartition("/")[2]: each for each in archive.infolist()}
    sizes = {name: members[name].file_size for name in sorted(members) if fnmatchcase(name, JPEG)}
    return sizes, lambda name: archive.read(members[name])


def _table(path: Path, images: dict[str, int], count: int, values: dict[str, int]) -> tuple[list[str], np.ndarray, int]:
    """Read a list: its header, its values as uint8 (N, count) in the order of the images, and its number of rows.

    Words are separated by blanks, commas or semicolons, and may be quoted. A row begins with the name of an image.
    """
    raw = path.read_bytes()
    text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")
    header, rows = [], {}
    for line in text.translate(str.maketrans(',;"', "   ")).splitlines():
        name, *words = line.split() or [""]
        if fnmatchcase(name, JPEG):  # a second row for an image makes both invalid
            rows.setdefault(name.lower(), []).extend(words)
        elif name and not rows:
            header = [name, *words]
    wrong = [name for name in images if len(row := rows.get(name.lower(), [])) != count or not {*row} <= {*values}]
    if wrong or {"-1", "0"} <= set().union(*rows.values()):
        what = f"a line on each image, with {count} of the numbers {', '.join(values)} (-1 or 0 for no, but not both)"
        raise ValueError(f"{path}: expected {what}; not so for {paths.some(wrong)}; {ADVICE}")
    content = bytes(values[word] for name in images for word in rows[name.lower()])
    return header, np.frombuffer(content, np.uint8).reshape(-1, count), len(rows)


def _split(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the numbers of the training and of the test images, and a description of the split."""
    train, valid, test = (np.flatnonzero(parts == part) for part in (0, 1, 2))
    how = "as marked"
    if not len(train):
        train, valid, how = valid, train, "as marked, with those for validation as training images"
    if not len(test):
        test, how = valid, "as marked, with those for validation as test images"
    if not len(test):
        train, test = np.split(train, [-max(1, len(train) // 10)])
        how = "the last tenth by name, as none is marked as a test image"
    return train, test, how


def _decoded(
    folder: Path, images: list[tuple[str, int]], read: Reader, skip_damaged: bool
) -> tuple[Path, torch.Tensor, list[str]]:
    """Return the path of the decoded images, the images, uint8 (N, 3, 64, 48), and the omitted damaged ones.

    Every crop, order and set of images (names and sizes) has its own file.
    """
    digest = hashlib.sha256(repr((CROPS, SHAPE, images)).encode()).hexdigest()[:16]
    path = folder / f"celeba-{digest}.npy"
    # A read-only folder stays unchanged, even if root could write to it
    if not (path.exists() or (os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222)):
        path = paths.named("VAELIB_CACHE", paths.HOME) / path.name
    written = _written(path, read)
    if not written:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(path.parent, wait=True):  # another process may decode them meanwhile
            written = _written(path, read) or _decode([name for name, _ in images], read, path)
    damaged = list(written["damaged"])
    paths.leave_out(damaged, folder, skip_damaged)
    # "c": changes of the tensor stay in memory, and don't reach the file
    return path, torch.from_numpy(np.load(path, mmap_mode="c")), damaged


def _written(path: Path, read: Reader) -> dict:
    """Return what `_decode` returned, or {} if a file is missing or changed, or a damaged image was mended."""
    try:
        written = json.loads(path.with_suffix(".json").read_bytes())
        mended = any(_image(read, name) for name in written["damaged"])
        return written if _checksum(path) == written["crc32"] and not mended else {}
    except (FileNotFoundError, ValueError, TypeError, LookupError):
        return {}


def _decode(names: list[str], read: Reader, path: Path) -> dict:
    """Write the cropped images to a `.npy` file, and next to it its checksum and the damaged images, which we return.

    This uses threads, because Pillow releases Python's lock while it decodes.
    """
    with ThreadPoolExecutor() as pool:
        found = progress.bar(pool.map(partial(_image, read), names), "decoding CelebA, once", len(names), unit="image")
        whole = {name: image for name, image in zip(names, found, strict=True) if image}
    sizes = {size: name for name, (size, _) in whole.items()}
    if len(sizes) > 1:
        raise ValueError(f"{path.parent} has images of different sizes, such as {sizes}; all must have the same size")
    header = io.BytesIO()
    layout = {"descr": "|u1", "fortran_order": False, "shape": (len(whole), *SHAPE)}
    np.lib.format.write_array_header_1_0(header, layout)
    path.with_suffix(".json").unlink(missing_ok=True)  # of another file with this name
    files.write(path, header.getvalue(), *(pixels for _, pixels in whole.values()))
    written = {"crc32": _checksum(path), "damaged": [name for name in names if name not in whole]}
    files.write(path.with_suffix(".json"), json.dumps(written, indent=1))
    return written


def _checksum(path: Path) -> int:
    return zlib.crc32(np.memmap(path, np.uint8, "r"))


def _image(read: Reader, name: str) -> tuple[tuple[int, int], bytes] | None:
    """Return an image's size and the pixels to keep, 3 x 64 x 48, or None if it's damaged or not a JPEG."""
    try:
        with Image.open(io.BytesIO(read(name)), formats=["JPEG"]) as image:
            image.load()
    except FileNotFoundError:
        raise  # it isn't damaged
    except (OSError, EOFError, SyntaxError, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError):
        return None  # the file or its part of the archive is broken
    if image.mode != "RGB" or image.size not in CROPS:
        found, sizes = f"mode {image.mode} and size {image.size}", " or ".join(map(str, CROPS))
        raise ValueError(f"{name} has {found}; expected mode RGB and size {sizes}; replace or remove it")
    box, factor = CROPS[image.size]
    # `reduce` averages squares of pixels, which prevents aliasing for whole factors
    return image.size, np.asarray(image.crop(box).reduce(factor)).transpose(2, 0, 1).tobytes()
