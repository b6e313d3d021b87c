"""The paper's architecture, its ELBO against a plain computation, and weights on disk."""

import math
import os
import re
from functools import partial
from itertools import pairwise

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.distributions import Independent, Laplace, kl_divergence

from vaelib import decoders, distributions, encoders, models, objective, priors, storage
from vaelib.seeding import seeded

SHAPE = (1, 28, 28)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.mlp(SHAPE, 2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The bytes of a small model's file, and the length of what comes before the weights."""
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    storage.save(models.mlp((1, 2, 2), 2), path)
    content = path.read_bytes()
    return content, 8 + int.from_bytes(content[:8], "little")


def _images(count=3, seed=0):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def _plain_elbo(weights, x, noise):
    """Both terms, written out in matrix products and sums; weights by their names, everything in float64."""

    def linear(name, values):
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x = x.double().reshape(len(x), -1)
    hidden = linear("encoder.features.3", linear("encoder.features.1", x).clamp(min=0)).clamp(min=0)
    mean, log_variance = linear("encoder.mean", hidden), linear("encoder.log_variance", hidden)
    z = mean + (log_variance / 2).exp() * noise.double()
    hidden = linear("decoder.logits.2", linear("decoder.logits.0", z).clamp(min=0)).clamp(min=0)
    p = 1 / (1 + (-linear("decoder.logits.4", hidden)).exp())
    reconstruction = (x * p.log() + (1 - x) * (1 - p).log()).sum(1)
    return reconstruction, 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)


def _float64_weights(model):
    return {name: tensor.detach().double().clone() for name, tensor in model.state_dict().items()}


def _noise(count, latent_dim, seed):
    return torch.randn(count, latent_dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("latent_dim", [1, 2, 64])
def test_mlp_has_the_papers_layers(latent_dim):
    model = models.mlp(SHAPE, latent_dim)

    def sizes(part):
        return [(layer.in_features, layer.out_features) for layer in part.modules() if isinstance(layer, nn.Linear)]

    assert sizes(model.encoder.features) == [(784, 512), (512, 512)]
    assert sizes(model.encoder.mean) == sizes(model.encoder.log_variance) == [(512, latent_dim)]
    assert sizes(model.decoder) == [(latent_dim, 512), (512, 512), (512, 784)]
    count = 784 * 512 + 512 + 512 * 512 + 512 + 2 * (512 * latent_dim + latent_dim)
    count += latent_dim * 512 + 512 + 512 * 512 + 512 + 512 * 784 + 784
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("latent_dim", [1, 2, 64])
def test_encode_decode_and_sample_give_tensors_of_the_documented_shapes(latent_dim):
    model = models.mlp(SHAPE, latent_dim)
    mean, log_variance = model.encode(_images(5))
    assert mean.shape == log_variance.shape == (5, latent_dim)
    assert model.decode(mean).shape == (5, *SHAPE)
    assert model.sample(4).shape == (4, *SHAPE)


def test_decoded_and_sampled_pixels_are_probabilities(model):
    for probabilities in (model.decode(_noise(50, 2, 0)), model.sample(50)):
        assert probabilities.min() > 0
        assert probabilities.max() < 1


def test_sample_draws_from_its_seed_alone(model):
    before = torch.get_rng_state()
    first, again, other = (model.sample(3, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("image_shape", "latent_dim"), [(SHAPE, 1), (SHAPE, 2), ((1, 4, 5), 7)])
def test_elbo_is_a_plain_computation_of_both_terms(image_shape, latent_dim):
    model = models.mlp(image_shape, latent_dim)
    x = torch.rand(6, *image_shape, generator=torch.Generator().manual_seed(3))
    with seeded(4):
        terms = model.elbo(x)
    expected = _plain_elbo(_float64_weights(model), x, _noise(6, latent_dim, 4))
    for term, plain in zip(terms, expected, strict=True):
        assert term.shape == (6,)
        torch.testing.assert_close(term.double(), plain, rtol=1e-5, atol=1e-5)


def test_gradient_of_the_loss_is_that_of_finite_differences(model):
    x, noise = _images(), _noise(3, 2, 4)
    with seeded(4):
        reconstruction, kl = model.elbo(x)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad((kl - reconstruction).mean(), parameters)
    weights, step = _float64_weights(model), 1e-6

    def loss(name, index, change):
        moved = weights[name].clone()
        moved.view(-1)[index] += change
        reconstruction, kl = _plain_elbo(weights | {name: moved}, x, noise)
        return (kl - reconstruction).mean().item()

    for name, gradient in zip(names, gradients, strict=True):
        index = int(gradient.abs().argmax())
        difference = (loss(name, index, step) - loss(name, index, -step)) / (2 * step)
        assert gradient.view(-1)[index].item() == pytest.approx(difference, rel=1e-3), name


@pytest.mark.parametrize("shape", [(2, 784), (1, 28, 28), (2, 3, 28, 28), (2, 28, 28, 1), (2, 1, 28, 27)])
def test_images_of_another_shape_are_refused_with_the_expected_one(model, shape):
    for function in (model.encode, model.elbo):
        with pytest.raises(ValueError, match=re.escape("(B, 1, 28, 28)") + ".*" + re.escape(str(shape))):
            function(torch.zeros(shape))


def test_uint8_images_are_refused_with_the_expected_type(model):
    with pytest.raises(
        ValueError, match=r"expected float images of shape.*got torch.uint8.*to_float.*floats in \[0, 1\]"
    ):
        model.encode(torch.zeros(2, *SHAPE, dtype=torch.uint8))


@pytest.mark.parametrize(("image_shape", "latent_dim"), [(SHAPE, 1), ((1, 4, 5), 7)])
def test_a_saved_model_is_loaded_bit_for_bit_in_evaluation_mode(tmp_path, image_shape, latent_dim):
    model = models.mlp(image_shape, latent_dim)
    storage.save(model, tmp_path / "model.safetensors")
    loaded = storage.load(tmp_path / "model.safetensors")
    assert not loaded.training
    assert (loaded.image_shape, loaded.latent_dim) == (image_shape, latent_dim)
    expected = model.state_dict()
    assert expected.keys() == loaded.state_dict().keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("length", [0, 7, 8, 100, 0.5, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path, saved, length):
    content, _ = saved
    path = tmp_path / "model.safetensors"
    path.write_bytes(content[: int(len(content) * length) if isinstance(length, float) else length])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        storage.load(path)


@pytest.mark.parametrize("place", [0.0, 0.001, 0.3, 0.7, 1.0])
def test_a_flipped_byte_of_the_weights_is_refused_by_name(tmp_path, saved, place):
    content, start = saved
    position = start + int(place * (len(content) - 1 - start))
    path = tmp_path / "model.safetensors"
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        storage.load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"__metadata__"', b'["__metadata__"'),
        (b'"__metadata__"', b'"__metadatb__"'),
        (b'"vaelib"', b'"vaelic"'),
        (b'image_shape\\"', b'image_shapf\\"'),
        (b'latent_dim\\"', b'latent_din\\"'),
        (b'latent_dim\\": 2', b'latent_dim\\": 3'),
        (b'latent_dim\\": 2', b'latent_dim\\": -'),
        (b"[1, 2, 2]", b"[1, 2, 3]"),
        (b"[1, 2, 2]", b"[1, 2. 2]"),
        (b'sha256\\"', b'sha257\\"'),
        (b'"encoder.mean.bias"', b'"encoder.mean.biat"'),
        (b'"F32"', b'"I32"'),
        (b'"F32"', b'"F33"'),
        (b'"shape":[512]', b'"shape":[513]'),
        (b'"shape"', b'"shap\xff"'),
        (b'builder\\"', b'buildes\\"'),
    ],
)
def test_a_wrong_byte_of_the_header_is_refused_by_name(tmp_path, saved, old, new):
    content, start = saved
    assert old in content[:start]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        storage.load(path)


@pytest.mark.parametrize("position", [0, 3, 7])
def test_a_wrong_byte_of_the_headers_length_is_refused_by_name(tmp_path, saved, position):
    content, _ = saved
    path = tmp_path / "model.safetensors"
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        storage.load(path)


@pytest.mark.parametrize("content", [b"not weights at all, just some text\n" * 40, bytes(5000)])
def test_a_file_that_is_not_safetensors_is_refused_by_name(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        storage.load(path)


def test_weights_that_are_not_from_here_are_refused_by_name(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.torch.save({"weight": torch.zeros(3)}))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        storage.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "model.safetensors"))):
        storage.load(tmp_path / "model.safetensors")


def test_loading_leaves_the_global_random_state_alone(tmp_path, model):
    storage.save(model, tmp_path / "model.safetensors")
    before = torch.get_rng_state()
    storage.load(tmp_path / "model.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_saving_leaves_only_the_named_file(tmp_path, model):
    for _ in range(2):
        storage.save(model, tmp_path / "model.safetensors")
        assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_failed_save_leaves_the_folder_as_it_was(tmp_path, model, monkeypatch):
    def refuse(*_):
        raise OSError("no space left")

    storage.save(model, tmp_path / "good.safetensors")
    before = (tmp_path / "good.safetensors").read_bytes()
    monkeypatch.setattr(os, "replace", refuse)
    for name in ("good.safetensors", "new.safetensors"):
        with pytest.raises(OSError, match="no space left"):
            storage.save(models.mlp(SHAPE, 3), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["good.safetensors"]
    assert (tmp_path / "good.safetensors").read_bytes() == before


def test_the_untrained_models_pixels_are_near_one_half(model):
    with seeded(0):
        reconstruction, _ = model.elbo(_images(20))
    assert reconstruction.mean().item() == pytest.approx(-784 * math.log(2), rel=0.01)


FACES = (3, 64, 48)


def test_the_convolutional_model_has_the_geometry_of_the_paper():
    model = models.conv(FACES, 64)
    x, shapes = torch.rand(2, *FACES), []
    for layer in model.encoder.features:
        x = layer(x)
        if isinstance(layer, torch.nn.ReLU):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(32, 32, 24), (64, 16, 12), (128, 8, 6), (256, 4, 3)]
    assert x.shape == (2, 3072)
    z, shapes = torch.randn(2, 64), []
    for layer in model.decoder.logits:
        z = layer(z)
        if isinstance(layer, torch.nn.ConvTranspose2d):
            shapes.append(tuple(z.shape[1:]))
    assert shapes == [(128, 8, 6), (64, 16, 12), (32, 32, 24), FACES]
    kinds = [type(layer).__name__ for part in (model.encoder.features, model.decoder.logits) for layer in part]
    assert (
        kinds
        == ["Conv2d", "BatchNorm2d", "ReLU"] * 4 + ["Flatten", "Linear", "Unflatten"] + ["ReLU", "ConvTranspose2d"] * 4
    )


@pytest.mark.parametrize("K", [2, 64])
def test_the_convolutional_model_has_as_many_parameters_as_the_paper_implies(K):
    sizes = (3, 32, 64, 128, 256)
    encoder = sum(16 * a * b + b + 2 * b for a, b in pairwise(sizes))  # weights, biases, batch norm's scale and shift
    decoder = K * 3072 + 3072 + sum(16 * a * b + a for a, b in pairwise(sizes))
    count = sum(parameter.numel() for parameter in models.conv(FACES, K).parameters())
    assert count == encoder + 2 * (3072 * K + K) + decoder


def test_the_convolutional_model_decodes_probabilities_and_gives_both_terms():
    model = models.conv(FACES, 2)
    images = model.sample(3)
    assert images.shape == (3, *FACES)
    assert images.min() > 0
    assert images.max() < 1
    assert [term.shape for term in model.elbo(images)] == [(3,), (3,)]


def test_batch_norm_uses_running_statistics_in_evaluation_mode_only():
    model, x = models.conv(FACES, 2), torch.rand(4, *FACES)
    alone, together = model.eval().encode(x[:1])[0], model.encode(x)[0][:1]
    torch.testing.assert_close(alone, together)
    model.train()
    assert not torch.allclose(model.encode(x[:2])[0][:1], model.encode(x)[0][:1])


def test_convolutional_weights_and_running_statistics_survive_saving(tmp_path):
    model, x = models.conv((3, 16, 32), 2), torch.rand(4, 3, 16, 32)
    model.encode(x)  # moves the running statistics
    storage.save(model, tmp_path / "model.safetensors")
    loaded = storage.load(tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(loaded.encode(x)[0], model.eval().encode(x)[0])


@pytest.mark.parametrize("shape", [(3, 64, 50), (3, 40, 40), (1, 28, 28), (4, 1, 17)])
def test_the_convolutional_model_takes_images_of_any_size(shape):
    model, x = models.conv(shape, 2), torch.rand(2, *shape)
    assert model.sample(2).shape == x.shape
    assert [term.shape for term in model.elbo(x)] == [(2,), (2,)]


def test_a_padded_image_is_continued_by_its_last_pixels():
    model, x = models.conv((1, 16, 18), 2).eval(), torch.rand(1, 1, 16, 18)
    whole = models.conv((1, 16, 32), 2).eval()
    whole.load_state_dict(
        {
            re.sub(r"features\.(\d+)", lambda n: f"features.{int(n[1]) - 1}", name): tensor
            for name, tensor in model.state_dict().items()
        }
    )
    continued = torch.cat([x, x[..., -1:].expand(1, 1, 16, 14)], -1)
    assert torch.equal(model.encode(x)[0], whole.encode(continued)[0])
    z = torch.randn(3, 2)
    assert torch.equal(model.decode(z), whole.decode(z)[..., :18])


def test_grey_images_get_the_fully_connected_model_and_colour_the_convolutional():
    assert isinstance(models.build((1, 28, 28), 2).encoder.features[1], torch.nn.Linear)
    assert isinstance(models.build(FACES, 2).encoder.features[0], torch.nn.Conv2d)


def test_half_precision_is_for_storing(tmp_path, model):
    half = models.mlp(SHAPE, 2).half()
    storage.save(half, tmp_path / "model.safetensors")
    loaded = storage.load(tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, half.state_dict()[name].float()) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_other_kinds_of_numbers_are_loaded_as_single_precision(tmp_path, kind):
    storage.save(models.mlp((1, 2, 2), 2).to(kind), tmp_path / "model.safetensors")
    assert storage.load(tmp_path / "model.safetensors").encoder.mean.weight.dtype == torch.float32


@pytest.mark.parametrize("shape", ["[]", "[1, 2]", "[1, 2, 0]", "[1, 2, -2]", '\\"122\\"', "{}", "[1, 2, 2.5]"])
def test_a_shape_that_no_image_has_is_refused_by_name(tmp_path, saved, shape):
    content, start = saved
    header = content[8:start].replace(b"[1, 2, 2]", shape.encode())
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[start:])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        storage.load(path)


def _of_codes(image_shape, latent_dim):
    encoder, decoder = (
        encoders.Gaussian(nn.Identity(), 3, latent_dim),
        encoders.Gaussian(nn.Identity(), latent_dim, 3),
    )
    return models.VAE(encoder, decoder, priors.Standard(latent_dim), image_shape)


def test_a_model_of_codes_is_loaded_as_it_was_saved(tmp_path):
    codes = _of_codes((3,), 2)
    storage.save(codes, tmp_path / "codes.safetensors", builder=_of_codes)
    assert storage.load(tmp_path / "codes.safetensors", builder=_of_codes).image_shape == (3,)


def test_a_folder_is_no_file_of_weights(tmp_path):
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        storage.load(tmp_path)


def test_many_samples_are_those_of_one_batch(model):
    count = 2 * models.EVAL_BATCH_VALUES // 784 + 3
    with seeded(0):
        expected = model.decode(torch.randn(count, 2))
    torch.testing.assert_close(model.sample(count, seed=0), expected)


# What is built from other parts


class Point(nn.Module):
    """A posterior whose distribution torch knows no closed form for."""

    def __init__(self, features, size, latent_dim):
        super().__init__()
        self.features, self.mean = features, nn.Linear(size, latent_dim)

    def forward(self, x):
        return Independent(Laplace(self.mean(self.features(x)), 0.1), 1)


def shallow(image_shape, latent_dim):
    """Three linear layers, a posterior of Laplace distributions."""
    pixels = math.prod(image_shape)
    decoder = nn.Sequential(nn.Linear(latent_dim, pixels), nn.Unflatten(1, image_shape))
    encoder = Point(nn.Sequential(nn.Flatten(), nn.Dropout(0.5)), pixels, latent_dim)
    return models.VAE(encoder, decoders.Bernoulli(decoder), priors.Standard(latent_dim), image_shape)


def test_without_a_closed_form_the_kl_is_that_of_the_same_sample():
    model, x = shallow((1, 2, 2), 3).eval(), torch.rand(5, 1, 2, 2)
    with seeded(1):
        reconstruction, kl = model.elbo(x)
    with seeded(1):
        likelihood, prior, posterior, *_ = model.terms(x, 1)
    assert torch.equal(reconstruction, likelihood[0])
    assert torch.equal(kl, (posterior - prior)[0])


def test_the_mean_divergence_of_samples_is_the_closed_form(model):
    x = _images(4)
    mean, log_variance = model.encode(x)
    with seeded(0):
        _, prior, posterior, *_ = model.terms(x, 4000)
    sampled = posterior - prior
    error = sampled.std(0) / math.sqrt(4000)
    assert ((sampled.mean(0) - objective.kl_divergence(mean, log_variance)).abs() < 4 * error).all()


def test_another_builders_weights_are_loaded_by_that_builder_only(tmp_path):
    model, path = shallow((1, 2, 2), 3), tmp_path / "model.safetensors"
    storage.save(model, path, shallow)
    loaded = storage.load(path, builder=shallow)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    with pytest.raises(ValueError, match=re.escape(f"{path} holds weights of a model that {__name__}.shallow built")):
        storage.load(path)


def test_a_posterior_without_known_moments_is_encoded_by_samples(model):
    q = distributions.DiagonalNormal(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, -4.0]]))

    class Flow:
        mean = property(lambda self: (_ for _ in ()).throw(NotImplementedError))
        sample = staticmethod(q.sample)

    with seeded(0):
        mean, log_variance = distributions.mean_and_log_variance(Flow(), samples=10_000)
    torch.testing.assert_close(mean, q.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(log_variance, q.log_variance, atol=0.1, rtol=0)


def test_the_papers_distributions_are_the_pure_functions(model):
    x, z = _images(4), _noise(4, 2, 0)
    q, p = model.posterior(x), model.prior()
    mean, log_variance = model.encode(x)
    assert torch.equal(q.log_prob(z), objective.gaussian_log_prob(z, mean, log_variance))
    assert torch.equal(p.log_prob(z), objective.gaussian_log_prob(z, z * 0, z * 0))
    assert torch.equal(kl_divergence(q, p), objective.kl_divergence(mean, log_variance))
    assert torch.equal(model.decoder(z).log_prob(x), objective.bernoulli_log_prob(x, model.decoder.logits(z)))
    with seeded(5):
        drawn = q.rsample()
    assert torch.equal(drawn, objective.reparameterize(mean, log_variance, torch.Generator().manual_seed(5)))
    assert q.sample((7,)).shape == (7, 4, 2)
    assert (q.variance == log_variance.exp()).all()
    assert p.sample((3,)).shape == (3, 2)
    assert (p.mean == 0).all() and (p.variance == 1).all()


@pytest.mark.parametrize("posterior", [encoders.Gaussian, encoders.InverseAutoregressive])
def test_a_model_is_saved_with_its_own_builder_only(tmp_path, posterior):
    theirs = partial(models.mlp, decoder=decoders.ContinuousBernoulli, encoder=posterior)
    model = theirs((1, 4, 4), 2)
    with pytest.raises(ValueError, match=r"not what vaelib.models.build builds; give its own function as `builder`"):
        storage.save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    storage.save(model, str(tmp_path / "model"), theirs)
    assert repr(storage.load(str(tmp_path / "model"), builder=theirs)) == repr(model)
