"""The baselines, against probabilistic PCA, of which all is known in closed form (Tipping and Bishop, 1999)."""

from functools import partial
from unittest.mock import Mock

import pytest
import torch
from conftest import small
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from vaelib import baselines, encoders, priors
from vaelib.binarization import binarized
from vaelib.models import VAE
from vaelib.seeding import seeded

D, K, NOISE = 4, 1, 0.5


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(D, K))

    def forward(self, z):
        mean = (z @ self.weight.T).unflatten(-1, (1, 1, D))
        return Independent(Normal(mean, NOISE), 3)


@pytest.fixture
def pca():
    with seeded(0):
        model = VAE(encoders.Gaussian(nn.Flatten(), D, K), Decoder(), priors.Standard(K), (1, 1, D))
        truth = torch.randn(D, K) * 1.5
        x = torch.randn(400, K) @ truth.T + NOISE * torch.randn(400, D)
        return model, x.view(-1, 1, 1, D)


def log_prob(weight, x):
    covariance = weight @ weight.T + NOISE**2 * torch.eye(D)
    return MultivariateNormal(torch.zeros(D), covariance).log_prob(x.flatten(1))


def best(x):
    """The highest mean log-likelihood with this noise: the first eigenvector, with the eigenvalue less the noise."""
    second = x.flatten(1).T @ x.flatten(1) / len(x)
    values, vectors = torch.linalg.eigh(second)
    return log_prob(vectors[:, -1:] * (values[-1] - NOISE**2).sqrt(), x).mean().item()


def test_hmc_has_the_posteriors_mean_and_variance(pca):
    model, x = pca
    w = model.decoder.weight.detach()
    variance = 1 / (1 + w.square().sum() / NOISE**2)
    mean = variance * (x[0].flatten() @ w) / NOISE**2
    one = x[:1].expand(200, -1, -1, -1)
    with seeded(1):
        start = torch.zeros(200, K)
        density = partial(baselines.log_joint, model, one)
        tuned, size, _ = baselines.hmc(density, start, 150, 0.01)
        chain, same, accepted = baselines.hmc(density, tuned[-1], 100, size, target=None)
    assert same == size and 0.8 < accepted < 0.98
    assert chain.mean().item() == pytest.approx(mean.item(), abs=0.03 * variance.sqrt().item())
    assert chain.var().item() == pytest.approx(variance.item(), rel=0.05)


def test_a_path_that_diverges_is_refused():
    start = torch.ones(3, 1)
    chain, _, accepted = baselines.hmc(lambda z: -(z**4).sum(1), start, 2, 1e20)
    assert accepted == 0 and torch.equal(chain[-1], start)


def test_the_grid_and_the_estimate_know_log_p(pca):
    model, x = pca
    truth = log_prob(model.decoder.weight.detach(), x[:50])
    grid = torch.linspace(-6, 6, 1201)[:, None]
    with torch.no_grad():
        torch.testing.assert_close(baselines.grid_log_joint(model, x[:50], grid).logsumexp(1), truth, atol=1e-4, rtol=0)
    with seeded(0):
        assert (baselines.log_prob(model, x[:50]) - truth).abs().max() < 0.1


def test_monte_carlo_em_finds_the_highest_likelihood(pca):
    model, x = pca
    assert log_prob(model.decoder.weight, x).mean() < best(x) - 0.1  # there is something to be learned
    optimizer, z, size = torch.optim.Adam(model.decoder.parameters(), lr=0.02), torch.zeros(len(x), K), 0.02
    with seeded(0):
        for _ in range(100):
            z, size, _ = baselines.mcem_step(model, x, z, optimizer, size)
    assert log_prob(model.decoder.weight, x).mean().item() == pytest.approx(best(x), abs=0.02)


def test_one_update_of_exact_em_follows_the_gradient_of_log_p(pca):
    """Fisher's identity: of the expectation under the posterior, the gradient is that of log p(x)."""
    model, x = pca
    weight = model.decoder.weight.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_prob(weight, x).mean(), weight)
    before = weight.detach().clone()
    optimizer = torch.optim.SGD(model.decoder.parameters(), lr=0.01)
    found = baselines.grid_em_step(model, x, torch.linspace(-6, 6, 481)[:, None], optimizer, updates=1)
    torch.testing.assert_close(found, log_prob(weight, x).detach(), atol=1e-3, rtol=0)
    moved = (model.decoder.weight.detach() - before) / 0.01
    torch.testing.assert_close(moved, gradient, atol=1e-3 * gradient.abs().max().item(), rtol=1e-3)


def test_monte_carlo_em_makes_as_many_proposals_and_updates_as_it_is_told(pca, monkeypatch):
    model, x = pca
    optimizer, z = torch.optim.SGD(model.decoder.parameters(), lr=0.01), torch.zeros(len(x), K)
    step = Mock(side_effect=optimizer.step)
    hmc = Mock(side_effect=baselines.hmc)
    monkeypatch.setattr(optimizer, "step", step)
    monkeypatch.setattr(baselines, "hmc", hmc)
    for proposals, updates in ((1, 5), (5, 1)):
        baselines.mcem_step(model, x, z, optimizer, 0.02, proposals, updates)
    assert step.call_count == 6 and [call.args[2] for call in hmc.call_args_list] == [1, 5]


def test_wake_sleep_scores_a_code_of_each_image_and_a_dream_for_a_network_each(pca):
    model, x = pca
    with seeded(0):
        wake, sleep = baselines.wake_sleep(model, x)
    with seeded(0), torch.no_grad():
        z, dreamt = model.encoder(x).sample(), model.prior().sample((len(x),))
        images = model.decoder(dreamt).sample()
    torch.testing.assert_close(wake, -baselines.log_joint(model, x, z))
    torch.testing.assert_close(sleep, -model.encoder(images).log_prob(dreamt))
    for loss, others in ((wake, model.encoder), (sleep, model.decoder)):
        found = torch.autograd.grad(loss.sum(), list(others.parameters()), allow_unused=True, retain_graph=True)
        assert all(each is None for each in found)


@pytest.mark.parametrize(
    "function",
    [
        baselines.wake_sleep,
        partial(baselines.log_prob, samples=2, proposals=4),
        partial(baselines.log_joint, z=torch.ones(40, 2)),
        partial(baselines.grid_log_joint, grid=torch.eye(2)),
    ],
)
def test_baselines_see_what_the_model_sees(function, tiny, x):
    model = binarized(tiny.image_shape, 2, small).eval()
    with seeded(0):
        found = function(model, x)
    with seeded(0):
        expected = function(model, model.preprocess(x))
    assert all(map(torch.equal, found, expected))
