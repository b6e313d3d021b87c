"""Likelihoods, posteriors and priors: their densities have mass one, and samples, means and KL agree with them."""

import math
from functools import partial

import pytest
import torch
import zuko
from conftest import MODELS, small, vamp
from torch import nn
from torch.autograd import gradcheck
from torch.distributions import Independent, Laplace, MultivariateNormal, Normal, TransformedDistribution, kl_divergence

from vaelib import decoders, distributions, encoders, models, objective, priors
from vaelib.checks import check_model
from vaelib.seeding import seeded


def _quadrature(log_density, grid):
    """The logarithm of an integral over a fine grid, along the first dimension."""
    return log_density.double().logsumexp(0) + math.log(grid[1] - grid[0])


# Of the package


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_posterior_and_prior_have_mass_one_and_are_drawn_from_as_they_say(name, x, tiny):
    with seeded(0):
        model = MODELS[name](tiny.image_shape, 1).eval()
    label, grid = tiny.test.labels[:1], torch.linspace(-12, 12, 2401)
    prior = model.prior(label) if model.conditional else model.prior()
    for distribution in (model.posterior(x[:1], label), prior):
        shape = (-1, 1) if distribution.batch_shape == () else (-1, 1, 1)
        density = distribution.log_prob(grid.view(shape)).view(-1, 1)
        assert _quadrature(density, grid).exp().item() == pytest.approx(1, abs=1e-3)
        with seeded(0):
            drawn = distribution.sample((4000,)).flatten().double()
        expected = _quadrature(density + (grid.view(-1, 1) + 40).log(), grid).exp().item() - 40
        assert abs(drawn.mean() - expected) < 4 * drawn.std() / math.sqrt(len(drawn))


@torch.no_grad()
def test_the_papers_distributions_are_the_pure_functions(model, x):
    q, p, z = model.posterior(x), model.prior(), torch.randn(40, 2)
    mean, log_variance = model.encode(x)
    assert torch.equal(q.log_prob(z), objective.gaussian_log_prob(z, mean, log_variance))
    assert torch.equal(p.log_prob(z), objective.gaussian_log_prob(z, z * 0, z * 0))
    assert torch.equal(kl_divergence(q, p), objective.kl_divergence(mean, log_variance))
    assert torch.equal(model.decoder(z).log_prob(x), objective.bernoulli_log_prob(x, model.decoder.logits(z)))
    with seeded(5):
        drawn = q.rsample()
    assert torch.equal(drawn, objective.reparameterize(mean, log_variance, torch.Generator().manual_seed(5)))
    assert q.sample((7,)).shape == (7, 40, 2) and p.sample((3,)).shape == (3, 2)
    assert torch.equal(q.variance, log_variance.exp()) and (p.mean == 0).all() and (p.variance == 1).all()


@pytest.mark.parametrize(("mean", "log_variance"), [(0.0, -100.0), (3.0, -30.0), (3.0, 0.0), (-1.0, 20.0)])
def test_a_normal_knows_its_density_at_its_samples_however_small_its_variance(mean, log_variance):
    q = distributions.DiagonalNormal(torch.tensor([mean]), torch.tensor([log_variance]))
    with seeded(0):
        z, log_prob = q.rsample_and_log_prob((1000,))
    with seeded(0):
        noise = torch.randn(1000, 1)
    expected = Normal(0.0, 1.0).log_prob(noise.double()).sum(1) - log_variance / 2
    torch.testing.assert_close(log_prob.double(), expected)
    assert q.log_prob(z).isfinite().all()


# Closed forms


class Wide(distributions.StandardNormal):
    """A subclass, whose density may be another."""


class Laplacian(distributions.DiagonalNormal):
    """Inherits `rsample_and_log_prob`, which is of another density."""

    def rsample(self, sample_shape=()):
        return Laplace(self.mean, self.variance.sqrt()).rsample(sample_shape)

    def log_prob(self, value):
        return Laplace(self.mean, self.variance.sqrt()).log_prob(value).sum(-1)


class WideNormal(Normal):
    """Another one."""


def test_a_closed_form_is_torchs_and_used_for_exactly_its_classes():
    mean, log_variance = torch.tensor([[0.5, -1.0], [0.0, 2.0]]), torch.tensor([[0.1, -1.0], [-2.0, 0.3]])
    scale, origin = (log_variance / 2).exp(), torch.zeros(2)
    q, p = distributions.DiagonalNormal(mean, log_variance), distributions.StandardNormal(2)
    other = distributions.DiagonalNormal(origin + 0.3, origin - 0.7)
    normal, standard = Independent(Normal(mean, scale), 1), Independent(Normal(origin, 1.0), 1)
    full = MultivariateNormal(origin, torch.eye(2))
    expected, kl = kl_divergence(Normal(mean, scale), Normal(0.0, 1.0)), distributions.kl_by_dimension
    for pair in ((q, p), (normal, standard), (q, distributions.DiagonalNormal(origin, origin))):
        torch.testing.assert_close(kl(*pair), expected)
    moved = kl_divergence(Normal(mean, scale), Normal(other.mean, other.variance.sqrt()))
    torch.testing.assert_close(kl(q, other), moved)
    torch.testing.assert_close(kl_divergence(q, other), moved.sum(1))
    torch.testing.assert_close(kl(MultivariateNormal(mean, (scale**2).diag_embed()), full), expected.sum(1)[:, None])
    laplacian, wide = Laplacian(mean, log_variance), Independent(WideNormal(mean, scale), 1)
    flow = TransformedDistribution(normal, [])
    for pair in ((q, Wide(2)), (laplacian, p), (wide, standard), (normal, p), (flow, standard), (q, full)):
        assert kl(*pair) is None, pair


@pytest.mark.parametrize(
    ("kind", "expected"), [(distributions.DiagonalNormal, Normal(0.0, 1.0)), (Laplacian, Laplace(0.0, 1.0))]
)
def test_a_subclass_is_drawn_and_scored_by_its_own_methods(kind, expected):
    with seeded(0):
        z, log_prob = models.draw(kind(torch.zeros(20_000, 1), torch.zeros(20_000, 1)))
    torch.testing.assert_close(log_prob, expected.log_prob(z).sum(1))
    assert z.var().item() == pytest.approx(expected.variance.item(), rel=0.1)


def test_a_posterior_without_known_moments_is_encoded_by_samples():
    q = distributions.DiagonalNormal(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, -4.0]]))
    flow = TransformedDistribution(q, [])  # which does not know its mean
    with seeded(0):
        mean, log_variance = distributions.mean_and_log_variance(flow, samples=10_000)
    torch.testing.assert_close(mean, q.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(log_variance, q.log_variance, atol=0.1, rtol=0)


# Likelihoods


@pytest.mark.parametrize("logit", [-60.0, -20.0, -3.0, -0.4, -1e-4, 0.0, 0.3, 0.6, 15.9, 30.0, 60.0])
def test_the_continuous_bernoulli_has_mass_one_its_mean_and_its_samples(logit):
    pixel = distributions.ContinuousBernoulli(torch.tensor(logit))
    grid = ((torch.arange(200_000) + 0.5) / 200_000).double()
    density = distributions.ContinuousBernoulli(torch.tensor(logit).double()).log_prob(grid).exp()
    assert density.mean().item() == pytest.approx(1, abs=1e-6)
    assert pixel.mean.item() == pytest.approx((density * grid).mean().item(), abs=1e-5)
    with seeded(0):
        drawn = pixel.sample((20_000,))
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert drawn.mean().item() == pytest.approx(pixel.mean.item(), abs=5 * drawn.std().item() / 141 + 1e-6)


def test_likelihoods_have_the_gradient_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor([[0, 1], [100, 255]]).double().expand(2, 1, 2, 2) / 255
    logits = torch.tensor([-30.0, -0.51, -0.49, 1e-3, 0.2, 5.0], dtype=torch.float64).requires_grad_()
    mean = torch.rand(2, 1, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    mixture = torch.randn(3, 2, 3, 1, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda each: distributions.ContinuousBernoulli(each).log_prob(torch.full_like(each, 0.3)), logits)
    assert gradcheck(lambda each: distributions.ContinuousBernoulli(each).mean, logits)
    assert gradcheck(lambda each: distributions.LogisticMixture(*each).log_prob(x), mixture)
    assert gradcheck(lambda each: decoders._OptimalNormal(each, lambda error: None).log_prob(x), mean)


@torch.no_grad()
def test_the_mean_of_a_logistic_mixture_is_that_of_its_samples():
    with seeded(0):
        decoder = small((2, 3, 3), 2, decoder=decoders.DiscretizedLogisticMixture).decoder
        likelihood = decoder(4 * torch.randn(4, 2))
        drawn = likelihood.sample((5000,))
    assert drawn.shape == (5000, 4, 2, 3, 3)
    assert decoder(1e6 * torch.randn(4, 2)).log_scale.min() == -7
    assert ((drawn.mean(0) - likelihood.mean).abs() < 4.5 * drawn.std(0) / math.sqrt(5000) + 0.5 / 255).all()
    narrow = distributions.LogisticMixture(*torch.tensor([0, 0.5, math.log(0.05)]).view(3, 1, 1, 1, 1, 1))
    share = (narrow.sample((100_000,)) > 0.75).double().mean().item()
    assert share == pytest.approx(1 / (1 + math.exp(5)), rel=0.2)  # far out in a tail


def test_gaussian_pixels_have_torchs_density():
    model, z, x = small((3, 4, 4), 2, decoder=decoders.Gaussian), torch.randn(5, 2), torch.rand(5, 3, 4, 4)
    expected = Normal(model.decoder(z).mean, math.exp(-1)).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(model.decoder(z).log_prob(x), expected)


def test_the_optimal_sigma_is_the_best_one_and_the_one_of_evaluation_follows_it():
    decoder = small((1, 4, 4), 2, decoder=decoders.OptimalGaussian).decoder
    z, x = torch.randn(5, 2), torch.rand(5, 1, 4, 4)
    best = decoder(z).log_prob(x)
    error = (decoder(z).mean - x).square().mean()
    for factor in (0.9, 1.1):
        assert best.sum() > Normal(decoder(z).mean, error.sqrt() * factor).log_prob(x).sum()
    torch.testing.assert_close(best, Normal(decoder(z).mean, error.sqrt()).log_prob(x).sum((1, 2, 3)))
    assert decoder.variance.item() == pytest.approx(error.item()) and not decoder.variance.requires_grad
    torch.testing.assert_close(decoder.eval()(z[:1]).log_prob(x[:1]), best[:1])
    decoder.train()
    for step in range(1000):
        decoder(z[step % 5, None]).log_prob(x[step % 5, None])
    assert decoder.variance.item() == pytest.approx(error.item(), rel=0.1)  # as the mean over batches


def test_images_of_a_batch_share_the_best_sigma_however_many_samples_there_are(tiny, x):
    model = small(tiny.image_shape, 2, decoder=decoders.OptimalGaussian)
    for training in (True, False):
        before = model.train(training).decoder.batches.item()
        model.terms(x.repeat(400, 1, 1, 1), samples=5)
        assert model.decoder.batches.item() - before == training


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


# Flows and priors


FLOWS = zuko.flows.MAF, partial(zuko.flows.MAF, passes=2), zuko.flows.NICE, zuko.flows.NSF


def _flow(features, size, latent_dim, flow):
    return nn.Sequential(features, flow(latent_dim, context=size))


@pytest.mark.parametrize("encoder", [encoders.Gaussian, *(partial(_flow, flow=each) for each in FLOWS)])
def test_the_vamp_prior_is_the_mean_of_the_encoders_posteriors(encoder):
    model = vamp((1, 4, 4), 3, encoder=encoder)
    check_model(model)
    z, parts = torch.randn(2, 5, 3), model.encoder(model.prior.pseudo_inputs.sigmoid())
    each = torch.stack([parts.log_prob(code.expand(5, 3)) for code in z.flatten(0, 1)])  # (10, 5)
    expected = (each.logsumexp(1) - math.log(5)).unflatten(0, (2, 5))
    torch.testing.assert_close(model.prior().log_prob(z), expected)
    assert not any("prior.encoder" in name for name in model.state_dict())


@torch.no_grad()
def test_what_a_linear_vae_makes_of_codes_is_a_normal_distribution(row_model):
    """u ~ N(0, 1), z | u ~ N(Au + b, diag s²): together N(b, AAᵀ + diag s²), whatever the encoder is."""
    weight, bias, log_variance = torch.tensor([[1.0], [-0.5]]), torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 0.0])
    decoder = {"mean.weight": weight, "mean.bias": bias, "log_variance.weight": 0 * weight}
    row_model.decoder.load_state_dict(decoder | {"log_variance.bias": log_variance})
    exact = MultivariateNormal(bias, weight @ weight.T + log_variance.exp().diag())
    marginal = priors.Marginal(row_model, samples=20_000)
    with seeded(0):
        drawn = marginal.sample((20_000,))
        torch.testing.assert_close(drawn.mean(0), bias, atol=0.05, rtol=0)
        torch.testing.assert_close(drawn.T.cov(), exact.covariance_matrix, atol=0.05, rtol=0)
        torch.testing.assert_close(marginal.log_prob(drawn[:5]), exact.log_prob(drawn[:5]), atol=0.1, rtol=0)


@pytest.mark.parametrize("shape", [(), (3,), (3, 4)])
def test_codes_of_every_shape_have_a_marginal_density(row_model, shape):
    marginal = priors.Marginal(row_model)
    assert marginal.log_prob(torch.zeros(*shape, 2)).shape == shape
    assert marginal.sample(shape).shape == (*shape, 2) and marginal.event_shape == (2,)


def test_the_standard_normal_has_the_density_of_what_it_draws():
    prior = distributions.StandardNormal(3)
    with seeded(0):
        z, log_prob = prior.rsample_and_log_prob((4,))
    with seeded(0):
        assert torch.equal(prior.sample((4,)), z)
    torch.testing.assert_close(log_prob, prior.log_prob(z))
