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
# # The rivals
#
# **Does the VAE learn faster than what it was made to replace?** Kingma and Welling
# {cite}`kingma2022auto` show it in two figures: their method, AEVB, beside *wake-sleep*, which also has an
# encoder, and beside *Monte Carlo EM*, which has none and samples each posterior. Here they are
# drawn again, with our curves, and one rival more: with few latent dimensions, EM can be done *exactly*,
# on a grid. All three are plain functions in `vaelib/rivals.py`.

# %% tags=["parameters"]
import os

# "paper": MNIST; "quick": the digits that come with scikit-learn
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
seen: int = 200_000 if "paper" in profile else 3_000  # images, a training
scored: int = 100 if "paper" in profile else 30  # images, for log p(x)
seeds: int = 2 if "paper" in profile else 1  # of the smallest model
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib

# %% tags=["hide-input"]
import math
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch import nn

from vaelib import (
    data,
    figures,
    likelihoods,
    objective,
    posteriors,
    priors,
    rivals,
)
from vaelib.models import VAE
from vaelib.seeding import seeded

digits = data.load("mnist" if profile == "paper" else "digits", data_folder)
with seeded(0):  # binary pixels, drawn once: so log p(x) is one
    train = data.to_float(digits.train.images).bernoulli()
    test = data.to_float(digits.test.images).bernoulli()
print(
    f"{digits.name}: {len(train):,} training and {len(test):,} test images"
)

# %% [markdown]
# One hidden layer with tanh in each network, batches of 100 images, one sample of each posterior. Unlike
# theirs, the step is Adam's (0.001 for every method; they took Adagrad), and the weights have no prior.


# %%
def build(K, hidden):
    shape = train.shape[1:]
    pixels = math.prod(shape)
    features = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden))
    output = nn.Sequential(
        nn.Linear(K, hidden),
        nn.Tanh(),
        nn.Linear(hidden, pixels),
        nn.Unflatten(1, shape),
    )
    encoder = posteriors.Gaussian(features.append(nn.Tanh()), hidden, K)
    return VAE(
        encoder, likelihoods.Bernoulli(output), priors.Standard(K), shape
    )


# %% [markdown]
# A step of each. Wake-sleep learns the decoder from codes of the encoder, then the encoder from images that the decoder
# dreams. Monte Carlo EM keeps a code for each training image, moves it by one proposal of HMC (10 leapfrogs, 90%
# accepted), and takes five steps of the weights, as in their appendix. Exact EM does the same with the posterior on
# a grid of 401 codes.


# %%
def learn(loss, model, x, which, state, optimizer):
    optimizer.zero_grad()
    loss(model, x).mean().backward()
    optimizer.step()


def mcem(model, x, which, state, optimizer):
    z, size = state["codes"][which], state["size"]
    state["codes"][which], state["size"], _ = rivals.mcem_step(
        model, x, z, optimizer, size
    )


line = torch.linspace(-4, 4, 401)[:, None]


def exact(model, x, which, state, optimizer):
    rivals.grid_em_step(model, x, line, optimizer)


methods = {
    "AEVB": partial(
        learn, lambda model, x: objective.negative_elbo(model, x, 0)[0]
    ),
    "wake-sleep": partial(
        learn, lambda model, x: sum(rivals.wake_sleep(model, x))
    ),
    "Monte Carlo EM": mcem,
    "exact EM": exact,
}


# %%
def study(step, images, K, hidden, score, points, length=seen, seed=0):
    """A training; what `score` says of the model at these many images."""
    with seeded(seed):
        model = build(K, hidden)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        state = {"codes": torch.randn(len(images), K), "size": 0.05}
        course, count = [], length // 100
        at = {max(1, round(share * count)) for share in points}
        for number in range(1, count + 1):
            which = torch.randint(len(images), (100,))
            step(model, images[which], which, state, optimizer)
            if number in at:
                with torch.no_grad():
                    course.append((100 * number, score(model)))
    return model, course


# %% [markdown]
# ## Their figure 2: the bound
#
# The ELBO of test images (the first 1,000), for AEVB and wake-sleep, 500 hidden units, against training images seen. They went on to
# 100 million; we stop far earlier, and say nothing of what comes after.


# %%
def bound(model):
    with seeded(1):
        likelihood, kl = model.elbo(test[:1000])
    return likelihood - kl


COLOURS = {"AEVB": "C0", "wake-sleep": "C1"}
COLOURS |= {"Monte Carlo EM": "C2", "exact EM": "C3"}
early = [10 ** (-2 + each / 4) for each in range(9)]
bounds = {
    (K, name): study(methods[name], train, K, 500, bound, early)[1]
    for K in (3, 10)
    for name in ("AEVB", "wake-sleep")
}

# %% mystnb={"figure": {"caption": "The ELBO of test images against training images seen, on a logarithmic axis, nats per image.", "name": "fig-rivals-bound"}, "image": {"alt": "Two panels, for three and ten latent dimensions, each with the rising curves of AEVB and wake-sleep."}} tags=["hide-input"]
with plt.rc_context(figures.STYLE):
    figure, panels = plt.subplots(
        1, 2, figsize=(figures.WIDTH, 2.6), sharey=True
    )
for (K, name), course in bounds.items():
    panel = panels[int(K == 10)]
    x, y = zip(*((at, each.mean()) for at, each in course), strict=True)
    panel.plot(x, y, "o-", ms=3, color=COLOURS[name], label=name)
    panel.set(xscale="log", title=f"K = {K}", xlabel="training images seen")
panels[0].set_ylabel("ELBO, nats")
panels[0].legend()
plt.show()

# %% [markdown]
# ## Their figure 3: log p(x)
#
# Three dimensions and 100 hidden units, so that Monte Carlo EM can take part; from few training images and from many. It
# has no encoder, so all three are scored alike, by decoder and prior: chains of HMC give each image a
# proposal, and importance sampling log p(x), at least.

# %%
few, many = train[:1000], train[:50_000]


def marginal(images, model):
    with seeded(1):
        parts = images[:scored], test[:scored]
        return [rivals.log_prob(model, each, 100, 40) for each in parts]


late = (0.05, 0.2, 0.5, 1)
marginals = {
    (len(images), name): study(
        methods[name], images, 3, 100, partial(marginal, images), late
    )[1]
    for images in (few, many)
    for name in ("AEVB", "wake-sleep", "Monte Carlo EM")
}

# %% mystnb={"figure": {"caption": "log p(x) against training images seen, from small and large training sets: of test images (lines) and of training images (dashes), nats per image.", "name": "fig-rivals-marginal"}, "image": {"alt": "Two panels, for a small and a large training set, each with curves of AEVB, wake-sleep and Monte Carlo EM."}} tags=["hide-input"]
with plt.rc_context(figures.STYLE):
    figure, panels = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.6))
for (size, name), course in marginals.items():
    panel = panels[int(size == len(many))]
    x = [at for at, _ in course]
    for part, style in enumerate(("--", "o-")):
        y = [each[part].mean() for _, each in course]
        label = name if part else None
        panel.plot(x, y, style, ms=3, color=COLOURS[name], label=label)
    panel.set(title=f"{size:,} images", xlabel="training images seen")
panels[0].set_ylabel("log p(x), nats")
panels[0].legend()
plt.show()

# %% [markdown]
# ## What nobody showed: exact EM
#
# With one dimension nothing need be sampled. The same small model, 1,000 training images, half as many images seen; log p(x)
# of the training images, which EM maximises, exact on the grid.


# %%
def precise(model):
    return rivals.grid_log_joint(model, few[:500], line).logsumexp(1)


small = {
    name: torch.stack(
        [
            study(
                methods[name], few, 1, 100, precise, [1], seen // 2, seed
            )[1][0][1]
            for seed in range(seeds)
        ]
    )
    for name in ("AEVB", "Monte Carlo EM", "exact EM")
}
for name, values in small.items():
    print(f"{name}: log p(x) of each seed", values.mean(1).tolist())

# %% [markdown]
# ## One posterior, three ways
#
# A model of two dimensions, trained by AEVB: the posterior of a test image on a grid, codes that HMC draws from it,
# and the encoder's q(z | x).

# %%
flat, _ = study(methods["AEVB"], few, 2, 100, bound, [])
one, chains = test[:1], 50
with seeded(0), torch.no_grad():
    codes = torch.randn(5000, 2)
    known = rivals.grid_log_joint(flat, one, codes)
    known = known - flat.prior().log_prob(codes).log_softmax(0)  # drawn so
    start = torch.multinomial(known[0].softmax(0), chains, replacement=True)
    target = partial(rivals.log_joint, flat, one.expand(chains, -1, -1, -1))
    tuned, size, _ = rivals.hmc(target, codes[start], 100, 0.05)
    chain, _, accepted = rivals.hmc(
        target, tuned[-1], 40, size, target=None
    )
    drawn, q = chain.flatten(0, 1), flat.posterior(one)
    centre, width = drawn.mean(0), drawn.std(0)
    x, y = (
        c + w * torch.linspace(-6, 6, 121)
        for c, w in zip(centre, width, strict=True)
    )
    grid = torch.cartesian_prod(x, y)
    truth = rivals.grid_log_joint(flat, one, grid)[0].softmax(0)

# %% mystnb={"figure": {"caption": "The posterior of one test image: the grid's (grey), codes of HMC (dots), and the encoder's q (contours).", "name": "fig-rivals-posterior"}, "image": {"alt": "A grey cloud with dots of HMC on it, and the contours of the encoder's normal distribution."}} tags=["hide-input"]
with plt.rc_context(figures.STYLE):
    figure, panel = plt.subplots(figsize=(figures.WIDTH / 2, 3))
panel.pcolormesh(x, y, truth.view(121, 121).T, cmap="Greys")
panel.plot(*drawn[::10].T, ".", ms=2, color="C2", label="HMC")
panel.contour(x, y, q.log_prob(grid).exp().view(121, 121).T, 4, colors="C0")
panel.set(xlabel="z₁", ylabel="z₂")
panel.legend()
plt.show()

# %%
mean = truth @ grid
deviation = (truth @ (grid - mean).square()).sqrt()
print(f"grid: mean {mean.tolist()}, deviation {deviation.tolist()}")
print(f"HMC:  mean {centre.tolist()}, deviation {width.tolist()}")
print(
    f"q:    mean {q.mean[0].tolist()}, deviation {q.variance[0].sqrt().tolist()}"
)
print(f"{accepted:.0%} of HMC's proposals accepted")

# %% [markdown]
# ## The verdict
#
# **The rule:** a method is ahead of another if, at the end, its mean over the same images is higher by more than twice the
# standard error of the difference. Kingma and Welling's figures have AEVB ahead of wake-sleep everywhere, and, in the
# large training set, ahead of Monte Carlo EM.


# %%
def compare(title, first, second):
    gap = first - second
    error = (gap.std() / len(gap) ** 0.5).item()
    mean = gap.mean().item()
    verdict = "no difference"
    if abs(mean) > 2 * error:
        verdict = "ahead" if mean > 0 else "behind"
    print(f"{title}: {mean:+.2f} ± {error:.2f} nats, {verdict}")


for K in (3, 10):
    ends = [bounds[K, name][-1][1] for name in ("AEVB", "wake-sleep")]
    compare(f"bound, K = {K}, AEVB - wake-sleep", *ends)
for images in (few, many):
    end = {
        name: marginals[len(images), name][-1][1][1]
        for name in ("AEVB", "wake-sleep", "Monte Carlo EM")
    }
    for name in ("wake-sleep", "Monte Carlo EM"):
        title = f"log p, {len(images):,} images, AEVB - {name}"
        compare(title, end["AEVB"], end[name])
exactly = small["exact EM"].mean(0)
for name in ("Monte Carlo EM", "AEVB"):
    compare(
        f"log p, K = 1, exact EM - {name}", exactly, small[name].mean(0)
    )

# %% [markdown]
# Of the published numbers, with the profile "paper":
#
# **The order of figure 2 is found again, that of figure 3 is not.** In the bound, which AEVB itself maximises, it is ahead of
# wake-sleep. In log p(x) the rule sees no difference between them, and Monte Carlo EM is ahead of both in either training set, where the original has it behind in
# the large one.
#
# **That is no verdict on the methods.** The axis counts images, and EM takes five steps of the weights for each batch, the others
# one: so early in a training, that alone may decide. It was not tested with equal numbers of steps, nor with equal time.
#
# **Exact EM and Monte Carlo EM do not agree** within the error over images: exact EM is ahead. Whether they would after a longer training was
# not asked; in `tests/test_rivals.py` both reach the known maximum of a linear model.
#
# **Limits.** Training is very short (0.2 million images; theirs go to 60 and 100 million), on a CPU, with Adam and no search for a
# step. One seed each, two for K = 1; ± is over images (100 for log p, 1,000 for the bound) and knows nothing of seeds. log p(x) with
# three dimensions is an estimate from 100 samples, at least in expectation.
