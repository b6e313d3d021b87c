"""The paper's two architectures, what a VAE makes of its three modules, in every precision, and binary pixels."""

import math
import re
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import MODELS, LabelPrior, NormalPixels, conditional, exact_log_prob, normalised, small
from torch import nn
from torch.distributions import Independent, Laplace

from vaelib import TrainConfig, checks, evaluation, models, objective, priors, runs
from vaelib.binarization import binarized
from vaelib.data import to_float
from vaelib.models import VAE
from vaelib.seeding import seeded

SHAPE, FACES = (1, 28, 28), (3, 64, 48)


# Architectures


@pytest.mark.parametrize("latent_dim", [1, 64])
def test_the_fully_connected_model_has_the_papers_layers(latent_dim):
    model = models.build(SHAPE, latent_dim)

    def sizes(part):
        return [(layer.in_features, layer.out_features) for layer in part.modules() if isinstance(layer, nn.Linear)]

    assert sizes(model.encoder) == [(784, 512), (512, 512), (512, latent_dim), (512, latent_dim)]
    assert sizes(model.decoder) == [(latent_dim, 512), (512, 512), (512, 784)]


def test_the_convolutional_model_has_the_geometry_of_the_paper():
    model = models.build(FACES, 64)

    def shapes(layers, x, kind):
        outputs = [x := layer(x) for layer in layers]
        return [tuple(x.shape[1:]) for layer, x in zip(layers, outputs, strict=True) if isinstance(layer, kind)]

    found = shapes(model.encoder.features, torch.rand(2, *FACES), nn.ReLU | nn.Flatten)
    assert found == [(32, 32, 24), (64, 16, 12), (128, 8, 6), (256, 4, 3), (3072,)]
    found = shapes(model.decoder.logits, torch.randn(2, 64), nn.ConvTranspose2d)
    assert found == [(128, 8, 6), (64, 16, 12), (32, 32, 24), FACES]
    kinds = [type(layer).__name__ for part in (model.encoder.features, model.decoder.logits) for layer in part]
    expected = ["Conv2d", "BatchNorm2d", "ReLU"] * 4 + ["Flatten", "Linear", "Unflatten"]
    assert kinds == expected + ["ReLU", "ConvTranspose2d"] * 4
    sizes = (3, 32, 64, 128, 256)
    count = sum(16 * a * b + b + 2 * b for a, b in pairwise(sizes))  # weights, biases, batch norm's scale and shift
    count += 2 * (3072 * 64 + 64) + 64 * 3072 + 3072 + sum(16 * a * b + a for a, b in pairwise(sizes))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_a_padded_image_is_continued_by_its_last_pixels():
    model, x = models.conv((1, 14, 18), 2).eval(), torch.rand(1, 1, 14, 18)
    whole = models.conv((1, 16, 32), 2).eval()
    weights = {
        re.sub(r"features\.(\d+)", lambda n: f"features.{int(n[1]) - 1}", name): tensor
        for name, tensor in model.state_dict().items()
    }
    whole.load_state_dict(weights)
    continued = nn.functional.pad(x, (0, 14, 0, 2), "replicate")
    torch.testing.assert_close(model.encode(x)[0], whole.encode(continued)[0])
    z = torch.randn(3, 2)
    torch.testing.assert_close(model.decode(z), whole.decode(z)[..., :14, :18])


# What a VAE makes of its modules


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*MODELS, "convolutional"])
def test_every_model_has_terms_codes_and_samples_of_the_documented_shapes_and_type(name, kind, tiny, x):
    builder, labels = MODELS.get(name, models.conv), tiny.test.labels
    model = builder(tiny.image_shape, 1).to(kind).eval()
    terms, images = model.terms(x, 3, labels), model.sample(4, 0, labels[:4])
    assert [term.shape for term in (*terms[:4], terms.log_weights)] == [(3, 40)] * 3 + [(3, 40, 1), (3, 40)]
    assert [each.shape for each in (*model.elbo(x, labels), *model.encode(x, labels))] == [(40,)] * 2 + [(40, 1)] * 2
    found = [*terms, *model.elbo(x, labels), *model.encode(x, labels), images]
    assert {each.dtype for each in found if each is not None} == {kind}
    assert images.shape == (4, *tiny.image_shape) and (model.conditional or model.latent_dim == 1)
    assert name == "Student-t" or 0 <= images.min() <= images.max() <= 1


def test_sample_draws_from_its_seed_alone_as_many_as_are_asked_for(monkeypatch):
    model = small(SHAPE, 2)
    before = torch.get_rng_state()
    first, again, other = (model.sample(5, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(1):
        expected = model.decode(torch.randn(5, 2))
    monkeypatch.setattr(models, "EVAL_BATCH_VALUES", 2 * 784)
    torch.testing.assert_close(model.sample(5, 1), expected)


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(shape) for shape in [(2, 784), SHAPE, (2, 3, 28, 28), (2, 28, 28, 1), (2, 1, 28, 27)]]
    + [torch.zeros(2, *SHAPE, dtype=torch.uint8)],
    ids=lambda wrong: f"{wrong.dtype} {tuple(wrong.shape)}",
)
@pytest.mark.parametrize("builder", [small, binarized])
def test_images_of_another_shape_or_type_are_refused_with_the_expected_one(builder, wrong):
    found = re.escape(f"got {wrong.dtype} of shape {(*wrong.shape,)}; vaelib.data.to_float")
    message = rf"expected float images of shape \(B, 1, 28, 28\), {found}.*floats in \[0, 1\]"
    for training in (True, False):
        model = builder(SHAPE, 2).train(training)
        for function in (model.encode, model.elbo):
            with pytest.raises(ValueError, match=message):
                function(wrong)


@pytest.mark.parametrize("function", ["encode", "posterior", "elbo", "decode"])
@pytest.mark.parametrize("values", [np.zeros((2, 2), np.float32), [[0.0, 1.0]], None])
def test_values_that_are_not_a_tensor_are_refused(model, function, values):
    with pytest.raises(ValueError, match=f"expected a tensor of .*s, not a {type(values).__name__}; see torch.as_tens"):
        getattr(model, function)(values)


def test_no_images_have_no_codes():
    model = small(SHAPE, 2).eval()
    assert [len(model.encode(torch.zeros(0, *SHAPE))[0]), len(model.decode(torch.zeros(0, 2)))] == [0, 0]


@pytest.mark.parametrize(
    "wrong", [torch.zeros(2, 3), torch.zeros(2), torch.zeros(()), torch.zeros(1, 2, 2), torch.zeros(2, 2).long()]
)
def test_codes_of_another_shape_or_type_are_refused_with_the_expected_one(model, wrong):
    found = re.escape(f"got {wrong.dtype} of shape {(*wrong.shape,)}")
    with pytest.raises(ValueError, match=rf"expected float codes of shape \(B, 2\), {found}"):
        model.decode(wrong)
    assert model.decode(torch.zeros(3, 2).double()).dtype == torch.float32


@pytest.mark.parametrize("count", [-1, 2.5, "3"])
def test_a_number_of_samples_is_a_whole_number(model, count):
    for call in (model.sample, partial(model.terms, torch.zeros(1, *model.image_shape))):
        with pytest.raises(ValueError, match=r"(count|samples) must be a whole number of at least [01]"):
            call(count)


@pytest.mark.parametrize("values", [[0.0, 255], [-0.1, 1], [0, 1.01], [0, math.nan]])
@pytest.mark.parametrize("training", [True, False])
def test_pixels_outside_of_what_the_decoder_expects_are_refused(values, training):
    model = small((1, 1, 2), 2).train(training)
    wrong = torch.tensor(values).view(1, 1, 1, 2)
    for function in (model.terms, model.elbo, model.encode):
        with pytest.raises(ValueError, match=r"values from .* to .*Bernoulli expects.*scale them"):
            function(wrong)
    model.decoder = NormalPixels(model.decoder.logits)
    if not math.isnan(values[1]):
        assert model.elbo(wrong)[0].isfinite().all()  # a decoder without `support` takes all


class InPlace(VAE):
    def preprocess(self, x):
        return x.mul_(0.5)


def test_preprocessing_in_place_does_not_change_the_images(model, x):
    before = x.clone()
    InPlace(model.encoder, model.decoder, model.prior, model.image_shape).elbo(x)
    assert torch.equal(x, before)


class OwnEncoder(nn.Sequential):
    """A posterior for whose KL torch knows no closed form, near a mean that bfloat16 can't tell from its neighbours."""

    def __init__(self, features, size, latent_dim):
        super().__init__(features, nn.Linear(size, latent_dim))

    def forward(self, x):
        return Independent(Laplace(3.003 + 1e-4 * super().forward(x), 0.005), 1)


def test_without_a_closed_form_the_kl_is_that_of_the_samples(tiny, x):
    model = small(tiny.image_shape, 3, encoder=OwnEncoder)
    with seeded(1):
        reconstruction, kl = model.elbo(x)
    with seeded(1):
        terms = model.terms(x)
    assert torch.equal(reconstruction, terms.log_likelihood[0])
    assert torch.equal(kl, (terms.log_posterior - terms.log_prior)[0])
    (gradient,) = torch.autograd.grad(reconstruction.sum(), model.encoder[1].bias)
    assert gradient.any()
    several = model.terms(x, 3)
    torch.testing.assert_close(several.divergence, (several.log_posterior - several.log_prior).sum(0) / 3)


@pytest.mark.parametrize("decoded", [1, 40, 120, 10_000])
def test_codes_are_scored_alike_however_many_are_decoded_at_once(decoded, model, x, monkeypatch):
    monkeypatch.setattr(models, "EVAL_BATCH_VALUES", decoded * 49)
    terms = model.eval().terms(x, 7)
    expected = torch.stack([model.decoder(z).log_prob(x) for z in terms.codes])
    torch.testing.assert_close(terms.log_likelihood, expected)


def test_in_training_batch_norm_sees_all_codes_at_once(x, monkeypatch):
    monkeypatch.setattr(models, "EVAL_BATCH_VALUES", 1)
    model, seen = normalised(x.shape[1:], 2), []
    model.decoder.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    model.terms(x, 7)
    assert seen == [7 * len(x)]


def test_decoding_many_codes_takes_little_more_memory_than_their_images():
    model, seen = models.conv(FACES, 2).eval(), []
    model.decoder.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    with torch.no_grad():
        assert model.decode(torch.zeros(100, 2)).shape == (100, *FACES)
    assert max(seen) <= 85


@pytest.mark.parametrize(
    "function",
    [
        lambda model, images: model.prior(),
        lambda model, images: checks.check_model(model),
        lambda model, images: model.sample(2),
        evaluation.elbo,
    ],
)
def test_what_was_frozen_stays_frozen_and_statistics_where_they_were(function, colour):
    model = models.conv(colour.image_shape, 2)
    model.prior = priors.Vamp(model.encoder, model.image_shape, 3)
    model.decoder.logits.insert(3, nn.BatchNorm2d(256))
    model.encoder.features[1].eval()
    modes, before = [part.training for part in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}
    function(model, colour.test.images)
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


# Labels


@pytest.mark.parametrize("prior", [priors.Standard, LabelPrior])
def test_labels_reach_a_conditional_model_everywhere(prior, tiny, tmp_path):
    builder, config = partial(conditional, prior=prior), TrainConfig(1, 20, batch_size=20, learning_rate=1e-2)
    run = runs.train(tiny.hold_out(20), config, tmp_path, "cpu", builder=builder)
    model, images, labels = run.model(), to_float(tiny.test.images), tiny.test.labels
    exact, other = (exact_log_prob(model, images, each).mean() for each in (labels, (labels + 1) % 10))
    assert run.evaluation["log_prob"] == pytest.approx(exact.item(), abs=0.1)
    assert exact > other + 0.1  # another label is another image
    assert model.sample(10, 0, torch.arange(10)).shape == (10, *tiny.image_shape)
    calls = (model.elbo, images), (model.sample, 3), (partial(evaluation.elbo, model), tiny.test.images)
    for function, given in calls:
        with pytest.raises(ValueError, match="this model is conditional; give the images' labels"):
            function(given)


# Precision


def test_own_posteriors_are_drawn_and_scored_in_full_precision_where_training_is_in_bfloat16(tiny, x):
    model = small(tiny.image_shape, 1, encoder=OwnEncoder)
    checks.check_model(model, x, mixed=True)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model(x, samples=100)
    assert {each.dtype for each in terms if each is not None} == {torch.float32}
    assert len(terms.codes.unique()) > 3000
    assert terms.codes.mean().item() == pytest.approx(3.003, abs=1e-3)


def test_means_of_the_papers_posterior_are_not_rounded_to_bfloat16(model, x):
    with torch.autocast("cpu", torch.bfloat16):
        mean, _ = model.encode(x)
    assert mean.dtype == torch.float32 and not torch.equal(mean, mean.bfloat16().float())


# Binary pixels


@pytest.fixture(scope="module")
def binary():
    return binarized(SHAPE, 2, small)


def test_in_evaluation_every_image_is_binarized_once_and_for_all(binary, digits):
    """To what double precision draws, and as if it were drawn for each pixel and each image alone."""
    x = to_float(digits.train.images[:1000])
    seen = binary.eval().preprocess(x)
    checksum = ((255 * x).round().long() * binary.noise).sum((1, 2, 3), keepdim=True)
    assert torch.equal(seen, ((binary.noise + checksum) % 2**31 < x.double() * 2**31).float())
    error = (seen - x).mean(0)  # of each pixel, over images: its variance is that of independent draws
    variance = (x * (1 - x)).mean(0) / len(x)
    assert (error.square() / variance)[variance > 1e-6].mean().item() == pytest.approx(1, abs=0.5)
    assert (seen - x).mean((1, 2, 3)).std() < 0.02


def test_in_training_every_look_draws_afresh(binary, digits):
    x = to_float(digits.train.images[:5])
    with seeded(0):
        looks = torch.stack([binary.train().preprocess(x) for _ in range(500)])
    assert ((looks.mean(0) - x).abs() <= 5 * (x * (1 - x) / 500).sqrt()).all()


def test_the_posterior_and_the_reconstruction_are_of_the_same_binary_pixels(binary, digits):
    x = to_float(digits.test.images[:20])
    with seeded(0):
        terms = binary.train().terms(x)
    with seeded(0):
        drawn = binary.preprocess(x)
        q = binary.encoder(drawn)
        z = q.rsample()
    assert torch.equal(terms.reconstruction, objective.bernoulli_log_prob(drawn, binary.decoder.logits(z)))
    assert torch.equal(terms.divergence, objective.kl_divergence(q.mean, q.log_variance))


def test_convolutions_of_rows_of_numbers_are_refused():
    with pytest.raises(ValueError, match=r"shape \(C, H, W\), not \(5,\); models.mlp takes any shape"):
        models.conv((5,), 2)
