# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
#     notebook_metadata_filter: kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Customize the model
#
# **How do you train a VAE of your own design?** You write its encoder, decoder
# and prior as torch modules that return `torch.distributions`, and a builder
# function that puts the three together. `train` checks that they fit, trains
# them, resumes after a stop, evaluates log p(x), and keeps a record.
#
# This page replaces one part after another, each in one short cell. It trains
# on the small digits of scikit-learn, and only for a few epochs. The numbers
# therefore show that a variant works. They don't show which variant is best.
# {doc}`images` trains on a folder of your images, and {doc}`api` lists what
# every function takes and returns.

# %% tags=["parameters"]
import os

# "quick" shortens the runs, for a check that all cells work
quick: bool = "quick" in os.environ.get("VAELIB_PROFILE", "")  # shorter
latent_dim: int = 8  # K
epochs: int = 3 if quick else 10  # passes over the training images

# %% tags=["hide-input"]
import contextlib
import csv
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from matplotlib.patches import FancyBboxPatch
from sklearn.datasets import load_breast_cancer, load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.linear_model import LogisticRegression
from tabulate import tabulate
from torch import nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
)
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vaelib import (
    TrainConfig,
    checks,
    data,
    decoders,
    distributions,
    encoders,
    evaluation,
    priors,
    train,
)
from vaelib.binarization import binarized
from vaelib.models import VAE, mlp
from vaelib.plots import STYLE, rows

plt.rcParams.update(STYLE)

# %% [markdown]
# ## The interface
#
# A VAE consists of three modules. A call of each module returns a
# `torch.distributions.Distribution`:

# %% mystnb={"figure": {"caption": "The three modules return distributions. Training and evaluation use only these distributions.", "name": "fig-interface"}, "image": {"alt": "Three boxes. The encoder turns an image x into the posterior q of z given x, the decoder turns a code z into the likelihood p of x given z, and the prior gives p of z without any input. From the three follow the ELBO, log p of x, and samples."}} tags=["hide-input"]
BLUE, RED, GREEN, BLACK = "#1d3fe6", "#93272f", "#00807a", "#12141a"
figure, axes = plt.subplots(figsize=(7, 2.5))
boxes = {
    "encoder": (0.0, BLUE, "images  x", "q(z | x)"),
    "decoder": (2.5, RED, "codes  z", "p(x | z)"),
    "prior": (5.0, GREEN, "", "p(z)"),
}
for name, (left, colour, takes, gives) in boxes.items():
    box = FancyBboxPatch(
        (left, 1.5), 1.6, 0.7, "round,pad=0.1", fc="none", ec=colour
    )
    axes.add_patch(box)
    middle = {"ha": "center", "va": "center", "color": colour}
    axes.text(left + 0.8, 1.85, name, weight="bold", **middle)
    axes.text(left + 0.8, 2.85, takes, **middle)
    axes.text(left + 0.8, 0.85, gives, **middle)
    arrow = {"arrowstyle": "->", "color": colour}
    if takes:
        ends = (left + 0.8, 2.32), (left + 0.8, 2.7)
        axes.annotate("", *ends, arrowprops=arrow)
    ends = (left + 0.8, 1.05), (left + 0.8, 1.38)
    axes.annotate("", *ends, arrowprops=arrow)
follows = "ELBO  ·  log p(x)  ·  samples  ·  reconstructions"
axes.plot([0, 6.6], [0.55, 0.55], color=BLACK, linewidth=0.8)
axes.text(3.3, 0.2, follows, ha="center", va="center", color=BLACK)
axes.set(xlim=(-0.2, 6.8), ylim=(0, 3.1))
axes.set_axis_off()
plt.show()

# %% [markdown]
# | module | called with | `batch_shape` | `event_shape` | must have |
# |---|---|---|---|---|
# | encoder | images (B, C, H, W) | (B,) | (K,) | `rsample`, `log_prob` |
# | decoder | codes (B, K) | (B,) | (C, H, W) | `log_prob`, `mean` |
# | prior | nothing | () | (K,) | `log_prob`, `sample` |
#
# Torch's distributions treat each pixel as a separate event. `Independent(...,
# 3)` makes the last three dimensions one image, and `Independent(..., 1)`
# makes K numbers one code.
#
# `model(x)` evaluates the three modules on a batch. It returns one `Terms`,
# which is all that objectives and evaluation use:

# %%
digits = data.load("digits")
x = data.to_float(digits.test.images[:5])
terms = mlp(digits.image_shape, latent_dim)(x, samples=3)
for name, term in terms._asdict().items():
    print(f"{name:15}", tuple(term.shape))

# %% [markdown]
# The shapes contain S = 3 samples per posterior, B = 5 images and K = 8 latent
# dimensions:
#
# | term | shape | content |
# |---|---|---|
# | `log_likelihood` | (S, B) | {math}`\log p(x \mid z)`, in nats as all terms |
# | `log_prior` | (S, B) | {math}`\log p(z)` |
# | `log_posterior` | (S, B) | {math}`\log q(z \mid x)` |
# | `codes` | (S, B, K) | the samples z |
# | `kl` | (B, K) | the KL per dimension in closed form, or `None` |
# | `terms.reconstruction` | (B,) | the mean of `log_likelihood` over the samples |
# | `terms.divergence` | (B,) | the sum of `kl`, or else the mean of `log_posterior - log_prior` |
# | `terms.log_weights` | (S, B) | {math}`\log p(x, z) - \log q(z \mid x)` |
#
# **Closed forms.** `kl` is in closed form only if the exact classes of
# posterior and prior have one. A subclass gets the sampled KL, because a
# subclass can have another density.
#
# **Precision.** `TrainConfig(..., precision="bfloat16")` trains in mixed
# precision. NVIDIA GPUs that support bfloat16 use it by default. Even then,
# your module runs in float32, and so do samples, log densities, KL and
# objective. Set `autocast = True` on a module to have it called in mixed
# precision. The module must then return a distribution in float32, so you call
# `.float()` on the output of its network.
#
# **Validation.** Torch validates the arguments of its distributions, which
# makes a GPU wait. `validate_args=False` turns this off.
#
# **Range of values.** A decoder can have an attribute `support`, one of
# torch's constraints. Images with other values are then refused. The package's
# decoders expect values in [0, 1]. A decoder without `support` accepts all
# values.
#
# **Checks.** `train` checks all of this before the first step. You can call
# the check yourself while you write a module. This decoder forgets
# `Independent`:


# %%
class Forgetful(nn.Sequential):  # of one module: the network
    def forward(self, z):
        return Normal(super().forward(z), 1.0)


try:
    checks.check_model(mlp((1, 28, 28), 8, decoder=Forgetful))
except ValueError as error:
    print(error)

# %% [markdown]
# ## Builders and runs
#
# A *builder* is a function of the images' shape and of K that returns a model.
# `models.mlp` and `models.conv` are builders with the paper's two networks.
# `functools.partial` gives them another encoder, decoder or prior.
#
# A run's record contains the name of its builder and the arguments that
# `partial` fixes. Builders, objectives and schedules are therefore functions
# and classes with a name. Lambdas are refused. The folder's name ends with a
# hash of what your functions do and of the values that they read, so a changed
# function is another run. Comments don't count, and neither do files and environment
# variables that a function reads. Define your functions in a module
# that you import if several scripts load the same runs, because the recorded
# name includes the module.
#
# Loading a run calls the builder again and then reads the weights. Everything
# that your model computes with must therefore be a parameter, a buffer, or
# determined by the builder's arguments.
#
# The function `study` trains each variant below and adds a line to the table
# at the end of this page:

# %%
config = TrainConfig(latent_dim, epochs)
folder = Path(tempfile.mkdtemp())  # of all runs
results = []


def study(title, **own):
    run = train(digits, config, folder, **own)
    elbo, log_prob, units = (
        run.evaluation[key]
        for key in ("test_elbo", "log_prob", "active_units")
    )
    results.append([title, elbo, log_prob, units])
    print(f"{title}: ELBO {elbo:.1f}, log p(x) ≥ {log_prob:.1f}")
    return run


paper = study("the paper's")

# %% [markdown]
# You can stop `train` with Ctrl-C, or with the notebook's stop button. The
# same call resumes from the last checkpoint, and a checkpoint is written every
# ten seconds.
#
# ## Another likelihood
#
# A decoder receives the network from codes to pixels, and returns a
# distribution over images. If its class has an attribute `outputs`, the
# network returns that number of values per pixel. A Student-t likelihood needs
# two, a location and a scale:


# %%
class StudentPixels(nn.Module):
    autocast, outputs = True, 2

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, z):
        location, scale = self.network(z).float().chunk(2, 1)
        scale = nn.functional.softplus(scale) + 0.01
        return Independent(StudentT(3.0, location.sigmoid(), scale), 3)


student = study("Student-t", builder=partial(mlp, decoder=StudentPixels))

# %% [markdown]
# These values are far above the paper's, but they don't mean that the model is
# better. A Student-t density, a probability and the paper's objective have
# different units. You can compare models within one likelihood only.
#
# The package has four more likelihoods that are densities, or probabilities,
# of grey pixels: `decoders.ContinuousBernoulli`, `Gaussian` (one learned σ),
# `OptimalGaussian` (the best σ) and `DiscretizedLogisticMixture` (256 grey
# levels). The paper's Bernoulli likelihood isn't a density of grey pixels,
# because it doesn't integrate to one.
#
# ## Another prior
#
# A prior is a module that returns a distribution over codes. Its parameters
# are trained jointly with the rest. The next cell defines a mixture of ten
# Gaussians with learned means. Tensors that you create in a call should come
# from a parameter, as `self.weight.new_ones(10)` does here. They are then on
# the device of the model, and the prior also works on a GPU.


# %%
class LearnedMixture(nn.Embedding):  # a table of learned vectors
    def __init__(self, latent_dim):
        super().__init__(10, latent_dim)

    def forward(self, *labels):
        parts = Independent(Normal(self.weight, 1.0), 1)
        return MixtureSameFamily(
            Categorical(self.weight.new_ones(10)), parts
        )


mixture = study(
    "learned mixture", builder=partial(mlp, prior=LearnedMixture)
)

# %% [markdown]
# `priors.Mixture` also learns variances and weights. Some priors need the rest
# of the model. The VampPrior is a mixture of the encoder's posteriors at
# learned images, so you write a builder that adds it to a model:


# %%
def vamp(image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    model.prior = priors.Vamp(model.encoder, image_shape)
    return model


vamp_run = study("VampPrior", builder=vamp)

# %% [markdown]
# ## Another posterior
#
# `mlp` and `conv` call `encoder` with three arguments: the network from images
# to features, the number of features, and K. It returns a module that maps an
# image to a distribution. The paper's posterior has independent dimensions.
# The next posterior is a normal distribution with a full covariance matrix:


# %%
class FullCovariance(nn.Module):
    def __init__(self, features, size, latent_dim):
        super().__init__()
        self.features, self.mean = features, nn.Linear(size, latent_dim)
        self.factor = nn.Linear(size, latent_dim * latent_dim)
        self.log_scale = nn.Linear(size, latent_dim)

    def forward(self, x):
        features = self.features(x)
        factor = 0.1 * self.factor(features).view(len(x), latent_dim, -1)
        scale = self.log_scale(features).exp().diag_embed()
        mean = self.mean(features)
        return MultivariateNormal(mean, scale_tril=factor.tril(-1) + scale)


full = study(
    "full covariance", builder=partial(mlp, encoder=FullCovariance)
)
print("closed-form KL:", full.model()(x).kl)

# %% [markdown]
# `kl` is `None`, because torch has a closed form for two `MultivariateNormal`,
# but not for this pair of classes. Training therefore uses the mean of
# `log_posterior - log_prior`.
#
# ## Flows
#
# The flows of [zuko](https://zuko.readthedocs.io) are modules that return
# distributions, so they fit in without an adapter. Importing zuko turns off
# torch's validation of arguments in the whole process. Without zuko, you pass
# `validate_args=False` where torch refuses values that you want, for example
# grey pixels under its `Bernoulli`.

# %%
import zuko

flow = study("flow prior", builder=partial(mlp, prior=zuko.flows.MAF))

# %% mystnb={"figure": {"caption": "Ten samples from each prior, without selection.", "name": "fig-own-priors"}, "image": {"alt": "Four rows of ten digits decoded from codes that were sampled from the prior: the paper's, the mixture, the flow, and the VampPrior."}}
rows(
    {
        title: run.model().sample(10, seed=0)
        for title, run in (
            ("the paper's", paper),
            ("mixture", mixture),
            ("flow", flow),
            ("VampPrior", vamp_run),
        )
    }
)

# %% [markdown]
# Flows also make posteriors. A flow's context is then the features of the
# image:


# %%
def flow_posterior(features, size, latent_dim):
    flow = zuko.flows.MAF(latent_dim, context=size, passes=2)
    return nn.Sequential(features, flow)


flexible = mlp((1, 28, 28), latent_dim, encoder=flow_posterior)
checks.check_model(flexible)
print(flexible.posterior(x).rsample().shape)

# %% [markdown]
# It trains like the other posteriors, with `builder=partial(mlp,
# encoder=flow_posterior)`. `encoders.InverseAutoregressive` is a posterior of
# this kind that comes with the package.
#
# ## Another objective
#
# An objective is a function of a batch's `terms` and of the fraction of the
# training run that is done. It returns the loss of each image, and training
# minimises the mean loss. The fraction grows with each step from 0 to 1. The
# next objective anneals the KL in two cycles:


# %%
def in_cycles(terms, fraction):
    beta = min(1.0, 4 * fraction % 2)  # twice from 0 to 1
    return beta * terms.divergence - terms.reconstruction


cycles = study("annealed in cycles", objective=in_cycles)

# %% [markdown]
# The ELBO and its two terms are recorded for every objective, because they
# come from `terms`. The package has `BetaELBO` (with `warm_up`), `FreeBits`,
# `MeanELBO` and `ImportanceWeighted` in `vaelib.objective`.
#
# Attributes of an objective decide how the terms are computed:
#
# | attribute | default | effect |
# |---|---|---|
# | `samples` | 1 | the number of codes per image |
# | `fixed_posterior` | `False` | {math}`\log q(z \mid x)` doesn't pass gradients to the encoder, except through z |
# | `reparameterized` | `True` | if `False`, z passes no gradients, as score-function estimators need it |
#
# "Sticking the landing" {cite}`roeder2017sticking` is the ELBO with
# `fixed_posterior = True`, and its loss is `-terms.log_weights.mean(0)`. DReG
# {cite}`tucker2019doubly` is the importance-weighted bound with the same
# attribute. In addition, it multiplies the gradient of each code by its
# weight. A hook on `terms.codes` does this in two lines:


# %%
@dataclass(frozen=True)
class DReG:
    samples: int = 5
    fixed_posterior = True

    def __call__(self, terms, fraction):
        weights = terms.log_weights.detach().softmax(0)  # (S, B)
        if terms.codes.requires_grad:
            by_weight = weights.unsqueeze(-1)
            terms.codes.register_hook(lambda gradient: by_weight * gradient)
        return -(weights * terms.log_weights).sum(0)


dreg = study("DReG, three samples", objective=DReG(samples=3))

# %% [markdown]
# A frozen dataclass is the simplest objective with parameters, because its
# fields are part of the run's name.
#
# ```{warning}
# A hook needs an uncompiled model. Under `torch.compile`, only a part of the
# gradient passes through `terms.codes`, and DReG's gradient would be wrong.
# `train` therefore refuses an objective with a hook on a compiled model.
# ```
#
# ## An objective with state
#
# An objective that changes during training is an `nn.Module` with its state in
# buffers. You give its class, or a `partial` of the class, and every run makes
# a new object. Checkpoints contain the buffers. GECO {cite}`rezende2018taming`
# is an example. It minimises the KL under a constraint on the reconstruction.
# The weight of the reconstruction, which is 1/β, grows as long as the
# reconstruction misses its target:


# %%
class Geco(nn.Module):
    def __init__(self, target):
        super().__init__()
        self.target = target  # of -log p(x | z), in nats per image
        self.register_buffer("weight", torch.ones(()))

    def forward(self, terms, fraction):
        missed = -terms.reconstruction - self.target
        step = 0.02 * missed.detach().mean().clamp(-1, 1)
        self.weight *= step.exp()
        return terms.divergence + self.weight * missed


constrained = partial(Geco, target=300)
geco = study("GECO, target 300", objective=constrained)
for title, run in {"GECO": geco, "ELBO": paper}.items():
    print(f"{title}: {-run.evaluation['test_reconstruction']:.1f} nats")

# %% [markdown]
# The run is so short that the weight doesn't decrease again. The
# reconstruction is therefore better than its target.
#
# The next function stops a run after half of its epochs, resumes it, and
# compares all weights with the weights of the uninterrupted run:


# %%
def stop(model, line):
    if line["epoch"] == epochs // 2:
        raise KeyboardInterrupt


def ends_the_same(run, **own):
    other = Path(tempfile.mkdtemp())
    with contextlib.suppress(KeyboardInterrupt):
        train(
            digits,
            config,
            other,
            on_epoch=stop,
            checkpoint_seconds=0,
            **own,
        )
    resumed = train(digits, config, other, **own)
    both = [each.model().state_dict().values() for each in (run, resumed)]
    return all(map(torch.equal, *both))


print("same after a stop:", ends_the_same(geco, objective=constrained))

# %% [markdown]
# Learned parameters of an objective are trained, too. A finished run doesn't
# contain the state of its objective. Without state, the fraction is enough for
# a schedule, as in `in_cycles`.
#
# ## Labels
#
# With `VAE(..., conditional=True)`, the labels of the data are a second
# argument: `encoder(x, y)`, `decoder(z, y)` and `prior(y)`. The package's own
# priors ignore labels. This conditional VAE adds an embedding of the label to
# the features and to the codes. The factor 3 moves the labels further apart
# than the codes of one label, so the decoder learns them quickly:


# %%
class LabelEncoder(nn.Module):
    autocast = True

    def __init__(self, features, size, latent_dim):
        super().__init__()
        self.features, self.label = features, nn.Embedding(10, size)
        self.posterior = encoders.Gaussian(nn.Identity(), size, latent_dim)

    def forward(self, x, y):
        return self.posterior(self.features(x) + self.label(y))


class LabelDecoder(nn.Module):
    autocast = True

    def __init__(self, decoder, latent_dim):
        super().__init__()
        self.decoder, self.label = decoder, nn.Embedding(10, latent_dim)

    def forward(self, z, y):
        return self.decoder(z + 3 * self.label(y))


def conditional(image_shape, latent_dim, **parts):
    model = mlp(image_shape, latent_dim, encoder=LabelEncoder, **parts)
    return VAE(
        model.encoder,
        LabelDecoder(model.decoder, latent_dim),
        model.prior,
        image_shape,
        conditional=True,
    )


by_label = study("conditional", builder=conditional)

# %% [markdown]
# A conditional model needs labels wherever it needs images or samples:
# `model.elbo(x, labels)`, `model.encode(x, labels)`, and so on.

# %% mystnb={"figure": {"caption": "Samples of the conditional VAE. Each column has one label, and each row has one seed.", "name": "fig-own-labels"}, "image": {"alt": "Three rows of ten digits. In each row, the digits from 0 to 9 follow each other."}}
model = by_label.model()
labels = torch.arange(10)
rows({f"seed {s}": model.sample(10, s, labels) for s in range(3)})

# %% [markdown]
# ## Network, optimizer, learning rate, early stopping
#
# A different network is a different builder. Its features and its output can
# be any modules:


# %%
def one_layer(image_shape, latent_dim):
    features = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.Tanh())
    encoder = encoders.Gaussian(features, 64, latent_dim)
    output = nn.Linear(latent_dim, 784), nn.Unflatten(1, image_shape)
    decoder = decoders.Bernoulli(nn.Sequential(*output))
    return VAE(encoder, decoder, priors.Standard(latent_dim), image_shape)


cosine = partial(CosineAnnealingLR, T_max=epochs)
shallow = study(
    "one layer, cosine schedule", builder=one_layer, schedule=cosine
)

# %% [markdown]
# | option | effect |
# |---|---|
# | `train(..., optimizer=...)` | another of torch's optimizers, called with the parameters and `lr` |
# | `train(..., schedule=...)` | one of torch's learning-rate schedules, with one step per epoch |
# | `TrainConfig(..., max_grad_norm=...)` | the gradient is scaled down to this norm |
# | `TrainConfig(..., patience=n)` | training stops after n epochs without a better validation ELBO |
#
# `patience` needs a validation split, and `digits.hold_out(200)` moves 200
# training images there. The run keeps the weights of the best epoch. The
# folder's name contains all of these options:

# %%
stopping = TrainConfig(
    latent_dim,
    5 * epochs,
    batch_size=32,
    learning_rate=0.02,
    max_grad_norm=100,
    patience=1,
)
early = train(
    digits.hold_out(200),
    stopping,
    folder,
    builder=one_layer,
    optimizer=partial(torch.optim.AdamW, weight_decay=0.01),
)
print(early.folder.name)
print([round(line["validation_elbo"], 1) for line in early.metrics])

# %% [markdown]
# ## An average of the weights
#
# A module can wrap another module. The next class keeps an exponential moving
# average (EMA) of the weights of the module that it wraps. In training mode,
# it calls the network and updates the average. In evaluation mode, it calls
# the average. The average consists of parameters and buffers, so checkpoints
# and the stored model contain it.


# %%
class Averaged(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.autocast = network, network.autocast
        ema = get_ema_multi_avg_fn(0.9)  # 0.99 or 0.999 for longer runs
        self.average = AveragedModel(network, multi_avg_fn=ema)

    def forward(self, *inputs):
        if not self.training:
            return self.average(*inputs)
        self.average.update_parameters(self.network)
        return self.network(*inputs)


def averaged(image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    model.encoder = Averaged(model.encoder)
    model.decoder = Averaged(model.decoder)
    return model


ema = study("average of the weights", builder=averaged)
print("same after a stop:", ends_the_same(ema, builder=averaged))

# %% [markdown]
# The decay of 0.9 averages over about ten steps, because this run has only 120
# steps.
#
# ## Preprocessing and augmentation
#
# `VAE.preprocess` maps the images to the values that encoder and likelihood
# see. A subclass overrides it. Random changes, such as augmentation, belong
# under `if self.training`:


# %%
class Shifted(VAE):
    def preprocess(self, x):
        if not self.training:
            return x
        down, right = torch.randint(-1, 2, (2,)).tolist()  # for the batch
        return x.roll((down, right), (2, 3))


def shifted(image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    return Shifted(model.encoder, model.decoder, model.prior, image_shape)


moved = study("shifted by a pixel", builder=shifted)

# %% [markdown]
# `binarized` is a builder that uses the same method. Its models see binary
# pixels, and grey values are the probabilities of white. The binarization is
# dynamic in training, and fixed in evaluation:

# %%
binary = binarized((1, 28, 28), latent_dim, builder=mlp)
print(x.unique().numel(), "grey levels,", binary.preprocess(x).unique())

# %% [markdown]
# ## After each epoch
#
# `on_epoch` is called with a copy of the model, in evaluation mode, and the
# epoch's line of metrics. Changes to the copy don't change the training. Here
# it writes a table of a metric that the package doesn't record. If a stop
# interrupts an epoch, the epoch is repeated, and so is the call. Checkpoints
# don't contain what `on_epoch` keeps, so a running average of the weights
# belongs into the model.


# %%
def watch(model, line):
    mean, _ = model.encode(data.to_float(digits.test.images))
    writer.writerow([line["epoch"], line["test_elbo"], mean.std().item()])


with (folder / "mine.csv").open("w", newline="") as file:
    writer = csv.writer(file)
    train(digits, TrainConfig(2, 3), folder, on_epoch=watch)
print((folder / "mine.csv").read_text())

# %% [markdown]
# TensorBoard takes four lines. They aren't run here, because the project
# doesn't install TensorBoard:
#
# ```python
# from torch.utils.tensorboard import SummaryWriter
# writer = SummaryWriter()
# def log(model, line):
#     writer.add_scalar("ELBO/test", line["test_elbo"], line["epoch"])
# ```
#
# ## Comparison

# %% tags=["hide-input"]
Markdown(
    tabulate(
        results,
        ("variant", "ELBO", "log p(x), at least", "active units"),
        "github",
        (None, ".1f", ".1f", ".0f"),
    )
)

# %% [markdown]
# All values are nats per test image. The Student-t likelihood isn't comparable
# with the other rows, because its values are densities. The conditional VAE's
# log p(x) is log p(x | y), because the model also receives the label.
#
# ## Images from arrays
#
# A `Split` takes a tensor of shape (N, C, H, W) and, if there are any, labels.
# Pixels are uint8, uint16 or floats. Here are windows from a photograph that
# comes with scikit-learn, as NumPy arrays of shape (N, H, W, C). Colour images
# get the convolutional model. The three types give the same result within
# rounding:

# %%
china, _ = load_sample_images().images
windows = extract_patches_2d(
    china, (32, 32), max_patches=200, random_state=0
)
pixels = torch.as_tensor(windows).permute(0, 3, 1, 2)  # (200, 3, 32, 32)
kinds = {
    "uint8": pixels,
    "uint16": (257 * pixels.int()).to(torch.uint16),
    "float32": pixels / 255,
}
for kind, images in kinds.items():
    splits = map(data.Split, images.split((180, 20)))
    windows = data.Dataset(kind, *splits)
    run = train(windows, TrainConfig(8, 2), folder)
    print(f"{kind:8}{run.evaluation['test_elbo']:8.1f} nats per image")

# %% [markdown]
# ## Rows of numbers
#
# Data of shape (N, D) are rows of D numbers. They need a decoder without
# limits on values. The next decoder returns a normal distribution with its own
# mean and σ for each number. The data are 30 measurements of 569 tumours,
# standardized:


# %%
class NormalRows(nn.Module):
    outputs = 2

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, z):
        mean, log_sigma = self.network(z).chunk(2, 1)
        return Independent(Normal(mean, log_sigma.exp()), 1)


numbers = torch.as_tensor(load_breast_cancer().data, dtype=torch.float32)
numbers = (numbers - numbers[:450].mean(0)) / numbers[:450].std(0)
tumours = data.Dataset(
    "tumours", data.Split(numbers[:450]), data.Split(numbers[450:])
)
wide = TrainConfig(latent_dim, 2 * epochs, batch_size=32)
run = train(tumours, wide, folder, builder=partial(mlp, decoder=NormalRows))
separate = Normal(0.0, 1.0).log_prob(numbers[450:]).sum(1).mean()
print(f"VAE: {run.evaluation['log_prob']:.1f} nats per row")
print(f"separate normal distributions: {separate:.1f} nats per row")

# %% [markdown]
# ## Use the model
#
# `model.sample` returns mean images of codes from the prior, and
# `model.decode` returns mean images of any codes. The likelihood itself gives
# images with noise:

# %% mystnb={"figure": {"caption": "The mean images of ten codes under the Student-t likelihood, and one sample for each code.", "name": "fig-own-drawn"}, "image": {"alt": "Two rows of ten digits: above smooth ones, below the same with noise on every pixel."}}
torch.manual_seed(0)
model = student.model()
likelihood = model.decoder(model.prior().sample((10,)))
noisy = likelihood.sample().clamp(0, 1)  # Student-t has heavy tails
rows({"mean": likelihood.mean.detach(), "sample": noisy})

# %% [markdown]
# Codes are plain tensors. This classifier sees only the means of the
# posteriors:

# %%
train_codes, _ = evaluation.encode(model, digits.train.images)
test_codes, _ = evaluation.encode(model, digits.test.images)
classifier = LogisticRegression(max_iter=1000)
classifier.fit(train_codes, digits.train.labels)
accuracy = classifier.score(test_codes, digits.test.labels)
print(f"{accuracy:.0%} of the test digits are classified correctly")

# %% [markdown]
# ## Evaluate a model from elsewhere
#
# You can evaluate a VAE that wasn't written for this package. Two functions
# that return distributions say what its outputs mean, and
# `evaluation.log_prob` does the rest:


# %% tags=["hide-input"]
class Theirs(nn.Module):  # as in many repositories
    def __init__(self):
        super().__init__()
        self.fc1, self.fc21 = nn.Linear(784, 400), nn.Linear(400, 20)
        self.fc22, self.fc3 = nn.Linear(400, 20), nn.Linear(20, 400)
        self.fc4 = nn.Linear(400, 784)

    def encode(self, x):
        h1 = self.fc1(x.view(-1, 784)).relu()
        return self.fc21(h1), self.fc22(h1)

    def decode(self, z):
        return self.fc4(self.fc3(z).relu()).sigmoid().view(-1, 1, 28, 28)


torch.manual_seed(0)
theirs = Theirs()


# %%
def encode(x):
    return distributions.DiagonalNormal(*theirs.encode(x))


def decode(z):
    return Independent(Bernoulli(theirs.decode(z), validate_args=False), 3)


judged = VAE(encode, decode, priors.Standard(20), (1, 28, 28))
judged.theirs = theirs  # VAE takes the device from these weights
estimate, _ = evaluation.log_prob(judged, digits.test.images, samples=100)
print(f"untrained: log p(x) is {estimate.mean():.1f} nats per image")

# %% [markdown]
# ## Everything together, compiled, in bfloat16
#
# The parts are independent of each other, so you can combine them. This model
# is the conditional VAE with the Student-t likelihood and the learned mixture
# as its prior. Its β follows GECO. It trains in bfloat16 under
# `torch.compile`, and is stored as the model that was compiled:


# %%
def compiled(image_shape, latent_dim):
    parts = {"decoder": StudentPixels, "prior": LearnedMixture}
    model = conditional(image_shape, latent_dim, **parts)
    return torch.compile(model, backend="eager")


coarse = TrainConfig(latent_dim, epochs, precision="bfloat16")
target = partial(Geco, target=-900)
combined = train(digits, coarse, folder, builder=compiled, objective=target)
print(combined.folder.name)
print(f"log p(x | y): {combined.evaluation['log_prob']:.0f} nats per image")

# %% [markdown]
# This page uses `backend="eager"`, because it needs no C++ compiler. To gain
# speed, leave this argument out. The first steps then take about a minute,
# because they wait for the compiler. On CPUs without bfloat16 instructions,
# bfloat16 is slower than float32.
#
# ## Save, load, sweep
#
# `runs.load(folder, builder)` loads a run, and `storage.load(path,
# builder=...)` loads a file of weights. The file contains the name of the
# builder, and loading doesn't execute anything in the file. You give the
# function.
#
# To sweep over values, run several processes, for example with joblib:
#
# ```python
# from joblib import Parallel, delayed
# from vaelib import objective
# objectives = [objective.BetaELBO(beta) for beta in (1, 2, 4)]
# jobs = [
#     delayed(train)(digits, TrainConfig(8), objective=each)
#     for each in objectives
# ]
# runs = Parallel(n_jobs=3)(jobs)
# ```
#
# Every β has its own folder. Learning rate, batch size and the other fields of
# `TrainConfig` are also in the folder's name if they differ from the paper's.
# The objective's fraction and schedules depend on the number of epochs. A
# longer run is therefore a new run from the start.
