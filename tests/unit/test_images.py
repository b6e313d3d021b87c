"""A folder of one's own images: every form of file that people have, read as it is seen."""

import errno
import math
import os
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageDraw

from vaelib import data

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def _picture(size=(40, 40)):
    """Red above left, green above right, blue below."""
    image = Image.new("RGB", size, BLUE)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, size[0] // 2 - 1, size[1] // 2 - 1), RED)
    draw.rectangle((size[0] // 2, 0, size[0], size[1] // 2 - 1), GREEN)
    return image


def _corners(image):
    """The colours above left, above right and below of (3, H, W), to the nearest full ones."""
    height, width = image.shape[1:]
    places = [(height // 4, width // 4), (height // 4, 3 * width // 4), (3 * height // 4, width // 2)]
    return [tuple(255 * (image[:, row, column] > 127).int().numpy()) for row, column in places]


def _folder(path, images):
    """Write images, or bytes, by their names below a folder."""
    for name, image in images.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, bytes):
            (path / name).write_bytes(image)
        else:
            image.save(path / name)
    return path


def _greys(path, names):
    """Small images, each of a grey of its own, by their names below a folder; returns the greys by name."""
    greys = {name: 128 + number for number, name in enumerate(names)}
    _folder(path, {name: Image.new("L", (8, 8), grey) for name, grey in greys.items()})
    return greys


def _seen(split):
    return sorted(split.images[:, 0, 0, 0].tolist())


def _all(mine):
    return torch.cat([mine.train.images, mine.test.images])


@pytest.mark.parametrize(
    "suffix", ["jpg", "JPEG", "jfif", "png", "webp", "bmp", "tif", "TIFF", "gif", "jp2", "avif", "ppm"]
)
def test_files_of_every_suffix_are_read(tmp_path, suffix):
    mine = data.image_folder(_folder(tmp_path / "my images", {f"{n}.{suffix}": _picture() for n in range(2)}), 16)
    assert (mine.name, mine.image_shape, mine.names) == ("my-images-16x16", (3, 16, 16), ("all",))
    assert all(_corners(image) == [RED, GREEN, BLUE] for image in _all(mine))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_photograph_lies_as_it_is_seen(tmp_path, orientation, suffix):
    back = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    back |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}  # what the camera did to what was seen
    image, exif = _picture((600, 400)), Image.Exif()
    if orientation in back:
        image = image.transpose(Image.Transpose[back[orientation]])
    exif[0x0112] = orientation
    for number in range(2):
        image.save(tmp_path / f"{number}.{suffix}", exif=exif)
    mine = data.image_folder(tmp_path, (32, 48))
    assert _corners(mine.test.images[0]) == [RED, GREEN, BLUE]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_what_is_transparent_is_white(tmp_path, mode):
    image = Image.new("RGBA", (40, 40), (200, 0, 0, 0))  # a colour that nobody sees
    image.paste((0, 0, 0, 255), (0, 0, 40, 20))
    suffix = "tif" if mode == "PA" else "png"
    if mode == "P":
        image = Image.new("P", (40, 40), 1)
        image.putpalette([0, 0, 0, 200, 0, 0])
        image.paste(0, (0, 0, 40, 20))
        image.info["transparency"] = 1
    else:
        image = image.convert("LA" if mode == "PA" else mode)
    mine = data.image_folder(_folder(tmp_path, {f"{n}.{suffix}": image for n in range(2)}), 16)
    assert (mine.test.images[0, :, :6] < 3).all() and (mine.test.images[0, :, 10:] > 252).all()


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(
    ("suffix", "kind", "white", "maximum"),
    [
        ("png", np.uint16, 65535, None),
        ("tif", np.uint16, 65535, None),
        ("png", np.uint16, 4095, 4095),  # twelve bits
        ("tif", np.int32, 1_000_000, 1_000_000),
        ("tif", np.float32, 1, 1.0),
        ("pfm", np.float32, 1, 1.0),
    ],
)
def test_deep_pixels_are_scaled_to_white(tmp_path, suffix, kind, white, maximum, grey):
    ramp = np.repeat(np.arange(16)[:, None] / 15 * white, 16, 1)
    image = Image.fromarray(ramp.astype(kind) if kind == np.float32 else ramp.round().astype(kind))
    folder = _folder(tmp_path, {f"{n}.{suffix}": image for n in range(2)})
    mine = data.image_folder(folder, 16, grey=grey, maximum=maximum)
    assert mine.test.images[0, 0, :, 0].tolist() == [17 * row for row in range(16)]


@pytest.mark.parametrize(
    ("image", "maximum", "found"),
    [
        (np.zeros((8, 8), np.float32), None, "pixels of kind F; set `maximum` to their value of white"),
        (np.zeros((8, 8), np.int32), None, "pixels of kind I; set `maximum`"),
        (np.full((8, 8), np.nan, np.float32), 1, "pixels below 0, above `maximum`, not finite"),
        (np.full((8, 8), -1, np.int32), 4095, "pixels below 0"),  # as Pillow reads unsigned 2**32 - 1
        (np.full((8, 8), 4200, np.uint16), 4095, "pixels below 0, above `maximum`"),
    ],
)
def test_pixels_of_an_unknown_scale_are_refused(tmp_path, image, maximum, found):
    image = Image.fromarray(image)
    with pytest.raises(ValueError, match=re.escape(f"0.tif ({found}")):
        data.image_folder(_folder(tmp_path, {"0.tif": image, "1.tif": image}), 8, maximum=maximum)


def test_signed_pixels_of_8_bits_are_refused(tmp_path):
    for n in range(2):
        _picture().convert("L").save(tmp_path / f"{n}.tif", tiffinfo={339: 2})
    with pytest.raises(ValueError, match=r"0\.tif \(signed pixels of 8 bits"):
        data.image_folder(tmp_path, 8)


def test_maximum_scales_the_deep_files_only(tmp_path):
    deep, shallow = (
        Image.fromarray(np.full((8, 8), white, kind)) for white, kind in ((4095, np.uint16), (255, np.uint8))
    )
    folder = _folder(tmp_path, {"0.png": deep, "1.png": shallow})
    assert (_all(data.image_folder(folder, 8, grey=True, maximum=4095)) == 255).all()
    (folder / "0.png").unlink()
    with pytest.raises(ValueError, match="`maximum` is for files of one channel with more than 8 bits"):
        data.image_folder(folder, 8, maximum=4095)


def test_files_of_16_bits_are_refused_only_if_all_of_them_are_dark(tmp_path):
    dark, bright = (Image.fromarray(np.full((8, 8), white, np.uint16)) for white in (4095, 65535))
    folder = _folder(tmp_path, {"0.png": dark, "1.png": _picture()})
    with pytest.raises(ValueError, match=r"no pixel of 16 bits is above 4095\.0; set `maximum`"):
        data.image_folder(folder, 8)
    bright.save(folder / "2.png")
    assert len(data.image_folder(folder, 8).train) == 2


def test_a_file_or_a_size_beyond_memory_is_refused_at_once(tmp_path):
    with (tmp_path / "0.webp").open("wb") as file:
        file.truncate(2**30 + 1)  # takes no space on the disk
    with pytest.raises(ValueError, match=r"0\.webp \(larger than 1 GB"):
        data.image_folder(tmp_path, 8)
    with pytest.raises(ValueError, match="size must be at most 8192 pixels, not 40000"):
        data.image_folder(tmp_path, 40000)


def test_what_is_white_at_zero_is_turned(tmp_path):
    for n in range(2):
        Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / f"{n}.tif", tiffinfo={262: 0})
    assert (data.image_folder(tmp_path, 8, maximum=65535).test.images == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_images_of_every_mode_are_read(tmp_path, mode):
    image = Image.new("RGB", (40, 40), WHITE)
    image.paste((0, 0, 0), (0, 0, 40, 20))
    suffix = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    mine = data.image_folder(_folder(tmp_path, {f"{n}.{suffix}": image.convert(mode) for n in range(2)}), 16)
    assert (mine.test.images[0, :, :7] < 5).all() and (mine.test.images[0, :, 9:] > 250).all()


def _swapped():
    """A profile of colours whose red is the blue of sRGB, and the other way round."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")


@pytest.mark.parametrize(
    ("mode", "profile", "expected"),
    [
        ("RGB", _swapped(), BLUE),
        ("RGBA", _swapped(), BLUE),
        ("P", _swapped(), BLUE),
        ("RGB", b"no profile", RED),
        ("L", _swapped(), (76, 76, 76)),  # a profile of another kind of pixels
    ],
)
def test_colours_are_those_of_srgb(tmp_path, mode, profile, expected):
    for n in range(2):
        Image.new("RGB", (8, 8), RED).convert(mode).save(tmp_path / f"{n}.png", icc_profile=profile)
    colour = data.image_folder(tmp_path, 8).test.images[0, :, 0, 0]
    assert (colour.int() - torch.tensor(expected)).abs().max() <= 3


@pytest.mark.parametrize(("mode", "colour"), [("I;16", 300), ("RGB", (300, 0, 0))])
def test_a_transparent_colour_of_16_bits_is_told(tmp_path, mode, colour):
    for n in range(2):
        Image.new(mode, (8, 8)).save(tmp_path / f"{n}.png", transparency=colour)
    with pytest.raises(ValueError, match=r"0.png \(a transparent colour of 16 bits"):
        data.image_folder(tmp_path, 8)


def test_images_are_cropped_to_the_middle(tmp_path):
    image = Image.new("RGB", (400, 40), RED)
    image.paste(BLUE, (180, 0, 220, 40))
    images = {"a.png": image, "b.png": image.transpose(Image.Transpose.ROTATE_90)}
    mine = data.image_folder(_folder(tmp_path, images), 20)
    assert (_all(mine).int() - torch.tensor(BLUE).reshape(3, 1, 1)).abs().max() < 20  # the edge mixes with the next


def test_a_large_jpeg_stays_as_sharp_as_its_size_allows(tmp_path):
    stripes = Image.fromarray(np.tile(np.repeat([0, 255], 4), (256, 32)).astype(np.uint8))
    mine = data.image_folder(
        _folder(tmp_path, {"a.jpg": stripes, "b.jpg": stripes.transpose(Image.Transpose.ROTATE_90)}), 64, grey=True
    )
    assert _all(mine).double().std() > 60  # each stripe is a pixel wide


# Which are read


def test_subfolders_are_classes_and_every_tenth_image_is_for_testing(tmp_path, capsys):
    _greys(tmp_path / "pets", [f"{kind}/{n:02}.png" for kind in ("cats", "dogs") for n in range(15)])
    mine = data.image_folder(tmp_path / "pets", 8, grey=True)
    assert (mine.name, mine.names, len(mine.train), len(mine.test)) == ("pets-8x8-grey", ("cats", "dogs"), 27, 3)
    assert mine.test.images[:, 0, 0, 0].tolist() == [128, 138, 148] and mine.test.labels.tolist() == [0, 0, 1]
    assert mine.origin == "27 images for training, 3 for testing, classes: 2 (cats, dogs)"
    assert capsys.readouterr().out == f"pets: {mine.origin}\n"
    other = data.image_folder(tmp_path / "pets", 8, "other", grey=True)
    assert (other.name, other.fingerprint) == ("other", mine.fingerprint)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("trainA", "testA"),
        ("TRAIN", "dev"),
        ("traindata", "testdata"),
        ("DIV2K_train_HR", "DIV2K_valid_HR"),
        ("data/v2/train/images", "data/v2/test/images"),
        ("train/train", "test/test"),
    ],
)
@pytest.mark.parametrize("form", ["{part}/{kind}/{n}.png", "{part}/{n}.png", "{kind}/{part}/{n}.png"])
def test_the_test_images_of_a_folder_that_has_such_are_not_trained_on(tmp_path, train, test, form):
    kinds = ["a", "b"]
    places = [(part, kind, n) for part in (train, test) for n, kind in enumerate(kinds * 3)]
    greys = _greys(tmp_path, [form.format(part=part, kind=kind, n=n) for part, kind, n in places] + ["unlabeled/1.png"])
    expected = [*greys.values()]
    mine = data.image_folder(tmp_path, 8)
    assert (_seen(mine.train), _seen(mine.test)) == (expected[:6], expected[6:12])
    if "kind" in form and "images" not in train:
        assert (mine.names, mine.train.labels.sum(), mine.test.labels.sum()) == (("a", "b"), 3, 3)
    assert mine.origin.endswith("; 1 images are in neither of the two folders, and not used")


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["1.png", "a/2.png", "b/3.png"], ("all",)),  # some lie beside the folders
        (["data/cat/1.png", "data/dog/2.png"], ("cat", "dog")),
        (["cat/1.png", "cat/2.png"], ("cat",)),
        (["train/cat/1.png", "train/dog/2.png"], ("cat", "dog")),
        (["a/b/1.png", "a/c/2.png", "d/3.png"], ("a", "d")),
        (["contest/1.png", "strain/2.png", "background/3.png"], ("background", "contest", "strain")),
    ],
)
def test_the_classes_are_told(tmp_path, names, classes):
    _greys(tmp_path, names)
    mine = data.image_folder(tmp_path, 8)
    assert (len(_all(mine)), mine.names) == (len(names), classes)
    assert f"classes: {len(classes)} ({', '.join(classes)})" in mine.origin


@pytest.mark.parametrize(
    "names",
    [
        ("train", "unseen"),
        ("images_background", "images_evaluation"),
        ("test_tube", "training_shoes"),
        ("no_test", "no_train"),
        ("test", "test_labels", "train"),
        ("testA", "testB", "trainA", "trainB"),
        ("fold1/test", "fold1/train", "fold2/test", "fold2/train"),
        ("cvA", "cvB"),
        ("bustest", "bustrain"),
        ("te", "tr"),
        ("Gallery", "query"),
    ],
)
def test_folders_that_may_be_parts_are_no_classes(tmp_path, names):
    _greys(tmp_path, [f"{name}/1.png" for name in names])
    parts = [name.split("/")[:1] if name.startswith("fold") else name.split("/") for name in names]
    folders = ", ".join(sorted({*chain(*parts)}))
    with pytest.raises(ValueError, match=f"unclear whether the folders {folders} are classes; name split folders"):
        data.image_folder(tmp_path, 8)


def test_images_that_are_in_both_parts_are_told(tmp_path):
    _greys(tmp_path, ["train/1.png", "train/2.png", "test/3.png"])
    (tmp_path / "test" / "again.png").hardlink_to(tmp_path / "train" / "1.png")
    with pytest.warns(UserWarning, match="1 of the test images are train images too"):
        data.image_folder(tmp_path, 8)


def test_links_to_folders_are_followed_once(tmp_path, capsys):
    _greys(tmp_path / "else", ["cat/1.png", "cat/2.png", "dog/3.png"])
    _greys(tmp_path / "mine", ["owl/4.png"])
    for link, target in {"cat": "else/cat", "a": "b", "b": "else/dog", "again": "else/cat", "owl/up": "mine"}.items():
        (tmp_path / "mine" / link).symlink_to(tmp_path / ("mine/b" if target == "b" else target))
    mine = data.image_folder(tmp_path / "mine", 8)
    assert (len(_all(mine)), mine.names) == (4, ("a", "again", "owl"))
    assert "left out: 3 (b, cat, owl/up) files" in capsys.readouterr().out


def test_a_folder_that_is_a_link_is_a_part(tmp_path):
    _greys(tmp_path / "else", ["cat/1.png", "dog/2.png"])
    greys = _greys(tmp_path / "mine", ["train/cat/1.png", "train/dog/2.png"])
    (tmp_path / "mine" / "val").symlink_to(tmp_path / "else")
    mine = data.image_folder(tmp_path / "mine", 8)
    assert (_seen(mine.train), len(mine.test), mine.names) == ([*greys.values()], 2, ("cat", "dog"))


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp", "png"])
def test_of_a_stack_the_first_page_is_read_which_is_told(tmp_path, suffix):
    pages = [Image.new("RGB", (8, 8), (grey, grey, grey)) for grey in (40, 120, 200)]
    for n in range(2):
        pages[0].save(tmp_path / f"{n}.{suffix}", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / f"2.{suffix}")
    mine = data.image_folder(tmp_path, 8)
    assert (_all(mine).int() - 40).abs().max() <= 2
    assert mine.origin.endswith("; of 2 files with several pages only the first is read")


@pytest.mark.parametrize(("first", "second"), [("🐱", "🐶"), ("猫 🐱", "猫 🐶"), ("\udcc4", "\udcc5"), ("a b", "b a")])
def test_folders_of_other_names_have_other_names(tmp_path, capsys, first, second):
    names = []
    for folder in (first, second):
        _greys(tmp_path / folder, ["1.png", "2.png"])
        names.append(data.image_folder(tmp_path / folder, 8).name)
    assert names[0] != names[1] and all(re.fullmatch(r"[\w-]+-8x8", name) for name in names)


def test_what_is_no_image_is_left_out_and_told(tmp_path, capsys):
    files = {"1.png": _picture(), "2.JPG": _picture(), "._2.JPG": b"a Macintosh's", ".thumbs/3.png": _picture()}
    files |= {"notes.txt": b"of mine", "labels.h5": b"of Keras", "film.mpg": b"of a telephone"}
    mine = data.image_folder(_folder(tmp_path, files), 16)
    assert len(_all(mine)) == 2
    assert "left out: 3 (film.mpg, labels.h5, notes.txt) files" in capsys.readouterr().out


def test_unreadable_files_are_named_all_at_once(tmp_path):
    whole = _folder(tmp_path / "else", {"4.png": _picture()}) / "4.png"
    files = {f"{n}.png": _picture() for n in range(4)}
    files |= {"cut.jpg": b"", "text.png": b"no picture", "4.png": whole.read_bytes()[:-40], "5.heic": b"of a telephone"}
    folder = _folder(tmp_path / "mine" / "deep", files)
    (folder / "gone.png").symlink_to("/dev/null")
    with pytest.raises(ValueError, match=re.escape(f"5 images in {folder.parent} cannot be read; repair")) as error:
        data.image_folder(folder.parent, 16)
    assert all(f"deep/{name}" in str(error.value) for name in ("4.png", "cut.jpg", "text.png", "gone.png", "5.heic"))
    assert "cut.jpg (empty, damaged or of unknown kind; convert HEIC to JPEG" in str(error.value)
    with pytest.warns(UserWarning, match="left out"):
        mine = data.image_folder(folder.parent, 16, skip_damaged=True)
    assert len(_all(mine)) == 4 and "left out: 5 (" in mine.origin


@pytest.mark.parametrize("closed", [".", "test", "test/b", "train/a"])
def test_a_folder_that_cannot_be_read_is_named_and_not_left_out(tmp_path, monkeypatch, closed):
    places = [f"{split}/{kind}/{n}.png" for split in ("train", "test") for kind in "ab" for n in range(3)]
    folder = _folder(tmp_path, dict.fromkeys(places, _picture()))
    scandir = os.scandir

    def refusing(path):
        if Path(path) == folder / closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ValueError, match=re.escape(f"{closed} (folder: Permission denied)")):
        data.image_folder(folder, 8)


def test_an_image_that_is_too_large_is_told_with_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(ValueError, match=r"a larger PIL.Image.MAX_IMAGE_PIXELS is needed"):
        data.image_folder(_folder(tmp_path, {f"{n}.png": _picture() for n in range(2)}), 8)


@pytest.mark.parametrize(
    ("files", "error", "found"),
    [
        (None, FileNotFoundError, "doesn't exist or isn't a folder"),
        ({}, ValueError, "has 0 readable images and 0 other files"),
        ({"notes.txt": b""}, ValueError, "has 0 readable images and 1 (notes.txt) other files; training needs"),
        ({"1.png": _picture()}, ValueError, "has 1 readable images"),
    ],
)
def test_a_folder_that_cannot_do_is_named(tmp_path, monkeypatch, files, error, found):
    monkeypatch.chdir(tmp_path)
    if files is not None:
        _folder(tmp_path / "mine", files).mkdir(exist_ok=True)
    with pytest.raises(error, match=re.escape(f"{tmp_path / 'mine'} {found}")):
        data.image_folder("mine", 16)


@pytest.mark.parametrize("size", [0, -1, (16,), (16, 0), 16.5, "16", None, True, (1, 2, 3), [16, 16]])
def test_a_size_that_cannot_be_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match=r"^size, or each of \(height, width\), must be a whole number of at least 1"):
        data.image_folder(tmp_path, size)
    with pytest.raises(ValueError, match="the folder's name is empty"):
        data.image_folder("", 16)
    for maximum in (0, math.nan, math.inf, "4095", True):
        with pytest.raises(ValueError, match=f"maximum must be a positive number, not {maximum!r}"):
            data.image_folder(tmp_path, 8, maximum=maximum)


def test_one_photograph_at_a_time_is_held(tmp_path):
    """16 of 3 megapixels, which are 0.19 GB of pixels, in less than 0.12 GB."""
    Image.new("RGBA", (2000, 1500), "red").save(tmp_path / "0.png", compress_level=1)
    for number in range(1, 16):
        (tmp_path / f"{number}.png").symlink_to(tmp_path / "0.png")
    code = """if True:
        import resource, sys
        from vaelib import data
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        data.image_folder(sys.argv[1], 64)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    told = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, check=True, text=True)
    assert int(told.stdout.split()[-1]) < 120_000  # kB


@pytest.mark.parametrize("white", [4095, 65535])
@pytest.mark.parametrize("maximum", [None, 4095, 65535])
def test_a_file_that_says_its_maximum_is_read_by_it(tmp_path, white, maximum):
    content = f"P5 8 8 {white}\n".encode() + np.full(64, white // 4, ">u2").tobytes()
    for number in range(11):
        (tmp_path / f"{number}.pgm").write_bytes(content)
    assert data.image_folder(tmp_path, 8, grey=True, maximum=maximum).train.images.unique().tolist() == [64]
