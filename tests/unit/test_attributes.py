"""Directions of attributes, against codes whose directions were planted."""

import pytest
import torch

from vaelib import attributes, models

K = 6


@pytest.fixture(scope="module")
def planted():
    """Codes with very unequal scales; an attribute linear in them but for some noise, and one that is chance."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.05, 0.2, 0.5, 1.0, 2.0, 4.0])
    codes = torch.randn(3000, K, generator=generator) * scale + 3
    direction = torch.nn.functional.normalize(torch.randn(K, generator=generator) / scale, dim=0)
    score = (codes - 3) @ direction
    noise = torch.randn(3000, generator=generator)
    labels = torch.stack([score + 0.3 * score.std() * noise > 0, noise > 1], 1)
    return codes, labels, direction


@pytest.fixture(scope="module")
def found(planted):
    codes, labels, _ = planted
    return attributes.fit(codes, labels, ["Planted", "Chance"])


def test_the_gradient_is_the_planted_one_and_the_standardised_one_is_not(planted, found):
    assert found["Planted"].gradient @ planted[2] > 0.99
    assert found["Planted"].standardised_direction @ planted[2] < 0.95


def test_the_direction_leads_from_the_mean_code_without_the_attribute_to_that_with_it(planted, found):
    codes, labels, _ = planted
    for column, attribute in zip(labels.T, found.values(), strict=True):
        difference = codes[column].mean(0) - codes[~column].mean(0)
        torch.testing.assert_close(attribute.direction, difference / difference.norm())


FORMS = torch.Tensor.numpy, torch.Tensor.bfloat16, torch.Tensor.requires_grad_
SCALED = (lambda codes: 1e-30 * codes), (lambda codes: 1e30 * codes), (lambda codes: 1e-300 * codes.double())


@pytest.mark.parametrize("form", [*FORMS, *SCALED])
def test_codes_of_other_kinds_and_scales_have_the_same_direction(planted, found, form):
    codes, labels, _ = planted
    again = attributes.fit(form(codes.clone()), labels.numpy(), ["Planted", "Chance"])["Planted"]
    torch.testing.assert_close(again.direction, found["Planted"].direction, rtol=0, atol=0.01)
    assert again.score(form(codes.clone())).shape == (len(codes),)


def test_codes_that_do_not_vary_and_missing_arguments_are_refused():
    codes, labels, names = torch.full((100, 3), 0.3), (torch.arange(100) < 50)[:, None], ["Bald"]
    for given in ((codes, labels, names), (None, labels, names), (codes, None, names), (codes, labels, None)):
        with pytest.raises(ValueError, match=r"all codes are equal, or some|to a tensor failed|expected codes"):
            attributes.fit(*given)


def test_the_score_grows_fastest_along_the_gradient(planted, found):
    start = planted[0][:1].double()
    attribute = found["Planted"]
    slopes = attribute.score(start + 1e-3 * torch.eye(K)) - attribute.score(start)
    assert slopes / slopes.norm() @ attribute.gradient > 0.9999


def test_accuracy_is_of_unseen_codes_and_beside_the_majority(planted, found):
    one, chance = found["Planted"], found["Chance"]
    assert one.accuracy.shape == one.auc.shape == (5,)
    assert one.accuracy.mean() > 0.88 and one.auc.mean() > 0.95
    assert chance.majority == pytest.approx(1 - planted[1][:, 1].float().mean().item())
    assert chance.accuracy.mean() == pytest.approx(chance.majority, abs=0.01)
    assert chance.auc.mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("present", [0, 4, 96, 100])
def test_an_attribute_of_one_class_is_named(present):
    labels = (torch.arange(100) < present)[:, None]
    with pytest.raises(
        ValueError, match=f"Bald: {present} images with it and {100 - present} without it .* at least 5 of each"
    ):
        attributes.fit(torch.randn(100, 2), labels, ["Bald"])


@pytest.mark.parametrize("form", [lambda y: y.to(torch.uint16), torch.Tensor.cfloat, lambda y: 2 * y.int() - 1])
def test_labels_of_numbers_give_the_same_directions(planted, found, form):
    codes, labels, _ = planted
    again = attributes.fit(codes, form(labels), ["Planted", "Chance"])
    assert all(torch.equal(again[name].direction, found[name].direction) for name in found)
    assert again["Planted"].majority == found["Planted"].majority


@pytest.mark.parametrize("labels", [[[0], [2]], [[-1], [0], [1]], [[torch.nan]]])
def test_labels_of_other_numbers_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be bool, 0 and 1, or -1 and 1; these have"):
        attributes.fit(torch.randn(len(labels), 2), torch.tensor(labels), ["Bald"])


@pytest.mark.parametrize(("columns", "names"), [(1, ["Bald", "Smiling"]), (2, ["Bald", "Bald"]), (1, ["Bald", "Bald"])])
def test_names_that_do_not_fit_the_labels_are_refused(columns, names):
    with pytest.raises(ValueError, match=r"as many different names, not \(100, 2\) and \(100, \d\) for Bald"):
        attributes.fit(torch.randn(100, 2), torch.ones(100, columns, dtype=torch.bool), names)


def test_a_direction_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"expected \(N, K\), \(K,\) and \(T,\), not .*\[1\]"):
        attributes.traverse(models.mlp((1, 8, 8), 2), torch.zeros(3, 2), torch.ones(1), torch.ones(1))


def test_a_walk_passes_through_its_start():
    model = models.conv((3, 32, 16), K).eval()
    codes, direction = torch.randn(3, K), torch.randn(K)
    steps = torch.tensor([-1.0, 0, 2])
    walk = attributes.traverse(model, codes, direction, steps)
    assert walk.shape == (3, 3, 3, 32, 16)
    for column, step in enumerate(steps):
        torch.testing.assert_close(walk[:, column], model.decode(codes + step * direction), rtol=0, atol=1e-5)
    assert not model.training
