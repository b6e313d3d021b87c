"""The classifiers in whose features samples are measured, and the distances between features."""

import hashlib
import os
import re
from dataclasses import replace

import pytest
import torch
from conftest import flipped
from sklearn.metrics import roc_auc_score

from vaelib import data, features
from vaelib.data import Dataset, Split, to_float

PUBLISHED = sorted(features.PUBLISHED.glob("*.safetensors"))


@pytest.fixture(scope="module")
def halved(digits):
    """The digits in half their size."""
    splits = (Split(each.images[:, :, ::2, ::2].contiguous(), each.labels) for each in (digits.train, digits.test))
    return Dataset("halved", *splits, digits.names)


@pytest.fixture(scope="module")
def trained(halved, tmp_path_factory):
    """The digits' classifier, and the folder in which it was trained."""
    folder = tmp_path_factory.mktemp("runs")
    (network,) = features.load(halved, folder, "cpu")
    return network, folder


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 48), (1, 7, 7), (2, 5, 1)])
def test_a_classifier_takes_images_of_every_size_but_no_rows(shape):
    network = features.classifier(shape, 7).eval()
    images = torch.rand(5, *shape)
    assert network(images).shape == (5, 7)
    assert features.extract(network, images).shape == (5, features.FEATURES)
    with pytest.raises(ValueError, match=r"images of shape \(C, H, W\), not \(30,\)"):
        features.classifier((30,), 7)


def test_it_learns_classes_and_is_trained_only_once(halved, trained, monkeypatch):
    network, root = trained
    with torch.inference_mode():
        right = network(to_float(halved.test.images)).argmax(1) == halved.test.labels
    assert right.float().mean() > 0.95
    monkeypatch.setattr(features, "_fit", lambda *_: pytest.fail("trained again"))
    (again,) = features.load(halved, root, "cpu")
    assert not again.training
    images = halved.test.images
    first, *others = (
        features.extract(*each) for each in ((network, images), (again, images), (again, to_float(images).double()))
    )
    assert all(torch.equal(first, each) for each in others)
    with pytest.raises(ValueError, match="expected floats from 0 to 1, not from 0 to 255"):
        features.extract(again, images.float())
    assert {path.suffix for path in root.iterdir() if path.name != ".lock"} == {".safetensors"}


def test_each_seed_gives_a_classifier_of_its_own_and_a_stopped_call_resumes(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "EPOCHS", 1)
    few = replace(digits, train=Split(digits.train.images[:150], digits.train.labels[:150]))
    (first,) = features.train(few, tmp_path, "cpu", seeds=[1])
    again, second = features.train(few, tmp_path, "cpu", seeds=[1, 2])
    assert torch.equal(first[-1].weight, again[-1].weight)
    assert not torch.equal(first[-1].weight, second[-1].weight)
    assert len(list(tmp_path.glob("classifier-*.safetensors"))) == 2


def test_no_feature_is_dead_and_all_have_one_scale(halved, trained):
    network, _ = trained
    with torch.inference_mode():
        unscaled = network[:-2](to_float(halved.test.images))
    assert unscaled.var(0).min() > 1e-3
    assert features.extract(network, halved.train.images).std(0) == pytest.approx(1, abs=0.2)


def test_it_learns_attributes(tmp_path):
    images = torch.zeros(1024, 3, 16, 16, dtype=torch.uint8)
    images[::2, 0], images[::3, 1] = 200, 200
    labels = torch.zeros(1024, 2, dtype=torch.bool)
    labels[::2, 0], labels[::3, 1] = True, True
    split = Split(images, labels)
    (network,) = features.load(Dataset("colours", split, split, ("Red", "Green")), tmp_path, "cpu")
    with torch.inference_mode():
        assert ((network(to_float(images)) > 0) == labels).all()


@pytest.mark.parametrize("damage", [lambda content: b"no weights", lambda content: flipped(content, -3)])
def test_a_damaged_file_of_weights_is_named(tiny, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(features, "EPOCHS", 1)
    features.train(tiny, tmp_path, "cpu")
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{path} is damaged, or outdated .*; delete it"):
        features.train(tiny, tmp_path, "cpu")


def test_the_distance_is_that_of_normal_distributions():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(50_000, 3, generator=generator)
    b = torch.randn(50_000, 3, generator=generator) * 2 + torch.tensor([1.0, 0, 3])
    assert features.frechet_distance(a, a) == pytest.approx(0, abs=1e-3)
    assert features.frechet_distance(a, b) == pytest.approx(10 + 3 * (2 - 1) ** 2, rel=0.03)


@pytest.mark.parametrize("counts", [(6, 5), (2500, 2400)])  # one block, and several
def test_the_kernel_distance_is_the_mean_over_pairs_of_different_images(counts):
    a, b = torch.randn(sum(counts), 3, generator=torch.Generator().manual_seed(0)).double().split(counts)
    one, other, both = ((x @ y.T / 3 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within = sum((each.sum() - each.trace()) / (len(each) * (len(each) - 1)) for each in (one, other))
    expected = (within - 2 * both.mean()).item()
    assert features.kernel_distance(a, b) == pytest.approx(expected)
    assert features.kernel_distance(a.float(), b.float()) == pytest.approx(expected, rel=1e-4)


def test_too_few_images_for_a_distance_are_refused():
    with pytest.raises(ValueError, match="at least 9 images of each kind, not 100 and 8"):
        features.frechet_distance(torch.randn(100, 8), torch.randn(8, 8))
    for distance in (features.frechet_distance, features.kernel_distance):
        with pytest.raises(ValueError, match="features are not finite"):  # for which LAPACK ends the process
            distance(torch.randn(100, 8), torch.full((100, 8), torch.nan))
    with pytest.raises(ValueError, match="at least 2 images of each kind, not 100 and 1"):
        features.kernel_distance(torch.randn(100, 8), torch.randn(1, 8))


def test_a_last_batch_of_one_image_and_classes_of_every_whole_kind_are_learned(halved, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "EPOCHS", 1)
    count = features.BATCH + 1
    few = replace(halved, train=Split(halved.train.images[:count], halved.train.labels[:count].short()))
    assert len(features.load(few, tmp_path, "cpu")) == 1


def test_labels_that_are_all_the_same_teach_nothing(digits, tmp_path):
    same = Split(digits.train.images, torch.zeros_like(digits.train.labels))
    with pytest.raises(ValueError, match="'same' have the same labels"):
        features.load(Dataset("same", same, digits.test, digits.names), tmp_path)
    assert list(tmp_path.iterdir()) == []


# The published classifiers


def test_five_are_published_for_mnist_and_five_for_the_faces_in_3_megabytes():
    seeds = [re.fullmatch(r"classifier-(mnist|celeba)-\w{16}-s(\d+)", path.stem).groups() for path in PUBLISHED]
    assert seeds == [(name, str(seed)) for name in ("celeba", "mnist") for seed in range(10, 15)]
    assert sum(path.stat().st_size for path in PUBLISHED) < 3e6


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_classifier_is_whole_and_its_features_fit(path, monkeypatch):
    card = (features.PUBLISHED / "README.md").read_text("utf-8")
    assert f"{hashlib.sha256(path.read_bytes()).hexdigest()[:16]} |" in card
    shape, outputs = ((1, 28, 28), 10) if "mnist" in path.name else ((3, 64, 48), 40)
    split = Split(torch.randint(256, (8, *shape), dtype=torch.uint8), torch.zeros(8, outputs, dtype=torch.bool))
    few = Dataset("few", split, Split(255 - split.images, split.labels), [str(number) for number in range(outputs)])
    network = features._read(path, few)
    found = features.extract(network, split.images)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert found.std(0).min() > 0


@pytest.mark.skipif("VAELIB_DATA" not in os.environ, reason="needs MNIST and CelebA (VAELIB_DATA)")
@pytest.mark.parametrize("name", ["mnist", "celeba"])
def test_the_published_classifiers_know_their_test_images_and_have_no_dead_features(name):
    images = data.load(name)
    classifiers = features.load(images)
    if len(classifiers) == 1:
        pytest.skip("this is another part of CelebA")
    pixels, labels = to_float(images.test.images), images.test.labels
    for network in classifiers:
        with torch.inference_mode():
            unscaled = torch.cat([network[:-2](part) for part in pixels.split(500)])
            logits = network[-2:](unscaled)
        assert unscaled.var(0).min() > 1e-3
        if name == "mnist":
            assert (logits.argmax(1) == labels).float().mean() > 0.99
        else:
            assert roc_auc_score(labels, logits, average=None).mean() > 0.86
