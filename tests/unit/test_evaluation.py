"""The figures of a trained model, against plain formulas, quadrature and their own spread."""

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import NormalPixels, StudentPixels, same_weights, small
from torch import nn
from torch.distributions import AffineTransform, Independent, Normal, TransformedDistribution

from vaelib import encoders, evaluation, models, objective
from vaelib.data import Dataset, Split, to_float
from vaelib.models import VAE
from vaelib.seeding import seeded


@pytest.fixture(scope="module")
def model(trained):
    return trained.model()


def test_encode_and_elbo_are_the_models_own(model, x, tiny):
    with torch.no_grad(), seeded(5):
        expected = *model.encode(x), *model.elbo(x)
    found = *evaluation.encode(model, tiny.test.images), *evaluation.elbo(model, tiny.test.images, seed=5)
    assert all(map(torch.equal, found, expected))


def test_values_do_not_depend_on_the_company_of_other_images_and_noise_does(model, tiny, monkeypatch):
    monkeypatch.setattr(models, "EVAL_BATCH_VALUES", 50 * 49)
    many = tiny.test.images.repeat(6, 1, 1, 1)
    for values, few in zip(evaluation.encode(model, many), evaluation.encode(model, tiny.test.images), strict=True):
        torch.testing.assert_close(values, few.repeat(6, 1), rtol=1e-5, atol=1e-5)
    reconstruction, _ = evaluation.elbo(model, tiny.test.images[:1].repeat(200, 1, 1, 1))
    assert len(reconstruction.unique()) > 180


def test_figures_are_the_same_for_the_same_seed_only_and_leave_the_global_one_alone(model, tiny):
    flow = small(tiny.image_shape, 2, encoder=encoders.InverseAutoregressive)
    before = torch.get_rng_state()
    for function in (evaluation.elbo, partial(evaluation.log_prob, samples=10)):
        first, again, other = (function(model, tiny.test.images, seed=seed)[0] for seed in (1, 1, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(*(evaluation.encode(flow, tiny.test.images)[0] for _ in range(2)))
    assert evaluation.evaluate(flow, tiny, 10) == evaluation.evaluate(flow, tiny, 10)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("samples", [27, 230])
def test_log_prob_is_the_importance_weighted_bound_of_its_samples(model, tiny, x, samples):
    with torch.no_grad(), seeded(2):
        mean, log_variance = model.encode(x)
        z = torch.stack([objective.reparameterize(mean, log_variance) for _ in range(samples)])
        likelihood = torch.stack([objective.bernoulli_log_prob(x, model.decoder.logits(each)) for each in z])
    densities = [objective.gaussian_log_prob(z, *each) for each in ((0 * mean, 0 * mean), (mean, log_variance))]
    log_weights = (likelihood + densities[0] - densities[1]).double()
    estimate, error = evaluation.log_prob(model, tiny.test.images, samples, seed=2)
    torch.testing.assert_close(estimate.double(), objective.importance_weighted_bound(log_weights))
    kept = [log_weights[torch.arange(samples) != s] for s in range(samples)]
    without = torch.stack([objective.importance_weighted_bound(each) for each in kept])
    torch.testing.assert_close(error.double(), without.std(0, correction=0) * math.sqrt(samples - 1))


def test_the_standard_error_of_log_prob_is_the_spread_over_seeds_though_few_weights_dominate(tiny):
    model = small(tiny.image_shape, 8)
    model.decoder.logits[-2].weight.data *= 10  # log weights with a standard deviation of several nats
    found = [evaluation.log_prob(model, tiny.test.images, 500, seed) for seed in range(20)]
    estimates, errors = map(torch.stack, zip(*found, strict=True))
    assert errors.square().mean().item() == pytest.approx(estimates.var(0).mean().item(), rel=0.5)


def test_log_prob_takes_bounded_batches_and_all_samples_are_of_the_same_images(model, tiny, monkeypatch):
    likelihood = type(model.decoder(torch.zeros(1, 2)))
    asked, scored, ask, score = [], [], models.VAE.terms, likelihood.log_prob
    monkeypatch.setattr(models.VAE, "preprocess", lambda self, x: x.bernoulli())
    monkeypatch.setattr(models.VAE, "terms", lambda self, *given: asked.append(given[:2]) or ask(self, *given))
    monkeypatch.setattr(likelihood, "log_prob", lambda self, x: scored.append(x) or score(self, x))
    monkeypatch.setattr(evaluation, "MAX_CODE_VALUES", 16 * 230 * 2)  # 16 images, with two numbers a code
    monkeypatch.setattr(models, "EVAL_BATCH_VALUES", 160 * 49)  # decoded at once: 10 samples of them
    evaluation.log_prob(model, tiny.test.images, 230)
    assert [(len(x), samples) for x, samples in asked] == [(16, 230), (16, 230), (8, 230)]
    assert torch.equal(torch.cat([x for x, _ in asked]), to_float(tiny.test.images))
    scored = [x for x in scored if len(x) > 2]  # without the check before
    assert max(map(len, scored)) == 160
    many = torch.cat(scored[:23]).view(230, 16, 1, 7, 7)
    assert (many == many[0]).all() and many.unique().tolist() == [0, 1]


def test_active_units_are_those_whose_mean_varies():
    unit = torch.tensor([-1.0, 1.0]).repeat(50)[:, None]  # variance 1.01 with the sample's correction
    means = unit * torch.tensor([1, 0.2, 0.11, 0.09, 0]) + torch.tensor([0.0, 0, 0, 0, 5])
    assert [evaluation.active_units(means, threshold) for threshold in (0.01, 0.5)] == [3, 1]
    means[3, 4] = math.nan
    assert math.isnan(evaluation.active_units(means))


class Shifted(nn.Module):
    """Normal distributions that do not know their mean, as flows do not: some pixels, or nothing."""

    def __init__(self, pixels):
        super().__init__()
        self.pixels = pixels

    def forward(self, x):
        mean = nn.functional.pad(x.flatten(1)[:, 24 : 24 + self.pixels], (0, 8 - self.pixels))
        return TransformedDistribution(Independent(Normal(0 * mean, 1.0), 1), [AffineTransform(mean, 1.0)])


@pytest.mark.parametrize("pixels", [0, 3])
def test_active_units_are_known_though_the_mean_is_of_samples(tiny, pixels):
    images = Split(tiny.train.images.repeat(10, 1, 1, 1))
    model = small(tiny.image_shape, 8)
    model.encoder = Shifted(pixels)
    assert evaluation.evaluate(model, Dataset("many", images, images), 10)["active_units"] == pixels


def test_reconstruction_error_is_the_mean_square_per_pixel(model, tiny, x):
    with torch.no_grad():
        decoded = model.decode(model.encode(x)[0])
    errors = evaluation.reconstruction_error(model, tiny.test.images)
    torch.testing.assert_close(errors, ((decoded - x) ** 2).sum((1, 2, 3)) / 49)


def test_the_highest_elbo_is_the_reconstruction_term_of_the_pixels_themselves(tiny, x):
    images, x = tiny.test.images, x.clamp(1e-6, 1 - 1e-6)
    ceiling = evaluation.max_bernoulli_elbo(images)
    torch.testing.assert_close(objective.bernoulli_log_prob(x, x.logit()), ceiling, rtol=1e-4, atol=1e-2)
    assert (evaluation.max_bernoulli_elbo(255 * (images > 127).to(torch.uint8)) == 0).all()  # black and white
    for wrong in (1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"expected pixels in \[0, 1\]"):
            evaluation.max_bernoulli_elbo(torch.tensor([[0.5, wrong]]))


def test_evaluate_gives_the_documented_figures(model, tiny):
    expected, images = {}, tiny.test.images
    for name, split in tiny.splits().items():
        terms = [each.mean().item() for each in evaluation.elbo(model, split.images)]
        expected |= {f"{name}_elbo": terms[0] - terms[1], f"{name}_reconstruction": terms[0], f"{name}_kl": terms[1]}
    (reconstruction, kl), (estimate, error) = evaluation.elbo(model, images), evaluation.log_prob(model, images, 20)
    expected |= {
        "elbo_standard_error": (reconstruction - kl).std().item() / math.sqrt(40),
        "log_prob": estimate.mean().item(),
        "log_prob_samples": 20,
        "log_prob_standard_error": error.square().sum().sqrt().item() / 40,
        "active_units": evaluation.active_units(evaluation.encode(model, images)[0]),
        "reconstruction_error": evaluation.reconstruction_error(model, images).mean().item(),
    }
    assert evaluation.evaluate(model, tiny, samples=20) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_a_model_is_evaluated_in_evaluation_mode_and_otherwise_left_as_it_was(mode, tiny):
    model = small(tiny.image_shape, 2).train(mode)
    model.encoder.features.append(nn.Dropout(0.9))
    before, fingerprint = copy.deepcopy(model), tiny.fingerprint
    for function in (evaluation.encode, evaluation.reconstruction_error, evaluation.elbo):
        function(model, tiny.test.images)
        assert model.training is mode
    expected = copy.deepcopy(model).eval().encode(to_float(tiny.test.images))[0].detach()
    assert torch.equal(evaluation.encode(model, tiny.test.images)[0], expected)
    evaluation.evaluate(model, tiny, 10)
    assert model.training is mode and same_weights(model, before)
    assert replace(tiny).fingerprint == fingerprint
    with pytest.raises(ValueError, match="expected float images"):
        evaluation.encode(model, torch.zeros(2, 1, 3, 3, dtype=torch.uint8))
    assert model.training is mode


def test_no_images_and_too_few_samples_are_refused(model, tiny):
    with pytest.raises(ValueError, match="no images to evaluate"):
        evaluation.elbo(model, tiny.test.images[:0])
    for samples in (1, 10.5):
        with pytest.raises(ValueError, match=rf"samples must be a whole number of at least 2.*not {samples}"):
            evaluation.log_prob(model, tiny.test.images, samples)


class Noisy(VAE):
    """Adds noise, also in evaluation."""

    def preprocess(self, x):
        return (x + torch.rand_like(x)) / 2


@pytest.mark.parametrize("decoder", [NormalPixels, StudentPixels])
@pytest.mark.parametrize("kind", [VAE, Noisy])
def test_every_figure_is_of_images_that_are_preprocessed_once(kind, decoder, tiny, x):
    with seeded(0):
        model = small(tiny.image_shape, 2, decoder=decoder).eval()
    model = kind(model.encoder, model.decoder, model.prior, model.image_shape)
    with torch.no_grad(), seeded(0):
        seen = model.preprocess(x)
        q, p = model.encoder(seen), model.prior()
        draws = q.sample((500,))
        weights = torch.stack([model.decoder(z).log_prob(seen) + p.log_prob(z) - q.log_prob(z) for z in draws])
    expected = objective.importance_weighted_bound(weights.double()).mean().item()
    figures = evaluation.evaluate(model, tiny, 500)
    assert figures["log_prob"] == pytest.approx(expected, abs=0.3)
    assert figures["test_elbo"] == pytest.approx(expected, abs=6)
