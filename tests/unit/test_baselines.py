"""The baselines, against probabilistic PCA, of which all is known in closed form (Tipping and Bishop, 1999)."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from vaelib import baselines, encoders, priors
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


def test_exact_em_and_monte_carlo_em_find_the_highest_likelihood(pca):
    model, x = pca
    first = {name: value.clone() for name, value in model.state_dict().items()}
    assert log_prob(first["decoder.weight"], x).mean() < best(x) - 0.1  # there is something to be learned
    grid = torch.linspace(-6, 6, 241)[:, None]
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=0.02)
    for _ in range(100):
        baselines.grid_em_step(model, x, grid, optimizer)
    assert log_prob(model.decoder.weight, x).mean().item() == pytest.approx(best(x), abs=1e-3)
    model.load_state_dict(first)
    optimizer, z, size = torch.optim.Adam(model.decoder.parameters(), lr=0.01), torch.zeros(400, K), 0.02
    with seeded(0):
        for _ in range(200):
            z, size, _ = baselines.mcem_step(model, x, z, optimizer, size)
    assert log_prob(model.decoder.weight, x).mean().item() == pytest.approx(best(x), abs=0.02)


def test_one_update_of_exact_em_follows_the_gradient_of_log_p(pca):
    """Fisher's identity: of the expectation under the posterior, the gradient is that of log p(x)."""
    model, x = pca
    weight = model.decoder.weight.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_prob(weight, x).mean(), weight)
    before = weight.detach().clone()
    optimizer = torch.optim.SGD(model.decoder.parameters(), lr=0.01)
    baselines.grid_em_step(model, x, torch.linspace(-6, 6, 481)[:, None], optimizer, updates=1)
    moved = (model.decoder.weight.detach() - before) / 0.01
    torch.testing.assert_close(moved, gradient, atol=1e-3 * gradient.abs().max().item(), rtol=1e-3)


def test_monte_carlo_em_makes_as_many_proposals_and_updates_as_it_is_told(pca, monkeypatch):
    model, x = pca
    optimizer, z = torch.optim.SGD(model.decoder.parameters(), lr=0.01), torch.zeros(len(x), K)
    steps, made, hmc = [], [], baselines.hmc
    monkeypatch.setattr(optimizer, "step", lambda: steps.append(1))

    def counted(density, z, proposals, size):
        made.append(proposals)
        return hmc(density, z, proposals, size)

    monkeypatch.setattr(baselines, "hmc", counted)
    for proposals, updates in ((1, 5), (5, 1)):
        baselines.mcem_step(model, x, z, optimizer, 0.02, proposals, updates)
    assert len(steps) == 6 and made == [1, 5]


def test_wake_sleep_gives_each_network_its_own_gradient(pca):
    model, x = pca
    one = x[:1].expand(20_000, -1, -1, -1)
    with seeded(0):
        wake, sleep = baselines.wake_sleep(model, one)
    encoder, decoder = list(model.encoder.parameters()), list(model.decoder.parameters())
    assert all(each is None for each in torch.autograd.grad(wake.sum(), encoder, allow_unused=True, retain_graph=True))
    assert all(each is None for each in torch.autograd.grad(sleep.sum(), decoder, allow_unused=True))
    # wake, in closed form: of -log p(x, z) with E z = m and E z^2 = m^2 + v, and the prior's own part
    q, w, flat = model.posterior(x[:1]), model.decoder.weight, x[0].flatten()
    m, square = q.mean.item(), q.mean.item() ** 2 + q.variance.item()
    expected = -(flat[:, None] * m - w * square).detach() / NOISE**2
    (found,) = torch.autograd.grad(wake.mean(), decoder)
    torch.testing.assert_close(found, expected, atol=0.02 * expected.abs().max().item(), rtol=0.02)


def test_sleep_lowers_towards_the_posteriors_entropy(pca):
    """E_p(x)[-log q(z | x)] is least, the entropy of p(z | x), where q is the posterior, which is linear here."""
    model, _ = pca
    variance = 1 / (1 + model.decoder.weight.detach().square().sum() / NOISE**2)
    entropy = 0.5 * math.log(2 * math.pi * math.e * variance.item())
    optimizer = torch.optim.Adam(model.encoder.parameters(), lr=0.02)
    x = torch.zeros(500, 1, 1, D)
    with seeded(0):
        for _ in range(400):
            optimizer.zero_grad()
            _, sleep = baselines.wake_sleep(model, x)
            sleep.mean().backward()
            optimizer.step()
        _, sleep = baselines.wake_sleep(model, x.repeat(40, 1, 1, 1))
    assert sleep.mean().item() == pytest.approx(entropy, abs=0.05)


def test_seeding_the_cpu_leaves_all_gpus_alone(monkeypatch):
    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, lambda seed: pytest.fail("seeded the GPUs"))
    with seeded(0):
        first = torch.rand(3)
    assert torch.equal(first, torch.rand(3, generator=torch.Generator().manual_seed(0)))
