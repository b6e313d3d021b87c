# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
#     formats: ipynb,py:percent
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
# # What blur is: the likelihood
#
# **How much of a VAE's blur comes from its likelihood?** The paper's decoder takes each
# grey value for the probability of white, finds its faces too smooth, and
# names "Gaussian or mixed Gaussian" outputs as future work. Here are six
# likelihoods with the same networks, data and training: what they do to the
# numbers, what they do to the looks, and whether the two agree.

# %% tags=["parameters"]
import os

# "paper": MNIST and CelebA; "quick": the digits that come with scikit-learn
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
epochs: int = 5 if "paper" in profile else 3
seeds: int = 2 if "paper" in profile else 1  # of digits; faces have one
judged: int = 2000 if "paper" in profile else 300  # test images, samples
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-input"]
import math
from functools import partial

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from scipy.stats import spearmanr
from tabulate import tabulate

from vaelib import (
    Settings,
    data,
    evaluation,
    features,
    figures,
    likelihoods,
    models,
    objective,
    train,
)
from vaelib.book import profiles
from vaelib.seeding import seeded

digits = data.load(profiles.load(profile, "mnist").dataset, data_folder)
studied = {"digits": (digits, models.mlp, 16, seeds)}
if "paper" in profile:  # convolutions take too long for a quick look
    photos = data.load("celeba", data_folder)
    studied["faces"] = photos, models.conv, 64, 1

# %% [markdown]
# ## Six likelihoods
#
# - **Bernoulli**, the paper's, on grey values;
# - **continuous Bernoulli** {cite}`loaiza2019continuous`, the same divided by what
#   makes it a density;
# - **Gaussian, σ = 1**: half the squared error, the loss of many tutorials;
# - **Gaussian, σ learned**: one number for all pixels and images;
# - **Gaussian, best σ**: the one that fits each batch best, the σ-VAE
#   {cite}`rybkin2021simple`;
# - **logistic mixture**: five logistic distributions for each pixel value, rounded to the
#   256 grey levels {cite}`salimans2017pixelcnn`.
#
# All but one are in `vaelib.likelihoods`:


# %%
class UnitGaussian(likelihoods.Gaussian):
    def __init__(self, mean):
        super().__init__(mean)
        self.log_sigma.data.zero_()
        self.log_sigma.requires_grad_(False)


# %% [markdown]
# ## Which of them have bits
#
# Bits per dimension are a code's length: −log₂ of the *probability* of an image of 256
# grey levels, over its number of values. Only the logistic mixture gives such a
# probability.
#
# **A density** gives one after *dequantization*: a level k becomes $(k + u)/256$, u
# uniform in [0, 1). The mean log density of such images, less $D \log 256$, is at most
# the log probability that the model gives the level's whole interval
# {cite}`theis2016note`. So the four densities are trained and scored on
# dequantized values, and have bits (at most so many, as all are from the ELBO).
#
# **The Bernoulli likelihood has none.** On grey values it is no density; its integral over
# x from 0 to 1 depends on p, and never exceeds a half:

# %%
x = torch.linspace(0, 1, 10_001)
for p in (0.001, 0.1, 0.5):
    log_density = x * math.log(p) + (1 - x) * math.log(1 - p)
    mass = torch.trapezoid(log_density.exp(), x).item()
    print(f"p = {p}: {mass:.3f}")
    assert mass < 0.5001

# %% [markdown]
# And torch's continuous Bernoulli is not quite one where it is surest: in single precision it
# holds p above 10⁻⁷ when it normalises. So it can only understate a density, and its bits stay an upper bound:

# %%
zero = torch.zeros(())
for logit in (-10.0, -100.0):
    pixel = torch.distributions.ContinuousBernoulli(
        logits=torch.tensor(logit)
    )
    found = pixel.log_prob(zero).exp().item()
    exact = -logit / -math.expm1(logit)  # at x = 0
    print(f"logit {logit:.0f}: {found:.1f}, exactly {exact:.1f}")
    assert found < exact * 1.001


# %%
def dequantized(x):
    """Grey levels k / 255 as (k + u) / 256."""
    return (255 * x + torch.rand_like(x)) / 256


def of_dequantized(model, x, progress):
    return objective.negative_elbo(model, dequantized(x), progress)


BERNOULLI, MIXTURE = "Bernoulli", "logistic mixture"
decoders = {
    BERNOULLI: likelihoods.Bernoulli,
    "continuous Bernoulli": likelihoods.ContinuousBernoulli,
    "Gaussian, σ = 1": UnitGaussian,
    "Gaussian, σ learned": likelihoods.Gaussian,
    "Gaussian, best σ": likelihoods.OptimalGaussian,
    MIXTURE: likelihoods.DiscretizedLogisticMixture,
}

# %% [markdown]
# **Two rules,** written down before a model was trained.
#
# 1. *Likelihood and looks disagree* if the likelihood with the fewest bits is another
#    one than that whose samples have the smallest Fréchet distance from test
#    images, in every training.
# 2. *Blur is a price*: a likelihood says how many nats a wrong pixel costs, and so how many
#    nats of code (KL) are worth paying. That is the cause if reconstructions are the sharper the
#    higher the KL: a rank correlation over the models of at least 0.8.
#
# ## The trainings

# %% tags=["hide-input"]
faces_only = (BERNOULLI, "Gaussian, σ = 1", "Gaussian, best σ", MIXTURE)
trained, tests = {}, {}
for kind, (dataset, network, K, count) in studied.items():
    tests[kind] = dataset.test.images[
        :: max(1, len(dataset.test) // judged)
    ]
    tests[kind] = tests[kind][:judged]
    # each run ends with an evaluation, here of few images: see below for all
    few = data.Split(dataset.test.images[:100], dataset.test.labels[:100])
    part = data.Dataset(
        f"{dataset.name}-likelihoods", dataset.train, few, dataset.names
    )
    for name in decoders if kind == "digits" else faces_only:
        builder = partial(network, likelihood=decoders[name])
        aim = (
            objective.negative_elbo
            if name in (BERNOULLI, MIXTURE)
            else of_dequantized
        )
        trained[kind, name] = [
            train(
                part,
                Settings(K, epochs, seed),
                runs_folder,
                builder=builder,
                objective=aim,
            ).model()
            for seed in range(count)
        ]
    print(
        f"{kind}: {len(dataset.train):,} training images, {epochs} epochs, "
        f"K = {K}, seeds: {count}; {len(tests[kind]):,} test images judged"
    )
