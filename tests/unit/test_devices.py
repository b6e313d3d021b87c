"""What a GPU would be asked to do, on one that is pretended: see `pretended`."""

import math
from dataclasses import replace

import pytest
import torch
from pretended import OnGPU, PretendedGPU
from test_runs import _assert_same, _interrupt
from test_variants import VARIANTS
from torch import nn

from vaelib import TrainConfig, baselines, encoders, evaluation, features, models, priors, runs, training
from vaelib.data import Dataset, Split
from vaelib.models import VAE
from vaelib.objective import negative_elbo
from vaelib.seeding import seeded

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available() or torch.mps.is_available(), reason="there is a GPU"),
    pytest.mark.filterwarnings("ignore:.*but CUDA is not available:UserWarning"),  # so mixed precision stays out
]
PAPER = {"builder": models.build, "objective": negative_elbo}
SETTINGS = TrainConfig(latent_dim=2, epochs=2, batch_size=16)
FLOAT32 = replace(SETTINGS, precision="float32")


@pytest.fixture(params=["cuda", "mps"])
def gpu(request, monkeypatch):
    return PretendedGPU(request.param, monkeypatch)


@pytest.fixture(scope="module")
def colour():
    pixels = torch.randint(256, (48, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Dataset("colour", Split(pixels[:40]), Split(pixels[40:]))


@pytest.fixture(scope="module", params=["tiny", "colour"])
def images(request):
    """Those of the fully connected model, and of the convolutional one."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def expected(images, tmp_path_factory):
    """What the CPU makes of them."""
    return runs.train(images, FLOAT32, tmp_path_factory.mktemp("cpu"), "cpu")


def test_the_pretended_gpu_refuses_what_a_real_one_does(gpu):
    with gpu:
        x = torch.ones(3).to(gpu.device)
        assert x.device == gpu.device and (x + 1).tolist() == [2, 2, 2] and (x + torch.tensor(1)).device == gpu.device
        assert gpu.waits == {"copy to the CPU": 1}
        with pytest.raises(RuntimeError, match="of the GPU and of the CPU"):
            x + torch.ones(3)
        if gpu.kind == "mps":
            with pytest.raises(TypeError, match="float64"):
                x.double()


def test_a_run_on_a_gpu_is_that_of_the_cpu(gpu, images, expected, tmp_path):
    with gpu:
        run = runs.train(images, FLOAT32, tmp_path / "gpu", gpu.device)
    _assert_same(run, expected)


def test_an_interrupted_run_on_a_gpu_goes_on_with_the_noise_of_its_generator(
    gpu, images, expected, tmp_path, monkeypatch
):
    with gpu, monkeypatch.context() as patch:
        _interrupt(patch, evaluation, "elbo", 2)
        with pytest.raises(KeyboardInterrupt):
            runs.train(images, FLOAT32, tmp_path / "gpu", gpu.device, checkpoint_seconds=0)
        gpu.generator.manual_seed(5)  # as it would be in another process
        run = runs.train(images, FLOAT32, tmp_path / "gpu", gpu.device)
    _assert_same(run, expected)


def test_a_streamed_run_is_the_same_run(gpu, images, expected, tmp_path):
    with gpu:
        run = runs.train(images, FLOAT32, tmp_path / "gpu", gpu.device, stream=True)
    _assert_same(run, expected)


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
        training.fit(model, images, TrainConfig(2, epochs, batch_size=SETTINGS.batch_size), tmp_path)
    # after an epoch comes the question whether all weights are finite
    assert gpu.waits == {"copy to the CPU": epochs * math.ceil(steps / 2), "_local_scalar_dense": epochs}
    assert gpu.copies == {"_to_copy": 1 + epochs}  # the images, and in every epoch their order


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_on_apples_gpus(name, tiny, tmp_path, monkeypatch):
    builder, objective = (VARIANTS[name].get(key, PAPER[key]) for key in ("builder", "objective"))
    few = Dataset("few", Split(tiny.train.images[:60]), Split(tiny.test.images[:10]))

    def bounds(device):
        with seeded(0):
            model = builder(few.image_shape, 2).to(device)
        (line,) = training.fit(model, few, TrainConfig(2, epochs=1, batch_size=20), tmp_path / str(device), objective)
        return line["test_elbo"], evaluation.log_prob(model, few.test.images, 10)[0].mean().item()

    expected = bounds("cpu")
    with PretendedGPU("mps", monkeypatch) as gpu:
        assert bounds(gpu.device) == pytest.approx(expected, rel=1e-5)


def test_a_classifier_for_features_trains_on_a_gpu(gpu, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "EPOCHS", 1)
    few = Dataset("few", Split(digits.train.images[:300], digits.train.labels[:300]), digits.test, digits.names)
    expected = features.train(few, tmp_path / "cpu", "cpu")
    with gpu:
        network = features.train(few, tmp_path / "gpu", gpu.device)
    assert not any(isinstance(each, OnGPU) for each in network.parameters())
    assert all(torch.equal(*pair) for pair in zip(network.parameters(), expected.parameters(), strict=True))


def test_codes_that_a_prior_draws_follow_the_model_to_its_device(gpu):
    x = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0)).round()
    codes = VAE(
        encoders.Gaussian(nn.Identity(), 2, 1), encoders.Gaussian(nn.Identity(), 1, 2), priors.Standard(1), (2,)
    )
    with gpu:
        model = models.mlp((1, 3, 3), 2).to(gpu.device)
        losses = baselines.wake_sleep(model, x.to(gpu.device))
        found = [*losses, baselines.log_prob(model, x.to(gpu.device), samples=2, proposals=4)]
        found.append(priors.Marginal(codes.to(gpu.device)).sample((3,)))
        assert all(isinstance(each, OnGPU) for each in found)
