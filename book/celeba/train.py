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
# **How good is the paper's convolutional VAE at photographs of faces?** With K = 64 and
# seed 10, on a part of CelebA, its test ELBO is −5,240 nats per image. With K = 2, when all
# samples show nearly the same face, the ELBO is
# −{glue:text}`/book/celeba/dimensions.ipynb::negative_elbo_2:s`. The best that any decoder
# could reach is −4,940. So 64 numbers close more than half of this gap.
#
# This page trains the model, or loads it if it has been trained before, and shows whether it
# overfits. {doc}`/book/celeba/reconstructions` and {doc}`/book/celeba/samples` show its images.
# To try another K, change `latent_dim` in the next cell, or run `.venv/bin/papermill
# book/celeba/train.ipynb out.ipynb -p latent_dim 24`.

# %% tags=["parameters", "hide-input"]
import os

# "paper": CelebA; "quick": faces drawn by the package itself
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
dataset: str = None  # another data set than the profile's
latent_dim: int = 64  # K
epochs: int = None  # another number than the profile's
seed: int = None  # default: 10, or the profile's first
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-cell"]
from itertools import pairwise

import torch
from IPython.display import Markdown
from tabulate import tabulate

from book.machinery import profiles
from vaelib import TrainConfig, data, evaluation, models, plots, train

plan = profiles.load(profile, "celeba")
if epochs is None:
    epochs = plan.short.epochs
if seed is None:
    seed = 10 if profile == "paper" else plan.short.seeds[0]
settings = TrainConfig(
    latent_dim, epochs, seed, plan.batch_size
)  # wrong ones fail before data load
print(f"K = {latent_dim}, {settings.epochs} epochs, seed {seed}")
photos = data.load(dataset or plan.dataset, data_folder)
count, test_count = len(photos.train), len(photos.test)
print(f"{photos.name}: {count:,} training and {test_count:,} test images")

# %% [markdown]
# The whole of CelebA has 162,770 training and 19,962 test images. If the folded cell
# above names fewer, every number on this page is about that part only.
#
# ## The data
#
# The profile "paper" reads CelebA {cite}`liu2015deep`, all of it or any part, from the
# folder `celeba` in the data folder. The first time, it decodes the photographs, with a
# progress bar. The profile "quick" draws its own faces instead.
#
# The paper crops a box of 96 x 128 pixels from each photograph of 178 x 218 (from 41 pixels
# right and 60 down), and halves its size. Images are 48 pixels wide and 64 high, with three
# colours: 9,216 values from 0 to 1.

# %% mystnb={"figure": {"caption": "The first twelve training images.", "name": "fig-celeba-data"}, "image": {"alt": "A row of twelve faces."}}
assert photos.image_shape == (3, 64, 48)
plots.panels({"": photos.train.images[:12]}, columns=12, panels_in_row=1)

# %% [markdown]
# ## The model
#
# Four convolutions (kernel 4, stride 2, padding 1), each followed by batch normalisation and
# a ReLU, halve height and width and end with 256 channels. Two linear heads compute the
# posterior's mean and log-variance from them. The decoder mirrors the encoder with
# transposed convolutions, and ends in a sigmoid. The folded table shows the output size of
# each layer that changes it.

# %% tags=["hide-cell"]
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
# We count the parameters by hand, with a bias in every layer, and two numbers for each
# normalised channel:


# %% tags=["hide-input"]
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
# (The authors' scripts have twice the channels in each block, and no normalisation in
# the last. We build the model that their text describes.)
#
# ## The training
#
# The objective and the settings are the same as for the digits: Adam with learning rate
# 0.001, batches of 128 (32 in the quick profile, which has few images), and one posterior
# sample per image. During training, batch normalisation uses the statistics of the batch.
# Afterwards, it uses the running averages that it has collected.
#
# During training, a bar shows the progress and the loss. **No bar: the run was trained
# before, and has only been loaded.** If you stop it (the square above the notebook), run
# the cell again to resume from its last checkpoint. On two CPU cores, thirty epochs of 8,100
# photographs take about ten minutes.

# %%
run = train(photos, settings, runs_folder)
environment = run.record["environment"]
updates = epochs * -(-count // settings.batch_size)
print(f"{run.folder.name}, trained on: {environment['device']}")
paper = 10 * -(-162_770 // settings.batch_size)
print(f"{updates:,} updates; ten epochs of all of CelebA are {paper:,}")

# %% mystnb={"figure": {"caption": "The ELBO and its two terms over the epochs, in nats per image. Dashed: training images.", "name": "fig-celeba-curves"}, "image": {"alt": "Three line plots over the epochs: ELBO, log p(x | z) and KL, on training and test images."}}
plots.training(run.metrics)

# %% [markdown]
# ## Does it overfit?
#
# The training curve averages over each epoch while the weights change. A fair comparison
# therefore uses the final weights. Part of the gap isn't overfitting. Whatever the model, a
# Bernoulli likelihood allows a lower ELBO for grey images than for black and white ones
# (below), and one split may be greyer than the other. Would stopping early have helped? The
# best epoch on the test images shows this.

# %% tags=["hide-input"]
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
# ## Evaluation
#
# The table shows nats per image over all test images. Any decoder would lose most of these
# thousands of nats. A pixel that is half bright costs log 2 even if the decoder is exactly
# right, because the likelihood treats it as a coin toss. The table also lists the entropy of
# the pixels, the least that any decoder could pay. Only the rest is due to the model. (For the same reason, these nats compare models with each other, but
# aren't log-likelihoods of the data {cite}`loaiza2019continuous`.)

# %% tags=["hide-input"]
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
# ## Samples
#
# We draw codes from the prior and decode them.

# %% mystnb={"figure": {"caption": "Faces decoded from codes that were drawn from the prior.", "name": "fig-celeba-invented"}, "image": {"alt": "Two rows of twelve decoded faces."}}
invented = run.model().sample(24, seed=0)
plots.panels({f"K = {latent_dim}": invented}, columns=12, panels_in_row=1)
