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
# # Unused dimensions: posterior collapse
#
# **A VAE with 50 latent dimensions leaves about half of them unused. Do the usual cures gain
# anything?** Hardly, after 15 epochs of MNIST: annealing, free bits and flows gain at most 0.20
# nats of log p(x). A second level of codes gains 0.72 ± 0.37 nats, but the same weights in a
# plain decoder gain 0.88 ± 0.09.
#
# If a dimension saves the decoder less than its KL costs, the encoder outputs the prior for every
# image. This is *posterior collapse*. It isn't always a fault of the bound: in linear VAEs, log
# p(x) itself leaves dimensions unused {cite}`lucas2019blame`.

# %% tags=["parameters", "hide-input"]
import os

# "paper": MNIST; "quick": the digits that come with scikit-learn
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
epochs: int = 15 if "paper" in profile else 2  # of every training
seeds: int = 3 if "paper" in profile else 1  # of every way but the other β
latent_dim: int = 50  # K
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-input"]
from dataclasses import replace
from functools import partial
from itertools import pairwise
from statistics import mean
from typing import ClassVar

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from tabulate import tabulate
from torch import nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from book.machinery import claims
from vaelib import (
    TrainConfig,
    data,
    decoders,
    distributions,
    encoders,
    evaluation,
    objective,
    plots,
    priors,
    runs,
    train,
)
from vaelib.binarization import binarized
from vaelib.burda import layers
from vaelib.models import VAE
from vaelib.seeding import seeded

every = data.load("mnist" if profile == "paper" else "digits", data_folder)
step = max(1, len(every.test) // 2000)
some = data.Split(every.test.images[::step], every.test.labels[::step])
digits = replace(every, name=f"{every.name}-collapse", test=some)
print(f"{every.name}: {len(digits.train):,} + {len(digits.test):,}")

# %% [markdown]
# ## One model, many runs
#
# The model is the one of {doc}`bounds`: binary pixels that are sampled again for each batch,
# two layers of 200 tanh units in each network, and 50 latent dimensions. The encoder's first
# layer has 54 more units, because variants need these weights elsewhere. Every run has 15 epochs
# in batches of 128, with a constant learning rate of 0.001. Numbers are nats per image, on every
# fifth test image.


# %% tags=["hide-input"]
means = data.to_float(digits.train.images).mean(0).clamp(0.001, 0.999)


def one_level(
    image_shape, latent_dim, posterior=encoders.Gaussian, wide=254
):
    features = nn.Sequential(nn.Flatten(), *layers(784, wide, 200))
    *decoder, last, _ = layers(latent_dim, 200, 200, 784)
    last.bias.data = means.logit().flatten()
    output = nn.Sequential(*decoder, last, nn.Unflatten(1, image_shape))
    encoder = posterior(features, 200, latent_dim)
    prior = priors.Standard(latent_dim)
    return VAE(encoder, decoders.Bernoulli(output), prior, image_shape)


# %% tags=["hide-input"]
studied = {}


def study(title, seeds=seeds, size=latent_dim, model=one_level, **options):
    options["builder"] = partial(binarized, builder=model)
    studied[title] = [
        train(
            digits, TrainConfig(size, epochs, seed), runs_folder, **options
        )
        for seed in range(seeds)
    ]


study("plain")

# %% [markdown]
# ## The rules
#
# We wrote these rules before any run. (We changed initial weights and the plain encoder once,
# after the first runs.) Each variant is compared with plain training, seed by seed:
#
# - **It wakes dimensions** if at least five more are active, with every seed.
# - **It gains** if log p(x) is higher with every seed, and by half a nat on average.
#
# A dimension is active if the variance of its posterior mean over images is above 0.01.

# %% [markdown]
# ## The weight of the KL: β from 0.1 to 10
#
# The *rate* is the KL, and the *distortion* is minus the reconstruction term. Their sum, minus
# the ELBO, is constant along each dashed line. Training on distortion + β · rate moves along the
# curve {cite}`alemi2018fixing`. We use one run for each β.

# %%
betas = (0.1, 0.3, 1, 2, 4, 10) if "paper" in profile else (0.1, 1, 10)
for beta in betas:
    if beta == 1:
        studied["β = 1"] = studied["plain"][:1]
    else:
        study(f"β = {beta}", 1, objective=objective.BetaELBO(beta))
curve = {beta: studied[f"β = {beta}"][0] for beta in betas}


# %% tags=["hide-input"]
def terms(run):
    return run.evaluation["test_kl"], -run.evaluation["test_reconstruction"]


def nats(run):
    return -run.evaluation["test_elbo"], -run.evaluation["log_prob"]


awake = {
    beta: run.evaluation["active_units"] for beta, run in curve.items()
}
table = [
    [beta, *terms(run), *nats(run), awake[beta]]
    for beta, run in curve.items()
]
headers = ["β", "rate", "distortion", "-ELBO", "-log p(x), at most"]
headers.append("active")
Markdown(tabulate(table, headers, "github", floatfmt=("g", *[".1f"] * 4)))

# %% mystnb={"figure": {"caption": "Rate against distortion for each \u03b2. The ELBO is constant along a dashed line, and best at \u03b2 = 1. On the right, fewer dimensions are active the larger \u03b2 is.", "name": "fig-collapse-curve"}, "image": {"alt": "Left, a curve that falls steeply, then flatly, from a large distortion and a small rate at the largest beta to the opposite at the smallest. Right, the number of active dimensions falls as beta grows."}} tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    size = {"figsize": (plots.WIDTH, 2.8)}
    figure, (left, right) = plt.subplots(1, 2, **size)
rates, distortions = zip(*map(terms, curve.values()), strict=True)
left.plot(rates, distortions, "o-", markersize=4)
for beta, rate, distortion in zip(betas, rates, distortions, strict=True):
    left.annotate(f" β = {beta}", (rate, distortion), va="bottom", size=7)
bounds = left.axis()
for bound in (100, 120, 140, 160, 180):
    left.plot([0, bound], [bound, 0], "--", color="grey", linewidth=0.6)
left.axis(bounds)
left.set(xlabel="rate, nats", ylabel="distortion, nats")
right.plot(betas, list(awake.values()), "o-", markersize=4)
right.set(xlabel="β", ylabel="active dimensions", xscale="log", ylim=0)
plt.show()

# %% [markdown]
# With β = 0.1, images have codes where N(0, I) has little density, so few samples are digits.
# With β = 10, few dimensions remain, and samples are blurred.

# %% mystnb={"figure": {"caption": "Samples along the curve, from the same codes in each row. They are most often digits at \u03b2 = 4, though log p(x) is best at \u03b2 = 1.", "name": "fig-collapse-samples"}, "image": {"alt": "A row of fourteen samples for each beta: at the smallest strokes without a digit, at 1 some digits and some in between, at 4 mostly digits, at 10 blurred ones."}} tags=["hide-input"]
shown = [beta for beta in betas if beta in (0.1, 0.3, 1, 4, 10)]
plots.rows(
    {f"β = {beta}": curve[beta].model().sample(14, 0) for beta in shown}
)

# %% [markdown]
# If each run minimised distortion + β · rate, the slope between neighbours would be between their
# two β. It is:

# %% tags=["hide-input"]
for (one, first), (other, second) in pairwise(curve.items()):
    (rate, distortion), (rate_2, distortion_2) = terms(first), terms(second)
    slope = (distortion_2 - distortion) / (rate - rate_2)
    between = "between" if one <= slope <= other else "not between"
    print(f"{one} to {other}: {slope:.2f} nats for a nat, {between}")

# %% [markdown]
# ## Annealing and free bits
#
# *Annealing* raises β from 0 to 1 in the first half of a run
# {cite}`bowman2016generating,sonderby2016ladder`. Dimensions are used before they cost anything.
# *Free bits* count the KL of a dimension, averaged over a batch, as at least 0.25 nats
# {cite}`kingma2016improving`. An unused dimension then saves nothing.

# %%
study("annealing", objective=objective.BetaELBO(warm_up=0.5))
study("free bits", objective=objective.FreeBits(0.25))


# %% tags=["hide-input"]
def means_of(run):
    model, images = run.model(), digits.test.images
    return [evaluation.encode(model, images, seed)[0] for seed in (0, 1)]


def directions(run):
    one, other = means_of(run)
    covariance = (one - one.mean(0)).T @ (other - other.mean(0))
    axes = torch.linalg.eigh(covariance + covariance.T).eigenvectors
    return evaluation.active_units(one @ axes, again=other @ axes)


def compared(titles):
    keys = "test_kl", "test_elbo", "log_prob", "active_units"
    table = []
    for title in titles:
        found = studied[title]
        columns = [
            [abs(run.evaluation[key]) for run in found] for key in keys
        ]
        columns.append([directions(run) for run in found])
        table.append([title, *map(runs.plus_minus, columns)])
    headers = ["", "rate", "-ELBO", "-log p(x), at most", "active"]
    headers.append("directions")
    return Markdown(
        tabulate(table, headers, "github", disable_numparse=True)
    )


error = studied["plain"][0].evaluation["elbo_standard_error"]
print(f"the ELBO's standard error over test images: {error:.1f} nats")
compared(["plain", "annealing", "free bits"])

# %% [markdown]
# ± is the standard deviation over three seeds. The last column, added after the results, counts
# active principal directions of the posterior means. With free bits, all 50 axes are active, but
# they move together, in 28 directions.


# %% mystnb={"figure": {"caption": "The KL of each dimension, averaged over test images and sorted (one seed). Free bits keep all 50 dimensions at about the quarter nat that they are counted as.", "name": "fig-collapse-dimensions"}, "image": {"alt": "Three falling curves over fifty dimensions. Plain training and annealing fall to zero after some twenty; free bits fall to about a quarter nat and stay there."}} tags=["hide-input"]
@torch.inference_mode()
def by_dimension(run):
    model = run.model()
    q = model.posterior(data.to_float(digits.test.images))
    kl = distributions.kl_by_dimension(q, model.prior())
    return kl.mean(0).sort(descending=True).values


plots.lines(
    range(1, latent_dim + 1),
    {
        title: by_dimension(studied[title][0])
        for title in ("plain", "annealing", "free bits")
    },
    "dimension",
    "KL, nats",
)

# %% [markdown]
# ## Other posteriors
#
# A *planar* flow bends the Gaussian by ten layers, which each push codes along one direction
# {cite}`rezende2015variational`. Two *inverse autoregressive* layers {cite}`kingma2016improving`
# come with the package (and need [zuko](https://zuko.readthedocs.io)). The planar flow is here:


# %% tags=["hide-input"]
class PlanarFlow(Distribution):
    """Codes z + u tanh(w·z + b), layer after layer, and their density."""

    arg_constraints: ClassVar[dict] = {}
    has_rsample = True

    def __init__(self, base, u, w, b):
        self.base, self.layers = base, (u, w, b)  # (B, layers, K or none)
        super().__init__(base.batch_shape, base.event_shape, False)

    def rsample_and_log_prob(self):
        z = self.base.rsample()
        log_q = self.base.log_prob(z)
        for u, w, b in zip(
            *(each.unbind(1) for each in self.layers), strict=True
        ):
            product = (w * u).sum(-1, keepdim=True)
            wanted = softplus(product) - 1  # above -1: invertible
            u = u + (wanted - product) * w / (w * w).sum(-1, keepdim=True)
            bend = torch.tanh((w * z).sum(-1) + b)
            z = z + u * bend[:, None]
            log_q = log_q - torch.log1p(wanted[:, 0] * (1 - bend**2))
        return z, log_q

    def sample(self, sample_shape=()):
        return self.rsample_and_log_prob()[0].detach()


# %% tags=["hide-input"]
class Planar(encoders.Gaussian):
    """The paper's posterior, bent by ten planar layers."""

    def __init__(self, features, size, latent_dim):
        super().__init__(features, size, latent_dim)
        numbers = nn.Linear(43, 10 * (2 * latent_dim + 1))
        self.bend = nn.Sequential(*layers(size, 43), numbers)

    def forward(self, x):
        features = self.features(x)
        K = self.mean.out_features
        numbers = self.bend(features).unflatten(1, (10, 2 * K + 1))
        u, w, b = numbers.split([K, K, 1], -1)
        return PlanarFlow(self.gaussian(features), u, w, b[..., 0])


def deeper(features, size, latent_dim):
    features = nn.Sequential(features, *layers(size, 244))
    return encoders.Gaussian(features, 244, latent_dim)


# %% [markdown]
# Its density agrees with PyTorch's Jacobian:


# %% tags=["hide-input"]
class Fixed(distributions.DiagonalNormal):
    def rsample(self, sample_shape=()):
        return self.mean


with seeded(0):
    u, w, b = (
        torch.randn(1, 10, 4),
        torch.randn(1, 10, 4),
        torch.randn(1, 10),
    )
    noise = torch.randn(1, 4)


def bent(z):
    return PlanarFlow(Fixed(z, torch.zeros(1, 4)), u, w, b)


stated = bent(noise).rsample_and_log_prob()[1]
jacobian = torch.autograd.functional.jacobian(
    lambda z: bent(z).rsample_and_log_prob()[0], noise
)[0, :, 0]
found = Fixed(noise, torch.zeros(1, 4)).log_prob(noise)
found = found - jacobian.slogdet().logabsdet
torch.testing.assert_close(stated, found)
print(f"stated {stated.item():.4f}, found {found.item():.4f}")

# %% [markdown]
# The flows get the weights of the encoder's 54 additional units. As a control, a "deeper encoder"
# has them in one more layer (one seed).


# %%
narrow = partial(one_level, wide=200)
inverse = encoders.InverseAutoregressive
study("planar", model=partial(narrow, posterior=Planar))
study("autoregressive", model=partial(narrow, posterior=inverse))
study("deeper encoder", 1, model=partial(narrow, posterior=deeper))


# %% [markdown]
# ## A second level
#
# Burda et al. {cite}`burda2016importance` put codes above the codes. Here 25 numbers $z_2$ give
# the distribution of 50 numbers $z_1$, which give the image. For the package this is one code of
# 75 numbers: posterior and prior are chains of two Gaussians, and the decoder uses $z_1$ only.


# %% tags=["hide-input"]
class Chain(Distribution):
    """Codes from one distribution, then more of another, given those."""

    arg_constraints: ClassVar[dict] = {}
    has_rsample = True

    def __init__(self, first, then, sizes, roll=0):
        self.first, self.then = first, then
        self.sizes, self.roll = sizes, roll
        super().__init__(first.batch_shape, torch.Size([sum(sizes)]), False)

    def rsample(self, sample_shape=()):
        one = self.first.rsample(sample_shape)
        both = torch.cat([one, self.then(one).rsample()], -1)
        return both.roll(self.roll, -1)

    def log_prob(self, value):
        one, other = value.roll(-self.roll, -1).split(self.sizes, -1)
        return self.first.log_prob(one) + self.then(one).log_prob(other)


# %% tags=["hide-input"]
class Chained(nn.Module):
    """Encoder or prior: a module for the first codes, one for the others."""

    def __init__(self, first, *sizes, roll=0):
        super().__init__()
        self.first, self.sizes, self.roll = first, sizes, roll
        hidden = nn.Sequential(*layers(sizes[0], 235))
        self.then = encoders.Gaussian(hidden, 235, sizes[1])

    def forward(self, *x):
        return Chain(self.first(*x), self.then, self.sizes, self.roll)


class Below(nn.Sequential):
    """A decoder that sees the first codes alone."""

    def forward(self, z):
        return super().forward(z[..., : self[0].logits[0].in_features])


# %%
def two_levels(image_shape, latent_dim):
    low, top = latent_dim - latent_dim // 3, latent_dim // 3
    model = one_level(image_shape, low, wide=200)
    encoder = Chained(model.encoder, low, top)
    prior = Chained(priors.Standard(top), top, low, roll=low)
    return VAE(encoder, Below(model.decoder), prior, image_shape)


study("two levels", model=two_levels, size=latent_dim * 3 // 2)

# %% [markdown]
# Because the second level adds weights to p(x), we later added a control: plain training, with
# the 54 units in the decoder.


# %% tags=["hide-input"]
def wider_decoder(image_shape, latent_dim):
    model = one_level(image_shape, latent_dim, wide=200)
    *decoder, last, _ = layers(latent_dim, 200, 254, 784)
    last.bias.data = means.logit().flatten()
    output = nn.Sequential(*decoder, last, nn.Unflatten(1, image_shape))
    model.decoder = decoders.Bernoulli(output)
    return model


study("wider decoder", model=wider_decoder)

# %% [markdown]
# ## Equal weights, and equal time
#
# All variants have the same number of weights (within 0.1%) and of steps. Because some steps take
# longer, the second table compares bounds when plain training ends, at each variant's fastest
# pace. (It leaves out the wider decoder, which was trained at another time.)

# %% tags=["hide-input"]
ways = ["plain", "planar", "autoregressive", "two levels"]
controls = ["deeper encoder", "wider decoder"]
weights = [
    sum(each.numel() for each in studied[title][0].model().parameters())
    for title in (*ways, *controls)
]
print(f"weights: {min(weights):,} to {max(weights):,}")
top = []
for run in studied["two levels"]:
    one, other = (each[:, latent_dim:] for each in means_of(run))
    top.append(evaluation.active_units(one, again=other))
print("active of the second level's own:", *top)
compared([*ways, *controls])

# %% tags=["hide-input"]
pace = {
    title: min(
        line["seconds"] for run in studied[title] for line in run.metrics
    )
    for title in (*ways, "deeper encoder")
}
until = {
    title: min(epochs, max(1, int(epochs * pace["plain"] / pace[title])))
    for title in pace
}
in_time = {
    title: [
        run.metrics[until[title] - 1]["test_elbo"] for run in studied[title]
    ]
    for title in pace
}
table = [
    [
        title,
        f"{pace[title]:.1f} s",
        until[title],
        runs.plus_minus([-each for each in bounds]),
    ]
    for title, bounds in in_time.items()
]
headers = ["", "an epoch", "epochs in equal time", "-ELBO then"]
Markdown(tabulate(table, headers, "github", disable_numparse=True))

# %% mystnb={"figure": {"caption": "The bound on test images against training time, one seed each. When plain training ends (dotted line), it is ahead of the three others.", "name": "fig-collapse-time"}, "image": {"alt": "Four falling curves of minus the ELBO over seconds. At the dotted line, plain training is lowest and the planar flow highest."}} tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, panel = plt.subplots(figsize=(plots.WIDTH, 2.6))
for title in ways:
    course = [-line["test_elbo"] for line in studied[title][0].metrics]
    times = [pace[title] * (epoch + 1) for epoch in range(epochs)]
    panel.plot(times, course, "o-", markersize=3, label=title)
panel.axvline(epochs * pace["plain"], color="grey", linestyle=":")
panel.set(xlabel="seconds of training", ylabel="-ELBO, nats")
panel.set_ylim(top=panel.get_ylim()[0] + 15)
panel.legend()
plt.show()

# %% [markdown]
# An estimate of log p(x) from 200 samples is too low. With 2,000, on every fourth of these
# images, the variants' gains change by at most 0.11 nats. The last column is the standard error
# over images.

# %% tags=["hide-input"]
count, more = (500, 2000) if "paper" in profile else (25, 200)
images = digits.test.images[:: len(digits.test) // count]
few = [more // 10, more]
scores = {}
others = [title for title in ("β = 0.3", "β = 2") if title in studied]
for title in (*ways, "wider decoder", *others):
    scores[title] = [
        [evaluation.log_prob(run.model(), images, each)[0] for each in few]
        for run in studied[title]
    ]
table = []
for title, found in scores.items():
    row = [title]
    for each in (0, 1):
        row.append(
            runs.plus_minus([-one[each].mean() for one in found], ".2f")
        )
    for each in (0, 1) if title != "plain" else ():
        pairs = zip(found, scores["plain"], strict=False)
        gains = [one[each] - other[each] for one, other in pairs]
        row.append(runs.plus_minus([one.mean() for one in gains], "+.2f"))
        error = gains[0].std().item() / len(images) ** 0.5
    table.append([*row, f"{error:.2f}"] if title != "plain" else row)
headers = ["", *(f"-log p, {each:,}" for each in few)]
headers += [*(f"gain, {each:,}" for each in few), "error"]
Markdown(tabulate(table, headers, "github", disable_numparse=True))

# %% [markdown]
# ## Verdict


# %% tags=["hide-input"]
def more(title, key):
    pairs = zip(studied[title], studied["plain"], strict=True)
    return [
        run.evaluation[key] - other.evaluation[key] for run, other in pairs
    ]


for title in ("annealing", "free bits", *ways[1:], "wider decoder"):
    gains, woken = more(title, "log_prob"), more(title, "active_units")
    gain = "gains" if min(gains) > 0 and mean(gains) >= 0.5 else "no gain"
    wakes = "wakes" if min(woken) >= 5 else "no waking"
    print(
        f"{title}: log p {runs.plus_minus(gains, '+.2f')} ({gain}); "
        f"active {runs.plus_minus(woken, '+.1f')} ({wakes})"
    )
for title in ways[1:]:
    pairs = zip(in_time[title], in_time["plain"], strict=True)
    behind = runs.plus_minus([one - other for one, other in pairs], "+.2f")
    print(f"{title}: ELBO in equal time {behind}")

# %% [markdown]
# In the {doc}`ledger </book/verdict/claims>`, B4 is not decided. Free bits and autoregressive
# flows miss their condition, and the intervals of the others contain the bound.

# %% tags=["hide-input"]
level, wider = (
    more("two levels", "log_prob"),
    more("wider decoder", "log_prob"),
)
claims.judge(
    "B4",
    f"{len(some):,} test images of {every.name}, binary pixels, {epochs} epochs",
    [
        run
        for title in (
            "plain",
            "annealing",
            "free bits",
            *ways[1:],
            "wider decoder",
        )
        for run in studied[title]
    ],
    annealing=more("annealing", "log_prob"),
    free_bits=more("free bits", "log_prob"),
    planar=more("planar", "log_prob"),
    autoregressive=more("autoregressive", "log_prob"),
    level=level,
    decoder=[one - other for one, other in zip(level, wider, strict=True)],
)

# %% [markdown]
# The published numbers show:
#
# **More active dimensions gain nothing.** Free bits use all 50, and lose 1.16 ± 0.26 nats of log
# p(x). Annealing uses six more directions, and changes log p(x) by −0.13 ± 0.27.
#
# **Flows gain 0.20 ± 0.25 nats (planar) and 0.13 ± 0.13 (autoregressive),** less than our rule's
# half nat. In equal time, their bounds are 2.79 and 1.10 nats behind. The planar flow has 18 more
# active axes, but no more directions.
#
# **A second level gains 0.72 ± 0.37 nats, and a wider decoder 0.88 ± 0.09.** More weights in p(x)
# can therefore explain the gain. In equal time, the second level's bound is 1.24 nats behind.
#
# | limit | what it could change |
# |---|---|
# | 15 epochs at a constant learning rate: all curves still fall. | Everything. After 3,280 epochs, Burda et al. gain 1.4 nats by a second level. |
# | Flows and two levels estimate the KL from one sample. Plain training has it exactly. | It could hide a gain: in {doc}`bounds`, less noise gains about a nat. |
# | Each cure has one strength, and flows have no warm-up. | Tuned cures could gain. |
# | Three seeds, and one for β. | Whether the second level gains half a nat (interval −0.19 to 1.64). |
# | This decoder can't do without a code. | Collapse in decoders of text {cite}`bowman2016generating` isn't tested. |
