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
# # Is one code per image enough?
#
# **Training draws one random code for each image. Is its gradient too noisy?** Hardly. The
# codes cause 32% of the variance of a minibatch's gradient, and the choice of images causes the
# rest. After ten epochs, 25 codes for each image gain 0.9 ± 1.0 nats of test ELBO over one. But
# one code per image is 19 nats ahead of 25 codes that decode two and a half times as much.
#
# {doc}`/book/idea/reparameterization` derives the two gradients, and compares them on small
# digits. This page measures them on MNIST, with two latent dimensions and batches of 128, as
# in the paper. We fixed the rules and the seeds before we trained anything for them.

# %% tags=["parameters", "hide-input"]
import os

# "paper": MNIST; "quick": the digits that come with scikit-learn
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
epochs: int = 10 if "paper" in profile else 2  # of the long trainings
seeds: list = [10, 11, 12] if "paper" in profile else [10]  # of each
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-cell"]
import matplotlib.pyplot as plt
import torch

from book.experiments import gradients
from book.machinery import claims
from vaelib import TrainConfig, data, objective, plots, runs

digits = data.load("mnist" if profile == "paper" else "digits", data_folder)
count, test_count = len(digits.train), len(digits.test)
print(f"{digits.name}: {count:,} training and {test_count:,} test images")

# %% [markdown]
# Existing runs are loaded, and missing ones are trained here. With 25 codes for each image, an
# epoch of MNIST takes minutes on a CPU.


# %%
def trained(seed, epochs=epochs, **options):
    config = TrainConfig(2, epochs, seed)
    return runs.train(digits, config, runs_folder, **options)


options = {"objective": objective.MeanELBO(25)}
one = [trained(seed) for seed in seeds]
several = [trained(seed, **options) for seed in seeds]
early = [trained(seed, epochs=1) for seed in seeds]

# %% [markdown]
# ## How noisy is each gradient?
#
# For 64 test images, we draw 256 codes each. For each draw, we compute the gradient of $\log
# p(x \mid z)$ in the encoder's outputs in two ways: by the path through $z$
# (reparameterized), and by the score of $q$ (naive, without a baseline). The figure compares
# their variances.

# %% mystnb={"figure": {"caption": "The naive gradient is thousands of times as noisy. The axis shows its variance, divided by the variance of the path derivative. Each point is a seed. The dashed line is the bound of claim C3: from there on, even 25 naive draws are noisier than one path derivative.", "name": "fig-gradient-noise"}, "image": {"alt": "Four rows of points, for means and log-variances after the first and after the last epoch, all far to the right of a dashed line at 25."}} tags=["hide-input"]
once = torch.ones(1, gradients.DRAWS_EACH)
rows = {}
for stage, trainings in (("first", early), ("last", one)):
    found = torch.cat(
        [
            gradients.ratios(
                run.model(), digits.test.images, once, run.config.seed
            )
            for run in trainings
        ]
    )
    rows[f"means, {stage} epoch"] = found[:, 0].tolist()
    rows[f"log-variances, {stage} epoch"] = found[:, 1].tolist()
with plt.rc_context(plots.STYLE):
    figure, panel = plt.subplots(figsize=(plots.WIDTH, 1.8))
for number, values in enumerate(rows.values()):
    panel.plot(values, [-number] * len(values), "o", color="C0", ms=5)
panel.axvline(25, color="C3", ls="--", lw=1)
panel.set_yticks([-each for each in range(len(rows))], [*rows])
panel.set(xscale="log", xlim=(10, None), xlabel="times the variance")
plt.close(figure)
figure

# %% [markdown]
# The paper doesn't define "usable". We ask for a ratio above 25, because 25 codes per image are
# the most that we train with. **C3 holds.**

# %% tags=["hide-input"]
claims.published("C3")

# %% [markdown]
# ## Do more codes per image help?
#
# We train the same models with 25 codes for each image instead of one. The figure compares
# them after equal passes over the data, and after equal numbers of decoded codes.

# %% mystnb={"figure": {"caption": "After equal epochs, the seeds overlap. For each decoded code, one code per image learns far more. Test ELBO with one and with 25 codes, three seeds each.", "name": "fig-gradient-codes"}, "image": {"alt": "Two plots of the test ELBO with one and with 25 codes per image, against epochs and against decoded codes."}} tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, panels = plt.subplots(
        1, 2, figsize=(plots.WIDTH, 2.2), sharey=True
    )
for codes, color, trainings in ((1, "C0", one), (25, "C1", several)):
    for run in trainings:
        course = [line["test_elbo"] for line in run.metrics]
        for panel, cost in zip(panels, (1, codes * count), strict=True):
            at = [cost * (1 + each) for each in range(len(course))]
            panel.plot(at, course, color=color, lw=1)
    elbo = [line["test_elbo"] for line in trainings[0].metrics]
    many = codes > 1
    panels[1].annotate(
        f"{codes} codes" if many else "one code per image",
        (codes * count * (len(elbo) if many else 1), elbo[-many]),
        (-12 if many else 8, -4),
        textcoords="offset points",
        ha="right" if many else "left",
        color=color,
    )
panels[0].set(xlabel="epochs", ylabel="test ELBO, nats per image")
panels[1].set(xlabel="decoded codes", xscale="log")
plt.close(figure)
figure

# %% [markdown]
# By "enough" we mean three things. 25 codes must gain less than one nat after equal passes. One code
# must be ahead for the same number of decoded codes. (We compare ten epochs with one code to one
# epoch with 25, which decodes two and a half times as often.) And the codes must cause less than
# half of a gradient's variance: we compare minibatches with the same images and other codes to
# minibatches with other images.
#
# **C1 is not decided.** The last two conditions are met. The gain of 25 codes differs between
# seeds by two nats, so three seeds don't show whether it is below one.

# %% tags=["hide-input"]
claims.published("C1")

# %% [markdown]
# ## The verdict
#
# **The naive gradient is at least 5,323 times as noisy** (4,266 to 6,381), the least of four
# ratios. With a baseline, it can be usable ({doc}`/book/idea/reparameterization`).
#
# **One code per image learns most for each decoded code.** It is 19 nats ahead, although 25 codes
# decode two and a half times as much.
#
# **25 codes gain between −1.7 and 3.4 nats after ten epochs,** so one nat is possible.
#
# | limit | what it could change |
# |---|---|
# | Two latent dimensions. | The naive gradient gets noisier with more. |
# | The rule for "usable" is ours. | With a baseline, the score function can train the model, too. |
# | Ten epochs. | A gain of more codes can grow or shrink with longer training. |
