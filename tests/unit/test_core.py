"""Models that the package doesn't have: own posteriors, priors, likelihoods and objectives get the right numbers."""

import copy
import math
import os
import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, StudentT
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vaelib import (
    TrainConfig,
    attributes,
    baselines,
    binarization,
    checks,
    data,
    decoders,
    distributions,
    encoders,
    evaluation,
    features,
    models,
    objective,
    priors,
    runs,
    storage,
    training,
)
from vaelib.data import Dataset, Split, to_float
from vaelib.models import VAE
from vaelib.seeding import seeded

RECORDS = Path(__file__).parents[2] / "book" / "records" / "paper"
mlp = models.mlp
CONFIG = TrainConfig(latent_dim=2, epochs=2, batch_size=50)


@pytest.fixture
def x(tiny):
    return to_float(tiny.test.images)


def _estimate(model, seen, samples=500):
    """log p(x) of preprocessed images by importance sampling, computed by hand."""
    with torch.no_grad(), seeded(3):
        q, p = model.encoder(seen), model.prior()
        draws = [q.rsample() for _ in range(samples)]
        weights = [model.decoder(z).log_prob(seen) + p.log_prob(z) - q.log_prob(z) for z in draws]
    return torch.stack(weights).double().logsumexp(0) - math.log(samples)


def test_a_run_is_bit_for_bit_a_loop_of_plain_torch(tiny, tmp_path):
    config = TrainConfig(2, 2, seed=3, batch_size=32, precision="float32")
    run = runs.train(tiny, config, tmp_path, "cpu")
    images, shuffle = tiny.train.images.float() / 255, torch.Generator().manual_seed(6)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        w = dict(mlp(tiny.image_shape, 2).named_parameters())
        optimizer = torch.optim.Adam(w.values(), fused=True)
        torch.manual_seed(7)

        def linear(x, name):
            return nn.functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

        for _ in range(2):
            for rows in torch.randperm(200, generator=shuffle).split(32):
                x = images[rows].flatten(1)
                hidden = linear(linear(x, "encoder.features.1").relu(), "encoder.features.3").relu()
                mean, log_variance = linear(hidden, "encoder.mean"), linear(hidden, "encoder.log_variance")
                z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
                hidden = linear(linear(z, "decoder.logits.0").relu(), "decoder.logits.2").relu()
                logits = linear(hidden, "decoder.logits.4")
                bits = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
                kl = (-0.5 * (1 + log_variance - mean**2 - torch.exp(log_variance))).sum(1)
                optimizer.zero_grad()
                (kl + bits).mean().backward()
                optimizer.step()
    assert all(torch.equal(w[name], each) for name, each in run.model().named_parameters())


@pytest.mark.parametrize(("name", "dataset"), [("mnist-k2", "mnist"), ("celeba-k64", "celeba")])
def test_published_weights_have_the_recorded_evaluation(name, dataset):
    """The weights are published in half precision, so the last digits differ. It needs the data."""
    if "VAELIB_DATA" not in os.environ:
        pytest.skip("VAELIB_DATA names no folder")
    record = runs.load(RECORDS / f"{name}-e{10 if dataset == 'mnist' else 30}-s0", builder=None)
    loaded = data.load(dataset)
    assert loaded.fingerprint == record.record["data"]["fingerprint"]
    found = evaluation.evaluate(storage.from_pretrained(name), loaded)
    assert found == pytest.approx(record.evaluation, rel=2e-3)


# Data sets


def _unlabelled(cut, pixels=None):
    pixels = torch.arange(720, dtype=torch.int64).view(90, 1, 2, 4) % 256 if pixels is None else pixels
    pixels = pixels.to(torch.uint8) if not pixels.is_floating_point() else pixels
    return Dataset("cut", Split(pixels[:cut]), Split(pixels[cut:]))


def test_the_same_pixels_cut_elsewhere_are_other_data():
    assert _unlabelled(60).fingerprint != _unlabelled(30).fingerprint
    assert _unlabelled(60).fingerprint == _unlabelled(60).fingerprint
    rows = torch.rand(90, 4)
    assert _unlabelled(60, rows).fingerprint != _unlabelled(30, rows).fingerprint


def test_a_part_of_a_data_set_is_other_data(tiny):
    half = replace(tiny, train=Split(tiny.train.images[:100], tiny.train.labels[:100]))
    assert half.fingerprint != tiny.fingerprint
    held = tiny.hold_out(20)
    assert held.fingerprint not in (tiny.fingerprint, tiny.hold_out(21).fingerprint, tiny.hold_out(20, 1).fingerprint)
    everything = torch.cat([held.train.images, held.validation.images])
    assert sorted(map(bytes, everything.numpy())) == sorted(map(bytes, tiny.train.images.numpy()))


@pytest.mark.parametrize("count", [0, -1, 200, 1000])
def test_more_images_than_there_are_cannot_be_held_out(tiny, count):
    with pytest.raises(ValueError, match="hold out from 1 to 199"):
        tiny.hold_out(count)


def test_pixels_of_two_bytes_and_floats_are_images():
    words = (torch.arange(64, dtype=torch.int32) * 1000).to(torch.uint16).view(4, 1, 4, 4)
    assert to_float(words).max() == pytest.approx(63000 / 65535)
    assert to_float(torch.rand(2, 3).half()).dtype == torch.float32
    assert to_float(torch.rand(2, 3).double()).dtype == torch.float64
    with pytest.raises(ValueError, match="not finite"):
        Split(torch.tensor([[0.5, math.nan]]))


@pytest.mark.parametrize("kind", ["uint16", "float32", "float64", "rows"])
def test_other_numbers_than_bytes_are_trained_on(kind, tiny, tmp_path):
    def converted(split):
        values = to_float(split.images)
        images = {
            "uint16": lambda: (values * 65535).round().to(torch.int32).to(torch.uint16),
            "float32": lambda: values,
            "float64": values.double,
            "rows": lambda: values.flatten(1),
        }[kind]()
        return Split(images, split.labels)

    other = Dataset("other", converted(tiny.train), converted(tiny.test), tiny.names)
    run, expected = (runs.train(each, CONFIG, tmp_path / each.name, "cpu") for each in (other, tiny))
    assert run.evaluation == pytest.approx(expected.evaluation, rel=1e-4)


# Preprocessing


class Doubled(VAE):
    def preprocess(self, x):
        return 2 * x - 1


class Noisy(VAE):
    """Adds noise, also in evaluation."""

    def preprocess(self, x):
        return (x + torch.rand_like(x)) / 2


def _with_preprocessing(kind, image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    decoder = Pixels(model.decoder.logits)
    return kind(model.encoder, decoder, model.prior, image_shape)


class Pixels(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def forward(self, z):
        return Independent(Normal(self.mean(z), 0.5), 3)


@pytest.mark.parametrize("kind", [Doubled, Noisy])
def test_every_metric_is_of_images_that_are_preprocessed_once(kind, tiny, tmp_path):
    builder = partial(_with_preprocessing, kind)
    run = runs.train(tiny, CONFIG, tmp_path, "cpu", builder=builder)
    model, images = run.model(), to_float(tiny.test.images)
    with seeded(0):
        seen = model.preprocess(images)
    expected = _estimate(model, seen).mean().item()
    assert run.evaluation["log_prob"] == pytest.approx(expected, abs=0.3)
    assert run.evaluation["test_elbo"] == pytest.approx(expected, abs=3)


class Wrapped(nn.Module):
    """A decoder around another."""

    def __init__(self, network):
        super().__init__()
        self.decoder = decoders.Bernoulli(network)

    def forward(self, z):
        return self.decoder(z)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("compiled", [False, True])
def test_one_value_out_of_range_is_found_before_training_also_by_a_wrapped_decoder(split, compiled, tiny, tmp_path):
    images = {name: to_float(part.images) for name, part in tiny.splits().items()}
    images[split][-1, 0, 0, 0] = 1.5
    wrong = Dataset("wrong", Split(images["train"]), Split(images["test"]))
    builder = partial(_eager if compiled else mlp, decoder=Wrapped)
    with pytest.raises(ValueError, match=r"values from 0 to 1.5.*expects them in \[0.0, 1.0\]"):
        runs.train(wrong, CONFIG, tmp_path, "cpu", builder=builder)
    assert not list(tmp_path.iterdir())


class InPlace(VAE):
    def preprocess(self, x):
        return x.mul_(0.5)


def test_preprocessing_in_place_does_not_change_the_data(tiny, tmp_path):
    floats = Dataset("floats", *(Split(to_float(split.images)) for split in (tiny.train, tiny.test)))
    before = floats.test.images.clone()
    runs.train(floats, CONFIG, tmp_path, "cpu", builder=partial(_with_preprocessing, InPlace))
    assert torch.equal(floats.test.images, before)


def test_pixels_on_a_part_of_the_scale_are_warned_of():
    for kind, largest in ((torch.uint8, 127), (torch.uint16, 4095)):
        with pytest.warns(UserWarning, match=f"the largest pixel value is {largest}; white is"):
            Split(torch.full((3, 1, 2, 2), largest, dtype=torch.int32).to(kind))
        Split(torch.full((3, 1, 2, 2), 255 if kind == torch.uint8 else 65535, dtype=torch.int32).to(kind))


def test_weights_of_16_bits_are_not_trained(tiny, x):
    with pytest.raises(ValueError, match=r"16 bits.*call \.float"):
        checks.check_model(mlp(tiny.image_shape, 2).half(), x)


def test_baselines_see_what_the_model_sees(tiny):
    model = binarization.binarized(tiny.image_shape, 2).eval()
    grey = to_float(tiny.test.images)
    seen, z, grid = model.preprocess(grey), torch.randn(40, 2), torch.randn(30, 2)
    assert not torch.equal(grey, seen)
    assert torch.equal(baselines.log_joint(model, grey, z), baselines.log_joint(model, seen, z))
    assert torch.equal(baselines.grid_log_joint(model, grey, grid), baselines.grid_log_joint(model, seen, grid))
    for function in (baselines.wake_sleep, partial(baselines.log_prob, samples=2, proposals=4)):
        with seeded(0):
            found = function(model, grey)
        with seeded(0):
            expected = function(model, seen)
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("values", [[0.0, 255], [-0.1, 1], [0, 1.01], [0, math.nan]])
@pytest.mark.parametrize("mode", [True, False])
def test_pixels_outside_of_what_the_decoder_expects_are_refused(values, mode):
    model = mlp((1, 1, 2), 2).train(mode)
    wrong = torch.tensor(values).view(1, 1, 1, 2)
    for function in (model.terms, model.elbo, model.encode):
        with pytest.raises(ValueError, match=r"values from .* to .*Bernoulli expects.*scale them"):
            function(wrong)
    model.decoder = Pixels(model.decoder.logits)
    if not math.isnan(values[1]):
        assert model.elbo(wrong)[0].isfinite().all()  # a decoder without `support` takes all


def test_float_images_on_another_scale_are_refused_before_training(tmp_path):
    pixels = 255 * torch.rand(60, 1, 4, 4)
    with pytest.raises(ValueError, match="values from"):
        runs.train(Dataset("scaled", Split(pixels[:40]), Split(pixels[40:])), CONFIG, tmp_path, "cpu")
    assert not list(tmp_path.rglob("*.json"))


# Closed forms


class Wide(distributions.StandardNormal):
    """N(0, 9 I)."""

    def rsample(self, sample_shape=()):
        return 3 * super().rsample(sample_shape)

    def log_prob(self, value):
        return super().log_prob(value / 3) - value.shape[-1] * math.log(3)


class Laplacian(distributions.DiagonalNormal):
    """Inherits `rsample_and_log_prob`, which is of another density."""

    def rsample(self, sample_shape=()):
        return self._laplace().rsample(sample_shape)

    def log_prob(self, value):
        return self._laplace().log_prob(value)

    def _laplace(self):
        return Independent(torch.distributions.Laplace(self.mean, self.variance.sqrt()), 1)


class WideNormal(Normal):
    def log_prob(self, value):
        return Normal(self.loc, 2 * self.scale).log_prob(value)


def _q(kind=distributions.DiagonalNormal):
    return kind(torch.tensor([[0.5, -1.0], [0.0, 2.0]]), torch.tensor([[0.1, -1.0], [-2.0, 0.3]]))


def test_a_closed_form_is_used_for_exactly_its_classes():
    q, p = _q(), distributions.StandardNormal(2)
    normal = Independent(Normal(q.mean, q.variance.sqrt()), 1)
    standard = Independent(Normal(torch.zeros(2), 1.0), 1)
    full = MultivariateNormal(torch.zeros(2), torch.eye(2))
    expected = torch.distributions.kl_divergence(Normal(q.mean, q.variance.sqrt()), Normal(0.0, 1.0))
    kl = distributions.kl_by_dimension
    for pair in ((q, p), (normal, standard), (q, _broad(0.0, 0.0))):
        torch.testing.assert_close(kl(*pair), expected)
    whole = MultivariateNormal(q.mean, q.variance.diag_embed())
    torch.testing.assert_close(kl(whole, full), expected.sum(1, keepdim=True))
    wide = Independent(WideNormal(q.mean, q.variance.sqrt()), 1)
    flow = torch.distributions.TransformedDistribution(normal, [torch.distributions.AffineTransform(0.0, 2.0)])
    for pair in ((q, Wide(2)), (_q(Laplacian), p), (wide, standard), (normal, p), (flow, standard), (q, full)):
        assert kl(*pair) is None, pair


def _broad(mean, log_variance):
    return distributions.DiagonalNormal(torch.full((2,), mean), torch.full((2,), log_variance))


def test_a_subclass_is_drawn_and_scored_by_its_own_methods():
    for kind, expected in (
        (distributions.DiagonalNormal, Normal(0.0, 1.0)),
        (Laplacian, torch.distributions.Laplace(0.0, 1.0)),
    ):
        q = kind(torch.zeros(20_000, 1), torch.zeros(20_000, 1))
        with seeded(0):
            z, log_prob = models.draw(q)
        torch.testing.assert_close(log_prob, expected.log_prob(z).sum(1))
        assert z.var().item() == pytest.approx(expected.variance.item(), rel=0.1)


def test_the_kl_of_two_diagonal_normals_is_torchs():
    q, p = _q(), _broad(0.3, -0.7)
    expected = torch.distributions.kl_divergence(Normal(q.mean, q.variance.sqrt()), Normal(p.mean, p.variance.sqrt()))
    torch.testing.assert_close(distributions.kl_by_dimension(q, p), expected)
    torch.testing.assert_close(torch.distributions.kl_divergence(q, p), expected.sum(1))


class Fixed(nn.Module):
    """A prior that is given, on whatever device the model is."""

    def __init__(self, make, latent_dim):
        super().__init__()
        self.make, self.latent_dim = make, latent_dim
        self.register_buffer("origin", torch.zeros(()))

    def forward(self):
        return self.make(self.latent_dim)


class LearnedNormal(nn.Module):
    def __init__(self, latent_dim):
        super().__init__()
        self.mean = nn.Parameter(torch.ones(latent_dim))
        self.log_variance = nn.Parameter(torch.zeros(latent_dim))

    def forward(self):
        return distributions.DiagonalNormal(self.mean, self.log_variance)


@pytest.mark.parametrize("prior", [partial(Fixed, Wide), LearnedNormal])
def test_the_elbo_is_below_log_p_for_priors_that_inherit_or_are_learned(prior, tiny):
    with seeded(0):
        model = mlp(tiny.image_shape, 2, prior=prior).eval()
    images = to_float(tiny.test.images)
    terms = model.terms(images.repeat(50, 1, 1, 1))
    sampled = (terms.log_posterior - terms.log_prior).mean().item()
    assert terms.divergence.mean().item() == pytest.approx(sampled, abs=0.1)
    expected = _estimate(model, images).mean().item()
    metrics = evaluation.evaluate(model, tiny)
    assert metrics["log_prob"] == pytest.approx(expected, abs=0.2) and metrics["test_elbo"] < metrics["log_prob"]


def test_free_bits_take_a_learned_normal_prior(tiny, tmp_path):
    run = runs.train(
        tiny, CONFIG, tmp_path, "cpu", builder=partial(mlp, prior=LearnedNormal), objective=objective.FreeBits(0.5)
    )
    assert run.evaluation["test_elbo"] < run.evaluation["log_prob"]


def test_an_elbo_above_log_p_is_refused_and_the_weights_are_kept(tiny, tmp_path):
    class Wrong(nn.Module):  # says 50 nats too much for codes that it draws itself
        def __init__(self, features, size, latent_dim):
            super().__init__()
            self.gaussian = encoders.Gaussian(features, size, latent_dim)

        def forward(self, x):
            q = self.gaussian(x)
            if not torch.is_grad_enabled() and len(x) == 40:
                self.calls = getattr(self, "calls", 0) + 1
            return q

    model = mlp(tiny.image_shape, 2)
    better = model.terms

    def lying(x, samples=1, *rest, **options):
        terms = better(x, samples, *rest, **options)
        return terms._replace(log_likelihood=terms.log_likelihood + 50 * (samples == 1))

    model.terms = lying
    with pytest.raises(ValueError, match=r"the test ELBO is .*above log p\(x\), which is .*lower bound"):
        evaluation.evaluate(model, tiny)


# Densities


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


def test_the_continuous_bernoulli_is_torchs_where_that_is_exact_and_has_its_gradient():
    logits = torch.linspace(-9, 9, 181, dtype=torch.float64)
    x = torch.rand(181, dtype=torch.float64)
    torchs = torch.distributions.ContinuousBernoulli(logits=logits)
    torch.testing.assert_close(distributions.ContinuousBernoulli(logits).log_prob(x), torchs.log_prob(x))
    torch.testing.assert_close(distributions.ContinuousBernoulli(logits).mean, torchs.mean)
    some = torch.tensor([-30.0, -0.51, -0.49, 1e-3, 0.2, 5.0], dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda each: distributions.ContinuousBernoulli(each).log_prob(x[:6]), some)
    assert torch.autograd.gradcheck(lambda each: distributions.ContinuousBernoulli(each).mean, some)


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


# Precision


class OwnEncoder(nn.Module):
    """A posterior of torch's, near a mean that bfloat16 can't tell from its neighbours."""

    def __init__(self, features, size, latent_dim):
        super().__init__()
        self.features, self.head = features, nn.Linear(size, latent_dim)

    def forward(self, x):
        mean = 3.003 + 1e-4 * self.head(self.features(x))
        return Independent(Normal(mean, 0.005), 1)


def test_own_posteriors_are_drawn_and_scored_in_full_precision_where_training_is_in_bfloat16(tiny, x):
    model = mlp(tiny.image_shape, 1, encoder=OwnEncoder)
    checks.check_model(model, x, mixed=True)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model(x, samples=100)
    assert {each.dtype for each in terms if each is not None} == {torch.float32}
    assert len(terms.codes.unique()) > 3000
    assert terms.codes.mean().item() == pytest.approx(3.003, abs=1e-3)


def test_means_of_the_papers_posterior_are_not_rounded_to_bfloat16(tiny, x):
    model = mlp(tiny.image_shape, 2)
    model.encoder.mean.bias.data += 3
    with torch.autocast("cpu", torch.bfloat16):
        mean, _ = model.encode(x)
    assert not torch.equal(mean, mean.bfloat16().float())


class Rounded(Pixels):
    autocast = True  # which promises full precision

    def forward(self, z):
        return Independent(Normal(self.mean(z), 0.5, validate_args=False), 3)


def test_a_module_that_breaks_its_promise_of_full_precision_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"decoder's mean is torch.bfloat16.*expected float32.*\.float\(\)"):
        builder = partial(mlp, decoder=Rounded)
        runs.train(tiny, replace(CONFIG, precision="bfloat16"), tmp_path, "cpu", builder=builder)
    assert not list(tmp_path.iterdir())


def _double(image_shape, latent_dim, builder=mlp):
    return builder(image_shape, latent_dim).double()


@pytest.mark.parametrize(
    "builder",
    [
        mlp,
        models.conv,
        binarization.binarized,
        *(partial(mlp, decoder=getattr(decoders, name)) for name in ("ContinuousBernoulli", "OptimalGaussian")),
        partial(mlp, decoder=decoders.DiscretizedLogisticMixture, prior=priors.Mixture),
        partial(mlp, encoder=encoders.InverseAutoregressive),
    ],
)
def test_a_model_in_double_precision_stays_in_it(builder, tiny, tmp_path):
    run = runs.train(tiny, CONFIG, tmp_path, "cpu", builder=partial(_double, builder=builder))
    model = run.model()
    terms = model.terms(to_float(tiny.test.images), 2)
    assert {each.dtype for each in terms if each is not None} == {torch.float64}
    assert model.sample(3).dtype == model.encode(to_float(tiny.test.images))[0].dtype == torch.float64
    if builder is mlp:
        assert torch.equal(model.elbo(to_float(tiny.test.images).double())[1], terms.kl.sum(1))


def test_double_precision_may_be_the_default(tiny, tmp_path):
    try:
        torch.set_default_dtype(torch.float64)
        run = runs.train(tiny, CONFIG, tmp_path, "cpu")
        assert run.model().sample(2).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_bfloat16_is_the_default_only_where_a_gpu_has_it(monkeypatch):
    asked = []

    def supported(including_emulation=True):
        asked.append(including_emulation)
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert not training.is_mixed(CONFIG, torch.device("cuda"))
    assert asked == [False]
    assert not training.is_mixed(CONFIG, torch.device("cpu"))
    assert training.is_mixed(replace(CONFIG, precision="bfloat16"), torch.device("cuda"))


# Weights


def _tied(image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    model.decoder.logits[2].weight = model.encoder.features[3].weight
    return model


class SharesTheEncoder(nn.Module):
    def __init__(self, encoder, image_shape):
        super().__init__()
        self.encoder, self.inputs = encoder, nn.Parameter(torch.rand(4, *image_shape))

    def forward(self):
        return distributions.code_mixture(torch.zeros(4), self.encoder(self.inputs))


def _shared(image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    model.prior = SharesTheEncoder(model.encoder, image_shape)
    return model


class Transposed(nn.Module):
    """A layer whose matrix is a view of another's."""

    def __init__(self, linear):
        super().__init__()
        self.weight = nn.Parameter(linear.weight.data.T)

    def forward(self, x):
        return x @ self.weight


def _transposed(image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    model.decoder.logits[2] = Transposed(model.encoder.features[3])
    return model


@pytest.mark.parametrize("builder", [_tied, _shared, _transposed])
def test_weights_that_modules_share_are_stored_and_shared_again(builder, tiny, tmp_path):
    run = runs.train(tiny, CONFIG, tmp_path, "cpu", builder=builder)
    model = run.model()
    storages = {each.untyped_storage().data_ptr() for each in model.parameters()}
    fresh = {each.untyped_storage().data_ptr() for each in builder(tiny.image_shape, 2).parameters()}
    assert len(storages) == len(fresh)
    again = evaluation.evaluate(model, tiny)
    assert again == pytest.approx(run.evaluation, rel=1e-6)


class ExtraState(nn.Linear):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        pass


class Complex(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits, self.phase = logits, nn.Parameter(torch.zeros(3, dtype=torch.complex128))

    def forward(self, z):
        return distributions.IndependentBernoulli(self.logits(z) + self.phase.real.sum())


def _with_extra_state(image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    model.encoder.mean = ExtraState(512, latent_dim)
    return model


def _lazy(image_shape, latent_dim):
    features = nn.Sequential(nn.Flatten(), nn.LazyLinear(512), nn.ReLU())
    return VAE(
        encoders.Gaussian(features, 512, latent_dim),
        mlp(image_shape, latent_dim).decoder,
        priors.Standard(latent_dim),
        image_shape,
    )


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (_with_extra_state, "the model's weights cannot be stored"),
        (partial(mlp, decoder=Complex), "the model's weights cannot be stored"),
        (_lazy, "has no shape yet; call the model once in its builder"),
    ],
)
def test_what_cannot_be_stored_is_found_out_before_training(builder, message, tiny, tmp_path):
    with pytest.raises(ValueError, match=message):
        runs.train(tiny, CONFIG, tmp_path, "cpu", builder=builder)
    assert not list(tmp_path.rglob("metrics.jsonl"))


def _drawn_constant(image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    model.decoder.logits.append(Shift(image_shape))
    return model


class Shift(nn.Module):
    def __init__(self, image_shape):
        super().__init__()
        self.shift = 5 * torch.randn(image_shape)  # neither a weight nor a buffer, so it is not stored

    def forward(self, logits):
        return logits + self.shift


def test_a_model_that_is_not_stored_whole_is_refused_with_both_numbers(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"with a test ELBO of -?\d.*but the model in .* has -?\d.*make it a buffer"):
        runs.train(tiny, replace(CONFIG, seed=1), tmp_path, "cpu", builder=_drawn_constant)
    (path,) = tmp_path.rglob("model.safetensors")
    assert safetensors.torch.load_file(path)


# Training


@pytest.mark.parametrize("when", [1, 3])
def test_weights_that_are_not_finite_are_not_saved(tiny, tmp_path, when):
    """The loss is finite, and its gradient isn't, in the last step of an epoch."""

    def trap(terms, fraction):
        if bad and abs(fraction * 4 - (when + 0.75)) < 0.01:
            return objective.negative_elbo(terms, fraction) + (0 * terms.codes).sum().abs().sqrt()
        return objective.negative_elbo(terms, fraction)

    fit = partial(
        training.fit, data=tiny, config=TrainConfig(2, 4, batch_size=50), folder=tmp_path, checkpoint_seconds=0
    )
    trap.__qualname__ = "trap"
    bad = True
    with seeded(0):
        model = mlp(tiny.image_shape, 2)
    fresh = copy.deepcopy(model)
    with pytest.raises(FloatingPointError, match=f"a weight is not finite.*epoch {when + 1}"):
        fit(model, objective=trap)
    bad = False
    history = fit(fresh, objective=trap)  # goes on from the checkpoint before
    assert len(history) == 4 and all(weight.isfinite().all() for weight in fresh.parameters())


def test_a_recorded_term_that_is_not_finite_stops_training(tiny, tmp_path):
    class Decoder(decoders.Bernoulli):
        def forward(self, z):
            likelihood = super().forward(z)
            plain = likelihood.log_prob
            if self.training:
                likelihood.log_prob = lambda x: plain(x) * torch.where(torch.arange(len(x)) == 0, math.nan, 1.0)
            return likelihood

    def loss(terms, fraction):
        return terms.divergence - terms.reconstruction.nan_to_num()

    loss.__qualname__ = "loss"
    with pytest.raises(FloatingPointError, match="the reconstruction term is nan at epoch 1, step 1;"):
        training.fit(mlp(tiny.image_shape, 2, decoder=Decoder), tiny, CONFIG, tmp_path, objective=loss)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_checkpoints_take_a_tenth_of_the_time_at_most(tiny, tmp_path, monkeypatch):
    clock, writes = [0.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(training, "CHECK_EVERY", 1)
    step, write = training._State.take_step, training._State.write

    def slow_step(state, *arguments):
        clock[0] += 0.1
        return step(state, *arguments)

    def slow_write(state, path, seconds):
        write(state, path, seconds)
        clock[0] += 2.0
        writes.append(clock[0])

    monkeypatch.setattr(training._State, "take_step", slow_step)
    monkeypatch.setattr(training._State, "write", slow_write)
    config = TrainConfig(2, 60, batch_size=20)
    training.fit(mlp(tiny.image_shape, 2), tiny, config, tmp_path, checkpoint_seconds=1)
    assert 2 <= len(writes) <= 4 and clock[0] > 60  # of 60 s in which nothing is written


def _five(image_shape, latent_dim):
    return mlp(image_shape, 5)


def test_a_builder_that_ignores_k_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="the model has K = 5, and the configuration says 2"):
        runs.train(tiny, CONFIG, tmp_path, "cpu", builder=_five)


def test_images_of_a_batch_share_the_best_sigma_however_many_samples_there_are(tiny, x):
    model = mlp(tiny.image_shape, 2, decoder=decoders.OptimalGaussian)
    for mode in (True, False):
        model.train(mode)
        before = model.decoder.batches.item()
        model.terms(x.repeat(400, 1, 1, 1), samples=5)
        assert model.decoder.batches.item() - before == mode


@pytest.mark.parametrize("function", ["prior", "check", "evaluate", "sample"])
def test_what_was_frozen_stays_frozen(function, tiny):
    model = models.conv((3, 16, 16), 2)
    model.prior = priors.Vamp(model.encoder, model.image_shape, 3)
    model.encoder.features[1].eval()
    images = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8)
    modes = [part.training for part in model.modules()]
    {
        "prior": model.prior,
        "check": lambda: checks.check_model(model),
        "evaluate": lambda: evaluation.elbo(model, images),
        "sample": lambda: model.sample(2),
    }[function]()
    assert [part.training for part in model.modules()] == modes


def test_sampling_in_training_mode_moves_no_statistics():
    model = models.conv((3, 16, 16), 2)
    model.decoder.logits.insert(3, nn.BatchNorm2d(256))
    before = copy.deepcopy(model.state_dict())
    model.sample(4)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


@pytest.mark.parametrize("objectives", ["paper", "beta", "free bits", "mean", "importance", "sticking the landing"])
def test_a_compiled_model_trains_compiled_under_every_objective(objectives, tiny, tmp_path):
    graphs = []

    def backend(graph, inputs):
        def called(*arguments):
            graphs.append(len(arguments))
            return graph(*arguments)

        return called

    aims = {
        "paper": objective.negative_elbo,
        "beta": objective.BetaELBO(2.0, 0.5),
        "free bits": objective.FreeBits(0.2),
        "mean": objective.MeanELBO(3),
        "importance": objective.ImportanceWeighted(3),
        "sticking the landing": StickingTheLanding(),
    }
    torch._dynamo.reset()
    model = mlp(tiny.image_shape, 2)
    training.fit(torch.compile(model, backend=backend), tiny, CONFIG, tmp_path, objective=aims[objectives])
    assert len(graphs) >= 8  # a step each


# Objectives


@dataclass(frozen=True)
class StickingTheLanding:
    """log q(z | x) with its parameters held fixed."""

    samples: int = 1
    fixed_posterior = True

    def __call__(self, terms, fraction):
        return -objective.importance_weighted_bound(terms.log_weights)


@dataclass(frozen=True)
class DReG:
    """Doubly reparameterized gradients of the importance-weighted bound: Tucker et al., arXiv:1810.04152."""

    samples: int = 5
    fixed_posterior = True

    def __call__(self, terms, fraction):
        weights = terms.log_weights.detach().softmax(0)  # (S, B)
        if terms.codes.requires_grad:  # the gradient through codes, the encoder's, is weighted once more
            terms.codes.register_hook(lambda gradient: weights.unsqueeze(-1) * gradient)
        return -(weights * terms.log_weights).sum(0)


@pytest.fixture(scope="module")
def toy():
    """A small model in double precision, and images."""
    with seeded(0):
        features = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh())
        output = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (1, 2, 3)))
        model = VAE(encoders.Gaussian(features, 4, 2), decoders.Bernoulli(output), priors.Standard(2), (1, 2, 3))
        return model.double(), torch.rand(3, 1, 2, 3, dtype=torch.float64)


def _gradients(model, x, aim, seed, draws=1):
    with seeded(seed):
        loss = aim(model(x.repeat(draws, 1, 1, 1), **objective.options(aim)), 0.0).mean()
    return torch.autograd.grad(loss, list(model.parameters()))


def test_dreg_has_the_gradient_of_the_importance_weighted_bound_with_less_noise(toy):
    model, x = toy
    plain, doubly = (_gradients(model, x, aim, 1, 20_000) for aim in (objective.ImportanceWeighted(5), DReG(5)))
    for expected, gradient in zip(plain, doubly, strict=True):
        assert (gradient - expected).norm() < 0.1 * expected.norm()

    def noise(aim):
        each = [_gradients(model, x, aim, seed)[2] for seed in range(100)]  # the encoder's weights of the mean
        return torch.stack(each).var(0).sum()

    assert noise(DReG(5)) < noise(objective.ImportanceWeighted(5))


def test_dreg_of_the_encoder_is_its_formula(toy):
    """Σ w² ∂ log w / ∂z ∂z / ∂φ, by finite differences of log w in each coordinate of a code."""
    model, x = toy
    mean, log_variance = (each.detach() for each in model.encode(x))
    with seeded(5):
        terms = model(x, samples=3, fixed_posterior=True)
    with seeded(5):
        gradient = torch.autograd.grad(
            DReG(3)(model(x, samples=3, fixed_posterior=True), 0).sum(), model.encoder.mean.bias
        )[0]

    def log_weight(z):
        log_q = objective.gaussian_log_prob(z, mean, log_variance)
        return torch.stack([model.decoder(each).log_prob(x) + model.prior().log_prob(each) for each in z]) - log_q

    codes, weights, step = terms.codes.detach(), terms.log_weights.detach().softmax(0), 1e-6
    expected = []
    for unit in torch.eye(2, dtype=torch.float64):
        slope = (log_weight(codes + step * unit) - log_weight(codes - step * unit)) / (2 * step)
        expected.append(-(weights.square() * slope).sum())  # ∂z / ∂bias is 1
    torch.testing.assert_close(gradient, torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_with_a_fixed_posterior_gradients_pass_through_codes_alone(toy):
    model, x = toy
    with seeded(1):
        free = model.terms(x)
    with seeded(1):
        fixed = model.terms(x, fixed_posterior=True)
    torch.testing.assert_close(free.log_posterior, fixed.log_posterior)
    bias = model.encoder.log_variance.bias
    through = torch.autograd.grad(fixed.log_posterior.sum(), fixed.codes, retain_graph=True)[0]
    noise = (fixed.codes - model.encode(x)[0]).detach()
    expected = (through * noise / 2).sum((0, 1))  # z = mean + exp(log_variance / 2) ε
    torch.testing.assert_close(torch.autograd.grad(fixed.log_posterior.sum(), bias)[0], expected)


def _eager(image_shape, latent_dim, **options):
    return torch.compile(mlp(image_shape, latent_dim, **options), backend="eager")


def test_a_hook_on_codes_is_refused_where_it_would_be_wrong(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"changes the gradient of the codes by a hook.*without torch\.compile"):
        runs.train(tiny, CONFIG, tmp_path, "cpu", builder=_eager, objective=DReG())


def _dropped(image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    model.encoder.features.append(nn.Dropout(0.5))
    return model


def test_a_fixed_posterior_of_a_random_encoder_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="the encoder is random in training mode, as with dropout"):
        runs.train(tiny, CONFIG, tmp_path, "cpu", builder=_dropped, objective=DReG())
    runs.train(tiny, CONFIG, tmp_path, "cpu", builder=_dropped)


def test_a_fixed_posterior_counts_batch_norm_once(tiny):
    model = models.conv((1, 7, 7), 2)
    model.terms(to_float(tiny.test.images), fixed_posterior=True)
    assert model.encoder.features[2].num_batches_tracked == 1


class Averaged(nn.Module):
    """A running average of an encoder's weights, moved at each call in training."""

    def __init__(self, network):
        super().__init__()
        ema = get_ema_multi_avg_fn(0.9)
        self.network, self.average = network, AveragedModel(network, multi_avg_fn=ema).requires_grad_(False)

    def forward(self, x):
        if self.training:
            self.average.update_parameters(self.network)
        return (self.network if self.training else self.average)(x)


def test_a_fixed_posterior_moves_a_running_average_once(tiny, x):
    model = mlp(tiny.image_shape, 2)
    model.encoder = Averaged(model.encoder)
    for _ in range(2):
        model.terms(x, fixed_posterior=True)
    assert model.encoder.average.n_averaged == 2
    model.encoder.network.mean.bias.data += 1
    before = model.encoder.average.module.mean.bias.clone()
    model.terms(x, fixed_posterior=True)
    torch.testing.assert_close(model.encoder.average.module.mean.bias, before + 0.1)


class Discrete(nn.Module):
    """Codes without rsample: which of five, as a number."""

    def __init__(self, features, size, latent_dim):
        super().__init__()
        self.network = nn.Sequential(features, nn.Linear(size, 5 * latent_dim), nn.Unflatten(1, (latent_dim, 5)))

    def forward(self, x):
        return Independent(Numbers(logits=self.network(x)), 1)


class Numbers(Categorical):
    def sample(self, sample_shape=()):
        return super().sample(torch.Size(sample_shape)).float()

    def log_prob(self, value):
        return super().log_prob(value.long())


class Uniform(nn.Module):
    def __init__(self, latent_dim):
        super().__init__()
        self.register_buffer("logits", torch.zeros(latent_dim, 5))

    def forward(self):
        return Independent(Numbers(logits=self.logits), 1)


@dataclass(frozen=True)
class ScoreFunction:
    """REINFORCE, with the batch's mean as a baseline."""

    reparameterized = False

    def __call__(self, terms, fraction):
        bound = terms.log_weights.detach()
        score = terms.log_posterior * (bound - bound.mean())
        return -(terms.log_likelihood + terms.log_prior + score).mean(0)


def test_a_posterior_without_rsample_needs_an_objective_that_does_not_use_it(tiny, tmp_path):
    builder = partial(mlp, encoder=Discrete, prior=Uniform)
    with pytest.raises(ValueError, match=r"has no rsample.*reparameterized = False"):
        runs.train(tiny, CONFIG, tmp_path, "cpu", builder=builder)
    run = runs.train(
        tiny, TrainConfig(1, 8, batch_size=20), tmp_path, "cpu", builder=builder, objective=ScoreFunction()
    )
    model = run.model()
    images, codes = to_float(tiny.test.images), torch.arange(5.0).view(5, 1)
    exact = torch.stack([model.decoder(z.expand(40, 1)).log_prob(images) - math.log(5) for z in codes]).logsumexp(0)
    assert run.evaluation["log_prob"] == pytest.approx(exact.mean().item(), abs=0.1)


class Geco(nn.Module):
    """A constraint on the reconstruction: its weight grows while it is missed. Rezende and Viola, arXiv:1810.00597."""

    def __init__(self, target=10.0):
        super().__init__()
        self.target = target
        self.register_buffer("weight", torch.ones(()))

    def forward(self, terms, fraction):
        missed = -terms.reconstruction - self.target
        self.weight *= (0.02 * missed.detach().mean().clamp(-1, 1)).exp()
        return terms.divergence + self.weight * missed


class Scaled(nn.Module):
    """An objective with a weight that is learned."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, terms, fraction):
        return terms.divergence - terms.reconstruction * self.log_scale.exp() - self.log_scale


@pytest.mark.parametrize("aim", [Geco, partial(Geco, target=20.0), Scaled])
def test_an_objective_with_state_resumes_bit_for_bit(aim, tiny, tmp_path):
    whole = runs.train(tiny, TrainConfig(2, 4, batch_size=50), tmp_path / "whole", "cpu", objective=aim)
    again = runs.train(tiny, TrainConfig(2, 4, batch_size=50), tmp_path / "again", "cpu", objective=aim)
    assert whole.evaluation == again.evaluation

    def stop(model, line):
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    options = {"objective": aim, "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        runs.train(tiny, TrainConfig(2, 4, batch_size=50), tmp_path / "parts", "cpu", on_epoch=stop, **options)
    parts = runs.train(tiny, TrainConfig(2, 4, batch_size=50), tmp_path / "parts", "cpu", **options)
    assert parts.evaluation == whole.evaluation
    assert ("target=20.0" in parts.folder.name) == isinstance(aim, partial)


@dataclass
class Mutable:
    weight: float = 1.0

    def __call__(self, terms, fraction):
        self.weight *= 1.1
        return self.weight * terms.divergence - terms.reconstruction


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Mutable(), r"Mutable can change in training.*freeze the dataclass, or make it an nn\.Module"),
        (Geco(), "expected a function or a class, and found an object of Geco"),
        (Mutable, "the objective is a class; give an instance of it"),
    ],
)
def test_objectives_whose_state_would_be_lost_are_refused(wrong, message, tiny, tmp_path):
    with pytest.raises(ValueError, match=message):
        runs.train(tiny, CONFIG, tmp_path, "cpu", objective=wrong)
    assert not list(tmp_path.iterdir())


def _scalar(terms, fraction):
    return (terms.divergence - terms.reconstruction).mean()


def _old(model, x, progress):
    return model(x)


def _three(terms, fraction):
    return terms.divergence, terms.reconstruction, terms.divergence


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_scalar, r"must return the loss of each image, a tensor of shape \(2,\) for 2 images, not \(\)"),
        (_three, "must return the loss of each image.*not tuple"),
        (_old, r"the objective failed.*missing 1 required.*objective\(terms, fraction\)"),
    ],
)
def test_an_objective_of_another_form_is_refused_before_training(wrong, message, tiny, tmp_path):
    with pytest.raises(ValueError, match=message):
        runs.train(tiny, CONFIG, tmp_path, "cpu", objective=wrong)
    assert not list(tmp_path.iterdir())


def _detached(terms, fraction):
    return (terms.divergence - terms.reconstruction).detach()


def test_a_loss_without_gradient_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="the objective's loss has no gradient"):
        runs.train(tiny, CONFIG, tmp_path, "cpu", objective=_detached)


def _in_place(terms, fraction):
    terms.log_likelihood.mul_(2)
    return terms.divergence - terms.reconstruction


def test_terms_are_recorded_as_they_were_before_the_objective(tiny, tmp_path):
    config = TrainConfig(2, 1, batch_size=50, learning_rate=1e-9)
    lines = [
        runs.train(tiny, config, tmp_path, "cpu", objective=aim).metrics[0]
        for aim in (_in_place, objective.negative_elbo)
    ]
    assert lines[0]["train_elbo"] == pytest.approx(lines[1]["train_elbo"], rel=1e-5)


class TooLow(distributions.DiagonalNormal):
    def log_prob(self, value):
        return super().log_prob(value) - 100


class TooLowEncoder(encoders.Gaussian):
    def forward(self, x):
        q = super().forward(x)
        return TooLow(q.mean, q.log_variance)


def test_a_negative_kl_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"the KL is -\d.*no KL is negative"):
        runs.train(tiny, CONFIG, tmp_path, "cpu", builder=partial(mlp, encoder=TooLowEncoder))


class OnTheSimplex(nn.Module):
    def __init__(self, features, size, latent_dim):
        super().__init__()
        self.network = nn.Sequential(features, nn.Linear(size, latent_dim), nn.Softplus())

    def forward(self, x):
        return torch.distributions.Dirichlet(self.network(x) + 0.1)


def test_codes_of_a_simplex_need_a_prior_there(tiny, tmp_path):
    with pytest.raises(ValueError, match="Dirichlet or StandardNormal sum to one"):
        runs.train(tiny, CONFIG, tmp_path, "cpu", builder=partial(mlp, encoder=OnTheSimplex))


@pytest.mark.parametrize("optimizer", [torch.optim.LBFGS, torch.optim.SparseAdam])
def test_optimizers_that_the_loop_cannot_serve_are_refused(optimizer, tiny, tmp_path):
    with pytest.raises(ValueError, match="without closures or sparse gradients"):
        runs.train(tiny, CONFIG, tmp_path, "cpu", optimizer=optimizer)


def test_a_conditional_model_needs_labelled_data(tiny, tmp_path):
    bare = Dataset("bare", Split(tiny.train.images), Split(tiny.test.images))
    with pytest.raises(ValueError, match="the model is conditional, and 'bare' has no labels"):
        runs.train(bare, CONFIG, tmp_path, "cpu", builder=_conditional)


# Arguments


def test_another_optimizer_is_another_run_with_its_own_step(tiny, tmp_path):
    decayed = partial(torch.optim.AdamW, weight_decay=0.5)
    run, other, plain = (
        runs.train(tiny, CONFIG, tmp_path, "cpu", **options)
        for options in ({"optimizer": decayed}, {"optimizer": torch.optim.RMSprop}, {})
    )
    assert "AdamW_weight_decay=0.5" in run.folder.name and "RMSprop" in other.folder.name
    assert run.record["functions"]["optimizer"] == "torch.optim.adamw.AdamW(weight_decay=0.5)"
    assert len({each.evaluation["test_elbo"] for each in (run, other, plain)}) == 3
    with pytest.raises(ValueError, match=r"expected one of torch's optimizers.*not int"):
        runs.train(tiny, CONFIG, tmp_path, "cpu", optimizer=_no_optimizer)


def _no_optimizer(weights, lr):
    return 3


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, partial(torch.optim.AdamW, weight_decay=0.1), torch.optim.RMSprop]
)
def test_every_optimizer_resumes_bit_for_bit(optimizer, tiny, tmp_path):
    config = TrainConfig(2, 3, batch_size=50, learning_rate=1e-3, max_grad_norm=5)
    whole = runs.train(tiny, config, tmp_path / "whole", "cpu", optimizer=optimizer)
    with pytest.raises(KeyboardInterrupt):
        runs.train(tiny, config, tmp_path / "parts", "cpu", optimizer=optimizer, on_epoch=_stop, checkpoint_seconds=0)
    parts = runs.train(tiny, config, tmp_path / "parts", "cpu", optimizer=optimizer)
    assert parts.evaluation == whole.evaluation


def _stop(model, line):
    if line["epoch"] == 2:
        raise KeyboardInterrupt


def test_the_gradient_is_clipped_to_its_norm(tiny, tmp_path):
    def norm_of_step(**options):
        model = mlp(tiny.image_shape, 2)
        with seeded(0):
            model = mlp(tiny.image_shape, 2)
        before = torch.cat([each.detach().flatten() for each in model.parameters()])
        config = TrainConfig(2, 1, batch_size=200, learning_rate=1, **options)
        training.fit(model, tiny, config, tmp_path / str(options), optimizer=torch.optim.SGD)
        return (torch.cat([each.detach().flatten() for each in model.parameters()]) - before).norm().item()

    assert norm_of_step(max_grad_norm=0.01) == pytest.approx(0.01, rel=1e-3)
    assert norm_of_step() > 0.1


def test_an_early_stop_leaves_a_finished_run_with_the_best_weights(tiny, tmp_path):
    held = tiny.hold_out(40)
    config = TrainConfig(2, 60, batch_size=20, patience=2, learning_rate=3e-3)
    run = runs.train(held, config, tmp_path, "cpu")
    elbos = [line["validation_elbo"] for line in run.metrics]
    best = elbos.index(max(elbos))
    assert len(elbos) < 60 and best == len(elbos) - 3
    reconstruction, kl = evaluation.elbo(run.model(), held.validation.images)
    assert (reconstruction - kl).mean().item() == pytest.approx(max(elbos), abs=1e-4)
    assert runs.load(run.folder).evaluation == run.evaluation == runs.train(held, config, tmp_path, "cpu").evaluation
    for number in (1, best + 1, len(elbos)):  # before the best epoch, at it, and after
        place = tmp_path / str(number)

        def stop(model, line, number=number):
            if line["epoch"] == number:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            runs.train(held, config, place, "cpu", on_epoch=stop, checkpoint_seconds=0)
        assert runs.train(held, config, place, "cpu").evaluation == run.evaluation
    with pytest.raises(ValueError, match=r"patience needs a validation split.*hold_out"):
        runs.train(tiny, config, tmp_path / "none", "cpu")


# Conditional models


class LabelEncoder(nn.Module):
    def __init__(self, features, size, latent_dim):
        super().__init__()
        self.features, self.label = features, nn.Embedding(10, size)
        self.gaussian = encoders.Gaussian(nn.Identity(), size, latent_dim)

    def forward(self, x, y):
        return self.gaussian(self.features(x) + self.label(y))


class LabelDecoder(nn.Module):
    def __init__(self, network, latent_dim):
        super().__init__()
        self.label, self.decoder = nn.Embedding(10, latent_dim), decoders.Bernoulli(network)

    def forward(self, z, y):
        return self.decoder(z + self.label(y))


class LabelPrior(nn.Module):
    def __init__(self, latent_dim):
        super().__init__()
        self.mean = nn.Embedding(10, latent_dim)

    def forward(self, y):
        mean = self.mean(y)
        return distributions.DiagonalNormal(mean, torch.zeros_like(mean))


def _conditional(image_shape, latent_dim, prior=priors.Standard):
    model = mlp(image_shape, latent_dim, encoder=LabelEncoder, decoder=partial(LabelDecoder, latent_dim=latent_dim))
    return VAE(model.encoder, model.decoder, prior(latent_dim), image_shape, conditional=True)


@pytest.mark.parametrize("prior", [priors.Standard, LabelPrior])
def test_labels_reach_a_conditional_model_everywhere(prior, tiny, tmp_path):
    config = TrainConfig(1, 20, batch_size=20)
    run = runs.train(tiny.hold_out(20), config, tmp_path, "cpu", builder=partial(_conditional, prior=prior))
    model, images, labels = run.model(), to_float(tiny.test.images), tiny.test.labels
    grid = torch.linspace(-12, 12, 2401).view(-1, 1)

    def exact(labels):
        found = []
        for x, y in zip(images, labels, strict=True):
            many = y.expand(len(grid))
            joint = model.decoder(grid, many).log_prob(x.expand(len(grid), *x.shape)) + model.prior(many).log_prob(grid)
            found.append(joint.double().logsumexp(0) + math.log(0.01))
        return torch.stack(found).mean().item()

    with torch.no_grad():
        assert run.evaluation["log_prob"] == pytest.approx(exact(labels), abs=0.02)
        assert exact(labels) > exact((labels + 1) % 10) + 0.1  # another label is another image
    again = run.model()
    assert evaluation.log_prob(again, tiny.test.images, 200, labels=labels)[0].mean().item() == pytest.approx(
        run.evaluation["log_prob"]
    )
    storage.save(run.model(), tmp_path / "again", partial(_conditional, prior=prior))
    assert model.sample(10, 0, torch.arange(10)).shape == (10, *tiny.image_shape)
    for function in (
        partial(model.elbo, images),
        partial(model.sample, 3),
        partial(evaluation.elbo, model, tiny.test.images),
    ):
        with pytest.raises(ValueError, match="this model is conditional; give the images' labels"):
            function()


# Devices and threads


class OnTheCPU(nn.Embedding):
    """A mixture whose weights stay on the CPU, wherever the model is."""

    def __init__(self, latent_dim):
        super().__init__(10, latent_dim)

    def forward(self):
        parts = Independent(Normal(self.weight, 1.0), 1)
        return MixtureSameFamily(Categorical(torch.ones(10, device="cpu")), parts)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_prior_that_stays_on_the_cpu_is_found_out_before_training(kind, monkeypatch, tiny, tmp_path):
    from pretended import PretendedGPU

    with PretendedGPU(kind, monkeypatch) as gpu, pytest.raises(ValueError, match=r"prior.*GPU and of the CPU"):
        runs.train(tiny, CONFIG, tmp_path, gpu.device, builder=partial(mlp, prior=OnTheCPU))
    assert not list(tmp_path.iterdir())


def test_a_sum_over_too_few_dimensions_is_found_out_before_training(tiny, tmp_path):
    class Unsummed(Pixels):
        def forward(self, z):
            found = super().forward(z)
            plain = found.log_prob
            found.log_prob = lambda value: plain(value).unsqueeze(1).expand(-1, 3)
            return found

    Unsummed.__qualname__ = "Unsummed"
    with pytest.raises(ValueError, match=r"decoder's log_prob is torch.float32 of shape \(2, 3\).*of shape \(2,\)"):
        training.fit(mlp(tiny.image_shape, 2, decoder=Unsummed), tiny, CONFIG, tmp_path)


def test_the_vamp_prior_of_another_encoder_is_refused(tiny):
    model = mlp(tiny.image_shape, 2)
    model.prior = priors.Vamp(model.encoder, tiny.image_shape)
    model.encoder = mlp(tiny.image_shape, 2).encoder
    with pytest.raises(ValueError, match="VampPrior was made of another encoder"):
        checks.check_model(model)


def test_the_default_device_may_be_another(tiny):
    with torch.device("meta"):
        assert data.load("digits").train.images.device.type == "cpu"
        images = training._Images(tiny.train, CONFIG.batch_size, torch.device("cpu"), conditional=False, stream=False)
        (batch,) = next(images.epoch(torch.Generator(), 0))
        assert batch.device.type == "cpu" and len(tiny.hold_out(10).train) == 190
        assert distributions.StandardNormal(2).sample((3,)).device.type == "cpu"


def test_a_callback_may_have_another_thread_sample(tiny, tmp_path):
    drawn = []

    def sample(model, line):
        thread = threading.Thread(target=lambda: drawn.append(model.sample(2, seed=0)))
        thread.start()
        thread.join(10)

    run = runs.train(tiny, CONFIG, tmp_path / "a", "cpu", on_epoch=sample)
    assert len(drawn) == 2
    assert run.evaluation == runs.train(tiny, CONFIG, tmp_path / "b", "cpu").evaluation


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_a_thread_trains_can_draw():
    inside, done = threading.Event(), threading.Event()

    def hold():
        with seeded(0):
            inside.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    child = os.fork()
    if not child:
        with seeded(1):
            os._exit(0)
    for _ in range(100):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        threading.Event().wait(0.1)
    else:
        os.kill(child, 9)
    done.set()
    thread.join()
    assert ended and status == 0


def test_a_callback_cannot_change_the_record(tiny, tmp_path):
    def pop(model, line):
        line.pop("test_elbo")

    run = runs.train(tiny, CONFIG, tmp_path, "cpu", on_epoch=pop)
    assert all("test_elbo" in line for line in run.metrics)


def test_memory_that_is_too_small_for_the_evaluation_is_named(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(evaluation, "evaluate", full)
    with pytest.raises(RuntimeError, match="cpu has too little memory for tiny-k2"):
        runs.train(tiny, CONFIG, tmp_path, "cpu")


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_codes_and_features_are_where_the_model_is(kind, monkeypatch, digits):
    from pretended import OnGPU, PretendedGPU

    network = features.classifier((1, 8, 8), 3).eval()
    with PretendedGPU(kind, monkeypatch) as gpu:
        model = mlp((1, 8, 8), 2).to(gpu.device)
        drawn = model.decode(model.prior().sample((3,)))
        assert isinstance(drawn, OnGPU) and isinstance(model.prior().mean, OnGPU)
        assert features.extract(network, drawn).shape == (3, features.FEATURES)
        walk = attributes.traverse(model, torch.zeros(2, 2), torch.ones(2), torch.arange(3.0))
        assert walk.shape == (2, 3, 1, 8, 8)


# Small ones


def test_codes_of_every_shape_have_a_marginal_density():
    codes = VAE(
        encoders.Gaussian(nn.Identity(), 2, 1), encoders.Gaussian(nn.Identity(), 1, 2), priors.Standard(1), (2,)
    )
    marginal = priors.Marginal(codes.eval())
    assert marginal.log_prob(torch.zeros(2)).shape == ()
    assert marginal.log_prob(torch.zeros(3, 4, 2)).shape == (3, 4)
    assert marginal.sample().shape == (2,) and marginal.sample((3, 4)).shape == (3, 4, 2)


@pytest.mark.parametrize("function", [evaluation.elbo, evaluation.encode, evaluation.reconstruction_error])
def test_no_images_cannot_be_evaluated(function, tiny):
    with pytest.raises(ValueError, match="no images to evaluate"):
        function(mlp(tiny.image_shape, 2), tiny.test.images[:0])


def test_equal_mean_codes_have_no_direction():
    codes = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(20, 1)
    labels = torch.tensor([True, True, False, False]).repeat(10)[:, None]
    with pytest.raises(ValueError, match="Smiling: the mean codes with and without it are equal"):
        attributes.fit(codes, labels, ["Smiling"])


def test_a_classifier_takes_classes_of_every_whole_kind_and_refuses_tiny_images(digits, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "EPOCHS", 1)
    few = Split(digits.train.images[:64], digits.train.labels[:64].int())
    features.train(Dataset("few", few, few, digits.names), tmp_path, "cpu")
    with pytest.raises(ValueError, match="8 x 8 or more, not of 7 x 7"):
        features.train(tiny, tmp_path, "cpu")


def test_decoding_many_codes_takes_little_more_memory_than_their_images():
    model, seen = models.conv((3, 64, 48), 2).eval(), []
    model.decoder.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    with torch.no_grad():
        assert model.decode(torch.zeros(200, 2)).shape == (200, 3, 64, 48)
    assert max(seen) <= 85


def test_a_student_t_likelihood_is_scored_right(tiny):
    class Student(Pixels):
        def forward(self, z):
            return Independent(StudentT(3.0, self.mean(z), 0.2), 3)

    with seeded(0):
        model = mlp(tiny.image_shape, 2, decoder=Student).eval()
    images = to_float(tiny.test.images)
    estimate, _ = evaluation.log_prob(model, tiny.test.images, 500)
    assert estimate.mean().item() == pytest.approx(_estimate(model, images).mean().item(), abs=0.3)
