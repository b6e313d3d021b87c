"""The classifier whose features measure looks, and the distance between them."""

from dataclasses import replace

import pytest
import torch

from vaelib import features
from vaelib.data import Dataset, Split, to_float


@pytest.fixture(scope="module")
def halved(digits):
    """The digits in half their size."""
    splits = (Split(each.images[:, :, ::2, ::2].contiguous(), each.labels) for each in (digits.train, digits.test))
    return Dataset("halved", *splits, digits.names)


@pytest.fixture(scope="module")
def trained(halved, tmp_path_factory):
    """The digits' classifier, and the folder in which it was trained."""
    folder = tmp_path_factory.mktemp("runs")
    return features.train(halved, folder, "cpu"), folder


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 48)])
def test_a_classifier_takes_digits_and_faces(shape):
    network = features.classifier(shape, 7).eval()
    images = torch.rand(5, *shape)
    assert network(images).shape == (5, 7)
    assert features.extract(network, images).shape == (5, features.FEATURES)


def test_it_learns_classes_and_is_trained_only_once(halved, trained, monkeypatch):
    network, root = trained
    with torch.inference_mode():
        right = network(to_float(halved.test.images)).argmax(1) == halved.test.labels
    assert right.float().mean() > 0.95
    monkeypatch.setattr(features, "_fit", lambda *_: pytest.fail("trained again"))
    again = features.train(halved, root, "cpu")
    assert not again.training
    pair = [features.extract(each, halved.test.images) for each in (network, again)]
    assert torch.equal(*pair)
    assert {path.suffix for path in root.iterdir() if path.name != ".lock"} == {".safetensors"}


def test_features_have_a_scale(halved, trained):
    found = features.extract(trained[0], halved.train.images)
    alive = found.std(0) > 1e-3
    assert alive.sum() > features.FEATURES / 2
    assert found[:, alive].std(0).mean() == pytest.approx(1, abs=0.2)


def test_it_learns_attributes(tmp_path):
    images = torch.zeros(1024, 3, 16, 16, dtype=torch.uint8)
    images[::2, 0], images[::3, 1] = 200, 200
    labels = torch.zeros(1024, 2, dtype=torch.bool)
    labels[::2, 0], labels[::3, 1] = True, True
    split = Split(images, labels)
    network = features.train(Dataset("colours", split, split, ("Red", "Green")), tmp_path, "cpu")
    with torch.inference_mode():
        assert ((network(to_float(images)) > 0) == labels).all()


def test_a_damaged_file_of_weights_is_named(digits, tmp_path):
    path = tmp_path / f"features-digits-{digits.fingerprint}.safetensors"
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=rf"{path} is damaged .*; delete it"):
        features.train(digits, tmp_path, "cpu")


def test_the_distance_is_that_of_normal_distributions():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(50_000, 3, generator=generator)
    b = torch.randn(50_000, 3, generator=generator) * 2 + torch.tensor([1.0, 0, 3])
    assert features.frechet_distance(a, a) == pytest.approx(0, abs=1e-3)
    assert features.frechet_distance(a, b) == pytest.approx(10 + 3 * (2 - 1) ** 2, rel=0.03)


def test_too_few_images_for_a_covariance_are_refused():
    with pytest.raises(ValueError, match="8 features need more images than that for a covariance, not 100 and 8"):
        features.frechet_distance(torch.randn(100, 8), torch.randn(8, 8))


def test_a_last_batch_of_one_image_and_classes_of_every_whole_kind_are_learned(halved, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "EPOCHS", 1)
    count = features.BATCH + 1
    few = replace(halved, train=Split(halved.train.images[:count], halved.train.labels[:count].short()))
    assert len(features.train(few, tmp_path, "cpu")) > 0


def test_images_that_three_convolutions_cannot_halve_are_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="8 x 8 or more, not of 7 x 7"):
        features.train(tiny, tmp_path, "cpu")


def test_labels_that_are_all_the_same_teach_nothing(digits, tmp_path):
    same = Split(digits.train.images, torch.zeros_like(digits.train.labels))
    with pytest.raises(ValueError, match="'same' have the same labels"):
        features.train(Dataset("same", same, digits.test, digits.names), tmp_path)
    assert list(tmp_path.iterdir()) == []
