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
# **How good is the paper's fully connected VAE at handwritten digits, if its code has only two
# numbers?** With seed 0, its test ELBO on MNIST is −143.7 nats per image, a little better than
# in the authors' own run. (The {term}`ELBO` is minus the loss, so higher is better.) A code of
# one number reaches −{glue:text}`/book/mnist/dimensions.ipynb::negative_elbo_1:.1f`, and the
# best code of {doc}`/book/mnist/dimensions`, which has 16 numbers,
# −{glue:text}`/book/mnist/dimensions.ipynb::negative_elbo_16:.1f`. This page trains such a
# model, or loads its run, evaluates it and shows its images.
#
# To try another K, change `latent_dim` in the next cell, or run `.venv/bin/papermill
# book/mnist/train.ipynb out.ipynb -p latent_dim 3`. Without data and without a network, use
# the profile "quick" with the small digits that come with scikit-learn.

# %% tags=["parameters", "hide-input"]
import os

# "paper": MNIST; "quick": the digits that come with scikit-learn
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
dataset: str = None  # another data set than the profile's
latent_dim: int = 2  # K
epochs: int = None  # another number than the profile's
seed: int = 0  # of weights, order and noise
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-cell"]
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
# The settings are the authors': Adam with learning rate 0.001, batches of 128 images, and
# one posterior sample per image. The objective is the evidence lower bound of Kingma and
# Welling {cite}`kingma2022auto`. For each image $x$,
#
# $$
# \mathcal{L}(x) = \mathbb{E}_{z \sim q(z \mid x)}\left[\log p(x \mid z)\right]
#   - \mathrm{KL}\left(q(z \mid x) \,\|\, p(z)\right),
# $$
#
# the log-likelihood of its pixels under the decoder, summed over the pixels, minus the
# divergence of its posterior $q(z \mid x)$ from the prior $p(z) = \mathcal{N}(0, I)$,
# summed over the $K$ latent dimensions. Both are in nats. Training maximises their
# difference, averaged over the batch.
#
# During training, a bar shows the progress and the loss. **No bar: the run was trained
# before, and has only been loaded.** If you stop it (the square above the notebook), run
# the cell again to resume from its last checkpoint. On two CPU cores, ten epochs of MNIST
# take half a minute to a minute, and the evaluation takes as long again.

# %%
run = train(digits, settings, runs_folder)
model = run.model()
environment = run.record["environment"]
print(f"{run.folder.name}, trained on: {environment['device']}")

# %% [markdown]
# The encoder is a stack of fully connected layers, 784 - 512 - 512, with two heads for the
# mean and the log-variance of the posterior. The decoder is its mirror image,
# K - 512 - 512 - 784. Counting weights and biases by hand gives the same number of
# parameters as torch:


# %% tags=["hide-input"]
def layer(inputs, outputs):
    return (inputs + 1) * outputs  # the 1 is the bias


K = latent_dim
encoder = layer(784, 512) + layer(512, 512) + 2 * layer(512, K)
decoder = layer(K, 512) + layer(512, 512) + layer(512, 784)
assert sum(each.numel() for each in model.parameters()) == encoder + decoder
print(f"{encoder:,} parameters in the encoder, {decoder:,} in the decoder")

# %% [markdown]
# ## Learning curves
#
# The training curve (dashed) averages over an epoch while the weights change. The test
# curve is computed at the end of the epoch. Early on, the training curve is therefore below
# the test curve.

# %% mystnb={"figure": {"caption": "The ELBO and its two terms over the epochs, in nats per image. Dashed: training images.", "name": "fig-train-curves"}, "image": {"alt": "Three line plots over the epochs: ELBO, log p(x | z) and KL, on training and test images."}}
plots.training(run.metrics)

# %% [markdown]
# ## Evaluation
#
# The ELBO is a lower bound on $\log p(x)$. The importance-weighted estimate
# {cite}`burda2016importance` is a tighter one, the more so the more samples it takes:
# here 200 per image. (The pixels are grey, not black and white. These nats therefore
# compare models with each other, but aren't log-likelihoods of the data
# {cite}`loaiza2019continuous`.) The table is for all test images, in nats per image:

# %% tags=["hide-input"]
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
# How many samples does the estimate need? Each row uses the same 200 test images (16 in the
# quick profile), not all as above. As long as the estimate climbs, it's only a bound, and
# true values are higher. Its Monte Carlo error shows only how it would vary with other
# samples. If a few samples dominate, even this variation is underestimated.

# %% tags=["hide-input"]
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
# ## Reconstructions
#
# Each code is *sampled* from the posterior of its image, then decoded. We show the
# probability that the decoder gives to each pixel: where it isn't sure, the pixel is grey.

# %%
originals = digits.test.images[:16]
with torch.inference_mode():
    posterior = model.encode(data.to_float(originals))
    generator = torch.Generator().manual_seed(0)
    copies = model.decode(reparameterize(*posterior, generator))

# %% mystnb={"figure": {"caption": "The first sixteen test images, and their reconstructions from a sampled code.", "name": "fig-train-copies"}, "image": {"alt": "Two rows of sixteen digits: test images above, their reconstructions below."}}
plots.rows({"test images": originals, "reconstructions": copies})

# %% [markdown]
# ## Samples
#
# We draw random codes from the prior $\mathcal{N}(0, I)$, without any image, and decode
# them.

# %% mystnb={"figure": {"caption": "Images decoded from codes that were drawn from the prior.", "name": "fig-train-samples"}, "image": {"alt": "Four rows of sixteen decoded digits."}}
invented = model.sample(64, seed=0)
plots.panels({f"K = {latent_dim}": invented}, columns=16, panels_in_row=1)
