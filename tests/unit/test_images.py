"""A folder of one's own images: every form of file that people have, read as it is seen."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

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


def _all(mine):
    return torch.cat([mine.train.images, mine.test.images])


@pytest.mark.parametrize(
    "suffix", ["jpg", "JPG", "jpeg", "JPEG", "png", "PNG", "webp", "bmp", "tif", "TIFF", "gif", "jp2"]
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
    elif mode == "PA":
        image = image.convert("LA")
    else:
        image = image.convert(mode)
    mine = data.image_folder(_folder(tmp_path, {f"{n}.{suffix}": image for n in range(2)}), 16)
    assert (mine.test.images[0, :, :6] < 3).all() and (mine.test.images[0, :, 10:] > 252).all()


def test_half_transparent_is_half_white(tmp_path):
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 128))
    mine = data.image_folder(_folder(tmp_path, {f"{n}.png": image for n in range(2)}), 16, grey=True)
    assert mine.image_shape == (1, 16, 16) and (mine.test.images == 127).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("grey", [False, True])
def test_sixteen_bits_keep_their_scale(tmp_path, suffix, grey):
    ramp = Image.fromarray(np.repeat(np.arange(16, dtype=np.uint16)[:, None] * 4369, 16, 1))  # 0 to 65535
    mine = data.image_folder(_folder(tmp_path, {f"{n}.{suffix}": ramp for n in range(2)}), 16, grey=grey)
    assert mine.test.images[0, 0, :, 0].tolist() == [17 * row for row in range(16)]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_images_of_every_mode_are_read(tmp_path, mode):
    image = Image.new("RGB", (40, 40), WHITE)
    image.paste((0, 0, 0), (0, 0, 40, 20))
    suffix = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    mine = data.image_folder(_folder(tmp_path, {f"{n}.{suffix}": image.convert(mode) for n in range(2)}), 16)
    assert (mine.test.images[0, :, :7] < 5).all() and (mine.test.images[0, :, 9:] > 250).all()


def test_images_are_cropped_to_the_middle(tmp_path):
    image = Image.new("RGB", (400, 40), RED)
    image.paste(BLUE, (180, 0, 220, 40))
    images = {"a.png": image, "b.png": image.transpose(Image.Transpose.ROTATE_90)}
    mine = data.image_folder(_folder(tmp_path, images), 20)
    assert (_all(mine).int() - torch.tensor(BLUE).reshape(3, 1, 1)).abs().max() < 20  # the edge mixes with the next


# Which are read


def test_subfolders_are_classes_and_every_tenth_image_is_for_testing(tmp_path, capsys):
    greys = {f"{kind}/{n:02}.png": Image.new("L", (8, 8), 200 + n) for kind in ("cats", "dogs") for n in range(15)}
    mine = data.image_folder(_folder(tmp_path / "pets", greys), 8, grey=True)
    assert (mine.name, mine.names, len(mine.train), len(mine.test)) == ("pets-8x8", ("cats", "dogs"), 27, 3)
    assert mine.test.images[:, 0, 0, 0].tolist() == [200, 210, 205] and mine.test.labels.tolist() == [0, 0, 1]
    assert mine.origin == "27 images for training, 3 for testing, 2 classes" and mine.origin in capsys.readouterr().out


def test_the_fingerprint_is_of_what_was_read(tmp_path):
    _folder(tmp_path, {f"{n}.png": _picture() for n in range(3)})
    first = data.image_folder(tmp_path, 16).fingerprint
    assert data.image_folder(tmp_path, 16, name="other").fingerprint == first
    assert data.image_folder(tmp_path, 18).fingerprint != first
    Image.new("RGB", (40, 40), WHITE).save(tmp_path / "1.png")
    assert data.image_folder(tmp_path, 16).fingerprint != first


@pytest.mark.parametrize("test", ["test", "val", "Valid"])
def test_the_test_images_of_a_folder_that_has_such_are_not_trained_on(tmp_path, test):
    greys = {"Train/a/1.png": 200, "Train/b/2.png": 201, f"{test}/a/3.png": 202, f"{test}/b/4.png": 203}
    mine = data.image_folder(_folder(tmp_path, {name: Image.new("L", (8, 8), grey) for name, grey in greys.items()}), 8)
    assert (mine.train.images[:, 0, 0, 0].tolist(), mine.test.images[:, 0, 0, 0].tolist()) == ([200, 201], [202, 203])
    assert (mine.names, mine.train.labels.tolist(), mine.test.labels.tolist()) == (("a", "b"), [0, 1], [0, 1])


def test_images_in_another_part_are_told_as_not_used(tmp_path):
    names = [f"{part}/{n}.png" for part in ("train", "test", "val") for n in range(2)]
    mine = data.image_folder(_folder(tmp_path, {name: _picture() for name in names}), 8)
    assert (len(mine.train), len(mine.test)) == (2, 2)
    assert mine.origin.endswith("; not used, as they are neither in train nor in the folder for testing: 2 images")


def test_images_in_subfolders_and_beside_them_have_no_classes(tmp_path):
    mine = data.image_folder(_folder(tmp_path, {"1.png": _picture(), "a/2.png": _picture(), "b/3.png": _picture()}), 8)
    assert (len(_all(mine)), mine.names) == (3, ("all",))
    assert mine.origin.endswith("no classes, as some lie in subfolders and some do not")


def test_a_jpeg_that_is_named_as_a_telephones_is_read(tmp_path):
    _folder(tmp_path, {f"{n}.jpg": _picture() for n in range(3)})
    (tmp_path / "0.jpg").rename(tmp_path / "0.HEIC")
    assert len(_all(data.image_folder(tmp_path, 16))) == 3


def test_an_empty_name_is_no_folder():
    with pytest.raises(ValueError, match="the folder's name is empty"):
        data.image_folder("", 16)


def test_what_is_no_image_is_left_out_and_told(tmp_path, capsys):
    files = {"1.png": _picture(), "2.JPG": _picture(), "._2.JPG": b"a Macintosh's", ".thumbs/3.png": _picture()}
    with pytest.warns(UserWarning, match="1 photographs such as 4.heic; save .* pillow-heif"):
        mine = data.image_folder(_folder(tmp_path, files | {"notes.txt": b"of mine", "4.heic": b"of a telephone"}), 16)
    assert len(_all(mine)) == 2
    assert "left out: 2 files (4.heic, notes.txt)" in capsys.readouterr().out


def test_unreadable_files_are_named_all_at_once(tmp_path):
    files = {f"{n}.png": _picture() for n in range(5)} | {"deep/cut.jpg": b"", "deep/text.png": b"no picture"}
    _folder(tmp_path, {f"deep/{name}": image for name, image in files.items() if "/" not in name} | files)
    for n in range(5):
        (tmp_path / f"{n}.png").unlink()
    (tmp_path / "deep" / "4.png").write_bytes((tmp_path / "deep" / "4.png").read_bytes()[:-40])
    (tmp_path / "deep" / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=re.escape(f"4 of 8 images in {tmp_path} cannot be read")) as error:
        data.image_folder(tmp_path, 16)
    assert all(f"deep/{name}" in str(error.value) for name in ("4.png", "cut.jpg", "text.png", "gone.png"))
    with pytest.warns(UserWarning, match="left out"):
        mine = data.image_folder(tmp_path, 16, skip_damaged=True)
    assert len(_all(mine)) == 4 and "left out: 4 files" in mine.origin


def test_pixels_of_an_unknown_scale_are_refused(tmp_path):
    for number in range(2):
        Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / f"{number}.tif")
    with pytest.raises(ValueError, match=r"0\.tif \(pixels of kind F"):
        data.image_folder(tmp_path, 8)


@pytest.mark.parametrize(
    ("files", "error", "found"),
    [
        (None, FileNotFoundError, "is no folder"),
        ({}, ValueError, "has 0 images that can be read, and 0 other files"),
        (
            {"notes.txt": b""},
            ValueError,
            "has 0 images that can be read, and 1 other files (notes.txt); a training needs eleven",
        ),
        ({"1.png": _picture()}, ValueError, "has 1 images that can be read"),
    ],
)
def test_a_folder_that_cannot_do_is_named(tmp_path, monkeypatch, files, error, found):
    monkeypatch.chdir(tmp_path)
    if files is not None:
        _folder(tmp_path / "mine", files).mkdir(exist_ok=True)
    with pytest.raises(error, match=re.escape(f"{tmp_path / 'mine'} {found}")):
        data.image_folder("mine", 16)


@pytest.mark.parametrize("size", [0, -1, (16,), (16, 0), 16.5, "16", None, (1, 2, 3), [16, 16]])
def test_a_size_that_cannot_be_is_refused(tmp_path, size):
    _folder(tmp_path, {f"{n}.png": _picture() for n in range(2)})
    with pytest.raises(ValueError, match=re.escape(f"not {size!r}")):
        data.image_folder(tmp_path, size)


def test_one_photograph_at_a_time_is_held(tmp_path):
    """24 of 12 megapixels, which are 0.9 GB of pixels, in less than half a gigabyte."""
    photograph = Image.effect_noise((400, 300), 50).resize((4000, 3000)).convert("RGB")
    photograph.save(tmp_path / "0.jpg")
    photograph.convert("RGBA").save(tmp_path / "1.png", compress_level=1)
    for number in range(2, 24):
        (tmp_path / f"{number}{'.jpg' if number % 4 else '.png'}").symlink_to(
            tmp_path / ("0.jpg" if number % 4 else "1.png")
        )
    code = """if True:
        import resource, sys
        from vaelib import data
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        data.image_folder(sys.argv[1], 64)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    told = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, check=True, text=True)
    assert int(told.stdout.split()[-1]) < 450_000  # kB
