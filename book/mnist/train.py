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
# # Train on handwritten digits
#
# **What does the paper's fully connected VAE make of handwritten digits, when
# its code has only K numbers?** This page trains one such model, or loads it if
# it has been trained before, and looks at it from four sides: how it learned,
# what it is worth in nats, how well it copies, and what it invents.
#
# The next cell holds the page's parameters. To try another K, change
# `latent_dim` there, or run
# `.venv/bin/papermill book/mnist/train.ipynb out.ipynb -p latent_dim 3`. A training that
# is stopped goes on from its last checkpoint, some seconds back, when the page
# is run again. Without a folder
# of data and without a network, take the profile "quick": it uses the small
# digits that come with scikit-learn. On two CPU cores ten epochs of MNIST take half
# a minute or a minute, and the evaluation that follows as long again.

# %% tags=["parameters"]
import os

# "paper": MNIST; "quick": the digits that come with scikit-learn
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
dataset: str = None  # another data set than the profile's
latent_dim: int = 2  # K
epochs: int = None  # another number than the profile's
seed: int = 0  # of weights, order and noise
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-input"]
import torch
from IPython.display import Markdown
from tabulate import tabulate

from book.machinery import profiles
from vaelib import TrainConfig, data, evaluation, plots, train
from vaelib.objective import reparameterize

plan = profiles.load(profile, "mnist")
if epochs is None:
    epochs = plan.short.epochs
settings = TrainConfig(
    latent_dim, epochs, seed, plan.batch_size
)  # wrong ones fail before data load
print(f"K = {latent_dim}, {settings.epochs} epochs, seed {seed}")
digits = data.load(dataset or plan.dataset, data_folder)
count, test_count = len(digits.train), len(digits.test)
print(f"{digits.name}: {count:,} training and {test_count:,} test images")

# %% [markdown]
# ## The training
#
# The settings are the authors': Adam with a step of 0.001, batches of 128
# images, one posterior sample for each image. Their objective is the evidence
# lower bound of Kingma and Welling {cite}`kingma2022auto`. For each image $x$,
#
# $$
# \mathcal{L}(x) = \mathbb{E}_{z \sim q(z \mid x)}\left[\log p(x \mid z)\right]
#   - \mathrm{KL}\left(q(z \mid x) \,\|\, p(z)\right),
# $$
#
# the log-likelihood of its pixels under the decoder, summed over the pixels,
# less the divergence of its posterior $q(z \mid x)$ from the prior
# $p(z) = \mathcal{N}(0, I)$, summed over the $K$ dimensions of the code. Both
# are in nats; training maximises their difference, averaged over the batch.
#
# While it trains, a bar shows how far it has come, and the loss. **No bar: the run
# was trained before, and has only been loaded.** If you stop it (the square
# above the notebook), run the cell again: it goes on from its last checkpoint.

# %%
run = train(digits, settings, runs_folder)
model = run.model()
environment = run.record["environment"]
print(f"{run.folder.name}, trained on: {environment['device']}")

# %% [markdown]
# The encoder is a stack of fully connected layers, 784 - 512 - 512, with two
# heads for the mean and the log-variance of the code's posterior; the decoder
# is its mirror image, K - 512 - 512 - 784. Counting weights and biases by hand
# gives as many parameters as torch does:


# %%
def layer(inputs, outputs):
    return (inputs + 1) * outputs  # the 1 is the bias


K = latent_dim
encoder = layer(784, 512) + layer(512, 512) + 2 * layer(512, K)
decoder = layer(K, 512) + layer(512, 512) + layer(512, 784)
assert sum(each.numel() for each in model.parameters()) == encoder + decoder
print(f"{encoder:,} parameters in the encoder, {decoder:,} in the decoder")

# %% [markdown]
# ## How it learned
#
# The training curve (dashed) is the average over an epoch while the weights were
# moving, the test curve is taken at the end of the epoch. Early on the first
# therefore lies below the second.

# %% mystnb={"figure": {"caption": "The bound and its two terms over the epochs, in nats per image.", "name": "fig-train-curves"}, "image": {"alt": "Three line plots over the epochs: ELBO, log p(x | z) and KL, on training and test images."}}
plots.training(run.metrics)

# %% [markdown]
# ## What it is worth
#
# The ELBO is a lower bound of $\log p(x)$. The importance-weighted estimate
# {cite}`burda2016importance` is one as well, but a tighter one, and it tightens
# with the number of samples, 200 for each image here. (The pixels are grey, not black and white, so that
# these nats compare models with each other; they are no log-likelihood of the
# data {cite}`loaiza2019continuous`.) All test images, in nats per image:

# %%
figure = run.evaluation
table = [
    ("ELBO", figure["test_elbo"]),
    ("its standard error over the images", figure["elbo_standard_error"]),
    ("reconstruction term", figure["test_reconstruction"]),
    ("KL from the prior", figure["test_kl"]),
    ("log p(x), at least", figure["log_prob"]),
    ("active units", figure["active_units"]),
    ("squared error per pixel", figure["reconstruction_error"]),
]
headers = ["on all test images", "nats per image, or as named"]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".4g"))

# %% [markdown]
# How many samples does the estimate need? Each row is of the same 200 test images (16
# in the quick profile).
# As long as it climbs it is a bound and no more: true values are higher. Its Monte
# Carlo error tells only how it would scatter with other samples, and too little
# of that where a few weights dominate.

# %%
images = digits.test.images[: 200 if "paper" in profile else 16]
table = []
for samples in (10, 50, 250, 1000):
    estimate, error = evaluation.log_prob(model, images, samples)
    error = error.square().sum().sqrt() / len(images)
    table.append((samples, estimate.mean().item(), error.item()))
assert table[0][1] < table[-1][1]
headers = ["samples", "log p(x)", "Monte Carlo error"]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".3f"))

# %% [markdown]
# ## How well it copies
#
# Each code is *sampled* from the posterior of its image, then decoded. The
# decoder answers with the probability of every pixel, and these probabilities
# are what is shown: where it is not sure, it is grey.

# %%
originals = digits.test.images[:16]
with torch.inference_mode():
    posterior = model.encode(data.to_float(originals))
    generator = torch.Generator().manual_seed(0)
    copies = model.decode(reparameterize(*posterior, generator))

# %% mystnb={"figure": {"caption": "The first sixteen test images, and their reconstructions from a sampled code.", "name": "fig-train-copies"}, "image": {"alt": "Two rows of sixteen digits: test images above, their reconstructions below."}}
plots.rows({"test images": originals, "reconstructions": copies})

# %% [markdown]
# ## What it invents
#
# Codes drawn from the prior $\mathcal{N}(0, I)$, which no image was encoded into,
# and what the decoder makes of them.

# %% mystnb={"figure": {"caption": "Images decoded from codes of the prior.", "name": "fig-train-samples"}, "image": {"alt": "Four rows of sixteen decoded digits."}}
invented = model.sample(64, seed=0)
plots.panels({f"K = {latent_dim}": invented}, columns=16, panels_in_row=1)
