"""What is found out before a training or an evaluation begins: what is wrong, what was expected, what to do."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from conftest import Geco, NormalPixels, ScoreFunction, StickingTheLanding, compiled, conditional, small
from pretended import PretendedGPU
from torch import nn
from torch.distributions import Categorical, Dirichlet, Independent, MixtureSameFamily, Normal
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from vaelib import TrainConfig, checks, decoders, evaluation, models, objective, priors, runs
from vaelib.data import Dataset, Split, to_float
from vaelib.models import VAE

CONFIG = TrainConfig(latent_dim=2, epochs=2, batch_size=50)
COARSE, ONE_EACH = replace(CONFIG, precision="bfloat16"), replace(CONFIG, batch_size=1)


# Models


class NotFull(NormalPixels):
    autocast = True  # which promises full precision

    def forward(self, z):
        return Independent(Normal(self.mean(z), 0.5, validate_args=False), 3)


class NotSummed(NormalPixels):
    def forward(self, z):
        found = super().forward(z)
        plain = found.log_prob
        found.log_prob = lambda value: plain(value).unsqueeze(1).expand(-1, 3)
        return found


class OnTheSimplex(nn.Sequential):
    def __init__(self, features, size, latent_dim):
        super().__init__(features, nn.Linear(size, latent_dim), nn.Softplus())

    def forward(self, x):
        return Dirichlet(super().forward(x) + 0.1)


class Numbers(Categorical):
    def sample(self, sample_shape=()):
        return super().sample(torch.Size(sample_shape)).float()

    def log_prob(self, value):
        return super().log_prob(value.long())


class Discrete(nn.Sequential):
    """Codes without rsample: which of five, as a number."""

    def __init__(self, features, size, latent_dim):
        super().__init__(features, nn.Linear(size, 5 * latent_dim), nn.Unflatten(1, (latent_dim, 5)))

    def forward(self, x):
        return Independent(Numbers(logits=super().forward(x)), 1)


class Uniform(nn.Embedding):
    def __init__(self, latent_dim):
        super().__init__(latent_dim, 5)

    def forward(self):
        return Independent(Numbers(logits=self.weight), 1)


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Led(nn.Module):
    def forward(self, x):
        return x + 5 * x[:1]


class Brightened(models.VAE):
    def preprocess(self, x):
        return (x + x[:1] / 2).clamp(0, 1)


def brightened(image_shape, latent_dim):
    made = small(image_shape, latent_dim)
    return Brightened(made.encoder, made.decoder, made.prior, image_shape)


def _with(image_shape, latent_dim, place, part, build=small):
    """A model in which another part stands at a place."""
    model = build(image_shape, latent_dim)
    model.set_submodule(place, part())
    return model


def _five(image_shape, latent_dim):
    return small(image_shape, 5)


def _half(image_shape, latent_dim):
    return small(image_shape, latent_dim).half()


def _needy(image_shape, latent_dim, width):
    return small(image_shape, latent_dim)


def _stored(image_shape, latent_dim):
    model = small(image_shape, latent_dim)
    model.encoder.register_buffer("seen", torch.zeros(3).to(torch.float8_e4m3fn))
    return model


def _complex():
    return nn.ParameterList([torch.zeros(3, dtype=torch.complex64)])


def _stranger():
    return priors.Vamp(small((1, 7, 7), 2).encoder, (1, 7, 7))


centred_codes = partial(_with, place="decoder.logits.1", part=Centred)
discrete = partial(small, encoder=Discrete, prior=Uniform)
dropped = partial(_with, place="encoder.features.2", part=nn.Dropout)
three_classes = partial(_with, place="decoder.label", part=partial(nn.Embedding, 3, 2), build=conditional)


# Objectives


@dataclass
class Mutable:
    weight: float = 1.0

    def __call__(self, terms, fraction):
        self.weight *= 1.1
        return self.weight * terms.divergence - terms.reconstruction


def _scalar(terms, fraction):
    return (terms.divergence - terms.reconstruction).mean()


def _three(terms, fraction):
    return terms.divergence, terms.reconstruction, terms.divergence


def _old(model, x, progress):
    return model(x)


def _closed(terms, fraction):
    return terms.kl.sum(1) - terms.reconstruction


_mixed = partial(small, prior=priors.Mixture)


def _detached(terms, fraction):
    return (terms.divergence - terms.reconstruction).detach()


def _hooked(terms, fraction):
    terms.codes.register_hook(lambda gradient: gradient / 2)
    return terms.divergence - terms.reconstruction


def _infinite(terms, fraction):
    return terms.divergence - terms.reconstruction / 0


def _bare(data):
    return Dataset("bare", Split(data.train.images), Split(data.test.images))


def _one(data):
    return replace(data, train=Split(data.train.images[:1], data.train.labels[:1]))


def _no_optimizer(weights, lr):
    return 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"builder": partial(small, decoder=NotFull), "config": COARSE},
            r"mean is torch.bfloat16.*float32.*\.float\(\)",
        ),
        ({"builder": partial(small, decoder=NotSummed)}, r"decoder's log_prob is .* \(2, 3\).*of shape \(2,\)"),
        ({"builder": partial(small, encoder=OnTheSimplex)}, "Dirichlet or StandardNormal sum to one"),
        ({"builder": discrete}, r"doesn't have an rsample.*reparameterized = False"),
        ({"builder": _five}, "the model has K = 5, but the configuration has 2"),
        ({"builder": _needy}, r"builder\(image_shape, latent_dim\), failed \(TypeError: .*missing 1 required.*'width'"),
        ({"builder": _half}, r"encoder.*weight is torch\.float16; call \.float"),
        ({"builder": _stored}, r"seen is torch\.float8_e4m3fn; call \.float"),
        (
            {"builder": partial(_with, place="encoder.features.2", part=partial(nn.LazyLinear, 16))},
            "doesn't have a shape yet; call the model once in its builder",
        ),
        ({"builder": partial(_with, place="prior", part=_stranger)}, "VampPrior uses another encoder than the model"),
        (
            {"builder": dropped, "objective": StickingTheLanding()},
            "the encoder is random in training mode.*without `fixed_posterior`",
        ),
        ({"builder": conditional, "data": _bare}, "the model is conditional, but 'bare' doesn't have labels"),
        (
            {"builder": partial(_with, place="encoder.features.2", part=Centred)},
            "encoder mixes the images of a batch .*each image separately.* another thread",
        ),
        ({"builder": partial(_with, place="encoder.features.2", part=Led)}, "encoder mixes the images of a batch"),
        ({"builder": brightened}, "preprocess mixes the images of a batch"),
        ({"builder": centred_codes}, "decoder mixes the images of a batch"),
        ({"builder": centred_codes, "config": COARSE}, "decoder mixes the images of a batch"),
        ({"builder": three_classes}, r"the decoder failed.*index out of range"),
        ({"objective": _infinite}, r"the loss of the first images is \[inf, inf\] before training.*log_likelihood"),
        ({"builder": models.conv, "config": ONE_EACH}, "batch norm needs at least two images per batch"),
        ({"builder": models.conv, "data": _one}, "batch norm needs at least two images per batch"),
        ({"objective": Mutable()}, r"Mutable can change in training.*freeze the dataclass, or make it an nn\.Module"),
        ({"objective": Geco()}, "<an object of Geco> can't be recorded by name"),
        ({"objective": objective.BetaELBO}, "give a function, or an instance of a class"),
        ({"objective": None}, "the objective is None; give a function"),
        ({"objective": _scalar}, r"must return one loss per image, a tensor of shape \(2,\), not torch.Size\(\[\]\)"),
        ({"objective": _three}, "must return one loss per image.*not <class 'tuple'>"),
        ({"objective": _old}, r"objective\(terms, fraction\), failed \(TypeError: .*missing 1 required"),
        ({"objective": _detached}, "the objective's loss has no gradient"),
        ({"objective": _closed, "builder": _mixed}, r"with terms\.kl None, so use terms\.divergence, failed"),
        ({"optimizer": torch.optim.LBFGS}, "without closures or sparse gradients"),
        ({"optimizer": torch.optim.SparseAdam}, "without closures or sparse gradients"),
        ({"optimizer": _no_optimizer}, r"expected one of torch's optimizers.*not int"),
        ({"builder": partial(_with, place="encoder.phase", part=_complex)}, "can't train complex .*torch.optim.Adam"),
        ({"schedule": ReduceLROnPlateau}, "expected one of torch's schedules that goes by epochs, not"),
        ({"schedule": partial(OneCycleLR, max_lr=0.01, total_steps=1)}, r"the schedule failed .*Tried to step 2 times"),
        ({"schedule": type}, "expected one of torch's schedules that goes by epochs, not"),
        ({"config": replace(CONFIG, patience=2)}, r"patience needs a validation split.*hold_out"),
        ({"builder": compiled, "objective": _hooked}, "has a hook on the codes, which torch.compile ignores"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_written(options, message, tiny, tmp_path):
    options = {"builder": small, "config": CONFIG, "data": tiny} | options
    if callable(options["data"]):
        options["data"] = options["data"](tiny)
    with pytest.raises(ValueError, match=message):
        runs.train(root=tmp_path, device="cpu", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("builder", "objective"), [(dropped, objective.negative_elbo), (discrete, ScoreFunction())])
def test_what_fits_another_objective_is_trained(builder, objective, tiny, tmp_path):
    runs.train(tiny, CONFIG, tmp_path, "cpu", builder=builder, objective=objective)


class Wrapped(NormalPixels):
    """A decoder around another."""

    def __init__(self, network):
        super().__init__(decoders.Bernoulli(network))

    def forward(self, z):
        return self.mean(z)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("builder", [small, compiled])
def test_one_value_out_of_range_is_found_before_training_also_by_a_wrapped_decoder(split, builder, tiny, tmp_path):
    images = {name: to_float(part.images) for name, part in tiny.splits().items()}
    images[split][-1, 0, 0, 0] = 1.5
    wrong = Dataset("wrong", Split(images["train"]), Split(images["test"]))
    with pytest.raises(ValueError, match=r"values from 0 to 1.5.*expects them in \[0.0, 1.0\]"):
        runs.train(wrong, CONFIG, tmp_path, "cpu", builder=partial(builder, decoder=Wrapped))
    assert not list(tmp_path.iterdir())


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
    with PretendedGPU(kind, monkeypatch) as gpu, pytest.raises(ValueError, match=r"prior.*GPU and of the CPU"):
        runs.train(tiny, CONFIG, tmp_path, gpu.device, builder=partial(small, prior=OnTheCPU))
    assert not list(tmp_path.iterdir())


# Bounds, after a training


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((0, -100), r"the KL is -\d.*, though no KL is negative"),
        ((50, 0), r"the test ELBO \d.*, though it can't exceed log p\(x\), here -\d"),
    ],
)
def test_a_negative_kl_and_an_elbo_above_log_p_are_refused(more, message, tiny, model, monkeypatch):
    elbo = VAE.elbo
    monkeypatch.setattr(VAE, "elbo", lambda *given: torch.stack(elbo(*given)) + torch.tensor(more)[:, None])
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate(model, tiny)


def test_an_excess_within_five_standard_errors_is_noise():
    noise = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise, none = (noise - noise.mean()) / noise.std(), torch.zeros(1000)
    checks.check_bound(none, none, -noise - 4.8 / 1000**0.5)
    with pytest.raises(ValueError, match="no KL is negative"):
        checks.check_bound(none, none, -noise - 5.2 / 1000**0.5)
