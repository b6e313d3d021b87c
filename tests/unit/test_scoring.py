"""Scores by several classifiers: against one at a time, and their spreads."""

import pytest
import torch

from book.experiments import scoring
from vaelib import data, features


@pytest.fixture(scope="module")
def classifiers():
    generator = torch.Generator().manual_seed(0)
    networks = [features.classifier(data.load("digits").image_shape, 10).eval() for _ in range(2)]
    for weight in (weight for network in networks for weight in network.parameters()):
        weight.data = torch.randn(weight.shape, generator=generator) / 5
    return networks


def test_every_classifier_scores_the_same_images(classifiers):
    digits = data.load("digits").test.images
    one, two = digits[:90], digits[90:180]
    real, found = (scoring.extract(classifiers, each) for each in (one, two))
    for number, each in enumerate(classifiers):
        alone = features.frechet_distance(features.extract(each, one), features.extract(each, two))
        assert scoring.distances(real, found)[number].item() == pytest.approx(alone)
        assert torch.allclose(scoring.logits(classifiers, one)[:, number], each[-1](features.extract(each, one)))


def test_a_sample_passes_if_it_is_closer_to_a_real_image_than_its_nearest_neighbour():
    real = torch.tensor([[[0.0], [1.0], [10.0]]])  # neighbours at 1, 1 and 9
    found = torch.tensor([[[-0.5], [-1.5], [2.1], [18.0], [19.5]]])
    assert scoring.passes(real, found).tolist() == [[True], [False], [True], [True], [False]]


def test_a_spread_is_the_deviation_of_the_means_over_everything_else():
    values = torch.tensor([[1.0, 3.0], [5.0, 7.0]]).unsqueeze(1)  # (seeds, draws, classifiers)
    assert scoring.shown(values) == ["4.00", "2.83", "–", "1.41"]
