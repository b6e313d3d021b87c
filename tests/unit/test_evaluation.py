"""The figures of a trained model, against plain formulas, quadrature and their own spread."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import AffineTransform, Independent, Normal, TransformedDistribution

from vaelib import TrainConfig, evaluation, models, objective, training
from vaelib.data import Dataset, Split, to_float

KEYS = {f"{split}_{term}" for split in ("train", "test") for term in ("elbo", "reconstruction", "kl")} | {
    "elbo_standard_error",
    "log_prob",
    "log_prob_samples",
    "log_prob_standard_error",
    "active_units",
    "reconstruction_error",
}


@pytest.fixture(scope="module")
def model(trained):
    return trained.model()


@pytest.fixture(scope="module")
def line_model(tiny, tmp_path_factory):
    """A trained model with one latent dimension, over which integrals can be computed on a grid."""
    settings = TrainConfig(latent_dim=1, epochs=40, batch_size=32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.mlp(tiny.image_shape, 1)
    training.fit(model, tiny, settings, tmp_path_factory.mktemp("line"))
    return model


def _quadrature(model, images):
    """log ∫ p(x | z) N(z; 0, 1) dz by the trapezoidal rule in float64, which errs by nothing that shows."""
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    with torch.no_grad():
        weights = {name: tensor.double() for name, tensor in model.decoder.logits.state_dict().items()}
        logits = torch.func.functional_call(model.decoder.logits, weights, (z.unsqueeze(1),)).flatten(
            1
        )  # (4001, pixels)
    x = images.double().flatten(1) / 255
    log_likelihood = logits @ x.T - torch.nn.functional.softplus(logits).sum(1, keepdim=True)  # (4001, N)
    log_joint = log_likelihood - z.unsqueeze(1) ** 2 / 2 - math.log(2 * math.pi) / 2
    return torch.logsumexp(log_joint, 0) + math.log((z[1] - z[0]).item())


def test_encode_is_the_models_own(model, tiny):
    with torch.no_grad():
        expected = model.encode(to_float(tiny.test.images))
    for values, own in zip(evaluation.encode(model, tiny.test.images), expected, strict=True):
        torch.testing.assert_close(values, own)


def test_encode_does_not_depend_on_the_company_of_other_images(model, tiny):
    many = tiny.train.images.repeat(12, 1, 1, 1)  # more than fit into one batch
    for values, few in zip(evaluation.encode(model, many), evaluation.encode(model, tiny.train.images), strict=True):
        assert values.shape == (2400, 2)
        torch.testing.assert_close(values, few.repeat(12, 1), rtol=1e-5, atol=1e-5)


def test_elbo_of_one_batch_is_the_models_own(model, tiny):
    with torch.no_grad():
        torch.manual_seed(5)
        expected = model.elbo(to_float(tiny.test.images))
    for values, own in zip(evaluation.elbo(model, tiny.test.images, seed=5), expected, strict=True):
        assert values.shape == (40,)
        assert torch.equal(values, own)


def test_elbo_is_the_same_for_the_same_seed_only(model, tiny):
    many = tiny.train.images.repeat(6, 1, 1, 1)
    first, again, other = (evaluation.elbo(model, many, seed) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(first[1], other[1])  # the KL is exact


def test_elbo_draws_new_noise_for_every_batch(model, tiny):
    reconstruction, _ = evaluation.elbo(model, tiny.test.images[:1].repeat(3000, 1, 1, 1))
    assert len(reconstruction.unique()) > 2500


def test_nothing_draws_from_the_global_random_state(model, tiny):
    before = torch.get_rng_state()
    evaluation.elbo(model, tiny.test.images)
    evaluation.log_prob(model, tiny.test.images, 10)
    assert torch.equal(torch.get_rng_state(), before)


def test_log_prob_is_the_integral_over_the_latent_dimension(line_model, tiny):
    images = tiny.test.images[:10]
    estimate, error = evaluation.log_prob(line_model, images, 2000)
    assert error.max() < 0.2
    assert ((estimate - _quadrature(line_model, images)).abs() < 4 * error + 1e-4).all()


def test_elbo_and_log_prob_climb_towards_the_integral(line_model, tiny):
    model, images = copy.deepcopy(line_model), tiny.test.images
    with torch.no_grad():
        model.encoder.log_variance.bias += 2  # a posterior that fits badly keeps the bounds apart
    bounds = [torch.stack([torch.sub(*evaluation.elbo(model, images, seed)) for seed in range(10)]).mean().item()]
    for samples in (10, 100):
        estimates = [evaluation.log_prob(model, images, samples, seed)[0] for seed in range(10)]
        bounds.append(torch.stack(estimates).mean().item())
    bounds.append(_quadrature(model, images).mean().item())
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[-1] - 1


@pytest.mark.parametrize("samples", [27, 230])
def test_log_prob_is_the_importance_weighted_bound_of_its_samples(model, tiny, samples):
    x = to_float(tiny.test.images)
    generator = torch.Generator().manual_seed(2)
    log_weights = []
    with torch.no_grad():
        mean, log_variance = model.encode(x)
        for _ in range(samples):
            z = objective.reparameterize(mean, log_variance, generator)
            weight = objective.bernoulli_log_prob(x, model.decoder.logits(z))
            weight += objective.gaussian_log_prob(z, torch.zeros_like(z), torch.zeros_like(z))
            log_weights.append(weight - objective.gaussian_log_prob(z, mean, log_variance))
    log_weights = torch.stack(log_weights).double()
    estimate, error = evaluation.log_prob(model, tiny.test.images, samples, seed=2)
    torch.testing.assert_close(estimate.double(), objective.importance_weighted_bound(log_weights))
    tenths = [objective.importance_weighted_bound(part) for part in log_weights.tensor_split(10)]
    torch.testing.assert_close(error.double(), torch.stack(tenths).std(0) / math.sqrt(10))


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


def test_log_probs_standard_error_is_the_spread_over_seeds(model, tiny):
    images, seeds = tiny.test.images[:8], 50
    estimates, errors = (
        torch.stack(values)
        for values in zip(*(evaluation.log_prob(model, images, 60, seed) for seed in range(seeds)), strict=True)
    )
    ratio = (errors.square().mean(0) / estimates.var(0)).mean().sqrt()
    assert 0.8 < ratio < 1.25


def test_log_prob_is_the_same_for_the_same_seed_only(model, tiny):
    first, again, other = (evaluation.log_prob(model, tiny.test.images, 10, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("samples", [9, 0, -3])
def test_log_prob_needs_ten_samples(model, tiny, samples):
    with pytest.raises(ValueError, match=f"at least 10.*not {samples}"):
        evaluation.log_prob(model, tiny.test.images, samples)


def test_active_units_are_those_whose_mean_varies():
    unit = torch.tensor([-1.0, 1.0]).repeat(50)  # variance 1.01 with the sample's correction
    means = torch.stack([unit, 0.2 * unit, 0.11 * unit, 0.09 * unit, 0 * unit + 5], 1)
    assert evaluation.active_units(means) == 3
    assert evaluation.active_units(means, threshold=0.5) == 1
    assert evaluation.active_units(torch.zeros(10, 4)) == 0


def test_a_posterior_that_is_the_prior_has_no_active_unit_though_its_mean_is_of_samples(tiny):
    class Same(torch.nn.Module):
        """For every image a normal distribution that does not know its mean, as flows do not."""

        def forward(self, x):
            normal = Independent(Normal(torch.zeros(len(x), 8), 1.0), 1)
            return TransformedDistribution(normal, [AffineTransform(self.shift(x), 1.0)])

        def shift(self, x):
            return torch.zeros(len(x), 8)

    images = Split(tiny.train.images.repeat(10, 1, 1, 1))
    many = Dataset("many", images, images)
    model = models.mlp(tiny.image_shape, 8)
    model.encoder = Same()
    assert evaluation.evaluate(model, many, 10)["active_units"] == 0
    model.encoder.shift = lambda x: torch.nn.functional.pad(x.flatten(1)[:, 24:27], (0, 5))
    assert evaluation.evaluate(model, many, 10)["active_units"] == 3


def test_reconstruction_error_is_the_mean_square_per_pixel(model, tiny):
    x = to_float(tiny.test.images)
    with torch.no_grad():
        decoded = model.decode(model.encode(x)[0])
    errors = evaluation.reconstruction_error(model, tiny.test.images)
    assert errors.shape == (40,)
    torch.testing.assert_close(errors, ((decoded - x) ** 2).sum((1, 2, 3)) / 49)


def test_no_reconstruction_is_above_the_ceiling_and_that_of_the_pixels_themselves_is_there(model, tiny):
    images = tiny.test.images
    x = to_float(images).clamp(1e-6, 1 - 1e-6)
    ceiling = evaluation.max_bernoulli_elbo(images)
    torch.testing.assert_close(objective.bernoulli_log_prob(x, x.logit()), ceiling, rtol=1e-4, atol=1e-2)
    reconstruction, _ = evaluation.elbo(model, images)
    assert (reconstruction < ceiling).all()
    assert (evaluation.max_bernoulli_elbo(255 * (images > 127).to(torch.uint8)) == 0).all()  # black and white


def test_evaluate_gives_the_documented_figures(model, tiny):
    figures = evaluation.evaluate(model, tiny, samples=20)
    assert figures.keys() == KEYS
    for name, split in (("train", tiny.train), ("test", tiny.test)):
        reconstruction, kl = evaluation.elbo(model, split.images)
        assert figures[f"{name}_reconstruction"] == pytest.approx(reconstruction.mean().item())
        assert figures[f"{name}_kl"] == pytest.approx(kl.mean().item())
        assert figures[f"{name}_elbo"] == pytest.approx((reconstruction - kl).mean().item())
    assert figures["elbo_standard_error"] == pytest.approx((reconstruction - kl).std().item() / math.sqrt(40))
    estimate, error = evaluation.log_prob(model, tiny.test.images, 20)
    assert figures["log_prob_samples"] == 20
    assert figures["log_prob"] == pytest.approx(estimate.mean().item())
    assert figures["log_prob_standard_error"] == pytest.approx(math.sqrt((error**2).sum().item()) / 40)
    means, _ = evaluation.encode(model, tiny.test.images)
    assert figures["active_units"] == evaluation.active_units(means)
    errors = evaluation.reconstruction_error(model, tiny.test.images)
    assert figures["reconstruction_error"] == pytest.approx(errors.mean().item())


def test_evaluate_gives_the_same_figures_twice(model, tiny):
    assert evaluation.evaluate(model, tiny, 10) == evaluation.evaluate(model, tiny, 10)


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_restored(tiny, training):
    model = models.mlp(tiny.image_shape, 2).train(training)
    for function in (evaluation.encode, evaluation.elbo, evaluation.reconstruction_error):
        function(model, tiny.test.images)
        assert model.training is training
    evaluation.evaluate(model, tiny, 10)
    assert model.training is training
    with pytest.raises(ValueError, match="expected float images"):
        evaluation.encode(model, torch.zeros(2, 1, 3, 3, dtype=torch.uint8))
    assert model.training is training


def test_the_model_is_evaluated_in_evaluation_mode(tiny):
    model = models.mlp(tiny.image_shape, 2)
    model.encoder.features.append(torch.nn.Dropout(0.9))
    model.train()
    first, second = (evaluation.encode(model, tiny.test.images)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_evaluation_neither_changes_weights_nor_images(model, tiny):
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    splits = [Split(split.images.clone(), split.labels) for split in (tiny.train, tiny.test)]
    evaluation.evaluate(model, tiny, 10)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert Dataset("tiny", *splits, tiny.names).fingerprint == replace(tiny).fingerprint
