"""The data sets: the bundled digits, MNIST's files in every state they may be in, and what the wrappers refuse."""

import functools
import gzip
import hashlib
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.datasets import EMNIST, MNIST, QMNIST, FashionMNIST

import vaelib
from vaelib import data
from vaelib.data import Dataset, Split, mnist, paths, to_float

PAGE = Path(__file__).parents[2] / "book" / "mnist" / "train.ipynb"
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
TEST = np.arange(1797) % 6 == 0  # of scikit-learn's digits


def _idx(values):
    """The IDX format: zero, zero, type 8, number of axes; each axis's length as a big-endian integer; the values."""
    lengths = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return bytes([0, 0, 8, values.ndim]) + lengths + values.tobytes()


@pytest.fixture
def arrays(monkeypatch):
    """A small MNIST, one array a file; its sums stand in for the real ones, and no mirror answers."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 12), ("t10k", 5)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, count, np.uint8)
    resources = [(f"{name}.gz", hashlib.md5(_packed(arrays[name])).hexdigest()) for name in NAMES]
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setattr(mnist, "CONTENT", {name: hashlib.sha256(_idx(arrays[name])).hexdigest() for name in NAMES})
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("VAELIB_DATA", raising=False)
    return arrays


def _packed(array):
    return gzip.compress(_idx(array), mtime=0)


def _lay_out(folder, arrays, unpacked=()):
    """Put the files where they belong, packed but for the named ones; returns the folder they are in."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, array in arrays.items():
        if name in unpacked:
            (raw / name).write_bytes(_idx(array))
        else:
            (raw / f"{name}.gz").write_bytes(_packed(array))
    return raw


def _contents(folder):
    """Everything below a folder, with each file's content and the time of its last change."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None for path in folder.rglob("*")
    }


def _files(folder):
    """The names of all files, but for the empty one by which a folder is held."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


@contextmanager
def _mirror(monkeypatch, folder):
    """Serve a folder over HTTP as MNIST's only mirror."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _split(count=4, shape=(1, 3, 3), seed=0):
    """Images that are white somewhere, each of a class of its own."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    images[:, 0, 0, 0] = 255
    return Split(images, torch.arange(count))


def _sampling(count, places):
    """The matrix that interpolates linearly between `count` values, at places in between."""
    return np.stack([np.interp(places, np.arange(count), unit) for unit in np.eye(count)], 1)


# The digits


def test_digits_are_uint8_images_of_mnists_size(digits):
    assert (digits.train.images.shape, digits.test.images.shape) == ((1497, 1, 28, 28), (300, 1, 28, 28))
    assert digits.train.images.dtype == digits.test.images.dtype == torch.uint8
    assert (len(digits.train), len(digits.test), digits.image_shape) == (1497, 300, (1, 28, 28))
    assert digits.name == "digits"


def test_every_digit_is_in_both_splits(digits):
    assert digits.names == tuple("0123456789")
    for split in (digits.train, digits.test):
        assert split.labels.unique().tolist() == list(range(10))


def test_every_sixth_digit_is_a_test_image_with_its_own_label(digits):
    labels = load_digits().target
    assert digits.train.labels.tolist() == labels[~TEST].tolist()
    assert digits.test.labels.tolist() == labels[TEST].tolist()


def test_digits_are_the_source_enlarged(digits):
    source = load_digits().images[TEST] * 255 / 16
    weights = _sampling(28, np.arange(8) * 3.5 + 1.25)  # the centres of the source's pixels
    small = weights @ digits.test.images[:, 0].double().numpy() @ weights.T
    assert np.abs(small - source).mean() < 5  # of 255
    assert np.abs(small - np.roll(source, 1, 0)).mean() > 40  # no image is like the one before it


def test_no_test_digit_is_also_a_training_one_unless_the_source_repeats_it(digits):
    def repeated(train, test):
        known = {image.tobytes() for image in train}
        return [image.tobytes() in known for image in test]

    source = load_digits().images
    enlarged = repeated(digits.train.images.numpy(), digits.test.images.numpy())
    assert enlarged == repeated(source[~TEST], source[TEST])


def test_digits_need_no_folder(tmp_path):
    data.load("digits", tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_the_digits_are_the_same_bytes_on_every_processor(digits, capability):
    """With and without vector instructions, whose rounding errors differ; on those that lack some, all the same."""
    assert digits.fingerprint == "fc0416564bf4f50b"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    code = "from vaelib import data; print(data.load('digits').fingerprint)"
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    assert told.stdout.split() == [digits.fingerprint]


# The wrappers


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("tensor", ["images", "labels"])
def test_the_fingerprint_changes_with_every_pixel_and_label(part, tensor):
    splits = {"train": _split(), "test": _split(seed=1)}
    before = Dataset("mine", **splits, names="abcd").fingerprint
    getattr(splits[part], tensor).view(-1)[-1] -= 1
    assert Dataset("mine", **splits, names="abcd").fingerprint != before


def test_the_fingerprint_changes_with_the_shape():
    flat, tall = (_split(shape=shape) for shape in ((1, 2, 8), (1, 8, 2)))
    tall = Split(flat.images.reshape(tall.images.shape), flat.labels)
    assert Dataset("mine", flat, flat, "abcd").fingerprint != Dataset("mine", tall, tall, "abcd").fingerprint


def test_a_changed_copy_has_a_fingerprint_of_its_own():
    mine = Dataset("mine", _split(), _split(), "abcd")
    assert replace(mine, train=_split(seed=1)).fingerprint != mine.fingerprint
    assert replace(mine, name="other").fingerprint == mine.fingerprint


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (torch.zeros(4, 1, 3, 3, dtype=torch.int32), "torch.int32 of shape (4, 1, 3, 3)"),
        (torch.zeros(4, 3, 3, dtype=torch.uint8), "torch.uint8 of shape (4, 3, 3)"),
        (torch.zeros(0, 1, 3, 3, dtype=torch.uint8), "torch.uint8 of shape (0, 1, 3, 3)"),
    ],
)
def test_a_split_refuses_what_are_not_images(images, found):
    expected = "uint8 or uint16 pixels or of floats, of shape (N, C, H, W)"
    with pytest.raises(ValueError, match=f"{re.escape(expected)}.*{re.escape(found)}"):
        Split(images, torch.zeros(len(images)))


def test_a_split_refuses_another_number_of_labels():
    with pytest.raises(ValueError, match="4 images but 3 labels"):
        Split(torch.zeros(4, 1, 3, 3, dtype=torch.uint8), torch.zeros(3))


def test_images_need_no_labels(tiny, tmp_path):
    train, test = (Split(split.images[:60]) for split in (tiny.train, tiny.test))
    mine = Dataset("mine", train, test)
    assert mine.names == () and mine.train.labels.shape == (60, 0)
    assert mine.fingerprint != Dataset("mine", test, train).fingerprint
    assert vaelib.train(mine, vaelib.TrainConfig(2, 1), tmp_path, "cpu").evaluation["test_elbo"] < 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_that_come_last_are_noticed(channels):
    images = torch.zeros(5, 64, 48, channels, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"look like \(N, H, W, C\).*images.permute\(0, 3, 1, 2\)"):
        Split(images)
    with pytest.warns(UserWarning, match="largest pixel value"):
        assert Split(images.permute(0, 3, 1, 2)).images.shape == (5, channels, 64, 48)


def test_a_split_refuses_what_are_no_tensors():
    images = torch.zeros(4, 1, 3, 3, dtype=torch.uint8)
    for wrong in (images.numpy(), torch.zeros(4)), (images, [0, 1, 2, 3]):
        with pytest.raises(ValueError, match="must be tensors"):
            Split(*wrong)


@pytest.mark.parametrize("name", ["", "a/b", "/tmp/a", "a b"])
def test_a_dataset_refuses_a_name_that_is_no_part_of_a_folders(name):
    with pytest.raises(ValueError, match="a name becomes part of a folder's"):
        Dataset(name, _split(), _split(), ())


@pytest.mark.parametrize("largest", [0, 1, 16, 127])
def test_pixels_on_another_scale_are_warned_of(largest):
    images = torch.full((200, 1, 3, 3), largest, dtype=torch.uint8)
    with pytest.warns(UserWarning, match=f"largest pixel value is {largest}; white is 255"):
        Split(images, torch.zeros(200))


def test_dark_images_before_bright_ones_are_nothing_to_warn_of(recwarn):
    images = torch.zeros(200, 1, 3, 3, dtype=torch.uint8)
    images[-1] = 128
    Split(images, torch.zeros(200))
    assert len(recwarn) == 0


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (torch.tensor([0, 1, 2, 3]), "torch.int64 of shape (4,), from 0 to 3; with 3 names they must be whole numbers"),
        (torch.tensor([-1, 1, 1, -1]), "from -1 to 1"),
        (torch.tensor([200, 1, 1, 0], dtype=torch.uint8), "torch.uint8 of shape (4,), from 0 to 200"),
        (torch.zeros(4), "torch.float32 of shape (4,)"),
        (torch.zeros(4, 1, dtype=torch.int64), "torch.int64 of shape (4, 1)"),
        (torch.zeros(4, 3, dtype=torch.int64), "or torch.bool of shape (N, 3)"),
        (torch.ones(4, 3), "torch.float32 of shape (4, 3)"),
        (torch.zeros(4, 40, dtype=torch.bool), "torch.bool of shape (4, 40)"),
        (torch.zeros(4, dtype=torch.bool), "torch.bool of shape (4,)"),
        (torch.zeros(4, 3, 1, dtype=torch.bool), "torch.bool of shape (4, 3, 1)"),
        (torch.zeros(4, dtype=torch.complex64), "torch.complex64"),
    ],
)
def test_a_dataset_refuses_labels_that_cannot_be(part, labels, found):
    right = Split(_split().images, torch.tensor([0, 1, 2, 2]))
    splits = {"train": right, "test": right, part: Split(right.images, labels)}
    with pytest.raises(ValueError, match=f"the {part} labels are .*{re.escape(found)}"):
        Dataset("mine", **splits, names=("a", "b", "c"))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64])
def test_class_numbers_are_of_any_whole_kind(kind):
    split = Split(_split().images, torch.tensor([0, 1, 2, 2], dtype=kind))
    assert Dataset("mine", split, split, ("a", "b", "c")).train.labels.dtype == kind


def test_a_split_takes_a_column_an_attribute():
    labels = torch.zeros(4, 40, dtype=torch.bool)
    split = Split(_split().images, labels)
    assert Dataset("mine", split, split, tuple(map(str, range(40)))).train.labels is labels


def test_a_dataset_refuses_splits_of_different_shapes():
    with pytest.raises(ValueError, match=re.escape("torch.uint8 (1, 3, 3) and torch.uint8 (1, 3, 4)")):
        Dataset("mine", _split(), _split(shape=(1, 3, 4)), "abcd")


def test_to_float_divides_by_255():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(2, 2, 8, 8)
    before = pixels.clone()
    values = to_float(pixels)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), before.double() / 255, rtol=1e-7, atol=0)
    assert (values.min(), values.max()) == (0, 1)
    assert torch.equal(pixels, before)


def test_to_float_leaves_floats_as_they_are_and_refuses_other_numbers():
    values = torch.ones(2, 1, 3, 3)
    assert torch.equal(to_float(values), values)
    with pytest.raises(ValueError, match=r"expected uint8 or uint16 pixels, or floats, got torch.int32"):
        to_float(values.int())
    assert torch.equal(values, torch.ones(2, 1, 3, 3))


def test_an_attribute_is_known_by_its_column():
    faces = Dataset("mine", _split(), _split(), ("Male", "Smiling", "Big_Nose", "Big_Lips"))
    assert [faces.column(name) for name in faces.names] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"'smiling' is none of the 4 attributes of 'mine'; there is Smiling$"):
        faces.column("smiling")
    with pytest.raises(ValueError, match=r"there is Big_Nose$"):
        faces.column("Big_Noses")
    with pytest.raises(ValueError, match=r"there is Male, Smiling, Big_Nose, Big_Lips$"):
        faces.column("Hat")


# MNIST

LAYOUTS = {"packed": (), "unpacked": NAMES, "mixed": NAMES[1:3]}


@pytest.mark.parametrize("unpacked", LAYOUTS.values(), ids=LAYOUTS)
def test_mnist_is_read_from_packed_and_unpacked_files(tmp_path, arrays, unpacked):
    _lay_out(tmp_path, arrays, unpacked)
    mnist = data.load("mnist", tmp_path)
    for split, part in ((mnist.train, "train"), (mnist.test, "t10k")):
        assert np.array_equal(split.images[:, 0].numpy(), arrays[f"{part}-images-idx3-ubyte"])
        assert split.labels.tolist() == arrays[f"{part}-labels-idx1-ubyte"].tolist()
    assert (mnist.name, mnist.image_shape, mnist.names) == ("mnist", (1, 28, 28), tuple("0123456789"))


def test_mnists_fingerprint_is_the_same_for_every_layout(tmp_path, arrays):
    for layout, unpacked in LAYOUTS.items():
        _lay_out(tmp_path / layout, arrays, unpacked)
    assert len({data.load("mnist", tmp_path / layout).fingerprint for layout in LAYOUTS}) == 1


@pytest.mark.parametrize("unpacked", LAYOUTS.values(), ids=LAYOUTS)
def test_reading_mnist_changes_nothing_in_its_folder(tmp_path, arrays, unpacked):
    _lay_out(tmp_path, arrays, unpacked)
    before = _contents(tmp_path)
    data.load("mnist", tmp_path)
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [0, 5, 0.5, -1])
def test_a_truncated_packed_file_is_refused_by_name(tmp_path, arrays, name, length):
    path = _lay_out(tmp_path, arrays) / f"{name}.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(length * len(content)) if isinstance(length, float) else length])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize("place", [0.0, 0.02, 0.5, 1.0])
def test_a_flipped_byte_of_a_packed_file_is_refused_by_name(tmp_path, arrays, place):
    path = _lay_out(tmp_path, arrays) / f"{NAMES[0]}.gz"
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_flipped_bit_of_an_unpacked_file_is_refused_by_name(tmp_path, arrays, name, place):
    path = _lay_out(tmp_path, arrays, NAMES) / name
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        data.load("mnist", tmp_path)


def test_files_that_unpack_to_what_no_memory_holds_are_refused(tmp_path, arrays, monkeypatch):
    monkeypatch.setattr(mnist, "LIMIT", 1000)
    path = _lay_out(tmp_path, arrays) / f"{NAMES[0]}.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + bytes(5_000_000)))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is damaged: 1,000 bytes"):
        data.load("mnist", tmp_path)


COPIES = {
    "Kaggle": "{stem}-idx{axes}-ubyte/{stem}-idx{axes}-ubyte",
    "with dots": "{stem}.idx{axes}-ubyte",
    "with dots, packed": "{stem}.idx{axes}-ubyte.gz",
    "both": "{stem}-idx{axes}-ubyte/{stem}.idx{axes}-ubyte",
}


@pytest.mark.parametrize("place", ["MNIST/raw", "MNIST", "mnist", "mnist/raw", "."])
@pytest.mark.parametrize("form", COPIES.values(), ids=COPIES)
def test_common_copies_of_mnist_are_read(tmp_path, arrays, place, form):
    for name, array in arrays.items():
        stem, axes = re.fullmatch(r"(.*)-idx(\d)-ubyte", name).groups()
        path = tmp_path / place / form.format(stem=stem, axes=axes)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_packed(array) if path.suffix == ".gz" else _idx(array))
    assert len(data.load("mnist", tmp_path).train) == 12


def test_equal_content_that_was_packed_otherwise_is_read(tmp_path, arrays):
    raw = _lay_out(tmp_path, arrays)
    for name, array in arrays.items():
        (raw / f"{name}.gz").write_bytes(gzip.compress(_idx(array), 1, mtime=12345))
    assert len(data.load("mnist", tmp_path).train) == 12


@pytest.mark.parametrize("unpacked", [(), NAMES], ids=["packed", "unpacked"])
def test_another_data_set_under_mnists_names_is_called_so(tmp_path, arrays, unpacked):
    other = {name: array.copy() for name, array in arrays.items()}
    for array in other.values():
        array.flat[-1] ^= 1
    raw = _lay_out(tmp_path, other, unpacked)
    with pytest.raises(ValueError, match=f"{re.escape(str(raw / NAMES[0]))}.* is not MNIST's .*another data set's"):
        data.load("mnist", tmp_path)


def test_swapped_files_are_called_what_they_are(tmp_path, arrays):
    raw = _lay_out(tmp_path, arrays, NAMES)
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        train, test = raw / f"train-{kind}", raw / f"t10k-{kind}"
        content = train.read_bytes()
        train.write_bytes(test.read_bytes())
        test.write_bytes(content)
    with pytest.raises(ValueError, match=f"is not MNIST's {NAMES[0]}: its content is MNIST's {NAMES[2]}"):
        data.load("mnist", tmp_path)


def test_a_bad_copy_is_to_be_replaced(tmp_path, arrays):
    path = _lay_out(tmp_path, arrays) / f"{NAMES[0]}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cannot be unpacked.*put a good copy in its place") as error:
        data.load("mnist", tmp_path)
    assert "delete" not in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:3], id="3 bytes"),
        pytest.param(lambda content: content[:4], id="4 bytes"),
        pytest.param(lambda content: content[:6], id="half a length"),
        pytest.param(lambda content: content[:16], id="header only"),
        pytest.param(lambda content: content[:-1], id="one byte less"),
        pytest.param(lambda content: content + b"\0", id="one byte more"),
        pytest.param(lambda content: b"\x01" + content[1:], id="no zero at the start"),
        pytest.param(lambda content: content[:2] + b"\x0d" + content[3:], id="another type"),
        pytest.param(lambda content: content[:3] + b"\x00" + content[4:], id="no axes"),
        pytest.param(lambda content: content[:3] + b"\x02" + content[4:], id="an axis less"),
        pytest.param(lambda content: content[:3] + b"\xff" + content[4:], id="255 axes"),
        pytest.param(lambda content: content[:7] + bytes([content[7] + 1]) + content[8:], id="another length"),
    ],
)
def test_a_damaged_unpacked_file_is_refused_by_name(tmp_path, arrays, damage):
    path = _lay_out(tmp_path, arrays, NAMES) / NAMES[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize(("name", "other"), [(NAMES[0], NAMES[1]), (NAMES[1], NAMES[0])])
def test_an_unpacked_file_with_the_contents_of_another_is_refused_by_name(tmp_path, arrays, name, other):
    path = _lay_out(tmp_path, arrays, NAMES) / name
    path.write_bytes(_idx(arrays[other]))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unpacked", [LAYOUTS["packed"], LAYOUTS["unpacked"]], ids=["packed", "unpacked"])
def test_a_missing_file_that_no_mirror_has_is_named(tmp_path, arrays, name, unpacked):
    raw = _lay_out(tmp_path, arrays, unpacked)
    (raw / (name if unpacked else f"{name}.gz")).unlink()
    before = _files(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{name}.gz missing in {re.escape(str(raw))}"):
        data.load("mnist", tmp_path)
    assert _files(tmp_path) == before


def test_a_failed_download_names_all_that_is_missing_and_leaves_no_file(tmp_path, arrays):
    (tmp_path / "new").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        data.load("mnist", tmp_path / "new")
    assert all(f"{name}.gz" in str(error.value) for name in NAMES)
    assert str(tmp_path / "new") in str(error.value)
    assert _files(tmp_path) == []


@pytest.mark.parametrize("name", ["mnist", "celeba", "kmnist"])
@pytest.mark.parametrize("by_variable", [True, False])
def test_nothing_is_fetched_into_a_folder_whose_name_may_be_mistyped(tmp_path, monkeypatch, name, by_variable):
    place = tmp_path / "mistyped"
    monkeypatch.setenv("VAELIB_DATA", str(place if by_variable else tmp_path))
    with pytest.raises(FileNotFoundError, match=f"there is no folder {re.escape(str(place))}; make it, if {name}"):
        data.load(name, None if by_variable else place)
    assert list(tmp_path.iterdir()) == []
    assert len(data.load("digits", place).train) == 1497  # needs none


@pytest.mark.parametrize("answer", [None, b"<html>please log in</html>"])
def test_what_arrived_before_a_download_broke_stays(tmp_path, arrays, monkeypatch, answer):
    (tmp_path / "mine").mkdir()
    served = _lay_out(tmp_path / "mirror", arrays)
    (served / f"{NAMES[2]}.gz").unlink()
    if answer:
        (served / f"{NAMES[2]}.gz").write_bytes(answer)
    with _mirror(monkeypatch, served), pytest.raises(FileNotFoundError, match="the download failed"):
        data.load("mnist", tmp_path / "mine")
    assert _files(tmp_path / "mine") == [f"{name}.gz" for name in sorted(NAMES[:2])]


def test_a_silent_network_ends_the_download(tmp_path, arrays, monkeypatch, capsys):
    """A proxy that takes connections and never answers."""
    monkeypatch.setattr(paths, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{listener.getsockname()[1]}/"])
        begun = time.monotonic()
        with pytest.raises(FileNotFoundError, match=r"the download failed.*timed out"):
            data.load("mnist", tmp_path)
    assert time.monotonic() - begun < 5
    assert capsys.readouterr().out.startswith(f"fetching {NAMES[0]}.gz, {NAMES[1]}.gz")
    assert _files(tmp_path) == []
    assert socket.getdefaulttimeout() is None


def test_a_killed_download_leaves_one_file_at_most_and_the_next_one_takes_its_place(tmp_path, arrays, monkeypatch):
    (tmp_path / "mine").mkdir()
    code = f"""
from torchvision.datasets import MNIST
import vaelib
from vaelib import data
from vaelib.data import mnist
def stop(url, root, filename, md5):
    open(filename, "wb").write(b"half")
    print("begun", flush=True)
    import time; time.sleep(60)
mnist.download_url = stop
data.load("mnist", {str(tmp_path / "mine")!r})
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("fetching") and process.stdout.readline() == "begun\n"
        process.kill()
    assert _files(tmp_path / "mine") == [f"{NAMES[0]}.gz.part"]
    with _mirror(monkeypatch, _lay_out(tmp_path / "mirror", arrays)):
        data.load("mnist", tmp_path / "mine")
    assert _files(tmp_path / "mine") == sorted(f"{name}.gz" for name in NAMES)


def test_a_mirror_that_does_not_speak_http_counts_as_a_failed_download(tmp_path, arrays, monkeypatch):
    def answer(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(10_000)
            connection.sendall(b"go away\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{listener.getsockname()[1]}/"])
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        try:
            with pytest.raises(FileNotFoundError, match="the download failed"):
                data.load("mnist", tmp_path)
        finally:
            thread.join()
    assert _files(tmp_path) == []


def test_a_download_puts_exactly_the_four_files_there(tmp_path, arrays, monkeypatch):
    (tmp_path / "mine").mkdir()
    served = _lay_out(tmp_path / "mirror", arrays)
    with _mirror(monkeypatch, served):
        mnist = data.load("mnist", tmp_path / "mine")
    raw = tmp_path / "mine" / "MNIST" / "raw"
    assert {path.name: path.read_bytes() for path in raw.iterdir() if path.name != ".lock"} == {
        f"{name}.gz": _packed(array) for name, array in arrays.items()
    }
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["MNIST"]
    assert mnist.fingerprint == data.load("mnist", tmp_path / "mirror").fingerprint


def test_a_download_leaves_the_files_that_are_there_alone(tmp_path, arrays, monkeypatch):
    served = _lay_out(tmp_path / "mirror", arrays)
    raw = _lay_out(tmp_path / "mine", arrays, NAMES[:2])
    (raw / f"{NAMES[2]}.gz").unlink()
    before = _contents(raw)
    with _mirror(monkeypatch, served):
        data.load("mnist", tmp_path / "mine")
    after = _contents(raw)
    after.pop(raw / ".lock")
    assert after.pop(raw / f"{NAMES[2]}.gz")[0] == _packed(arrays[NAMES[2]])
    assert after == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path, arrays):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "file"))):
        data.load("mnist", tmp_path / "file")


# MNIST's siblings


@pytest.fixture
def siblings(arrays, monkeypatch):
    """Fashion-MNIST, as small as the other one, with the sums that it then has; returns its arrays."""
    fashion = {name: 255 - array if "images" in name else (array + 1) % 10 for name, array in arrays.items()}
    sums = [(f"{name}.gz", hashlib.md5(_packed(fashion[name])).hexdigest()) for name in NAMES]
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    monkeypatch.setattr(FashionMNIST, "mirrors", MNIST.mirrors)
    monkeypatch.setattr(mnist, "COUNTS", {"train": 12, "t10k": 5})
    return fashion


@pytest.mark.parametrize("unpacked", LAYOUTS.values(), ids=LAYOUTS)
def test_fashion_mnist_is_loaded_by_name(tmp_path, siblings, unpacked):
    _lay_out(tmp_path, siblings, unpacked)
    (tmp_path / "MNIST").rename(tmp_path / "FashionMNIST")
    fashion = data.load("fashion-mnist", tmp_path)
    assert (fashion.name, fashion.names[:2], fashion.names[-1]) == (
        "fashion-mnist",
        ("T-shirt/top", "Trouser"),
        "Ankle boot",
    )
    assert np.array_equal(fashion.test.images[:, 0].numpy(), siblings["t10k-images-idx3-ubyte"])


def test_fashion_mnist_is_downloaded(tmp_path, siblings, monkeypatch):
    (tmp_path / "mine").mkdir()
    served = _lay_out(tmp_path / "mirror", siblings)
    with _mirror(monkeypatch, served):
        monkeypatch.setattr(FashionMNIST, "mirrors", MNIST.mirrors)
        assert len(data.load("fashion-mnist", tmp_path / "mine").train) == 12
    assert len(list((tmp_path / "mine" / "FashionMNIST" / "raw").glob("*.gz"))) == 4


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda arrays: arrays | {NAMES[1]: arrays[NAMES[1]] * 0 + 200}, id="label 200"),
        pytest.param(lambda arrays: arrays | {NAMES[0]: arrays[NAMES[0]][:, :0]}, id="height 0"),
        pytest.param(lambda arrays: arrays | {NAMES[0]: arrays[NAMES[2]], NAMES[1]: arrays[NAMES[3]]}, id="swapped"),
    ],
)
def test_a_siblings_unpacked_files_have_the_right_shape(tmp_path, siblings, change):
    _lay_out(tmp_path, change(siblings), NAMES)
    (tmp_path / "MNIST").rename(tmp_path / "FashionMNIST")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "FashionMNIST" / "raw"))):
        data.load("fashion-mnist", tmp_path)


@pytest.mark.parametrize("unpacked", [(), NAMES], ids=["packed", "unpacked"])
def test_mnist_is_not_taken_for_a_sibling(tmp_path, arrays, siblings, unpacked):
    _lay_out(tmp_path, arrays, unpacked)
    (tmp_path / "MNIST").rename(tmp_path / "FashionMNIST")
    with pytest.raises(ValueError, match=r"is not FashionMNIST's .*its content is MNIST's"):
        data.load("fashion-mnist", tmp_path)


@pytest.fixture
def rare(tmp_path):
    """QMNIST and a part of EMNIST, as torchvision unpacks them: the one has many labels an image, the other lies."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 28, 28), np.uint8)
    labels = np.array([3, 1, 26, 1, 5], np.uint8)
    for folder in ("QMNIST", "EMNIST"):
        (tmp_path / folder / "raw").mkdir(parents=True)
    for part in ("train", "test"):
        raw = tmp_path / "QMNIST" / "raw"
        (raw / f"qmnist-{part}-images-idx3-ubyte").write_bytes(_idx(images))
        rows = np.zeros((5, 8), ">i4")
        rows[:, 0] = labels % 10
        (raw / f"qmnist-{part}-labels-idx2-int").write_bytes(b"\0\0\x0c\2" + _idx(rows)[4:])
        raw = tmp_path / "EMNIST" / "raw"
        (raw / f"emnist-letters-{part}-images-idx3-ubyte").write_bytes(_idx(images))
        (raw / f"emnist-letters-{part}-labels-idx1-ubyte").write_bytes(_idx(labels))
    return images, labels


def test_qmnist_and_emnist_are_loaded_by_name(tmp_path, rare):
    images, labels = rare
    qmnist, emnist = data.load("qmnist", tmp_path), data.load("emnist-letters", tmp_path)
    assert np.array_equal(qmnist.train.images[:, 0].numpy(), images)
    assert np.array_equal(qmnist.test.labels.numpy(), labels % 10) and qmnist.names == tuple("0123456789")
    assert np.array_equal(emnist.test.images[:, 0].numpy(), images.transpose(0, 2, 1))
    assert [emnist.names[label] for label in emnist.train.labels] == list("cazae")


@pytest.mark.parametrize("name", ["qmnist", "emnist-letters"])
@pytest.mark.parametrize("length", [0, 2, 17, 1000])
def test_a_damaged_file_of_a_rare_sibling_is_told_with_its_folder(tmp_path, rare, name, length):
    path = tmp_path / name[:6].upper() / "raw" / f"{name}-train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=f"a file of {name} in {re.escape(str(path.parent))} is damaged"):
        data.load(name, tmp_path)


@pytest.mark.parametrize(("kind", "name"), [(QMNIST, "qmnist"), (EMNIST, "emnist-digits")])
def test_a_rare_sibling_that_cannot_be_fetched_is_named(tmp_path, monkeypatch, capsys, kind, name):
    def fail(self):
        raise OSError("no network")

    monkeypatch.setattr(kind, "download", fail)
    raw = tmp_path / name[:6].upper() / "raw"
    with pytest.raises(FileNotFoundError, match=f"{name} missing in {re.escape(str(raw))}.*no network"):
        data.load(name, tmp_path)
    assert capsys.readouterr().out == f"fetching {name} into {raw} ...\n"


# Which data, and where


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'cifar'.*mnist.*digits.*celeba"):
        data.load("cifar")


def test_the_environment_names_the_folder(tmp_path, arrays, monkeypatch):
    _lay_out(tmp_path, arrays)
    monkeypatch.setenv("VAELIB_DATA", str(tmp_path))
    assert len(data.load("mnist").train) == 12


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_the_argument_wins_over_the_environment(tmp_path, arrays, monkeypatch, kind):
    _lay_out(tmp_path / "argument", arrays)
    monkeypatch.setenv("VAELIB_DATA", str(tmp_path / "environment"))
    assert len(data.load("mnist", kind(tmp_path / "argument")).train) == 12
    assert not (tmp_path / "environment").exists()


def test_the_default_folder_is_in_the_users_cache(tmp_path, arrays, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    _lay_out(tmp_path / ".cache" / "vaelib", arrays)
    assert len(data.load("mnist").train) == 12


def test_a_relative_folder_is_absolute_in_messages(tmp_path, arrays, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    for given in ("data", Path("data")):
        with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "data" / "MNIST" / "raw"))):
            data.load("mnist", given)


def test_the_variables_folder_is_meant_from_the_project_where_a_notebook_runs_in_it(tmp_path, monkeypatch):
    """Its kernel runs in the notebook's folder, while the variable was set in the project's."""
    project = Path(data.__file__).parents[2]
    monkeypatch.setenv("VAELIB_DATA", "mydata")
    for inside in (project, project / "book" / "mnist"):
        monkeypatch.chdir(inside)
        assert paths.root() == project / "mydata"
    monkeypatch.chdir(tmp_path)
    assert paths.root() == tmp_path / "mydata"


def test_without_a_home_the_variable_is_named(monkeypatch):
    def fail(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", fail)
    monkeypatch.delenv("VAELIB_DATA", raising=False)
    with pytest.raises(OSError, match=r"there is no home folder.*VAELIB_DATA"):
        data.load("digits")


def test_papermill_runs_the_page_of_digits_on_a_sibling(tmp_path, rare):
    command = [Path(sys.executable).with_name("papermill"), PAGE, tmp_path / "out.ipynb"]
    command += ["-p", "dataset", "emnist-letters", "-p", "epochs", "1", "-p", "latent_dim", "3"]
    places = {"VAELIB_DATA": str(tmp_path), "VAELIB_RUNS": str(tmp_path / "runs"), "TQDM_DISABLE": ""}
    subprocess.run(command, check=True, env=os.environ | places | {"VAELIB_PROFILE": "paper"}, capture_output=True)
    outputs = str([cell.outputs for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells if "outputs" in cell])
    assert "emnist-letters: 5 training and 5 test images" in outputs
    assert "emnist-letters-k3-e1-s0, trained on: " in outputs
    assert re.findall(r"emnist-letters-k3-e1-s0: +\d+%", outputs) == ["emnist-letters-k3-e1-s0: 100%"]  # a bar, once
