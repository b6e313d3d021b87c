"""The data sets: the bundled digits, MNIST's files in every state they may be in, and what the wrappers refuse."""

import gzip
import hashlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import papermill
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.datasets import MNIST, FashionMNIST, utils

from vaelib import data
from vaelib.data import Dataset, Split, mnist, paths, synthetic_faces

PAGE = Path(__file__).parents[2] / "book" / "mnist" / "train.ipynb"
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
TEST = np.arange(1797) % 6 == 0  # of scikit-learn's digits


def _idx(values):
    """The IDX format: zero, zero, type 8, number of axes; each axis's length as a big-endian integer; the values."""
    lengths = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return bytes([0, 0, 8, values.ndim]) + lengths + values.tobytes()


def _packed(array):
    return gzip.compress(_idx(array), mtime=0)


@pytest.fixture
def arrays(monkeypatch):
    """A small MNIST, one array a file; its sums stand in for the real ones, and no mirror answers."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 12), ("t10k", 5)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, count, np.uint8)
    monkeypatch.setattr(mnist, "CONTENT", {hashlib.sha256(_idx(arrays[name])).hexdigest(): name for name in NAMES})
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    _resources(monkeypatch, MNIST, arrays)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("VAELIB_DATA", raising=False)
    return arrays


def _resources(monkeypatch, kind, arrays):
    sums = [(f"{name}.gz", hashlib.md5(_packed(arrays[name])).hexdigest()) for name in NAMES]
    monkeypatch.setattr(kind, "resources", sums)


def _lay_out(folder, arrays, unpacked=(), home="MNIST"):
    """Put the files where they belong, packed but for the named ones; returns the folder they are in."""
    raw = folder / home / "raw"
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


def _mirror(monkeypatch, folder):
    """Let torchvision take its files from a folder."""
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(utils, "_urlretrieve", lambda url, path: shutil.copy(folder / url.rpartition("/")[2], path))


def _split(count=4, shape=(1, 3, 3), seed=0):
    """Images that are white somewhere, each of a class of its own."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    images[:, 0, 0, 0] = 255
    return Split(images, torch.arange(count))


def _mine(train=None, test=None, name="mine", names="abcd"):
    return Dataset(name, train or _split(), test or _split(seed=1), names)


# The digits


def test_digits_are_the_source_enlarged_to_mnists_size(digits):
    assert (digits.train.images.shape, digits.test.images.shape) == ((1497, 1, 28, 28), (300, 1, 28, 28))
    assert digits.train.images.dtype == digits.test.images.dtype == torch.uint8
    assert (digits.name, digits.names, digits.image_shape) == ("digits", tuple("0123456789"), (1, 28, 28))
    source = load_digits().images[TEST] * 255 / 16
    places = np.arange(8) * 3.5 + 1.25  # the centres of the source's pixels
    weights = np.stack([np.interp(places, np.arange(28), unit) for unit in np.eye(28)], 1)  # interpolate linearly
    small = weights @ digits.test.images[:, 0].double().numpy() @ weights.T
    assert np.abs(small - source).mean() < 5  # of 255
    assert np.abs(small - np.roll(source, 1, 0)).mean() > 40  # no image is like the one before it


def test_digits_and_faces_are_the_same_bytes_on_every_processor(digits):
    """With and without vector instructions, whose rounding errors differ."""
    code = "from vaelib.data import digits, synthetic_faces\n"
    code += "print(digits.load('digits').fingerprint, synthetic_faces.generate(100, 3)[0].numpy().tobytes().hex())"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    assert digits.fingerprint == "fc0416564bf4f50b"
    faces, _ = synthetic_faces.generate(100, 3)
    assert told.stdout.split() == [digits.fingerprint, faces.numpy().tobytes().hex()]


# The wrappers


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("tensor", ["images", "labels"])
def test_the_fingerprint_changes_with_every_pixel_and_label_also_in_place(part, tensor):
    mine = _mine()
    before = mine.fingerprint
    getattr(getattr(mine, part), tensor).view(-1)[-1:].numpy()[:] -= 1  # of which torch knows nothing
    assert mine.fingerprint != before
    assert mine.fingerprint == _mine(mine.train, mine.test).fingerprint
    turned = (Split(split.images.view(4, 1, 9, 1), split.labels) for split in (mine.train, mine.test))
    assert mine.fingerprint != _mine(*turned).fingerprint


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_class_numbers_of_any_whole_kind_are_the_same(kind):
    same = _mine()
    splits = [Split(split.images, split.labels.to(kind)) for split in (same.train, same.test)]
    assert splits[0].labels.dtype == torch.int64
    assert _mine(*splits).fingerprint == same.fingerprint


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64, torch.uint16])
def test_images_of_every_kind_have_a_fingerprint_and_need_no_labels(kind):
    train, test = (_split(seed=seed).images.to(kind) for seed in (0, 1))
    train, test = Split(train.requires_grad_(kind.is_floating_point)), Split(test)
    mine = Dataset("mine", train, test)
    assert len(mine.fingerprint) == 16 and mine.fingerprint != Dataset("mine", test, train).fingerprint
    assert mine.names == () and mine.train.labels.shape == (4, 0)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (torch.zeros(4, 1, 3, 3, dtype=torch.int32), "torch.int32 of shape (4, 1, 3, 3)"),
        (torch.zeros(4, 3, 3, dtype=torch.uint8), "torch.uint8 of shape (4, 3, 3)"),
        (torch.zeros(0, 1, 3, 3, dtype=torch.uint8), "torch.uint8 of shape (0, 1, 3, 3)"),
        (torch.full((4, 3), torch.nan), "not finite"),
        (torch.zeros(3, 1, 3, 3), "3 images but 4 labels"),
        (np.zeros((4, 1, 3, 3), np.uint8), "the images must be a dense tensor of a row for each image, not ndarray"),
        (None, "not NoneType; see torch.as_tensor"),
        (torch.zeros(4, 3).to_sparse(), "not torch.sparse_coo"),
        (torch.tensor(3.0), "dense tensor of a row for each image"),
        (torch.quantize_per_tensor(torch.zeros(4, 3), 1, 0, torch.quint8), "torch.quint8 of shape (4, 3)"),
        (torch.zeros(4, 3).to(torch.float8_e4m3fn), "torch.float8_e4m3fn of shape (4, 3)"),
        (torch.zeros(4, 64, 48, 3, dtype=torch.uint8), "look like (N, H, W, C)"),
    ],
)
def test_a_split_refuses_what_are_not_images(images, found):
    with pytest.raises(ValueError, match=re.escape(found)):
        Split(images, torch.zeros(4))


@pytest.mark.parametrize("labels", [torch.tensor(3), torch.eye(4).to_sparse(), [0] * 4])
def test_a_split_refuses_what_are_not_labels(labels):
    with pytest.raises(ValueError, match="the labels must be a dense tensor of a row for each image"):
        Split(_split().images, labels)


@pytest.mark.parametrize("name", ["", "a/b", "/tmp/a", "a b", 5, None])
def test_a_dataset_refuses_a_name_that_is_no_part_of_a_folders(name):
    with pytest.raises(ValueError, match="a name becomes part of a folder's"):
        _mine(name=name)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (torch.tensor([0, 1, 2, 3]), "torch.int64 of shape (4,), from 0 to 3; 3 names=(...) need integers"),
        (torch.tensor([-1, 1, 1, -1]), "from -1 to 1"),
        (torch.zeros(4), "torch.float32 of shape (4,)"),
        (torch.zeros(4, 1, dtype=torch.int64), "torch.int64 of shape (4, 1)"),
        (torch.zeros(4, 3, dtype=torch.int64), "or torch.bool (N, 3)"),
        (torch.zeros(4, 40, dtype=torch.bool), "torch.bool of shape (4, 40)"),
        (torch.zeros(4, dtype=torch.bool), "torch.bool of shape (4,)"),
        (torch.zeros(4, dtype=torch.complex64), "torch.complex64"),
        (None, "torch.bool of shape (4, 0); 3 names"),
    ],
)
def test_a_dataset_refuses_labels_that_cannot_be(part, labels, found):
    splits = {each: Split(_split(seed=len(each)).images, torch.tensor([0, 1, 2, 2])) for each in ("train", "test")}
    splits[part] = Split(splits[part].images, labels)
    with pytest.raises(ValueError, match=f"the {part} labels are .*{re.escape(found)}"):
        Dataset("mine", **splits, names=("a", "b", "c"))


def test_a_dataset_refuses_splits_of_different_shapes():
    with pytest.raises(ValueError, match=re.escape("torch.uint8 (1, 3, 3) and torch.uint8 (1, 3, 4)")):
        _mine(test=_split(shape=(1, 3, 4)))


def test_an_attribute_is_known_by_its_column():
    faces = _mine(names=("Male", "Smiling", "Big_Nose", "Big_Lips"))
    assert [faces.column(name) for name in faces.names] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"'smiling' is none of the 4 attributes of 'mine'; known: Smiling$"):
        faces.column("smiling")
    for wrong in ("Hat", 0):
        with pytest.raises(ValueError, match=r"known: Male, Smiling, Big_Nose, Big_Lips$"):
            faces.column(wrong)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float16])
def test_images_that_two_splits_share_are_counted_wherever_they_are(count, kind):
    train, test = _split(30), _split(6, seed=1)
    test.images[1 : 1 + count] = train.images[[7, 3, 29, 12]][:count]
    with pytest.warns(UserWarning, match=f"mine: {count} of the validation images are train images too"):
        splits = [Split(each.images.to(kind)) for each in (train, _split(5, seed=2), test)]
        Dataset("mine", splits[0], splits[1], validation=splits[2])


# MNIST


@pytest.mark.parametrize("unpacked", [(), NAMES, NAMES[1:3]], ids=["packed", "unpacked", "mixed"])
def test_mnist_is_read_from_packed_and_unpacked_files_which_stay_as_they_are(tmp_path, arrays, unpacked):
    _lay_out(tmp_path, arrays, unpacked)
    before = _contents(tmp_path)
    mnist = data.load("mnist", tmp_path)
    assert _contents(tmp_path) == before
    for split, part in ((mnist.train, "train"), (mnist.test, "t10k")):
        assert np.array_equal(split.images[:, 0].numpy(), arrays[f"{part}-images-idx3-ubyte"])
        assert split.labels.tolist() == arrays[f"{part}-labels-idx1-ubyte"].tolist()
    assert (mnist.name, mnist.image_shape, mnist.names) == ("mnist", (1, 28, 28), tuple("0123456789"))


@pytest.mark.parametrize("place", ["MNIST/raw", "MNIST", "mnist", "mnist/raw", "."])
@pytest.mark.parametrize("form", ["{0}-idx{1}-ubyte/{0}-idx{1}-ubyte", "{0}.idx{1}-ubyte", "{0}-idx{1}-ubyte.gz"])
@pytest.mark.parametrize("content", [_idx, _packed])
def test_common_copies_of_mnist_are_read(tmp_path, arrays, place, form, content):
    for name, array in arrays.items():
        path = tmp_path / place / form.format(*re.fullmatch(r"(.*)-idx(\d)-ubyte", name).groups())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(array))
    assert len(data.load("mnist", tmp_path).train) == 12


def test_files_are_known_by_their_content(tmp_path, arrays):
    """Packed by another program, and with their names swapped."""
    raw = _lay_out(tmp_path, arrays)
    for name, array in zip(NAMES[2:] + NAMES[:2], arrays.values(), strict=True):
        (raw / f"{name}.gz").write_bytes(gzip.compress(_idx(array), 1, mtime=12345))
    assert np.array_equal(data.load("mnist", tmp_path).train.images[:, 0].numpy(), arrays[NAMES[0]])


DAMAGE = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "one byte less": lambda content: content[:-9],
    "a bit in the middle": lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
    "another's": lambda content: _idx(np.zeros((3, 28, 28), np.uint8)),
}


@pytest.mark.parametrize("unpacked", [(), NAMES], ids=["packed", "unpacked"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_or_another_is_refused_by_name(tmp_path, arrays, unpacked, damage):
    name = NAMES[0]
    path = _lay_out(tmp_path, arrays, unpacked) / (name if unpacked else f"{name}.gz")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(f"MNIST's {name} is missing: damaged, or another's, is 1 ({path})")):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize("missing", [NAMES, NAMES[2:3]])
def test_a_failed_download_names_all_that_is_missing_and_leaves_no_file(tmp_path, arrays, missing):
    raw = _lay_out(tmp_path, arrays)
    for name in missing:
        (raw / f"{name}.gz").unlink()
    before = _files(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{', '.join(missing)} missing in {re.escape(str(raw))}"):
        data.load("mnist", tmp_path)
    assert _files(tmp_path) == before


@pytest.mark.parametrize("name", ["mnist", "celeba", "kmnist"])
@pytest.mark.parametrize("by_variable", [True, False])
def test_nothing_is_fetched_into_a_folder_whose_name_may_be_mistyped(tmp_path, monkeypatch, name, by_variable):
    place = tmp_path / "mistyped"
    monkeypatch.setenv("VAELIB_DATA", str(place if by_variable else tmp_path))
    with pytest.raises(FileNotFoundError, match=f"{re.escape(str(place))} doesn't exist; create it to download {name}"):
        data.load(name, None if by_variable else place)
    assert list(tmp_path.iterdir()) == []
    assert len(data.load("digits", place).train) == 1497  # needs none


@pytest.mark.parametrize("damage", [lambda content: b"<html>please log in</html>", lambda content: content[:-9]])
def test_what_arrives_damaged_is_a_failed_download_and_leaves_nothing(tmp_path, arrays, monkeypatch, damage):
    (tmp_path / "mine").mkdir()
    served = _lay_out(tmp_path / "mirror", arrays)
    path = served / f"{NAMES[2]}.gz"
    path.write_bytes(damage(path.read_bytes()))
    _mirror(monkeypatch, served)
    with pytest.raises(FileNotFoundError, match="the download failed"):
        data.load("mnist", tmp_path / "mine")
    assert _files(tmp_path / "mine") == []


@pytest.mark.parametrize("answer", [b"", b"go away\r\n\r\n"], ids=["silence", "no HTTP"])
def test_a_mirror_that_does_not_answer_ends_the_download(tmp_path, arrays, monkeypatch, capsys, answer):
    """As a proxy may do that takes connections."""
    monkeypatch.setattr(paths, "PATIENCE", 0.3)

    def reply(listener):
        connection, _ = listener.accept()
        connection.recv(10_000)
        connection.sendall(answer)
        time.sleep(0 if answer else 1)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{listener.getsockname()[1]}/"])
        thread = threading.Thread(target=reply, args=(listener,))
        thread.start()
        with pytest.raises(FileNotFoundError, match="the download failed"):
            data.load("mnist", tmp_path)
        thread.join()
    assert capsys.readouterr().out.startswith(f"fetching {NAMES[0]}, {NAMES[1]}")
    assert _files(tmp_path) == []
    assert socket.getdefaulttimeout() is None


def test_a_download_puts_exactly_the_four_files_there(tmp_path, arrays, monkeypatch):
    raw = _lay_out(tmp_path / "mine", {NAMES[0]: arrays[NAMES[0]]}, NAMES)
    before = _contents(raw)
    _mirror(monkeypatch, _lay_out(tmp_path / "mirror", arrays))
    mnist = data.load("mnist", tmp_path / "mine")
    assert _files(raw) == sorted([NAMES[0], *(f"{name}.gz" for name in NAMES)])
    assert before.items() <= _contents(raw).items()
    assert mnist.fingerprint == data.load("mnist", tmp_path / "mirror").fingerprint


# MNIST's siblings


@pytest.fixture
def fashion(arrays, monkeypatch):
    """Fashion-MNIST, as small as the other one, with the sums that it then has; returns its arrays."""
    fashion = {name: 255 - array if "images" in name else (array + 1) % 10 for name, array in arrays.items()}
    _resources(monkeypatch, FashionMNIST, fashion)
    monkeypatch.setattr(FashionMNIST, "mirrors", MNIST.mirrors)
    return fashion


def test_fashion_mnist_is_loaded_by_name(tmp_path, fashion):
    _lay_out(tmp_path, fashion, home="FashionMNIST")
    loaded = data.load("fashion-mnist", tmp_path)
    assert (loaded.name, loaded.names[0], loaded.names[-1]) == ("fashion-mnist", "T-shirt/top", "Ankle boot")
    assert np.array_equal(loaded.test.images[:, 0].numpy(), fashion["t10k-images-idx3-ubyte"])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda arrays: {NAMES[1]: arrays[NAMES[1]] * 0 + 200}, "from 200 to 200"),
        (lambda arrays: {NAMES[0]: arrays[NAMES[0]][:, :0]}, "buffer length"),
        (lambda arrays: {NAMES[1]: arrays[NAMES[1]][:5]}, "12 images but 5 labels"),
        (lambda arrays: {NAMES[0]: 255 - arrays[NAMES[0]]}, "some are MNIST's"),
        (lambda arrays: {name: arrays[name][:3] for name in NAMES[:2]}, "training and test images are swapped"),
    ],
)
def test_a_siblings_files_must_fit(tmp_path, fashion, change, found):
    raw = _lay_out(tmp_path, fashion | change(fashion), NAMES, "FashionMNIST")
    with pytest.raises(ValueError, match=f"a file of fashion-mnist in {re.escape(str(raw))} is damaged.*{found}"):
        data.load("fashion-mnist", tmp_path)


@pytest.fixture
def rare(tmp_path):
    """QMNIST and a part of EMNIST, as torchvision unpacks them: the one has many labels an image, the other lies."""
    rng = np.random.default_rng(0)
    labels = np.array([3, 1, 26, 1, 5], np.uint8)
    images = {part: rng.integers(0, 256, (5, 28, 28), np.uint8) for part in ("train", "test")}
    for folder in ("QMNIST", "EMNIST"):
        (tmp_path / folder / "raw").mkdir(parents=True)
    for part in ("train", "test"):
        raw = tmp_path / "QMNIST" / "raw"
        (raw / f"qmnist-{part}-images-idx3-ubyte").write_bytes(_idx(images[part]))
        rows = np.zeros((5, 8), ">i4")
        rows[:, 0] = labels % 10
        (raw / f"qmnist-{part}-labels-idx2-int").write_bytes(b"\0\0\x0c\2" + _idx(rows)[4:])
        raw = tmp_path / "EMNIST" / "raw"
        (raw / f"emnist-letters-{part}-images-idx3-ubyte").write_bytes(_idx(images[part]))
        (raw / f"emnist-letters-{part}-labels-idx1-ubyte").write_bytes(_idx(labels))
    return images, labels


def test_qmnist_and_emnist_are_loaded_by_name(tmp_path, rare):
    images, labels = rare
    qmnist, emnist = data.load("qmnist", tmp_path), data.load("emnist-letters", tmp_path)
    assert np.array_equal(qmnist.train.images[:, 0].numpy(), images["train"])
    assert np.array_equal(qmnist.test.labels.numpy(), labels % 10) and qmnist.names == tuple("0123456789")
    assert np.array_equal(emnist.test.images[:, 0].numpy(), images["test"].transpose(0, 2, 1))
    assert [emnist.names[label] for label in emnist.train.labels] == list("cazae")


@pytest.mark.parametrize("name", ["qmnist", "emnist-letters"])
@pytest.mark.parametrize("length", [0, 2, 17, 1000])
def test_a_damaged_file_of_a_rare_sibling_is_told_with_its_folder(tmp_path, rare, name, length):
    path = tmp_path / name[:6].upper() / "raw" / f"{name}-train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=f"a file of {name} in {re.escape(str(path.parent))} is damaged"):
        data.load(name, tmp_path)


# Which data, and where


def test_the_argument_names_the_folder_else_the_environment_else_the_users_cache(tmp_path, arrays, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    _lay_out(tmp_path / ".cache" / "vaelib", arrays)
    assert len(data.load("mnist").train) == 12
    monkeypatch.setenv("VAELIB_DATA", str(tmp_path / "environment"))
    with pytest.raises(FileNotFoundError, match="environment"):
        data.load("mnist")
    _lay_out(tmp_path / "argument", arrays)
    for kind in (str, Path):
        assert len(data.load("mnist", kind(tmp_path / "argument")).train) == 12
    monkeypatch.chdir(tmp_path)
    assert paths.root("argument") == tmp_path / "argument"


def test_the_variables_folder_is_meant_from_the_project_where_a_notebook_runs_in_it(tmp_path, monkeypatch):
    """Its kernel runs in the notebook's folder, while the variable was set in the project's."""
    project = Path(data.__file__).parents[2]
    monkeypatch.setenv("VAELIB_DATA", "mydata")
    for inside in (project, project / "book" / "mnist"):
        monkeypatch.chdir(inside)
        assert paths.root() == project / "mydata"
    monkeypatch.chdir(tmp_path)
    assert paths.root() == tmp_path / "mydata"


def test_a_user_without_home_and_name_needs_none(tmp_path, arrays, monkeypatch):
    """As in a container that runs under any number."""
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert len(data.load("digits").train) == 1497
    for folder, found in ((None, "VAELIB_DATA"), ("/mistyped", "/mistyped doesn't exist")):
        with pytest.raises(OSError, match=found):
            data.load("mnist", folder)
    _lay_out(tmp_path, arrays)
    assert len(data.load("mnist", tmp_path).train) == 12


def test_an_output_that_takes_no_more_ends_nothing(monkeypatch):
    def full(text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=full))
    paths.say("what is done goes on")


def test_a_pipe_that_nobody_reads_ends_nothing_and_python_does_not_complain():
    reading, writing = os.pipe()
    os.close(reading)
    code = "from vaelib.data import paths; paths.say('one'); paths.say('two')"
    ended = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_an_output_cannot_spell_is_printed_as_escapes(monkeypatch, encoding):
    output = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", output)
    paths.say("运行 \udcc4")  # the second is of a file's name that is no UTF-8
    line = output.buffer.getvalue().decode(encoding)
    assert line == ("运行" if encoding == "utf-8" else r"\u8fd0\u884c") + " \\udcc4\n"


def test_papermill_runs_the_page_of_digits_on_a_sibling(tmp_path, rare, monkeypatch):
    places = {"VAELIB_DATA": str(tmp_path), "VAELIB_RUNS": str(tmp_path / "runs"), "TQDM_DISABLE": ""}
    for variable, value in (places | {"VAELIB_PROFILE": "paper"}).items():
        monkeypatch.setenv(variable, value)
    chosen = {"dataset": "emnist-letters", "epochs": 1, "latent_dim": 3}
    done = papermill.execute_notebook(PAGE, tmp_path / "out.ipynb", chosen, progress_bar=False)
    outputs = str([cell.outputs for cell in done.cells if "outputs" in cell])
    assert "emnist-letters: 5 training and 5 test images" in outputs
    assert "emnist-letters-k3-e1-s0, trained on: " in outputs
    assert re.findall(r"emnist-letters-k3-e1-s0: +\d+%", outputs)[-1:] == ["emnist-letters-k3-e1-s0: 100%"]  # a bar
