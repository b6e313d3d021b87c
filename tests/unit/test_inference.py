"""The trainings that measure what amortised inference costs."""

from types import SimpleNamespace

import pytest
import torch

from book.experiments import inference
from vaelib import baselines
from vaelib.distributions import DiagonalNormal
from vaelib.seeding import seeded

GRID = inference.plane(21, 2)
X = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round()


@pytest.fixture
def model():
    with seeded(0):
        model = inference.build((1, 8, 8), 2)
    for weight in model.decoder.parameters():  # so that posteriors differ from the prior
        weight.data *= 3
    return model


def gradient(model, loss):
    model.zero_grad()
    loss.mean().backward()
    return torch.cat([each.grad.flatten() for each in model.decoder.parameters()])


def test_the_gradient_of_log_p_is_that_of_an_em_step(model):
    joint = baselines.grid_log_joint(model, X, GRID)
    posterior = joint.detach().softmax(1)
    by_em = gradient(model, -(posterior * joint).sum(1))
    torch.testing.assert_close(gradient(model, -baselines.grid_log_joint(model, X, GRID).logsumexp(1)), by_em)


def test_the_expected_elbo_is_the_mean_over_drawn_codes(model):
    with seeded(1), torch.no_grad():
        q = DiagonalNormal(torch.randn(40, 2), torch.full((40, 2), -3.0))
        z = q.sample((4000,)).transpose(0, 1)  # (B, S, K)
        values = inference.log_joints(model, X, z) - q.log_prob(z.transpose(0, 1)).T
        error = values.std(1) / 4000**0.5
        assert ((inference.expected_elbo(model, X, q) - values.mean(1)).abs() < 5 * error).all()


def test_no_other_gaussian_has_a_higher_elbo(model):
    with seeded(1), torch.no_grad():
        images = model.decoder(model.prior().sample((40,))).sample()
    best = inference.best_gaussian(model, images, GRID, steps=20)
    highest = inference.expected_elbo(model, images, best)
    assert (highest <= inference.exactly(model, images) + 0.01).all()
    for shift, wider in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.2), (0.0, -0.2)):
        other = DiagonalNormal(best.mean + shift, best.log_variance + wider)
        assert (inference.expected_elbo(model, images, other) < highest + 0.01).all()


@pytest.mark.parametrize(("K", "correlation"), [(2, 0.9), (2, -0.9), (3, 0.6), (3, 0.9)])
def test_the_best_gaussian_of_a_correlated_posterior_has_its_mean_and_curvature(monkeypatch, K, correlation):
    precision = 100 * (torch.eye(K) * (1 - correlation) + correlation)
    away = torch.linspace(0.03, -0.07, K)

    def log_joint(model, x, z):
        return -0.5 * torch.einsum("...i,ij,...j", z - away, precision, z - away)

    monkeypatch.setattr(inference, "log_joints", log_joint)
    monkeypatch.setattr(inference.baselines, "grid_log_joint", lambda model, x, grid: log_joint(model, x, grid)[None])
    best = inference.best_gaussian(SimpleNamespace(latent_dim=K), X[:1], inference.plane(21, K), steps=12)
    assert (best.mean - away).abs().max() < 0.01 and (best.variance - 0.01).abs().max() < 1e-4


@pytest.mark.parametrize("method", inference.METHODS)
def test_a_killed_training_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, method):
    monkeypatch.setattr(inference, "LENGTH", 600)
    monkeypatch.setattr(inference, "chosen_rate", lambda *_: 0.01)
    monkeypatch.setattr(inference, "exactly", lambda model, images: model.decoder(GRID).mean.flatten(1).mean(1))
    loss, encoder = inference.METHODS[method]
    calls = []

    def killed(*arguments):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*arguments)

    ends = []
    for folder in ("whole", "killed"):
        monkeypatch.setenv("VAELIB_RUNS", str(tmp_path / folder))
        training = inference.Training(method, 1, len(X))
        if folder == "killed":
            monkeypatch.setitem(inference.METHODS, method, (killed, encoder))
            with pytest.raises(KeyboardInterrupt):
                inference.train(training, X, X, checkpoint_seconds=0)
        ends.append(inference.train(training, X, X))
    whole, resumed = ends
    assert whole.step == resumed.step == 6 and len(calls) == 7  # four, then the last three again
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name])


def test_a_training_can_start_from_the_decoder_of_another(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "LENGTH", 6000)
    monkeypatch.setattr(inference, "chosen_rate", lambda *_: 0.01)
    monkeypatch.setenv("VAELIB_RUNS", str(tmp_path))
    first = inference.train(inference.Training("exact", 1, len(X)), X, X)
    state = inference.State(inference.Training("aevb", 1, len(X), start="exact"), X)
    for one, other in zip(first.model.decoder.parameters(), state.model.decoder.parameters(), strict=True):
        assert torch.equal(one, other)
    loss, encoder = inference.METHODS["aevb"]
    trained = []

    def watched(model, *arguments):
        trained.append(next(model.decoder.parameters()).requires_grad)
        return loss(model, *arguments)

    monkeypatch.setitem(inference.METHODS, "aevb", (watched, encoder))
    state = inference.train(inference.Training("aevb", 1, len(X), start="exact"), X, X)
    assert trained == [False] + 11 * [True]  # a fifth of the length, and in its first tenth the encoder alone
    values = inference.measured(inference.Training("aevb", 1, len(X)), state, X, X)
    assert values["encoder_gap"] > 0 and values["shape_gap"] > -0.01


def test_the_rate_of_the_highest_log_p_is_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "RECORDS", tmp_path)
    monkeypatch.setattr(inference, "train", lambda training, *_: SimpleNamespace(model=training.rate))
    monkeypatch.setattr(inference, "exactly", lambda rate, images: torch.full((2,), -abs(rate - 0.001)))
    inference.choose_rates({1000: X}, X)
    assert {inference.chosen_rate(method, 1000) for method in inference.METHODS} == {0.001}


def test_a_training_is_named_in_one_word():
    assert inference.parse("aevb@exact:11-60000-K3") == inference.Training("aevb", 11, 60_000, 3, "exact")
    assert inference.parse("mcem5:10").name == "mcem5-n1000-k2-s10"
