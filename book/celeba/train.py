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
# # Train on faces
#
# **What does the paper's convolutional VAE make of photographs of faces?** This
# page trains one such model, or loads it if it has been trained before, and
# shows how it learned, whether it overfits, and what it is worth in nats. What
# it copies and invents has pages of its own.
#
# The next cell holds the page's parameters. To try another K, change
# `latent_dim` there, or run
# `.venv/bin/papermill book/celeba/train.ipynb out.ipynb -p latent_dim 24`. A training that
# is stopped goes on from its last checkpoint, some seconds back, when the page
# is run again. The profile "paper" reads CelebA {cite}`liu2015deep`, all of it
# or any part, from the folder `celeba` in the data folder, and the first time decodes
# the photographs, which a bar shows; the profile "quick"
# needs no data: it draws faces of its own. On two CPU cores, thirty epochs of
# 8,100 photographs take about ten minutes.

# %% tags=["parameters"]
import os

# "paper": CelebA; "quick": faces drawn by the package itself
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
dataset: str = None  # another data set than the profile's
latent_dim: int = 64  # K
epochs: int = None  # another number than the profile's
seed: int = 0  # of weights, order and noise
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-input"]
from itertools import pairwise

import torch
from IPython.display import Markdown
from tabulate import tabulate

from book.machinery import profiles
from vaelib import TrainConfig, data, evaluation, models, plots, train

plan = profiles.load(profile, "celeba")
if epochs is None:
    epochs = plan.short.epochs
settings = TrainConfig(
    latent_dim, epochs, seed, plan.batch_size
)  # wrong ones fail before data load
print(f"K = {latent_dim}, {settings.epochs} epochs, seed {seed}")
photos = data.load(dataset or plan.dataset, data_folder)
count, test_count = len(photos.train), len(photos.test)
print(f"{photos.name}: {count:,} training and {test_count:,} test images")

# %% [markdown]
# The whole of CelebA has 162,770 training and 19,962 test images. If fewer are
# named above, every number on this page is about that part of it.
#
# ## The data
#
# The paper crops each photograph of 178 x 218 pixels to its middle (96 x 128, from
# 41 pixels right and 60 down) and halves it: 48 pixels wide, 64 high, three
# colours, 9,216 values from 0 to 1.

# %% mystnb={"figure": {"caption": "The first twelve training images.", "name": "fig-celeba-data"}, "image": {"alt": "A row of twelve faces."}}
assert photos.image_shape == (3, 64, 48)
plots.panels({"": photos.train.images[:12]}, columns=12, panels_in_row=1)

# %% [markdown]
# ## The model
#
# Four convolutions (kernel 4, stride 2, padding 1), each followed by batch
# normalisation and a ReLU, halve height and width and end with 256 channels. Two
# linear heads read the posterior's mean and log-variance off them. The decoder
# mirrors the encoder with transposed convolutions, and ends in a sigmoid. Here
# is the size of what leaves each layer that changes it:

# %%
small = models.conv(photos.image_shape, latent_dim).eval()
table, x = [], torch.zeros(1, *photos.image_shape)
z = torch.zeros(1, latent_dim)
for part, tensor in (
    (small.encoder.features, x),
    (small.decoder.logits, z),
):
    for layer in part:
        before, tensor = tensor.shape, layer(tensor)
        if tensor.shape != before:
            size = " x ".join(map(str, tensor.shape[1:]))
            table.append([type(layer).__name__, size])
assert tensor.shape == x.shape
Markdown(tabulate(table, ["layer", "what leaves it"], tablefmt="github"))

# %% [markdown]
# Counted by hand, with a bias in every layer, and two numbers for each channel
# that is normalised:


# %%
def convolution(inputs, outputs):
    return 4 * 4 * inputs * outputs + outputs


sizes = (3, 32, 64, 128, 256)
pairs = list(pairwise(sizes))
inside = 256 * 4 * 3  # what the last convolution hands to the heads
encoder = sum(convolution(*pair) + 2 * pair[1] for pair in pairs)
encoder += 2 * (inside + 1) * latent_dim
decoder = (latent_dim + 1) * inside
decoder += sum(convolution(after, before) for before, after in pairs)
parameters = sum(each.numel() for each in small.parameters())
assert parameters == encoder + decoder
print(f"{encoder:,} parameters in the encoder, {decoder:,} in the decoder")

# %% [markdown]
# (The authors' scripts have twice as many channels in each block, and no
# normalisation in the last. This is the model that their text describes.)
#
# ## The training
#
# The objective is that of the digits, and so are the settings: Adam with a step
# of 0.001, batches of 128 (of 32 in the quick profile, which has few images), one
# posterior sample for each image. While training,
# batch normalisation uses the statistics of the batch; everything that follows
# uses the running averages that it has collected.
#
# While it trains, a bar shows how far it has come, and the loss. **No bar: the run
# was trained before, and has only been loaded.** If you stop it (the square
# above the notebook), run the cell again: it goes on from its last checkpoint.

# %%
run = train(photos, settings, runs_folder)
environment = run.record["environment"]
updates = epochs * -(-count // settings.batch_size)
print(f"{run.folder.name}, trained on: {environment['device']}")
paper = 10 * -(-162_770 // settings.batch_size)
print(f"{updates:,} updates; ten epochs of all of CelebA are {paper:,}")

# %% mystnb={"figure": {"caption": "The bound and its two terms over the epochs, in nats per image.", "name": "fig-celeba-curves"}, "image": {"alt": "Three line plots over the epochs: ELBO, log p(x | z) and KL, on training and test images."}}
plots.training(run.metrics)

# %% [markdown]
# ## Does it overfit?
#
# The curve on the training images is an average over each epoch, while the
# weights were moving, so the fair comparison is at the end, with the weights at
# rest. A part of the gap is no overfitting: a Bernoulli likelihood allows grey images less than
# black and white ones, whatever the model (below), and one part of the data may be greyer than
# the other. Would stopping early have helped? The best epoch on the test images says.

# %%
best = max(run.metrics, key=lambda epoch: epoch["test_elbo"])
figure = run.evaluation
gap = figure["train_elbo"] - figure["test_elbo"]
ceilings = [
    evaluation.max_bernoulli_elbo(part.images).mean().item()
    for part in (photos.train, photos.test)
]
apart = ceilings[0] - ceilings[1]
lost = best["test_elbo"] - run.metrics[-1]["test_elbo"]
print(f"train {figure['train_elbo']:.1f}, test {figure['test_elbo']:.1f}")
print(f"gap {gap:.1f} nats, {apart:.1f} of them what the images allow")
print(f"best epoch {best['epoch']} of {epochs}; {lost:.1f} nats lost since")

# %% [markdown]
# ## What it is worth
#
# Nats per image over all test images. Most of the thousands of nats are lost to any decoder:
# a pixel that is half bright costs log 2 even when the decoder is exactly right,
# for it is asked to be a coin that falls on either side. The entropy of the
# pixels themselves, the least that any decoder could pay, is in the table; only
# what is paid beyond it is the model's. (For the same reason these nats compare models with
# each other, and are no log-likelihood of the data {cite}`loaiza2019continuous`.)

# %%
table = [
    ("ELBO", figure["test_elbo"]),
    ("its standard error over the images", figure["elbo_standard_error"]),
    ("the most that it could be: less the pixels' entropy", ceilings[1]),
    ("reconstruction term", figure["test_reconstruction"]),
    ("KL from the prior", figure["test_kl"]),
    ("log p(x), at least", figure["log_prob"]),
    ("active units", figure["active_units"]),
    ("squared error per pixel", figure["reconstruction_error"]),
]
headers = ["on all test images", "nats per image, or as named"]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".5g"))

# %% [markdown]
# ## A first look
#
# Codes drawn from the prior, and decoded.

# %% mystnb={"figure": {"caption": "Faces decoded from codes of the prior.", "name": "fig-celeba-invented"}, "image": {"alt": "Two rows of twelve decoded faces."}}
invented = run.model().sample(24, seed=0)
plots.panels({f"K = {latent_dim}": invented}, columns=12, panels_in_row=1)
