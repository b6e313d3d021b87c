"""What a GPU would be asked to do, on one that is pretended: see `pretended`."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import interrupt, same_runs, small
from pretended import OnGPU, PretendedGPU

from vaelib import TrainConfig, attributes, baselines, evaluation, features, models, priors, runs, training
from vaelib.data import Dataset, Split

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available() or torch.mps.is_available(), reason="there is a GPU"),
    pytest.mark.filterwarnings("ignore:.*but CUDA is not available:UserWarning"),  # so mixed precision stays out
]
SETTINGS = TrainConfig(latent_dim=2, epochs=2, batch_size=16, precision="float32")


@pytest.fixture(params=["cuda", "mps"])
def gpu(request, monkeypatch):
    return PretendedGPU(request.param, monkeypatch)


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "evaluate", partial(evaluation.evaluate, samples=10))
        yield


@pytest.fixture(scope="module", params=["tiny", "colour"])
def images(request):
    """A few for the fully connected model, and for the convolutional one."""
    data = request.getfixturevalue(request.param)
    return replace(data, train=Split(data.train.images[:40], data.train.labels[:40]))


@pytest.fixture(scope="module")
def expected(images, tmp_path_factory):
    """What the CPU makes of them."""
    return runs.train(images, SETTINGS, tmp_path_factory.mktemp("cpu"), "cpu")


def test_a_run_on_a_gpu_that_goes_on_streamed_is_that_of_the_cpu(gpu, images, expected, tmp_path, monkeypatch):
    with gpu, monkeypatch.context() as patch:
        interrupt(patch, evaluation, "elbo", 2)
        with pytest.raises(KeyboardInterrupt):
            runs.train(images, SETTINGS, tmp_path, gpu.device, checkpoint_seconds=0)
        gpu.generator.manual_seed(5)  # as it would be in another process
        run = runs.train(images, SETTINGS, tmp_path, gpu.device, stream=True)
    assert same_runs(run, expected)


@pytest.mark.parametrize("epochs", [1, 3])
def test_within_an_epoch_only_the_looks_at_the_loss_make_a_gpu_wait(gpu, images, epochs, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECK_EVERY", 2)
    monkeypatch.setattr(training.time, "monotonic", lambda: 0.0)  # no look because a second has passed
    monkeypatch.setattr(training, "check_run", lambda *_: None)  # comes before the first epoch, and waits
    monkeypatch.setattr(evaluation, "elbo", lambda *_, **__: torch.zeros(2, 5))  # comes after an epoch, and waits
    steps = len(training.batches(torch.arange(len(images.train)), SETTINGS.batch_size))
    with gpu:
        model = models.build(images.image_shape, 2).to(gpu.device)
        gpu.copies.clear()
        training.fit(model, images, replace(SETTINGS, epochs=epochs, precision=None), tmp_path)
    # before the first epoch comes a look at the prior's buffer, which is in no checkpoint, and after each one the
    # question whether all weights are finite
    assert gpu.waits == {"copy to the CPU": 1 + epochs * math.ceil(steps / 2), "_local_scalar_dense": epochs}
    assert gpu.copies == {"_to_copy": 1 + epochs}  # the images, and in every epoch their order


def test_a_classifier_for_features_trains_on_a_gpu(gpu, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "EPOCHS", 1)
    few = Dataset("few", Split(digits.train.images[:150], digits.train.labels[:150]), digits.test, digits.names)
    (expected,) = features.train(few, tmp_path / "cpu", "cpu")
    with gpu:
        (network,) = features.train(few, tmp_path / "gpu", gpu.device)
    assert not any(isinstance(each, OnGPU) for each in network.parameters())
    assert all(torch.equal(*pair) for pair in zip(network.parameters(), expected.parameters(), strict=True))


def test_codes_and_features_are_where_the_model_is(gpu, row_model):
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round()
    network = features.classifier((1, 8, 8), 3).eval()
    with gpu:
        model, x = small((1, 8, 8), 2).to(gpu.device), x.to(gpu.device)
        drawn = model.decode(model.prior().sample((3,)))
        found = [*baselines.wake_sleep(model, x), baselines.log_prob(model, x, samples=2, proposals=4)]
        found += [drawn, model.prior().mean, priors.Marginal(row_model.to(gpu.device)).sample((3,))]
        assert all(isinstance(each, OnGPU) for each in found)
        assert features.extract(network, drawn).shape == (3, features.FEATURES)
        walk = attributes.traverse(model, torch.zeros(2, 2), torch.ones(2), torch.arange(3.0))
        assert walk.shape == (2, 3, 1, 8, 8)
