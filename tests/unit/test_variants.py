"""Every likelihood, posterior, prior and objective that comes with the package, by the same assertions for all."""

import math
import sys
from functools import partial

import pytest
import torch
import zuko
from torch import nn
from torch.autograd import gradcheck
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from vaelib import (
    TrainConfig,
    decoders,
    distributions,
    encoders,
    evaluation,
    models,
    objective,
    priors,
    runs,
    storage,
    training,
)
from vaelib.binarization import binarized
from vaelib.checks import check_model
from vaelib.data import to_float
from vaelib.models import VAE
from vaelib.seeding import seeded


def vamp(image_shape, latent_dim):
    model = models.mlp(image_shape, latent_dim)
    model.prior = priors.Vamp(model.encoder, image_shape, components=5)
    return model


mlp = models.mlp
LIKELIHOODS = {
    name: partial(mlp, decoder=getattr(decoders, name))
    for name in ("ContinuousBernoulli", "Gaussian", "OptimalGaussian", "DiscretizedLogisticMixture")
}
BUILDERS = LIKELIHOODS | {
    "paper": models.build,
    "binarized": binarized,
    "mixture prior": partial(mlp, prior=priors.Mixture),
    "VampPrior": vamp,
    "inverse autoregressive posterior": partial(mlp, encoder=encoders.InverseAutoregressive),
    "flow prior": partial(mlp, prior=zuko.flows.MAF),
    "both flows": partial(mlp, encoder=encoders.InverseAutoregressive, prior=zuko.flows.NSF),
    "convolutional": partial(models.conv, decoder=decoders.DiscretizedLogisticMixture),
}
OBJECTIVES = {
    "β": objective.BetaELBO(4),
    "annealing": objective.BetaELBO(warm_up=0.5),
    "free bits": objective.FreeBits(0.5),
    "importance-weighted": objective.ImportanceWeighted(3),
    "mean of samples": objective.MeanELBO(3),
}
VARIANTS = {name: {"builder": builder} for name, builder in BUILDERS.items()}
VARIANTS |= {name: {"objective": each} for name, each in OBJECTIVES.items()}
VARIANTS["all at once"] = {"builder": partial(binarized, builder=vamp), "objective": objective.ImportanceWeighted(2)}
SETTINGS = TrainConfig(latent_dim=1, epochs=2, batch_size=40)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def run(variant, tiny, tmp_path_factory):
    return runs.train(tiny, SETTINGS, tmp_path_factory.mktemp("variant"), "cpu", **variant)


def _loss(model, x, each, fraction):
    """What a training step minimises, and the terms that it is made of."""
    terms = model(x, **objective.options(each))
    return each(terms, fraction), terms


def _quadrature(log_density, grid):
    """The logarithm of an integral over a fine grid, along the first dimension."""
    return log_density.double().logsumexp(0) + math.log(grid[1] - grid[0])


class TestEveryVariant:
    def test_shapes(self, run, tiny):
        model, x = run.model(), to_float(tiny.test.images[:6])
        assert [term.shape for term in model.elbo(x)] == [(6,)] * 2
        assert [term.shape for term in model.terms(x, 3)[:3]] == [(3, 6)] * 3
        assert [moment.shape for moment in model.encode(x)] == [(6, 1)] * 2
        assert model.latent_dim == 1
        for images in (model.sample(4), model.decoder(model.prior().sample((4,))).sample()):
            assert images.shape == (4, *tiny.image_shape)
        assert 0 <= model.sample(4).min() <= model.sample(4).max() <= 1

    def test_a_finite_gradient_for_every_weight(self, variant, tiny):
        model = variant.get("builder", models.build)(tiny.image_shape, 2)
        each = variant.get("objective", objective.negative_elbo)
        loss, _ = _loss(model, to_float(tiny.train.images[:50]), each, 0.5)
        assert loss.shape == (50,)
        loss.mean().backward()
        for name, weight in model.named_parameters():
            assert weight.grad is not None and weight.grad.isfinite().all(), name
            assert weight.grad.any(), name

    @torch.no_grad()
    def test_posterior_and_prior_have_mass_one_and_are_drawn_from_as_they_say(self, run, tiny):
        model, grid = run.model(), torch.linspace(-30, 30, 6001)
        for distribution in (model.posterior(to_float(tiny.test.images[:1])), model.prior()):
            shape = (-1, 1) if distribution.batch_shape == () else (-1, 1, 1)
            density = distribution.log_prob(grid.view(shape)).view(-1, 1)
            torch.testing.assert_close(_quadrature(density, grid).exp().item(), 1.0, atol=1e-3, rtol=0)
            with seeded(0):
                drawn = distribution.sample((4000,)).flatten().double()
            expected = _quadrature(density + (grid.view(-1, 1) + 40).log(), grid).exp().item() - 40
            assert abs(drawn.mean() - expected) < 4 * drawn.std() / math.sqrt(len(drawn))

    @torch.no_grad()
    def test_log_prob_is_the_integral_over_all_codes(self, run, tiny):
        model, images, grid = run.model(), tiny.test.images, torch.linspace(-12, 12, 2401)
        estimate, error = evaluation.log_prob(model, images, samples=500)
        prior = model.prior().log_prob(grid.view(-1, 1))
        likelihood = model.decoder(grid.view(-1, 1))
        x = model.preprocess(to_float(images))
        exact = [_quadrature(likelihood.log_prob(each.expand(len(grid), *each.shape)) + prior, grid) for each in x]
        difference = estimate.mean() - torch.stack(exact).mean()
        assert abs(difference) < 3 * error.square().sum().sqrt() / len(images)

    def test_a_loaded_model_is_the_saved_one(self, run, variant, tiny, tmp_path):
        model, path = run.model(), tmp_path / "model.safetensors"
        builder = variant.get("builder", models.build)
        storage.save(model, path, builder)
        again = storage.load(path, builder=builder)
        for term, other in zip(
            evaluation.elbo(model, tiny.test.images), evaluation.elbo(again, tiny.test.images), strict=True
        ):
            assert torch.equal(term, other)

    def test_interrupted_and_resumed_it_ends_bit_for_bit_the_same(self, run, variant, tiny, tmp_path, monkeypatch):
        calls = []

        def interrupted(images):
            calls.append(images)
            if len(calls) == 8:  # in the second epoch
                raise KeyboardInterrupt
            return to_float(images)

        with monkeypatch.context() as patch:
            patch.setattr(training, "CHECK_EVERY", 2)
            patch.setattr(training, "to_float", interrupted)
            with pytest.raises(KeyboardInterrupt):
                runs.train(tiny, SETTINGS, tmp_path, "cpu", **variant, checkpoint_seconds=0)
        resumed = runs.train(tiny, SETTINGS, tmp_path, "cpu", **variant)
        weights, others = resumed.model().state_dict(), run.model().state_dict()
        assert all(torch.equal(weights[name], others[name]) for name in others)
        assert resumed.evaluation == run.evaluation


# Likelihoods


@pytest.mark.parametrize("name", LIKELIHOODS)
@torch.no_grad()
def test_a_likelihood_has_mass_one(name):
    model = LIKELIHOODS[name]((1, 1, 1), 1).eval()
    if name == "DiscretizedLogisticMixture":
        grid, spacing = torch.arange(256) / 255, 1.0
    elif name == "ContinuousBernoulli":
        grid, spacing = (torch.arange(10000) + 0.5) / 10000, 1e-4
    else:
        grid, spacing = torch.arange(-8, 8, 1e-3), 1e-3
    for z in (-3.0, 0.0, 2.0):
        density = model.decoder(torch.full((len(grid), 1), z)).log_prob(grid.view(-1, 1, 1, 1))
        assert density.double().exp().sum().item() * spacing == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", LIKELIHOODS)
@torch.no_grad()
def test_the_mean_of_a_likelihood_is_that_of_its_samples(name):
    model = LIKELIHOODS[name]((2, 3, 3), 2).eval()
    with seeded(1):
        likelihood = model.decoder(2 * torch.randn(4, 2))
        drawn = likelihood.sample((5000,))
    assert drawn.shape == (5000, 4, 2, 3, 3)
    bound = 4.5 * drawn.std(0) / math.sqrt(5000) + (0.5 / 255 if name == "DiscretizedLogisticMixture" else 0)
    assert ((drawn.mean(0) - likelihood.mean).abs() < bound).all()


def test_gaussian_pixels_have_torchs_density():
    model = LIKELIHOODS["Gaussian"]((3, 4, 4), 2)
    z, x = torch.randn(5, 2), torch.rand(5, 3, 4, 4)
    expected = Normal(model.decoder(z).mean, math.exp(-1)).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(model.decoder(z).log_prob(x), expected)


def test_the_optimal_sigma_is_the_best_one_and_the_one_of_evaluation_follows_it():
    decoder = LIKELIHOODS["OptimalGaussian"]((1, 4, 4), 2).decoder
    z, x = torch.randn(5, 2), torch.rand(5, 1, 4, 4)
    best = decoder(z).log_prob(x).sum()
    error = (decoder(z).mean - x).square().mean()
    for factor in (0.9, 1.1):
        assert best > Normal(decoder(z).mean, error.sqrt() * factor).log_prob(x).sum()
    assert best.item() == pytest.approx(Normal(decoder(z).mean, error.sqrt()).log_prob(x).sum().item(), rel=1e-5)
    assert decoder.variance.item() == pytest.approx(error.item())
    assert decoder.eval()(z).log_prob(x).sum().item() == pytest.approx(best.item(), rel=1e-5)
    assert decoder.eval()(z[:1]).log_prob(x[:1]).item() == pytest.approx(decoder(z).log_prob(x)[0].item(), rel=1e-5)
    decoder.train()
    for step in range(1000):
        decoder(z[step % 5, None]).log_prob(x[step % 5, None])
    assert decoder.variance.item() == pytest.approx(error.item(), rel=0.1)  # as the mean over batches


def test_the_logistic_mixture_is_differences_of_its_distribution_function():
    generator = torch.Generator().manual_seed(0)
    logits, mean, log_scale = torch.randn(3, 4, 5, 2, 3, 3, generator=generator, dtype=torch.float64)
    mean, log_scale = mean + 0.5, log_scale - 2
    x = torch.randint(256, (4, 2, 3, 3), generator=generator)
    x.view(-1)[:8] = torch.tensor([0, 255]).repeat(4)
    scale = log_scale.exp()
    above = torch.sigmoid(((x[:, None] + 0.5) / 255 - mean) / scale).where(x[:, None] < 255, torch.ones(()).double())
    below = torch.sigmoid(((x[:, None] - 0.5) / 255 - mean) / scale).where(x[:, None] > 0, torch.zeros(()).double())
    expected = (logits.softmax(1) * (above - below)).sum(1).log().sum((1, 2, 3))
    torch.testing.assert_close(distributions.LogisticMixture(logits, mean, log_scale).log_prob(x / 255), expected)


def test_the_logistic_mixture_stays_exact_far_out_in_its_tails():
    parameters = torch.zeros(1, 1, 1, 1, 1), torch.full((1, 1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1, 1), -5.0)
    level = distributions.LogisticMixture(*parameters).log_prob(torch.full((1, 1, 1, 1), 100 / 255)).item()
    width = math.exp(5) / 255
    expected = (100.5 / 255 - 3) * math.exp(5) + math.log(-math.expm1(-width))  # σ(a) = exp(a) so far below zero
    assert level == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_the_logistic_mixture_and_of_the_optimal_sigma_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(3, 2, 3, 1, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    x = torch.tensor([[0, 1], [100, 255]]).double().expand(2, 1, 2, 2) / 255
    assert gradcheck(lambda each: distributions.LogisticMixture(*each).log_prob(x), parameters)
    mean = torch.rand(2, 1, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda each: decoders._OptimalNormal(each, lambda error: None).log_prob(x), mean)


# Priors


@torch.no_grad()
def test_what_a_linear_vae_makes_of_codes_is_a_normal_distribution():
    """u ~ N(0, 1), z | u ~ N(Au + b, diag s²): together N(b, AAᵀ + diag s²), whatever the encoder is."""
    weight, bias, log_variance = torch.tensor([[1.0], [-0.5]]), torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 0.0])
    with seeded(0):
        encoder, decoder = encoders.Gaussian(nn.Identity(), 2, 1), encoders.Gaussian(nn.Identity(), 1, 2)
    decoder.mean.weight.copy_(weight), decoder.mean.bias.copy_(bias)
    decoder.log_variance.weight.zero_(), decoder.log_variance.bias.copy_(log_variance)
    exact = MultivariateNormal(bias, weight @ weight.T + log_variance.exp().diag())
    marginal = priors.Marginal(VAE(encoder, decoder, priors.Standard(1), (2,)), samples=20_000)
    with seeded(0):
        codes = marginal.sample((20_000,))
        assert codes.shape == (20_000, 2) and marginal.event_shape == (2,)
        torch.testing.assert_close(codes.mean(0), bias, atol=0.05, rtol=0)
        torch.testing.assert_close(codes.T.cov(), exact.covariance_matrix, atol=0.05, rtol=0)
        torch.testing.assert_close(marginal.log_prob(codes[:5]), exact.log_prob(codes[:5]), atol=0.1, rtol=0)


# Binary pixels


@pytest.fixture(scope="module")
def binary():
    return binarized((1, 28, 28), 2)


def test_in_evaluation_every_image_is_binarized_once_and_for_all(binary, digits):
    x = to_float(digits.train.images[:1000])
    seen = binary.eval().preprocess(x)
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(binary.preprocess(x[500:510]), seen[500:510])
    assert torch.equal(binary.preprocess(seen), seen)
    error = (seen - x).mean(0)  # of each pixel, over images: its variance is that of independent draws
    variance = (x * (1 - x)).mean(0) / len(x)
    assert (error.square() / variance)[variance > 1e-6].mean().item() == pytest.approx(1, abs=0.5)
    assert (seen - x).mean((1, 2, 3)).std() < 0.02


def test_binary_pixels_are_those_that_double_precision_would_draw(binary, digits):
    x = to_float(digits.train.images)
    checksum = ((255 * x).round().long() * binary.noise).sum((1, 2, 3), keepdim=True)
    expected = (binary.noise + checksum) % 2**31 < x.double() * 2**31
    assert torch.equal(binary.eval().preprocess(x), expected.float())


def test_in_training_every_look_draws_afresh(binary, digits):
    x = to_float(digits.train.images[:5])
    with seeded(0):
        looks = torch.stack([binary.train().preprocess(x) for _ in range(2000)])
    assert ((looks.mean(0) - x).abs() <= 5 * (x * (1 - x) / 2000).sqrt()).all()


def test_log_prob_scores_the_binary_pixels_whatever_the_grey_ones(binary, digits):
    grey = digits.test.images[:20]
    seen = (255 * binary.eval().preprocess(to_float(grey))).byte()
    for score in (evaluation.elbo, partial(evaluation.log_prob, samples=10)):
        assert torch.equal(score(binary, grey)[0], score(binary, seen)[0])


def test_free_bits_and_binary_pixels_know_one_drawing(binary, digits):
    """The posterior and the reconstruction are of the same pixels, so that without free bits the ELBO is left."""
    x = to_float(digits.test.images[:4])
    with seeded(0):
        loss, terms = _loss(binary.train(), x, objective.FreeBits(0), 0)
    with seeded(0):
        reconstruction, kl = binary.elbo(x)
    torch.testing.assert_close((terms.reconstruction, terms.divergence), (reconstruction, kl))
    torch.testing.assert_close(loss.mean(), (kl - reconstruction).mean())


@pytest.mark.parametrize("training", [True, False])
def test_images_that_do_not_fit_are_refused(binary, training):
    for wrong in (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.zeros(2, 28, 28, 1)):
        with pytest.raises(ValueError, match="expected float images"):
            binary.train(training).elbo(wrong)


# Objectives


class Linear(VAE):
    """A VAE of single pixels in double precision, whose weights are few enough for finite differences."""

    def __init__(self, prior):
        features = nn.Flatten()
        super().__init__(_Encoder(features), _Decoder(), prior, (1, 1, 2))
        self.double()


class _Encoder(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.features, self.linear = features, nn.Linear(2, 4)

    def forward(self, x):
        return distributions.DiagonalNormal(*self.linear(self.features(x)).chunk(2, -1))


class _Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, z):
        return Independent(Normal(self.linear(z).view(-1, 1, 1, 2), 0.5), 3)


@pytest.fixture
def linear():
    with seeded(0):
        return Linear(priors.Standard(2))


X = torch.rand(5, 1, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _at(model, each, fraction):
    with seeded(1):
        return _loss(model, X, each, fraction)


@pytest.mark.parametrize("prior", ["standard", "mixture", "VampPrior"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_those_of_finite_differences(linear, name, prior):
    if prior != "standard" and name in ("free bits", "mean of samples"):
        return
    if prior == "mixture":
        linear.prior = priors.Mixture(2, components=2).double()
    elif prior == "VampPrior":
        linear.prior = priors.Vamp(linear.encoder, (1, 1, 2), components=2).double()
    each = objective.FreeBits(0.01) if name == "free bits" else OBJECTIVES[name]  # the KL is above that
    names, weights = zip(*linear.named_parameters(), strict=True)

    def loss(*values):
        for weight, value in zip(weights, values, strict=True):
            weight.data = value.data
        return _at(linear, each, 0.25)[0].mean()

    gradients = torch.autograd.grad(loss(*weights), weights)
    originals = [weight.detach().clone() for weight in weights]
    for index, gradient in enumerate(gradients):
        for place in range(gradient.numel()):
            moved = []
            for step in (1e-5, -1e-5):
                values = [each.clone() for each in originals]
                values[index].view(-1)[place] += step
                moved.append(loss(*values).item())
            assert gradient.view(-1)[place].item() == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-4, abs=1e-7), (
                names[index]
            )


def test_beta_weighs_the_kl_and_annealing_lets_it_grow(linear):
    _, plain = _at(linear, objective.negative_elbo, 0)
    for each, fraction, beta in (
        (objective.BetaELBO(), 0, 1),
        (objective.BetaELBO(4), 0, 4),
        (objective.BetaELBO(2, warm_up=0.5), 0, 0),
        (objective.BetaELBO(2, warm_up=0.5), 0.25, 1),
        (objective.BetaELBO(2, warm_up=0.5), 0.75, 2),
    ):
        loss, terms = _at(linear, each, fraction)
        torch.testing.assert_close(loss, beta * plain.divergence - plain.reconstruction)
        torch.testing.assert_close(terms, plain)


def test_free_bits_charge_every_dimension_at_least_its_nats(linear):
    q = linear.posterior(X)
    by_hand = kl_divergence(Normal(q.mean, q.variance.sqrt()), Normal(0.0, 1.0)).mean(0)
    nats = by_hand.mean().item()  # between the two dimensions' KL
    assert by_hand.min() < nats < by_hand.max()
    loss, terms = _at(linear, objective.FreeBits(nats), 0)
    torch.testing.assert_close(loss + terms.reconstruction, (nats + by_hand.max()).expand(5))
    torch.testing.assert_close(terms.divergence.mean(), by_hand.sum())


def test_free_bits_need_independent_dimensions(linear):
    linear.prior = priors.Mixture(2).double()
    with pytest.raises(ValueError, match=r"free bits need the KL of each latent dimension.*have none.*warm_up"):
        _at(linear, objective.FreeBits(), 0)


def test_codes_are_scored_alike_however_many_are_decoded_at_once(linear, monkeypatch):
    linear.eval()
    for pixels in (1, 10, 30, 1000):  # one, one, three, all
        monkeypatch.setattr(models, "EVAL_BATCH_VALUES", pixels)
        terms = linear.terms(X, 7)
        expected = torch.stack([linear.decoder(z).log_prob(X) for z in terms.codes])
        torch.testing.assert_close(terms.log_likelihood, expected)


def test_one_importance_sample_is_the_elbo_and_many_are_log_p(linear):
    loss, terms = _at(linear, objective.ImportanceWeighted(1), 0)
    torch.testing.assert_close(loss, (terms.log_posterior - terms.log_prior)[0] - terms.reconstruction)
    weight = linear.decoder.linear.weight.detach()
    covariance = weight @ weight.T + 0.25 * torch.eye(2)
    exact = torch.distributions.MultivariateNormal(linear.decoder.linear.bias.detach(), covariance)
    many, terms = _at(linear, objective.ImportanceWeighted(2000), 0)
    torch.testing.assert_close(-many, exact.log_prob(X.view(5, 2)), atol=0.05, rtol=0)
    assert (terms.reconstruction - terms.divergence < -many).all()  # what is recorded is the ELBO


def test_a_mean_of_samples_is_the_elbo_with_the_kl_in_closed_form(linear):
    loss, one = _at(linear, objective.MeanELBO(1), 0)
    plain_loss, plain = _at(linear, objective.negative_elbo, 0)
    assert all(map(torch.equal, (loss, *one), (plain_loss, *plain)))
    loss, terms = _at(linear, objective.MeanELBO(2000), 0)
    assert torch.equal(terms.divergence, one.divergence)
    torch.testing.assert_close(loss, terms.divergence - terms.reconstruction)
    q, weight = linear.posterior(X), linear.decoder.linear.weight
    error = (X.view(5, 2) - linear.decoder.linear(q.mean)).square() + q.variance @ weight.T.square()
    expected = (-0.5 * math.log(2 * math.pi * 0.25) - error / (2 * 0.25)).sum(1)
    torch.testing.assert_close(terms.reconstruction, expected, atol=0.2, rtol=0)


def test_a_mean_of_samples_needs_a_kl_in_closed_form(linear):
    linear.prior = priors.Mixture(2).double()
    with pytest.raises(
        ValueError, match=r"a KL in closed form, and this posterior and prior have none; ImportanceWeighted"
    ):
        _at(linear, objective.MeanELBO(), 0)


def test_a_mean_of_samples_has_less_noise_than_one(linear):
    draws = {}
    for samples in (1, 16):
        each = objective.MeanELBO(samples)
        draws[samples] = torch.stack([each(linear(X, samples), 0) for _ in range(400)])
    ratio = draws[1].var(0) / draws[16].var(0)
    assert ((ratio > 8) & (ratio < 32)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: objective.BetaELBO(-1),
        lambda: objective.BetaELBO(math.nan),
        lambda: objective.BetaELBO(1, warm_up=2),
        lambda: objective.FreeBits(-0.1),
        lambda: objective.ImportanceWeighted(0),
        lambda: objective.ImportanceWeighted(2.5),
        lambda: objective.MeanELBO(0),
    ],
)
def test_objectives_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^(expected|samples must be a whole number of at least 1)"):
        wrong()


# Priors and posteriors


def test_the_vamp_prior_is_the_mean_of_the_encoders_posteriors():
    model = vamp((1, 4, 4), 2).eval()
    z = torch.randn(7, 2)
    q = model.posterior(model.prior.pseudo_inputs.sigmoid())
    each = Normal(q.mean, q.variance.sqrt()).log_prob(z[:, None]).sum(-1)
    torch.testing.assert_close(model.prior().log_prob(z), each.logsumexp(1) - math.log(5))
    assert not any("_encoder" in name for name in model.state_dict())


def test_the_vamp_prior_leaves_batch_norm_to_the_images():
    model = models.conv((3, 16, 16), 2)
    model.prior = priors.Vamp(model.encoder, model.image_shape)
    before = {name: buffer.clone() for name, buffer in model.encoder.named_buffers()}
    model.prior()
    assert model.encoder.training
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.encoder.named_buffers())


def test_a_flow_draws_its_density_along_as_it_would_compute_it():
    model = models.mlp((1, 4, 4), 3, encoder=encoders.InverseAutoregressive)
    q = model.posterior(torch.rand(5, 1, 4, 4))
    z, log_q = q.rsample_and_log_prob()
    torch.testing.assert_close(log_q, q.log_prob(z), atol=1e-4, rtol=1e-4)


def test_figures_of_a_posterior_that_is_known_by_samples_are_always_the_same(tiny):
    model = models.mlp(tiny.image_shape, 2, encoder=encoders.InverseAutoregressive)
    for figure in (lambda: evaluation.encode(model, tiny.test.images)[0], partial(evaluation.evaluate, model, tiny)):
        first, again = figure(), figure()
        assert torch.equal(first, again) if isinstance(first, torch.Tensor) else first == again


def test_without_zuko_the_error_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ModuleNotFoundError, match="pip install zuko"):
        models.mlp((1, 4, 4), 2, encoder=encoders.InverseAutoregressive)


def _flow(flow):
    def posterior(features, size, latent_dim):
        return nn.Sequential(features, flow(latent_dim, context=size))

    return posterior


@pytest.mark.parametrize("flow", [zuko.flows.MAF, partial(zuko.flows.MAF, passes=2), zuko.flows.NICE, zuko.flows.NSF])
def test_the_vamp_prior_takes_a_flows_posteriors(flow):
    model = models.mlp((1, 4, 4), 3, encoder=_flow(flow))
    model.prior = priors.Vamp(model.encoder, (1, 4, 4), components=4)
    check_model(model)
    z = torch.randn(2, 5, 3)
    parts = model.encoder(model.prior.pseudo_inputs.sigmoid())
    each = torch.stack([parts.log_prob(code.expand(4, 3)) for code in z.flatten(0, 1)])  # (10, 4)
    expected = (each.logsumexp(1) - math.log(4)).unflatten(0, (2, 5))
    torch.testing.assert_close(model.prior().log_prob(z), expected)
