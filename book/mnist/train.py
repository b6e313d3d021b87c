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
# # Train on handwritten digits
#
# **What does the paper's fully connected VAE make of handwritten digits, when its code has only K numbers?** This page
# trains one such model, or loads it if it has been trained before, and looks at it from four sides: how it learned, what
# it is worth in nats, how well it copies, and what it invents.
#
# The next cell holds the page's parameters. To try another K, change `latent_dim` here, or run
# `papermill book/mnist/train.ipynb out.ipynb -p latent_dim 3`. A training that is stopped goes on where it was when the
# page is run again. Without a folder of data and without a network, take the profile "quick": it uses the small digits
# that come with scikit-learn.

# %% tags=["parameters"]
import os

profile = os.environ.get("VAELIB_PROFILE", "paper")  # "paper": MNIST; "quick": scikit-learn's digits
dataset = None  # another data set than the profile's, by name
latent_dim = 2  # K
epochs = None  # another number than the profile's
seed = 0
data_folder = None  # default: the environment variable VAELIB_DATA, else ~/.cache/vaelib
runs_folder = None  # default: the environment variable VAELIB_RUNS, else this project's `runs`

# %%
import torch
from IPython.display import Markdown
from tabulate import tabulate

from vaelib import Settings, data, evaluation, figures, objective, profiles, train

experiment = profiles.load(profile, "mnist")
digits = data.load(dataset or experiment.dataset, data_folder)
print(
    f"{digits.name}: {len(digits.train):,} training and {len(digits.test):,} test images of shape {digits.image_shape}"
)

# %% [markdown]
# ## The training
#
# The settings are the authors': Adam with a step of 0.001, batches of 128 images, one posterior sample for each image.
# Their objective is the evidence lower bound of Kingma and Welling {cite}`kingma2022auto`: for each image the
# log-likelihood of its pixels under the decoder, summed over the pixels, less the KL divergence of its posterior from
# the prior, summed over the K dimensions of the code. Both are in nats; training maximises their difference, averaged
# over the batch.

# %%
settings = Settings(latent_dim=latent_dim, epochs=experiment.short.epochs if epochs is None else epochs, seed=seed)
run = train(digits, settings, runs_folder)
model = run.model()
environment = run.config["environment"]
print(f"{run.folder.name}: trained with torch {environment['torch']} on {environment['device']}")

# %% [markdown]
# The encoder is a stack of fully connected layers, 784 - 512 - 512, whose two heads give the mean and the log-variance of
# the code's posterior; the decoder is its mirror image, K - 512 - 512 - 784. Counting weights and biases by hand gives
# as many parameters as torch does:

# %%
pixels, hidden, K = 28 * 28, 512, latent_dim
encoder = (pixels + 1) * hidden + (hidden + 1) * hidden + 2 * (hidden + 1) * K
decoder = (K + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * pixels
assert sum(parameter.numel() for parameter in model.parameters()) == encoder + decoder
print(f"{encoder:,} parameters in the encoder, {decoder:,} in the decoder")

# %% [markdown]
# ## How it learned
#
# The training curve (dashed) is the average over an epoch while the weights were moving, the test curve is taken at the
# end of the epoch. Early on the first therefore lies below the second.

# %% mystnb={"figure": {"caption": "The bound and its two terms over the epochs, in nats per image.", "name": "fig-train-curves"}, "image": {"alt": "Three line plots over the epochs: ELBO, log p(x | z) and KL, on training and test images."}}
figures.training(run.metrics)

# %% [markdown]
# ## What it is worth
#
# The ELBO is a lower bound of log p(x). The importance-weighted estimate {cite}`burda2016importance` is one as well, but
# a tighter one, and it tightens with the number of samples. (The pixels are grey, not black and white, so that these
# nats compare models with each other; they are no log-likelihood of the data {cite}`loaiza2019continuous`.)

# %%
result = run.evaluation
figures_of_test = [
    ("-ELBO", -result["test_elbo"], f"± {result['elbo_standard_error']:.2f} over images"),
    ("reconstruction term, log p(x \\| z)", result["test_reconstruction"], ""),
    ("KL(q(z \\| x) \\|\\| p(z))", result["test_kl"], ""),
    ("log p(x), estimated", result["log_prob"], f"{result['log_prob_samples']} samples an image"),
    ("active units", result["active_units"], f"of {latent_dim}"),
    ("squared error per pixel", result["reconstruction_error"], "decoded from the posterior mean"),
]
Markdown(
    tabulate(figures_of_test, headers=["all test images, nats per image", "", ""], tablefmt="github", floatfmt=".4g")
)

# %% [markdown]
# How many samples does the estimate need? With few of them it is pessimistic; where it stops climbing, more would not
# help. The same 200 test images for every row:

# %%
few = digits.test.images[:200]
convergence = []
for samples in (2, 10, 50, 250):
    estimate, error = evaluation.log_prob(model, few, samples)
    convergence.append((samples, estimate.mean().item(), error.square().mean().sqrt().item() / len(few) ** 0.5))
assert convergence[0][1] < convergence[-1][1]
Markdown(tabulate(convergence, headers=["samples", "log p(x)", "Monte Carlo error"], tablefmt="github", floatfmt=".3f"))

# %% [markdown]
# ## How well it copies
#
# Each code is *sampled* from the posterior of its image, then decoded. The decoder answers with the probability of every
# pixel, and these probabilities are what is shown: where it is not sure, it is grey.

# %%
originals = digits.test.images[:16]
generator = torch.Generator().manual_seed(0)
with torch.inference_mode():
    x = data.to_float(originals)
    z = objective.reparameterize(*model.encode(x), generator)
    copies = model.decode(z)

# %% mystnb={"figure": {"caption": "The first sixteen test images, and their reconstructions from a sampled code.", "name": "fig-train-copies"}, "image": {"alt": "Two rows of sixteen digits: test images above, their reconstructions below."}}
figures.rows({"test images": originals, f"decoded from {latent_dim} sampled numbers": copies})

# %% [markdown]
# ## What it invents
#
# Codes drawn from the prior N(0, I), which no image was encoded into, and what the decoder makes of them.

# %% mystnb={"figure": {"caption": "Images decoded from codes of the prior.", "name": "fig-train-samples"}, "image": {"alt": "Four rows of sixteen decoded digits."}}
with torch.inference_mode():
    invented = model.sample(64, torch.Generator().manual_seed(0))
figures.panels({f"K = {latent_dim}": invented}, columns=16, panels_in_row=1)
