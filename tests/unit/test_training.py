"""The settings and the training loop: what it writes, where it stops, and what it refuses."""

import copy
import hashlib
import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils._pytree import tree_leaves, tree_map_only

from vaelib import data, decoders, evaluation, models, storage, training
from vaelib.data import Dataset, Split, to_float
from vaelib.objective import BetaELBO, negative_elbo
from vaelib.training import TrainConfig

SETTINGS = TrainConfig(latent_dim=2, epochs=3, batch_size=32)
STEPS = 7  # an epoch, for 200 images
KEYS = {"epoch", "seconds"} | {
    f"{split}_{term}" for split in ("train", "test") for term in ("elbo", "reconstruction", "kl")
}


def _model(data, settings=SETTINGS):
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        return models.mlp(data.image_shape, settings.latent_dim)


def _fit(data, settings, folder, **options):
    return training.fit(_model(data, settings), data, settings, folder, **options)


@pytest.fixture(scope="module")
def checkpoint(tiny, tmp_path_factory):
    """The bytes of a sound checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    _fit(tiny, SETTINGS, folder, checkpoint_seconds=0)
    return (folder / "checkpoint").read_bytes()


@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, "three", True, None])
@pytest.mark.parametrize("name", ["latent_dim", "epochs", "batch_size"])
def test_settings_refuse_what_is_no_positive_whole_number(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, not {re.escape(repr(value))}"):
        TrainConfig(**{"latent_dim": 2, name: value})


@pytest.mark.parametrize("value", [-1, 2.5, "three", True, None])
def test_settings_refuse_what_is_no_seed(value):
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0"):
        TrainConfig(latent_dim=2, seed=value)


@pytest.mark.parametrize("value", [0, -1e-3, math.nan, math.inf, "fast", None, True])
def test_settings_refuse_what_is_no_learning_rate(value):
    with pytest.raises(ValueError, match="learning_rate must be a positive number"):
        TrainConfig(latent_dim=2, learning_rate=value)


@pytest.mark.parametrize("value", ["float16", 16, torch.bfloat16, ""])
def test_settings_refuse_what_is_no_precision(value):
    with pytest.raises(ValueError, match="precision must be 'float32' or 'bfloat16', if it is given, not"):
        TrainConfig(latent_dim=2, precision=value)


def test_bfloat16_trains_to_about_the_elbo_of_float32(digits, tmp_path):
    """In twelve steps, for without bfloat16 in the processor each takes 13 times as long. After many, one training may
    end half a percent off, as one does whose first weights differ by a millionth."""
    few, off = Dataset("few", Split(digits.train.images[:500]), Split(digits.test.images[:100])), []
    for seed in range(3):
        full, coarse = (
            _fit(few, TrainConfig(2, epochs=3, seed=seed, precision=each), tmp_path / f"{each}{seed}")[-1]["test_elbo"]
            for each in ("float32", "bfloat16")
        )
        off.append(coarse / full - 1)
    assert all(off)  # it is another training
    assert abs(sum(off) / 3) < 1e-3


@pytest.mark.parametrize("name", ["mnist-k2", "celeba-k64"])
def test_bfloat16_gives_the_elbo_of_trained_weights_to_a_thousandth(name, digits):
    model = storage.from_pretrained(name)
    images = digits.test.images[:100] if name == "mnist-k2" else data.load("faces-small").test.images[:20]
    full = evaluation.elbo(model, images)[0].mean()
    with torch.autocast("cpu", torch.bfloat16):
        coarse = evaluation.elbo(model, images)[0].mean()
    assert coarse != full
    assert coarse.item() == pytest.approx(full.item(), rel=1e-3)


def test_float32_is_what_a_cpu_does_unasked(tiny, tmp_path):
    unasked, asked = (_fit(tiny, replace(SETTINGS, precision=each), tmp_path / str(each)) for each in (None, "float32"))
    assert [line["test_elbo"] for line in unasked] == [line["test_elbo"] for line in asked]


def test_settings_refuse_a_seed_that_generators_cannot_tell_from_a_smaller_one():
    with pytest.raises(ValueError, match=r"seed must be below 2\*\*31"):
        TrainConfig(latent_dim=2, seed=2**31)


def test_a_last_step_that_ruins_the_model_is_noticed(tiny, tmp_path):
    with pytest.raises(FloatingPointError, match="the test ELBO is not finite at epoch 1, step 1"):
        _fit(tiny, TrainConfig(latent_dim=2, epochs=1, batch_size=1000, learning_rate=1e20), tmp_path)


def test_settings_take_the_least_values():
    assert TrainConfig(latent_dim=1, epochs=1, seed=0, batch_size=1, learning_rate=1).seed == 0


def test_the_elbo_of_the_digits_improves(digits, tmp_path):
    history = _fit(digits, TrainConfig(latent_dim=2, epochs=5), tmp_path)
    assert history[4]["test_elbo"] > history[0]["test_elbo"] + 10
    assert history[4]["train_elbo"] > history[0]["train_elbo"] + 10


def test_metrics_have_a_line_an_epoch_with_the_documented_keys(tiny, tmp_path):
    history = _fit(tiny, SETTINGS, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == history
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert line.keys() == KEYS
        assert line["train_elbo"] == line["train_reconstruction"] - line["train_kl"]
        assert line["test_elbo"] == line["test_reconstruction"] - line["test_kl"]
        assert line["seconds"] >= 0


def test_the_last_test_metrics_are_those_of_the_trained_model(tiny, tmp_path):
    model = _model(tiny)
    history = training.fit(model, tiny, SETTINGS, tmp_path)
    reconstruction, kl = evaluation.elbo(model, tiny.test.images)
    assert (history[-1]["test_reconstruction"], history[-1]["test_kl"]) == (reconstruction.mean(), kl.mean())
    assert not model.training


def test_train_metrics_are_averages_over_images_not_batches(tiny, tmp_path):
    still = replace(SETTINGS, epochs=1, learning_rate=1e-30)
    history = _fit(tiny, still, tmp_path)
    _, kl = evaluation.elbo(_model(tiny), tiny.train.images)
    assert history[0]["train_kl"] == pytest.approx(kl.mean().item(), rel=1e-6)


def test_every_epoch_sees_every_image_once_in_another_order(tiny, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "to_float", lambda images: seen.append(images) or to_float(images))
    _fit(tiny, replace(SETTINGS, epochs=2), tmp_path)
    assert [len(batch) for batch in seen] == 2 * ([32] * 6 + [8])
    first, second = torch.cat(seen[:STEPS]), torch.cat(seen[STEPS:])
    assert not torch.equal(first, second)
    expected = sorted(image.numpy().tobytes() for image in tiny.train.images)
    assert [sorted(image.numpy().tobytes() for image in epoch) for epoch in (first, second)] == [expected, expected]


def test_the_seed_decides_the_order_of_images_and_the_noise(tiny, tmp_path, monkeypatch):
    terms, drawn = models.VAE.terms, []

    def record(model, x, **options):
        if model.training:
            drawn.append((x, torch.randn(3, generator=torch.Generator().set_state(torch.get_rng_state()))))
        return terms(model, x, **options)

    monkeypatch.setattr(models.VAE, "terms", record)
    for seed in (0, 1, 0):
        (tmp_path / str(len(drawn))).mkdir()
        _fit(tiny, replace(SETTINGS, seed=seed, epochs=1), tmp_path / str(len(drawn)))
    first, other, again = drawn[0], drawn[STEPS], drawn[2 * STEPS]
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))


def test_batches_larger_than_the_data_are_one_step(tiny, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "to_float", lambda images: seen.append(len(images)) or to_float(images))
    _fit(tiny, replace(SETTINGS, epochs=2, batch_size=1000), tmp_path)
    assert seen == [200, 200]


def test_the_first_step_is_adams(tiny, tmp_path):
    model, start = _model(tiny), _model(tiny)
    training.fit(model, tiny, replace(SETTINGS, epochs=1, batch_size=200), tmp_path)
    moves = (model.decoder.logits[4].bias - start.decoder.logits[4].bias).abs()
    torch.testing.assert_close(moves, torch.full_like(moves, 1e-3), rtol=1e-3, atol=0)


def test_training_leaves_the_global_random_state_alone(tiny, tmp_path):
    before = torch.get_rng_state()
    _fit(tiny, SETTINGS, tmp_path, checkpoint_seconds=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_folder_holds_metrics_and_at_most_a_checkpoint(tiny, tmp_path):
    _fit(tiny, SETTINGS, tmp_path, checkpoint_seconds=1000)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    _fit(tiny, SETTINGS, tmp_path, checkpoint_seconds=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "metrics.jsonl"]


def test_a_huge_learning_rate_stops_with_epoch_and_step(tiny, tmp_path):
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf|-inf) at epoch 1, step [2-7];"):
        _fit(tiny, replace(SETTINGS, learning_rate=1e20), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("check_every", [1, 2, 50])
def test_the_first_loss_that_is_not_finite_is_named(tiny, tmp_path, monkeypatch, check_every):
    steps, ask = [], models.VAE.terms

    def spoiled(model, x, **options):
        terms = ask(model, x, **options)
        steps.append(1) if model.training else None
        return terms._replace(kl=terms.kl * math.nan) if len(steps) == STEPS + 4 else terms

    monkeypatch.setattr(training, "CHECK_EVERY", check_every)
    monkeypatch.setattr(models.VAE, "terms", spoiled)
    with pytest.raises(FloatingPointError, match="the loss is nan at epoch 2, step 4;"):
        _fit(tiny, SETTINGS, tmp_path)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_before_it(tiny, tmp_path, monkeypatch):
    record, calls = training._State.record, []

    def fail_at_the_fifth(state, values):
        calls.append(values)
        return record(state, [[math.nan, *sums] for _, *sums in values] if len(calls) == 5 else values)

    with monkeypatch.context() as patch:
        patch.setattr(training, "CHECK_EVERY", 2)
        patch.setattr(training._State, "record", fail_at_the_fifth)
        with pytest.raises(FloatingPointError, match="epoch 2, step 1;"):
            _fit(tiny, SETTINGS, tmp_path, checkpoint_seconds=0)
    resumed, whole = _model(tiny), _model(tiny)
    training.fit(resumed, tiny, SETTINGS, tmp_path)
    (tmp_path / "whole").mkdir()
    training.fit(whole, tiny, SETTINGS, tmp_path / "whole")
    assert all(map(torch.equal, resumed.parameters(), whole.parameters()))


@pytest.mark.parametrize("length", [0, 10, 32, 0.5, -1])
def test_a_truncated_checkpoint_is_refused_by_name(tiny, tmp_path, checkpoint, length):
    path = tmp_path / "checkpoint"
    path.write_bytes(checkpoint[: int(length * len(checkpoint)) if isinstance(length, float) else length])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        _fit(tiny, SETTINGS, tmp_path)


@pytest.mark.parametrize("place", [0, 31, 32, 100, 0.5, -1])
def test_a_flipped_byte_of_a_checkpoint_is_refused_by_name(tiny, tmp_path, checkpoint, place):
    path, content = tmp_path / "checkpoint", bytearray(checkpoint)
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        _fit(tiny, SETTINGS, tmp_path)
    assert path.read_bytes() == content


def test_a_checkpoint_of_another_kind_of_device_is_refused(tiny, tmp_path, monkeypatch):
    write = training._State.write

    def elsewhere(state, path, seconds):
        state.identity = state.identity | {"device": "cuda"}
        write(state, path, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(training._State, "write", elsewhere)
        _fit(tiny, SETTINGS, tmp_path, checkpoint_seconds=0)
    with pytest.raises(ValueError, match=r"checkpoint is of a training with device 'cuda', not 'cpu'"):
        _fit(tiny, SETTINGS, tmp_path)


@pytest.mark.parametrize(("setting", "value"), [("seed", 1), ("batch_size", 64), ("learning_rate", 0.1), ("epochs", 4)])
def test_a_checkpoint_of_other_settings_is_refused(tiny, tmp_path, setting, value):
    _fit(tiny, SETTINGS, tmp_path, checkpoint_seconds=0)
    found = getattr(SETTINGS, setting)
    with pytest.raises(ValueError, match=f"checkpoint is of a training with {setting} {found}, not {value}"):
        _fit(tiny, replace(SETTINGS, **{setting: value}), tmp_path)


def test_a_checkpoint_of_other_images_is_refused(tiny, digits, tmp_path):
    _fit(tiny, SETTINGS, tmp_path, checkpoint_seconds=0)
    with pytest.raises(
        ValueError, match=f"is of a training on other images or labels: fingerprint '{tiny.fingerprint}'"
    ):
        other = Split(255 - tiny.train.images, tiny.train.labels)
        training.fit(_model(tiny), replace(tiny, train=other), SETTINGS, tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tiny, tmp_path):
    _fit(tiny, SETTINGS, tmp_path, checkpoint_seconds=0)
    other = models.mlp(tiny.image_shape, SETTINGS.latent_dim, decoder=decoders.ContinuousBernoulli)
    with pytest.raises(ValueError, match="checkpoint is of a training with model '"):
        training.fit(other, tiny, SETTINGS, tmp_path)


# Batches


def test_a_single_image_that_is_left_joins_the_batch_before_it():
    order = torch.arange(7)
    assert [batch.tolist() for batch in training.batches(order, 3)] == [[0, 1, 2], [3, 4, 5, 6]]
    assert [len(batch) for batch in training.batches(torch.arange(8), 3)] == [3, 3, 2]
    assert [len(batch) for batch in training.batches(torch.arange(1), 3)] == [1]
    assert [batch.tolist() for batch in training.batches(order, 1)] == [[image] for image in range(7)]


def _colour(count):
    train, test = (
        Split(torch.randint(256, (size, 3, 16, 16), dtype=torch.uint8), torch.zeros(size, dtype=torch.long))
        for size in (count, 8)
    )
    return Dataset("colour", train, test, ("none",))


def test_colour_images_that_leave_a_batch_of_one_are_trained(tmp_path):
    data = _colour(17)
    history = training.fit(models.conv(data.image_shape, 2), data, TrainConfig(2, epochs=1, batch_size=16), tmp_path)
    assert math.isfinite(history[0]["train_elbo"])


@pytest.mark.parametrize(("count", "size"), [(17, 1), (1, 16)])
def test_batches_of_one_image_are_refused_where_there_is_batch_norm(tmp_path, count, size):
    data = _colour(count)
    with pytest.raises(ValueError, match="batch norm needs batches of two images or more"):
        training.fit(models.conv(data.image_shape, 2), data, TrainConfig(2, epochs=1, batch_size=size), tmp_path)


@pytest.mark.parametrize(("precision", "order"), [("float32", (512, 16, 4, 1)), ("bfloat16", (512, 1, 128, 32))])
def test_channels_lie_last_where_convolutions_are_in_bfloat16(tmp_path, precision, order):
    data = _colour(32)
    model = models.conv(data.image_shape, 2)
    training.fit(model, data, TrainConfig(2, epochs=1, precision=precision), tmp_path)
    weight = model.encoder.features[3].weight
    assert weight.stride() == weight.grad.stride() == order
    storage.save(model, tmp_path / "saved")
    assert torch.equal(storage.load(tmp_path / "saved").encoder.features[3].weight, weight)


def test_a_checkpoint_whose_tensors_lie_in_another_order_is_the_same(tmp_path):
    """As one does that an earlier version wrote, of a training in bfloat16."""

    def stop(*_):
        raise KeyboardInterrupt

    data, settings, weights = _colour(32), TrainConfig(2, epochs=3, batch_size=16, precision="bfloat16"), []
    start = models.conv(data.image_shape, 2)
    for turned in (False, True):
        model, folder = copy.deepcopy(start), tmp_path / str(turned)
        with pytest.raises(KeyboardInterrupt):
            training.fit(model, data, settings, folder, on_epoch=stop, checkpoint_seconds=0)
        if turned:
            state = torch.load(io.BytesIO((folder / "checkpoint").read_bytes()[32:]), weights_only=True)
            assert any(not each.is_contiguous() for each in tree_leaves(state["optimizer"]) if torch.is_tensor(each))
            torch.save(tree_map_only(torch.Tensor, torch.Tensor.contiguous, state), buffer := io.BytesIO())
            (folder / "checkpoint").write_bytes(hashlib.sha256(buffer.getbuffer()).digest() + buffer.getvalue())
        training.fit(model, data, settings, folder)
        weights.append(model.state_dict())
    assert all(map(torch.equal, weights[0].values(), weights[1].values()))


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint32])
def test_settings_take_numpys_numbers(kind):
    settings = TrainConfig(latent_dim=kind(8), learning_rate=np.float32(0.5))
    assert settings == TrainConfig(latent_dim=8, learning_rate=0.5)
    assert type(settings.latent_dim) is int and type(settings.learning_rate) is float


def _mean(terms, fraction):
    return negative_elbo(terms, fraction).mean()


def _three(terms, fraction):
    return negative_elbo(terms, fraction), terms.reconstruction, terms.divergence


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_mean, r"the loss of each image, a tensor of shape \(2,\) for 2 images, not \(\)"),
        (_three, r"the loss of each image, a tensor of shape \(2,\) for 2 images, not tuple"),
        (BetaELBO, r"is a class; give an instance of it: BetaELBO\(...\)"),
    ],
    ids=["mean", "loss and terms", "a class"],
)
def test_an_objective_gives_one_value_an_image(tiny, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        _fit(tiny, SETTINGS, tmp_path, objective=wrong)


@pytest.mark.parametrize("wrong", [ReduceLROnPlateau, type])
def test_a_schedule_goes_by_epochs(tiny, tmp_path, wrong):
    with pytest.raises(ValueError, match="expected a schedule of torch's that goes by epochs, not"):
        _fit(tiny, SETTINGS, tmp_path, schedule=wrong)


def test_what_looks_on_after_an_epoch_changes_no_weight(tmp_path):
    def watch(model, line):
        assert not model.training
        model.encode(to_float(data.test.images))  # batch norm would take these for images of the training

    data, weights = _colour(40), []
    for on_epoch in (None, watch):
        model = models.conv(data.image_shape, 2)
        model.load_state_dict(weights[0] if weights else model.state_dict())
        weights = weights or [{name: each.clone() for name, each in model.state_dict().items()}]
        training.fit(model, data, TrainConfig(2, 2, batch_size=20), tmp_path / str(on_epoch is None), on_epoch=on_epoch)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[1][name], each) for name, each in weights[2].items())
