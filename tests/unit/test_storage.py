"""A model's weights on disk: whole or refused by name, and the same model when they are loaded."""

import re
from functools import partial

import pytest
import safetensors.torch
import torch
from conftest import MODELS, flipped, same_weights, small, tied
from torch import nn

from vaelib import TrainConfig, decoders, encoders, evaluation, models, priors, runs, storage
from vaelib.models import VAE


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The bytes of a model's file."""
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    storage.save(models.mlp((1, 2, 2), 2), path)
    return path.read_bytes()


def _codes(image_shape, latent_dim):
    """Of rows of three numbers, not of images."""
    encoder, decoder = encoders.Gaussian(nn.Identity(), 3, latent_dim), encoders.Gaussian(nn.Identity(), latent_dim, 3)
    return VAE(encoder, decoder, priors.Standard(latent_dim), image_shape)


@pytest.mark.parametrize(
    ("builder", "image_shape"),
    [(models.build, (1, 4, 5)), (models.build, (3, 16, 18)), (_codes, (3,))]
    + [(builder, (1, 7, 7)) for builder in MODELS.values()],
)
def test_a_saved_model_is_loaded_bit_for_bit_in_evaluation_mode(tmp_path, builder, image_shape):
    model, path = builder(image_shape, 2), tmp_path / "model.safetensors"
    if "BatchNorm" in repr(model):
        model.encode(torch.rand(4, *image_shape))  # moves the running statistics
    model.latent_dim = 2
    for place in (path, str(path)):
        before = torch.get_rng_state()
        storage.save(model, place, builder)
        loaded = storage.load(place, builder=builder)
        assert torch.equal(torch.get_rng_state(), before)
        assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
        assert not loaded.training and repr(loaded) == repr(model)
        assert (loaded.image_shape, loaded.latent_dim) == (image_shape, 2)
        assert same_weights(model, loaded)


@pytest.mark.parametrize("kind", [torch.half, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_other_kinds_of_numbers_are_stored_as_they_are_and_loaded_as_single_precision(tmp_path, kind):
    model = models.mlp((1, 2, 2), 2).to(kind)
    storage.save(model, tmp_path / "model")
    assert same_weights(storage.load(tmp_path / "model"), model.float())


def _replaced(content, old, new):
    """The content with another header."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end].replace(old, new, 1)
    assert header != content[8:end]
    return len(header).to_bytes(8, "little") + header + content[end:]


REPLACED = [
    (b'{"__metadata__"', b'["__metadata__"'),
    (b'"__metadata__"', b'"__metadatb__"'),
    (b'"vaelib"', b'"vaelic"'),
    (b'image_shape\\"', b'image_shapf\\"'),
    (b'latent_dim\\"', b'latent_din\\"'),
    (b'latent_dim\\": 2', b'latent_dim\\": 3'),
    (b'latent_dim\\": 2', b'latent_dim\\": -'),
    (b'sha256\\"', b'sha257\\"'),
    (b'"encoder.mean.bias"', b'"encoder.mean.biat"'),
    (b'"F32"', b'"I32"'),
    (b'"F32"', b'"F33"'),
    (b'"shape":[512]', b'"shape":[513]'),
    (b'"shape"', b'"shap\xff"'),
    (b'builder\\"', b'buildes\\"'),
]
SHAPES = b"[1, 2, 3]", b"[1, 2. 2]", b"[]", b"[1, 2]", b"[1, 2, 0]", b"[1, 2, -2]", b'\\"122\\"', b"{}", b"[1, 2, 2.5]"
REPLACED += [(b"[1, 2, 2]", shape) for shape in SHAPES]
DAMAGES = {f"{length} bytes": lambda content, end=length: content[:end] for length in (0, 7, 8, 100, -1)}
DAMAGES |= {f"byte {at}": partial(flipped, position=at) for at in (0, 3, 7, -500_000, -5000, -1)}
DAMAGES |= {f"{new}": partial(_replaced, old=old, new=new) for old, new in REPLACED}
DAMAGES |= {
    "text": lambda content: b"not weights at all, just some text\n" * 40,
    "zeros": lambda content: bytes(5000),
    "another's weights": lambda content: safetensors.torch.save({"weight": torch.zeros(3)}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused_by_name(tmp_path, saved, damage):
    path = tmp_path / "model.safetensors"
    path.write_bytes(damage(saved))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        storage.load(path)


def test_a_missing_file_is_named_and_a_folder_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "model.safetensors"))):
        storage.load(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} is not a file of weights")):
        storage.load(tmp_path)


def test_a_model_is_saved_and_loaded_with_its_own_builder_only(tmp_path):
    for model in (models.mlp((1, 4, 4), 2, decoder=decoders.ContinuousBernoulli), small((1, 4, 4), 2)):
        with pytest.raises(ValueError, match=r"vaelib.models.build must build .*; give its own function as `builder`"):
            storage.save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    storage.save(small((1, 4, 4), 2), tmp_path / "model", small)
    with pytest.raises(ValueError, match=f"{tmp_path}/model holds weights of a model that conftest.small built"):
        storage.load(tmp_path / "model")


# Weights that are shared, or cannot be stored


class Transposed(nn.Module):
    """A layer whose matrix is a view of another's."""

    def __init__(self, linear):
        super().__init__()
        self.weight = nn.Parameter(linear.weight.data.T)

    def forward(self, x):
        return x @ self.weight


def _transposed(image_shape, latent_dim):
    model = tied(image_shape, latent_dim)
    model.decoder.logits[1] = Transposed(model.encoder.features[3])
    return model


@pytest.mark.parametrize("builder", [tied, _transposed])
def test_weights_that_modules_share_are_stored_and_shared_again(builder, tiny, tmp_path):
    run = runs.train(tiny, TrainConfig(2, 1), tmp_path, "cpu", builder=builder)
    loaded, fresh = run.model(), builder(tiny.image_shape, 2)
    count = (len({each.untyped_storage().data_ptr() for each in model.parameters()}) for model in (loaded, fresh))
    assert len(set(count)) == 1
    assert evaluation.evaluate(loaded, tiny) == pytest.approx(run.evaluation, rel=1e-6)


class ExtraState(nn.Linear):
    def get_extra_state(self):
        return {"seen": 3}


def _with_extra_state(image_shape, latent_dim):
    model = small(image_shape, latent_dim)
    model.encoder.mean = ExtraState(16, latent_dim)
    return model


class Complex(decoders.Bernoulli):
    def __init__(self, logits):
        super().__init__(logits)
        self.register_buffer("phase", torch.zeros(3, dtype=torch.complex128))


def _with_one_value_for_all(image_shape, latent_dim):
    model = small(image_shape, latent_dim)
    model.register_buffer("scale", torch.ones(1).expand(5))
    return model


@pytest.mark.parametrize("builder", [_with_extra_state, partial(small, decoder=Complex), _with_one_value_for_all])
def test_what_cannot_be_stored_is_found_out_before_training(builder, tiny, tmp_path):
    with pytest.raises(ValueError, match="the model's weights cannot be stored"):
        runs.train(tiny, TrainConfig(2), tmp_path, "cpu", builder=builder)
    assert not list(tmp_path.rglob("metrics.jsonl"))


class Late(nn.Linear):
    """Makes a weight when it is called."""

    def forward(self, x):
        self.late = nn.Parameter(torch.ones(()))
        return self.late * super().forward(x)


def _late(image_shape, latent_dim):
    model = small(image_shape, latent_dim)
    model.encoder.mean = Late(16, latent_dim)
    return model


def test_a_model_that_makes_weights_when_it_is_called_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="make all modules and weights there, not before or when"):
        runs.train(tiny, TrainConfig(2), tmp_path, "cpu", builder=_late)


class Shift(nn.Module):
    def __init__(self, image_shape):
        super().__init__()
        self.shift = 5 * torch.randn(image_shape)  # neither a weight nor a buffer, so it is not stored

    def forward(self, logits):
        return logits + self.shift


def _drawn_constant(image_shape, latent_dim):
    model = small(image_shape, latent_dim)
    model.decoder.logits.append(Shift(image_shape))
    return model


class Drift(nn.Module):
    scale = 1.0  # Python's own, so it is not stored

    def forward(self, logits):
        self.scale *= 1.001 if self.training else 1
        return self.scale * logits


def _drifting(image_shape, latent_dim):
    model = small(image_shape, latent_dim)
    model.decoder.logits.append(Drift())
    return model


@pytest.mark.parametrize("builder", [_drawn_constant, _drifting])
def test_a_model_that_is_not_stored_whole_is_refused_with_both_numbers(tiny, tmp_path, builder):
    with pytest.raises(ValueError, match=r"with a test ELBO of -?\d.*but the model in .* has -?\d.*make it a buffer"):
        runs.train(tiny, TrainConfig(2, 1, seed=1), tmp_path, "cpu", builder=builder)
    (path,) = tmp_path.rglob("model.safetensors")
    assert safetensors.torch.load_file(path)
