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
# # Beside everybody's numbers
#
# **How good is a VAE like ours beside those of the literature?** The paper's nats
# cannot tell: they are of grey pixels under a Bernoulli likelihood, which is no
# density of grey pixels, so nobody else's are comparable. Much of the field has agreed on
# another task: *binary* pixels, drawn afresh with the grey values for
# probabilities, and a model of Burda, Grosse and Salakhutdinov
# {cite}`burda2016importance`, 784 - 200 - 200 - 50. This page trains that model
# with the package, as in {doc}`/book/own/bend`, and puts its numbers beside
# theirs.

# %% tags=["parameters"]
import os

# "paper": MNIST; "quick": the digits that come with scikit-learn
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
epochs: int = 400 if "paper" in profile else 6  # of the VAE
iwae_epochs: int = 100 if "paper" in profile else 6  # of the IWAE
batch_size: int = 64  # images in a step
samples: int = 5000 if "paper" in profile else 200  # for log p(x)
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-input"]
import csv
import math
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from myst_nb import glue
from torch.optim.lr_scheduler import LambdaLR

from vaelib import (
    TrainConfig,
    burda,
    data,
    evaluation,
    objective,
    plots,
    runs,
    train,
)
from vaelib.binarization import binarized

digits = data.load("mnist" if profile == "paper" else "digits", data_folder)
count, test_count = len(digits.train), len(digits.test)
print(f"{digits.name}: {count:,} training and {test_count:,} test images")

# %% [markdown]
# ## Their model, their schedule
#
# Two hidden layers of 200 units with tanh in each network, 50 latent dimensions,
# Glorot's weights (but for the layers that give the posterior's mean and variance, which have torch's), and, as in their code, output biases that start at the
# pixels' means.

# %%
means = data.to_float(digits.train.images).mean(0)


def model(image_shape, latent_dim):
    return burda.build(image_shape, latent_dim, means)


# %% [markdown]
# They train for 3,280 epochs: $3^i$ of them with a step of
# $0.001 \cdot 10^{-i/7}$, for $i$ from 0 to 7. We keep these proportions in fewer
# epochs, as far as whole ones can: of the first stages some fall out.

# %%
assert sum(3**i for i in range(8)) == 3280
assert [burda.rate(e, 3280) for e in (0, 1, 3, 4)] == [
    10 ** (-i / 7) for i in (0, 1, 1, 2)
]

# %% [markdown]
# ## Two trainings
#
# One maximises the ELBO from one sample of each posterior, as the paper does. The
# other maximises the importance-weighted bound from five (an IWAE). From time to
# time, log p(x) of 200 test images is estimated from 100 samples, to see what a
# longer training would give.

# %%
root = Path(runs_folder or runs.default_root())
some = digits.test.images[:: max(1, test_count // 200)][:200]


def watch(course, epochs, model, line):
    if line["epoch"] % max(1, epochs // 30) == 0:
        estimate, _ = evaluation.log_prob(model, some, 100)
        with course.open("a", newline="") as file:
            csv.writer(file).writerow(
                [line["epoch"], -estimate.mean().item()]
            )


def study(name, epochs, aim):
    course = root / f"literature-{digits.name}-{name}-e{epochs}.csv"
    root.mkdir(parents=True, exist_ok=True)
    run = train(
        digits,
        TrainConfig(50, epochs, batch_size=batch_size),
        root,
        builder=partial(binarized, builder=model),
        objective=aim,
        schedule=partial(
            LambdaLR, lr_lambda=partial(burda.rate, epochs=epochs)
        ),
        on_epoch=partial(watch, course, epochs),
    )
    with course.open(newline="") as file:
        return run, [tuple(map(float, row)) for row in csv.reader(file)]


vae, vae_course = study("vae", epochs, objective.negative_elbo)
iwae, iwae_course = study(
    "iwae5", iwae_epochs, objective.ImportanceWeighted(5)
)

# %% [markdown]
# Before these trainings were started, we asked for at most 87.5 nats of the VAE
# and 86.3 of the IWAE: within a nat of the literature, after an eighth of its
# epochs and after a thirtieth.
#
# ## Beside the known numbers
#
# As in the literature: $-\log p(x)$ from 5,000 samples of each posterior, a mean
# over all test images, and a latent dimension counts as active if the variance of
# its posterior mean is above 0.01. Each test image is binarized once, with a
# noise that depends on the image alone, so that both models see the same pixels.


# %%
def score(run):
    model = run.model()
    estimate, _ = evaluation.log_prob(model, digits.test.images, samples)
    means, _ = evaluation.encode(model, digits.test.images)
    return (
        -estimate.mean().item(),
        estimate.std().item() / math.sqrt(test_count),
        evaluation.active_units(means),
        -run.evaluation["test_elbo"],
    )


scores = {"VAE": score(vae), "IWAE": score(iwae)}
for name, (nats, error, units, bound) in scores.items():
    print(
        f"{name}: -log p {nats:.2f} (± {error:.2f}, over test images), "
        f"-ELBO {bound:.2f}, {units} active units"
    )

# %% tags=["hide-cell"]
for name, (nats, _, units, _) in scores.items():
    glue(f"literature_{name}", f"{nats:.2f} ({units})", display=False)
glue("literature_epochs", f"{epochs}, {iwae_epochs}", display=False)

# %% [markdown]
# | nats per image, in brackets active units | epochs | VAE, one sample | IWAE, five |
# |---|---|---|---|
# | Burda et al. {cite}`burda2016importance`, table 1 | 3,280 | 86.76 (19) | 85.54 (22) |
# | [nbip/IWAE](https://github.com/nbip/IWAE), 100 latent dimensions | 3,280 | 86.35 | 85.18 |
# | the same, 50, biases that start at zero | 3,280 | 87.75 | 85.50 |
# | [yoonholee/pytorch-vae](https://github.com/yoonholee/pytorch-vae) | 3,280 | 87.01 | 85.18 |
# | [xqding](https://github.com/xqding/Importance_Weighted_Autoencoders), batches of 1,000, constant step | 5,000 | 87.78 | 85.46 |
# | [abdulfatir](https://github.com/abdulfatir/IWAE-tensorflow), ReLU, constant step | | 90.26 | 88.49 |
# | **this page** | {glue:text}`literature_epochs` | {glue:text}`literature_VAE` | {glue:text}`literature_IWAE` |
#
# Each is of one training, as far as is said, on MNIST binarized afresh. The page's own
# row is of small digits when it was built with the profile "quick"; then it can be
# compared with nothing. Its two numbers are of trainings of different lengths, so
# which is lower says nothing of the two objectives. Burda et al. take batches of
# 20 and 10⁻⁴ for Adam's ε; this page takes batches of 64 and torch's 10⁻⁸.
#
# ## What a longer training would give
#
# The estimate during the training, of 200 test images from 100 samples. So few
# samples put it above the number of the same images from many, and that of the IWAE, whose posteriors are the worse proposals, by more. At equal
# epochs the IWAE is also farther down its schedule, which ends sooner. So that the curves lie on each other says nothing of the two objectives
# ({doc}`bounds` compares them); what tells is the slope of each.

# %% mystnb={"figure": {"caption": "The estimate of -log p(x) of 200 test images during both trainings, against the epochs, on a logarithmic axis.", "name": "fig-literature-course"}, "image": {"alt": "Two falling curves that flatten towards their ends; they lie on each other, and that of the VAE goes on for longer."}}
with plt.rc_context(plots.STYLE):
    figure, panel = plt.subplots(figsize=(plots.WIDTH, 2.6))
for name, course in (("VAE", vae_course), ("IWAE", iwae_course)):
    panel.plot(*zip(*course, strict=True), "o-", markersize=3, label=name)
panel.set(xlabel="epochs", ylabel="-log p(x), nats", xscale="log")
panel.legend()
plt.show()

# %%
for name, course in (("VAE", vae_course), ("IWAE", iwae_course)):
    half = len(course) // 2
    gained = course[half][1] - course[-1][1]
    print(
        f"{name}: {gained:.2f} nats gained from epoch {course[half][0]:.0f} "
        f"to {course[-1][0]:.0f}"
    )

# %% [markdown]
# ## What was asked

# %%
for name, bound in (("VAE", 87.5), ("IWAE", 86.3)):
    nats, *_ = scores[name]
    verdict = "yes" if nats <= bound else "no"
    print(f"{name}: at most {bound}, found {nats:.2f}: {verdict}")
theirs = 3280 * (60_000 // 20)
for name, length in (("VAE", epochs), ("IWAE", iwae_epochs)):
    updates = length * -(-count // batch_size)
    print(
        f"{name}: {updates:,} updates; theirs, in batches of 20: {theirs:,}"
    )

# %% [markdown]
# Of the published numbers, with the profile "paper": **both bounds are missed**, by two nats and by six. Only one row of the table is worse than our VAE,
# and none than our IWAE. What smaller batches and one cosine make of it, {doc}`bounds` shows.
#
# Two things are suspects. The training is short: theirs sees eight times as many images or more, in many times the updates, two
# thirds of them with the smallest step, and the curves above have not come to rest. And the schedule: kept in
# proportion, its large steps shrink too. With them, steps of at least half the first last for 13 epochs, here for two and for one, as the schedule moves between epochs.
# Updates alone do not decide: xqding's 5,000 epochs in batches of 1,000 with a constant step are fewer
# updates than 400 in batches of 64, and end lower.
#
# **A limit.** One seed each, and fewer epochs than everybody else; what the seeds would spread is not known from here. In Burda et al.'s own code, Adam's β₁ is 0.99
# (here 0.9), the KL is that of the sample (here in closed form, which has less noise), active units are counted on 500 training images (here on all test images), 400 training images
# are held out (so that theirs are 9,774,400 updates, and not quite what stands above), batches come in one order, and test images are drawn afresh at each look (here once). The literature's numbers are quoted from
# the paper and from the repositories' own pages, not computed again.
