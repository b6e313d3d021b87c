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
# # Baselines: wake-sleep and EM
#
# **Does a VAE learn faster than the methods it replaced?** Two runs can't decide it. After 500,000
# images, the VAE is ahead of wake-sleep by 4.06 nats of log p(x) on average, and of Monte Carlo EM
# by 28.39 and 7.46 nats. Each lead differs too much between the two seeds.
#
# Kingma and Welling {cite}`kingma2022auto` call their method AEVB. They compare it with
# *wake-sleep* {cite}`hinton1995wake`, which also has an encoder, and with *Monte Carlo EM*, which
# samples each posterior instead. We draw both of their figures again, from much shorter training.
# We add *exact* EM on a grid, which is possible with two latent dimensions. All methods are plain
# functions in `vaelib/baselines.py`.

# %% tags=["parameters", "hide-input"]
import os

# "paper": MNIST; "quick": the digits that come with scikit-learn
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
seen: int = 500_000 if "paper" in profile else 1_000  # images, a training
on_grid: int = (
    300_000 if "paper" in profile else 3_000
)  # the same, small model
scored: int = 100 if "paper" in profile else 5  # images, for log p(x)
proposals: int = 40 if "paper" in profile else 10  # of HMC, for each
seeds: int = 2 if "paper" in profile else 1  # of each training for log p(x)
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib

# %% tags=["hide-input"]
import math
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.distributions import Categorical

from book.machinery import claims
from vaelib import (
    baselines,
    data,
    decoders,
    encoders,
    objective,
    plots,
    priors,
)
from vaelib.models import VAE
from vaelib.seeding import seeded

digits = data.load("mnist" if profile == "paper" else "digits", data_folder)
with seeded(0):  # binary pixels, drawn once: so log p(x) is one
    train = data.to_float(digits.train.images).bernoulli()
    test = data.to_float(digits.test.images).bernoulli()
few, many = train[:1000], train[:50_000]
print(
    f"{digits.name}: {len(train):,} training and {len(test):,} test images"
)

# %% [markdown]
# Each network has one hidden layer with tanh. Batches have 100 images, and every posterior gives
# one sample. Unlike Kingma and Welling, we use Adam with a learning rate of 0.001 for every
# method (they used Adagrad), and no prior on the weights.


# %% tags=["hide-input"]
def build(shape, K, hidden):
    pixels = math.prod(shape)
    features = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden))
    output = nn.Sequential(
        nn.Linear(K, hidden),
        nn.Tanh(),
        nn.Linear(hidden, pixels),
        nn.Unflatten(1, shape),
    )
    encoder = encoders.Gaussian(features.append(nn.Tanh()), hidden, K)
    return VAE(
        encoder, decoders.Bernoulli(output), priors.Standard(K), shape
    )


# %% [markdown]
# Each method updates the weights once per batch:
#
# - **Wake-sleep** trains the decoder on codes from the encoder, and the encoder on images sampled
#   from the decoder.
# - **Monte Carlo EM** keeps one code for each training image. (This is our choice, because their
#   text doesn't say.) One HMC proposal moves the code: ten leapfrog steps, with a step size
#   adapted for 90% acceptance.
# - **Exact EM** weights the codes of a grid by the posterior.
#
# Their Monte Carlo EM has five updates per batch. We show it, too.


# %% tags=["hide-input"]
def learn(loss, model, x, which, state, optimizer):
    optimizer.zero_grad()
    loss(model, x).mean().backward()
    optimizer.step()


def mcem(model, x, which, state, optimizer, proposals=1, updates=1):
    z, size = state["codes"][which], state["size"]
    state["codes"][which], state["size"], _ = baselines.mcem_step(
        model, x, z, optimizer, size, proposals, updates
    )


methods = {
    "AEVB": partial(
        learn, lambda model, x: objective.negative_elbo(model(x), 0)
    ),
    "wake-sleep": partial(
        learn, lambda model, x: sum(baselines.wake_sleep(model, x))
    ),
    "Monte Carlo EM": mcem,
    "five updates": partial(mcem, updates=5),
}


# %% [markdown]
# The next function does one run. For a given seed, all methods start from the same weights and
# see the same batches.


# %% tags=["hide-input"]
def study(step, images, K, hidden, score, shares, seed=0, length=seen):
    """The model; what `score` says of it after these shares of `length`."""
    with seeded(seed):
        batches = torch.randint(len(images), (length // 100, 100))
        model = build(images.shape[1:], K, hidden)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        state = {"codes": torch.randn(len(images), K), "size": 0.05}
        at = {max(1, round(share * len(batches))) for share in shares}
        course = []
        for number, which in enumerate(batches, 1):
            step(model, images[which], which, state, optimizer)
            if number in at:
                with torch.no_grad():
                    thousands = number / 10
                    course.append((thousands, score(model)))
    return model, course


# %% [markdown]
# ## Their figure 2: the bound
#
# We compute the ELBO of 1,000 test images, for one run of each method with 500 hidden units.


# %% tags=["hide-input"]
def bound(model):
    with seeded(1):
        likelihood, kl = model.elbo(test[:1000])
    return likelihood - kl


COLOURS = dict(
    zip([*methods, "exact EM"], ("C0", "C1", "C2", "C4", "C3"), strict=True)
)
early = [10 ** (-2 + each / 4) for each in range(9)]
bounds = {
    (K, name): study(methods[name], train, K, 500, bound, early)[1]
    for K in (3, 5, 10, 20, 200)
    for name in ("AEVB", "wake-sleep")
}

# %% mystnb={"figure": {"caption": "The ELBO of test images in nats, against thousands of training images seen (logarithmic axis). AEVB ends ahead for every K. With K = 200, the bound of wake-sleep falls again.", "name": "fig-rivals-bound"}, "image": {"alt": "Five panels, for 3, 5, 10, 20 and 200 latent dimensions, each with the curves of AEVB and wake-sleep. All rise, except wake-sleep in the last panel, which falls again."}} tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, panels = plt.subplots(
        1, 5, figsize=(plots.WIDTH, 2.4), sharey=True
    )
panels = dict(zip((3, 5, 10, 20, 200), panels, strict=True))
for (K, name), course in bounds.items():
    x, y = zip(*((at, each.mean()) for at, each in course), strict=True)
    panels[K].plot(x, y, "o-", ms=3, color=COLOURS[name], label=name)
    panels[K].set(xscale="log", title=f"K = {K}", xlabel="thousand images")
panels[3].set_ylabel("ELBO, nats")
panels[3].legend()
plt.show()

# %% [markdown]
# ## Their figure 3: log p(x)
#
# Monte Carlo EM takes part here, with three dimensions and 100 hidden units. It has no encoder,
# so we score all methods by decoder and prior alone. HMC chains give a proposal for each image,
# and importance sampling estimates log p(x) from 100 samples. A chain can stay in the wrong
# place. We therefore average p(x) over four chains.


# %% tags=["hide-input"]
def estimated(model, images):
    with seeded(1):
        four = images.repeat(4, 1, 1, 1)
        each = baselines.log_prob(model, four, 100, proposals).view(4, -1)
    return each.logsumexp(0) - math.log(4)


def marginal(images, model):
    parts = images[:scored], test[:scored]
    return [estimated(model, each) for each in parts]


marginals = {
    (len(images), name, seed): study(
        step, images, 3, 100, partial(marginal, images), (0.1, 0.4, 1), seed
    )[1]
    for images in (few, many)
    for name, step in methods.items()
    for seed in range(1 if name == "five updates" else seeds)
}

# %% mystnb={"figure": {"caption": "log p(x) of test images (lines) and training images (dashes) in nats, against thousands of images seen. On the right, the two runs of Monte Carlo EM are far apart. On the left, five updates overfit. Each line is one run.", "name": "fig-rivals-marginal"}, "image": {"alt": "Two panels, for a small and a large training set, each with curves of AEVB, wake-sleep and Monte Carlo EM with one and with five updates. In the right panel, AEVB ends highest, and one run of Monte Carlo EM lowest."}} tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, panels = plt.subplots(1, 2, figsize=(plots.WIDTH, 2.8))
for (size, name, seed), course in marginals.items():
    panel = panels[int(size == len(many))]
    x = [at for at, _ in course]
    for part, style in enumerate(("--", "o-")):
        y = [each[part].mean() for _, each in course]
        label = name if part and not seed else None
        panel.plot(
            x, y, style, ms=3, lw=1, color=COLOURS[name], label=label
        )
    panel.set(title=f"{size:,} images", xlabel="thousand images seen")
panels[0].set_ylabel("log p(x), nats")
panels[-1].legend()
plt.show()

# %% [markdown]
# **How good is the estimate?** With two dimensions, we can compare it with log p(x) from a grid
# of codes:


# %% tags=["hide-input"]
def plane(side, reach):
    line = torch.linspace(-reach, reach, side)
    return torch.cartesian_prod(line, line)


def exactly(model, images, side, reach):
    grid = plane(side, reach)
    with torch.no_grad():
        return baselines.grid_log_joint(model, images, grid).logsumexp(1)


pair = {}
for name in ("AEVB", "Monte Carlo EM"):
    model, _ = study(methods[name], few, 2, 100, bound, [])
    pair[name] = model
    grid = exactly(model, test[:scored], 181, 6)
    finer, wider = (
        exactly(model, test[:scored], *sizes) - grid
        for sizes in ((361, 6), (241, 8))
    )
    off = estimated(model, test[:scored]) - grid
    print(f"{name}: estimate - grid {off.mean():+.3f} nats on average,")
    print(f"  from {off.min():+.2f} to {off.max():+.2f} for one image;")
    print(f"  finer grid {finer.mean():+.4f}, wider {wider.mean():+.4f}")
    assert max(finer.mean().abs(), wider.mean().abs()) < 0.25

# %% [markdown]
# ## Exact EM
#
# With two dimensions, no sampling is needed. EM on a grid is old {cite}`bishop1998gtm`, but we
# found no comparison with AEVB. With one update per batch, it follows the gradient of log p(x)
# itself. We use 1,000 images of half the width and height. Their posteriors are wide enough for a
# grid of 41 × 41 codes in [−4, 4]².
#
# We compare exact EM with AEVB, and with Monte Carlo EM by one and by five proposals per update.
# Because HMC approximates draws from the posterior, we also train on codes *drawn from the grid's
# posterior*.

# %% tags=["hide-input"]
with seeded(0):
    halved = nn.functional.avg_pool2d(
        data.to_float(digits.train.images[:1000]), 2
    ).bernoulli()
grid = plane(41, 4)


def exact(model, x, which, state, optimizer):
    baselines.grid_em_step(model, x, grid, optimizer, updates=1)


def drawn(model, x, which, state, optimizer):
    with torch.no_grad():
        joint = baselines.grid_log_joint(model, x, grid)
    z = grid[Categorical(logits=joint).sample()]
    optimizer.zero_grad()
    (-baselines.log_joint(model, x, z).mean()).backward()
    optimizer.step()


contest = {
    "exact EM": exact,
    "codes drawn from the grid": drawn,
    "five proposals": partial(mcem, proposals=5),
    "Monte Carlo EM": mcem,
    "AEVB": methods["AEVB"],
}

# %% tags=["hide-input"]
ends, courses = {}, {}
for name, step in contest.items():
    for seed in range(1 if name == "five proposals" else seeds):
        ends[name, seed], courses[name, seed] = study(
            step,
            halved,
            2,
            100,
            partial(exactly, images=halved, side=61, reach=6),
            (0.1, 0.25, 0.5, 0.75, 1),
            seed,
            on_grid,
        )

# %% mystnb={"figure": {"caption": "log p(x) of the training images, from a grid of 61 \u00d7 61 codes in [\u22126, 6]\u00b2. On the right, minus exact EM with the same seed: AEVB falls behind in the second half. Each line is one run.", "name": "fig-rivals-exact"}, "image": {"alt": "Two panels. Left, rising curves, close together. Right, the same as distances from exact EM."}} tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, panels = plt.subplots(1, 2, figsize=(plots.WIDTH, 2.8))
shades = ("C3", "C5", "C4", "C2", "C0")
for (name, seed), course in courses.items():
    x = [at for at, _ in course]
    y = torch.stack([each.mean() for _, each in course])
    best = torch.stack(
        [each.mean() for _, each in courses["exact EM", seed]]
    )
    look = {"color": shades[list(contest).index(name)], "lw": 1, "ms": 3}
    panels[0].plot(x, y, "o-", **look)
    panels[1].plot(x, y - best, "o-", label=None if seed else name, **look)
for panel, title in zip(panels, ("nats", "less exact EM"), strict=True):
    panel.set(title=title, xlabel="thousand images seen")
panels[0].set_ylabel("log p(x), nats")
panels[1].legend(fontsize=7)
plt.show()

# %% [markdown]
# Is the grid fine and wide enough? We score each model again on a finer grid and on a wider one:

# %% tags=["hide-input"]
for name in contest:
    changes = [
        exactly(model, halved, *sizes) - courses[name, seed][-1][1]
        for sizes in ((121, 6), (81, 8))
        for (other, seed), model in ends.items()
        if other == name
    ]
    means = torch.stack([each.mean() for each in changes])
    least = min(each.min() for each in changes)
    most = max(each.max() for each in changes)
    print(f"{name}: by at most {means.abs().max():.4f} nats on average,")
    print(f"  from {least:+.2f} to {most:+.2f} for one image")
    assert means.abs().max() < 0.25

# %% [markdown]
# ## One posterior, three ways
#
# We take AEVB's model with two dimensions and whole images, and one test image.

# %% tags=["hide-input"]
flat, one, chains = pair["AEVB"], test[:1], 50
with seeded(0), torch.no_grad():
    codes = torch.randn(5000, 2)
    known = baselines.grid_log_joint(flat, one, codes)
    known = known - flat.prior().log_prob(codes).log_softmax(0)  # drawn so
    start = torch.multinomial(known[0].softmax(0), chains, replacement=True)
    target = partial(
        baselines.log_joint, flat, one.expand(chains, -1, -1, -1)
    )
    tuned, size, _ = baselines.hmc(target, codes[start], 100, 0.05)
    chain, _, accepted = baselines.hmc(
        target, tuned[-1], 40, size, target=None
    )
    dots, q = chain.flatten(0, 1), flat.posterior(one)
    centre, width = dots.mean(0), dots.std(0)
    x, y = (
        c + w * torch.linspace(-6, 6, 121)
        for c, w in zip(centre, width, strict=True)
    )
    window = torch.cartesian_prod(x, y)
    truth = baselines.grid_log_joint(flat, one, window)[0].softmax(0)

# %% mystnb={"figure": {"caption": "The posterior of one test image: HMC (dots) agrees with the grid (grey). The encoder's q (contours) misses its centre.", "name": "fig-rivals-posterior"}, "image": {"alt": "A grey cloud with dots of HMC on it, and the contours of the encoder's normal distribution."}} tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, panel = plt.subplots(figsize=(plots.WIDTH / 2, 2.6))
panel.pcolormesh(x, y, truth.view(121, 121).T, cmap="Greys")
panel.plot(*dots[::10].T, ".", ms=2, color="C2", label="HMC")
density = q.log_prob(window).exp().view(121, 121)
panel.contour(x, y, density.T, 4, colors="C0")
panel.set(xlabel="z₁", ylabel="z₂")
panel.legend()
plt.show()

# %% tags=["hide-input"]
mean = truth @ window
deviation = (truth @ (window - mean).square()).sqrt()
rows = {
    "grid": (mean, deviation),
    "HMC": (centre, width),
    "q": (q.mean[0], q.variance[0].sqrt()),
}
for name, (middle, spread) in rows.items():
    shown = ", ".join(
        f"{m:.3f} ± {s:.3f}" for m, s in zip(middle, spread, strict=True)
    )
    print(f"{name}: {shown}")
print(f"{accepted:.0%} of HMC's proposals accepted")

# %% [markdown]
# ## Verdict
#
# **The rule:** a method is ahead if, at the end, its mean log p(x) or bound is higher by more
# than two standard errors of the difference, over images and seeds together. Read "no difference"
# in the printout as "not decided".


# %% tags=["hide-input"]
def compare(title, first, second):
    """Each (seeds, images), with the same seeds and images."""
    gap = first - second
    by_seed, by_image = gap.mean(1), gap.mean(0)
    variance = by_image.var() / len(by_image)
    if len(gap) > 1:
        variance = variance + by_seed.var() / len(gap)
    error, mean = variance.sqrt().item(), gap.mean().item()
    verdict = "no difference"
    if abs(mean) > 2 * error:
        verdict = "ahead" if mean > 0 else "behind"
    shown = ", ".join(f"{each:+.2f}" for each in by_seed)
    print(f"{title}: {mean:+.2f} ± {error:.2f}, {verdict} ({shown})")


print("nats; in brackets each seed's mean\nbound, AEVB - wake-sleep")
for K in (3, 5, 10, 20, 200):
    pieces = [
        bounds[K, each][-1][1][None] for each in ("AEVB", "wake-sleep")
    ]
    compare(f"  K = {K}", *pieces)
for images in (few, many):
    print(f"log p(x), {len(images):,} images, test, AEVB - ...")
    for name in ("wake-sleep", "Monte Carlo EM", "five updates"):
        both = range(1 if name == "five updates" else seeds)
        pieces = [
            torch.stack(
                [
                    marginals[len(images), each, seed][-1][1][1]
                    for seed in both
                ]
            )
            for each in ("AEVB", name)
        ]
        compare(f"  {name}", *pieces)


# %% tags=["hide-input"]
def final(name, other):
    """Of both, the seeds that both have."""
    both = [seed for seed in range(seeds) if (other, seed) in courses]
    return [
        torch.stack([courses[each, seed][-1][1] for seed in both])
        for each in (name, other)
    ]


print("log p(x), training images, exact EM - ...")
for name in list(contest)[1:]:
    compare(f"  {name}", *final("exact EM", name))
print("Monte Carlo EM - ...")
for name in ("AEVB", "codes drawn from the grid", "five proposals"):
    compare(f"  {name}", *final("Monte Carlo EM", name))

# %% [markdown]
# In the {doc}`ledger </book/verdict/claims>`, B5 is not decided. Each condition has one value or
# two, and the intervals of two contain zero:


# %% tags=["hide-input"]
def ahead(first, second):
    """Nats, for each seed, on the large training set."""
    scores = (
        torch.stack(
            [
                marginals[len(many), name, seed][-1][1][1].mean()
                for seed in range(seeds)
            ]
        )
        for name in (first, second)
    )
    return torch.sub(*scores)


gaps = [
    (bounds[K, "AEVB"][-1][1] - bounds[K, "wake-sleep"][-1][1])
    .mean()
    .item()
    for K in (3, 5, 10, 20, 200)
]
claims.judge(
    "B5",
    f"{digits.name}, binary pixels, {seen:,} images a training",
    bound=min(gaps),
    sleep=ahead("AEVB", "wake-sleep"),
    em=ahead("AEVB", "Monte Carlo EM"),
)

# %% [markdown]
# The published numbers show:
#
# **In these runs, AEVB ends ahead of wake-sleep:** by 5.50 to 16.52 nats of the bound for K up to
# 20, by 134.70 for K = 200, and by about four nats of log p(x). Two seeds are too few to decide
# this. And AEVB isn't ahead throughout: with 50,000 training images, wake-sleep is higher in the
# figure after 200,000 images seen.
#
# **AEVB against Monte Carlo EM isn't decided.** From 1,000 images, the difference is 0.09 ± 2.29
# nats. From 50,000, AEVB is ahead with both seeds, by 17.93 ± 10.56. With five updates, Monte
# Carlo EM fits the small set best, but is 6.90 nats behind on test images.
#
# **On its 1,000 training images, exact EM is first, but AEVB is less than a nat behind** (0.96 ±
# 0.09, and growing). One drawn code instead of all costs 0.16 ± 0.05, a sixth of it. The rest may
# come from the encoder, but we didn't measure how far its q is from the posterior on average.
#
# | limit | what it could change |
# |---|---|
# | Half a million images seen (0.3 million on the grid). Kingma and Welling's runs see up to 100 million. | Every order at the end of training. |
# | One seed for the bound, "five updates" and "five proposals", two for the rest. | The lead over Monte Carlo EM. Their ± lacks the variation between seeds where there is one. |
# | One learning rate for all. Kingma and Welling choose from three. | Wake-sleep's loss, above all its fall with K = 200, which their figure doesn't show. |
# | With 50,000 images, each code of Monte Carlo EM starts at random and moves ten times. | Its loss there. Kingma and Welling show no such curve. |
# | We count images, not time. An update of Monte Carlo EM passes the decoder 12 times (56 with five proposals), AEVB once. | In equal time, Monte Carlo EM would be further behind. |
# | The estimate of log p(x) is 0.125 nats too low for AEVB with K = 2. We didn't check K = 3. | Hardly the four nats. |
