"""CelebA, read from its JPEGs and two lists, cropped as in the paper; decoded once, then mapped from a file."""

import hashlib
import io
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import CelebA
from tqdm import tqdm

from .. import files
from .dataset import Dataset, Split

# Of either size of image (width, height): the box that is kept (left, top, right, bottom), and the reduction to 48 x 64
CROPS = {(178, 218): ((41, 60, 137, 188), 2), (89, 109): ((20, 30, 68, 94), 1)}
SHAPE = (3, 64, 48)
LEFT_OUT = -1  # instead of the part that a damaged image is in
CHUNK = 256  # images that a thread decodes at a time
IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
ADVICE = "put a good copy there, from http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


def load(folder: Path, skip_damaged: bool = False) -> Dataset:
    """Faces, 3 x 64 x 48, with 40 attributes (bool) as labels: 162,770 training and 19,962 test images, or a subset.

    The files lie in `folder/celeba`, as torchvision lays them: `img_align_celeba/*.jpg` (all of 178 x 218 pixels, or
    all of half that size, 89 x 109), `list_attr_celeba.txt` and `list_eval_partition.txt`. If there is no image,
    a download is tried (1.4 GB; it needs the package gdown).

    The split is the official one, whose validation images are left out of both parts. A subset that lacks one of the
    three parts is split by name instead: the last tenth is for testing, all others are for training.

    The images are decoded once, into a file beside the lists, or in `~/.cache/vaelib` if that folder is read-only;
    it is mapped into memory, so any number of images takes little. The file and the fingerprint know the images by
    their names and sizes on disk, so that they need not be read again.

    Parameters
    ----------
    folder : the folder that has, or gets, `celeba` in it
    skip_damaged : leave damaged JPEGs out, with a warning, instead of refusing them

    Raises
    ------
    ValueError
        If a list is malformed, does not fit the images, or an image is damaged, grey or of another size.
    FileNotFoundError
        If files are missing, and cannot be downloaded.
    OSError
        If the decoded images cannot be written.
    """
    folder = folder / "celeba"
    if not (sizes := _sizes(folder)):
        _download(folder)
        sizes = _sizes(folder)
    names, labels = _attributes(folder / ATTRIBUTES, list(sizes))
    parts = _values(folder / PARTITION, _lines(folder / PARTITION), 0, (0, 1, 2), 1, list(sizes))[:, 0]
    order, boundary = _split(folder, parts)
    images, path = _place(folder, sizes, order)
    if skip_damaged and (damaged := _damaged(folder / IMAGES, images, path)):
        warnings.warn(f"damaged images in {folder / IMAGES}, left out: {_some(damaged)}", stacklevel=2)
        parts[np.isin(list(sizes), damaged)] = LEFT_OUT
        order, boundary = _split(folder, parts)
        images, path = _place(folder, sizes, order)
    if not path.exists():
        _decode(folder / IMAGES, images, path)
    try:  # "c": what is written to the tensor stays in memory, and the file as it is
        pixels = torch.from_numpy(np.load(path, mmap_mode="c"))
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to have the images decoded again") from error
    labels = torch.from_numpy(labels[order])
    digest = hashlib.sha256(f"{path.stem} {boundary} {names}".encode() + labels.numpy().tobytes())
    return Dataset(
        name="celeba",
        train=Split(pixels[:boundary], labels[:boundary]),
        test=Split(pixels[boundary:], labels[boundary:]),
        names=names,
        fingerprint=digest.hexdigest()[:16],
    )


def _sizes(folder: Path) -> dict[str, int]:
    """The JPEGs' names, sorted, with their sizes in bytes; empty if there is no folder of images."""
    if not (folder / IMAGES).is_dir():
        return {}
    descriptor = os.open(folder / IMAGES, os.O_RDONLY)
    try:  # relative to the folder, as 200,000 whole paths take longer to follow
        with os.scandir(descriptor) as entries:
            names = sorted(entry.name for entry in entries if entry.name.lower().endswith(".jpg"))
        return {name: os.stat(name, dir_fd=descriptor).st_size for name in names}
    finally:
        os.close(descriptor)


def _download(folder: Path) -> None:
    """Fetch into a temporary folder beside the final one, so that a broken download leaves nothing behind."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            CelebA(temporary, split="all", download=True)
            for name in (PARTITION, ATTRIBUTES, IMAGES):
                if name == IMAGES or not (folder / name).exists():
                    Path(temporary, "celeba", name).replace(folder / name)
    except Exception as error:  # gdown, which torchvision calls, has exceptions of its own
        raise FileNotFoundError(
            f"no images (*.jpg) in {folder / IMAGES}, and the download failed ({' '.join(str(error).split())}). Fetch "
            f"img_align_celeba.zip, {ATTRIBUTES} and {PARTITION} from http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html "
            f"and put them into {folder}, the first one unpacked; or name another folder (argument `folder`, or "
            f"VAELIB_DATA)"
        ) from error


def _attributes(path: Path, images: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The 40 names, and which image has which, bool (N, 40). The number on the first line is not needed, nor read."""
    lines = _lines(path)
    names = tuple(lines[1].split()) if len(lines) > 1 else ()
    if not len(set(names)) == len(names) == 40:
        raise ValueError(f"{path}, line 2: expected 40 different names of attributes; {ADVICE}")
    return names, _values(path, lines, 2, (-1, 1), 40, images) == 1


def _lines(path: Path) -> list[str]:
    try:  # what is no text becomes a malformed line, and a byte order mark nothing
        return path.read_text("utf-8-sig", "replace").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; {ADVICE}") from None


def _values(path: Path, lines: list[str], skip: int, allowed: tuple, count: int, images: list[str]) -> np.ndarray:
    """The numbers beside the images' names, int8 (N, count), in the order of the images."""
    try:
        table = np.loadtxt(lines[skip:], [("name", object), ("values", "i1", count)], comments=None, ndmin=1)
        fits = np.isin(table["values"], allowed).all()
    except ValueError:
        fits = False
    if not fits:
        pattern = re.compile(rf"\s*\S+(\s+({'|'.join(map(str, allowed))})){{{count}}}\s*")
        number, line = next((n, line) for n, line in enumerate(lines, 1) if n > skip and not pattern.fullmatch(line))
        what = f"a file name and {count} of the numbers {allowed}"
        raise ValueError(f"{path}, line {number}: expected {what}, not {line!r}; {ADVICE}")
    table = table[np.argsort(table["name"], kind="stable")]  # the sort that is quick where all is in order already
    if (listed := table["name"].tolist()) != images:
        lacking, surplus = Counter(images) - Counter(listed), Counter(listed) - Counter(images)
        raise ValueError(
            f"{path} must have one line on each image in {path.parent / IMAGES}; no line on: {_some(lacking)}; no "
            f"image, or more lines than one: {_some(surplus)}. Change the lines or the images, or {ADVICE}"
        )
    return table["values"]


def _some(names: Collection[str]) -> str:
    return f"{len(names)} ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})" if names else "none"


def _split(folder: Path, parts: np.ndarray) -> tuple[np.ndarray, int]:
    """The images' numbers, those for training first, and how many these are."""
    if {0, 1, 2} <= set(parts.tolist()):
        train, test = np.flatnonzero(parts == 0), np.flatnonzero(parts == 2)
    else:
        whole = np.flatnonzero(parts != LEFT_OUT)
        if len(whole) < 2:
            raise ValueError(f"{folder / IMAGES} has too few whole images, {len(whole)}: at least two are needed")
        train, test = np.split(whole, [-max(1, len(whole) // 10)])
    return np.concatenate([train, test]), len(train)


def _place(folder: Path, sizes: dict[str, int], order: np.ndarray) -> tuple[list[str], Path]:
    """The images in that order, and where they are decoded, or else will be.

    Another crop, order or set of images has another file.
    """
    items = list(sizes.items())
    items = [items[i] for i in order.tolist()]
    digest = hashlib.sha256(repr((CROPS, SHAPE, items)).encode())
    home = Path.home() / ".cache" / "vaelib"
    places = [place / f"celeba-{digest.hexdigest()[:16]}.npy" for place in (folder, home)]
    # A folder that nobody may write to is to stay as it is, though root could write to it
    writable = os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222
    path = next((path for path in places if path.exists()), places[0 if writable else 1])
    return [name for name, _ in items], path


def _damaged(folder: Path, names: list[str], path: Path) -> list[str]:
    """The damaged ones among the images; noted beside the decoded ones, so that they are looked for only once."""
    note = path.with_suffix(".damaged")
    if not path.exists() and not note.exists():
        damaged = []
        _decode(folder, names, path, damaged)
        if damaged:
            files.write(note, "\n".join(damaged))
    return note.read_text().split() if note.exists() else []


def _decode(folder: Path, names: list[str], path: Path, damaged: list[str] | None = None) -> None:
    """Write uint8 images (N, 3, 64, 48) to a `.npy` file, by threads: Pillow lets others run while it decodes.

    Given a list of damaged ones, it is added to; with any in it, nothing is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(names), *SHAPE)}
    found = {}  # each size of image, with the name of the first one

    def work(first: int) -> int:
        chunk = names[first : first + CHUNK]
        pixels = np.zeros((len(chunk), *SHAPE), np.uint8)
        for row, name in enumerate(chunk):
            try:
                pixels[row], size = _image(folder / name)
                found.setdefault(size, name)
            except _Damaged:
                if damaged is None:
                    raise
                damaged.append(name)
        try:
            with temporary.open("r+b") as file:
                file.seek(start + first * pixels[0].nbytes)
                file.write(pixels)
        except OSError as error:
            what = f"{error.strerror}: the decoded images take {len(names) * pixels[0].nbytes / 1e6:,.0f} MB"
            raise OSError(error.errno, what, str(temporary)) from error
        return len(chunk)

    with files.locked(path.parent, wait=True):
        if path.exists():  # another process has decoded them while this one waited
            return
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            with temporary.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                start = file.tell()
            with tqdm(total=len(names), desc="decoding CelebA, once", unit="image") as bar:
                for count in pool.map(work, range(0, len(names), CHUNK)):
                    bar.update(count)
                    if len(found) > 1:
                        sizes = " and ".join(f"{w} x {h} ({name})" for (w, h), name in found.items())
                        raise ValueError(f"{folder} has images of different sizes, {sizes}; all must have the same")
            if not damaged:
                temporary.replace(path)
        finally:
            pool.shutdown(cancel_futures=True)
            temporary.unlink(missing_ok=True)


class _Damaged(ValueError):
    pass


def _image(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """The paper's crop of one image, (3, 64, 48), and the width and height of the whole."""
    content = io.BytesIO(path.read_bytes())
    try:
        with Image.open(content) as image:
            image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises for broken files
        raise _Damaged(
            f"{path} is damaged ({error}); replace it, or leave out damaged images with "
            f"vaelib.data.celeba.load(folder, skip_damaged=True)"
        ) from error
    if image.mode != "RGB" or image.size not in CROPS:
        raise ValueError(
            f"{path} is {image.size[0]} x {image.size[1]} pixels in mode {image.mode}; expected colour (RGB) and "
            f"{' or '.join(f'{width} x {height}' for width, height in CROPS)}; replace it, or remove it and its lines"
        )
    box, factor = CROPS[image.size]
    # `reduce` takes the mean of each square of pixels, which is antialiasing enough for a whole factor
    return np.asarray(image.crop(box).reduce(factor)).transpose(2, 0, 1), image.size
