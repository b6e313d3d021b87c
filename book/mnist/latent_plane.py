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
# # The latent plane
#
# **Where does the encoder put the digits, and what is between them?** Most digits get their
# own region, and between the regions one digit turns gradually into another. With two
# latent dimensions, we can map both: the codes, and the images that the decoder makes of
# them. From its code alone, a classifier finds the digit of 77% of MNIST's test images. With
# one dimension, the map is a line, and it finds 63%. Guessing would find a tenth.

# %% tags=["parameters", "hide-input"]
import os

# "paper": MNIST; "quick": the digits that come with scikit-learn
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
seed: int = 0  # of weights, order and noise
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-cell"]
import torch
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from book.machinery import profiles
from vaelib import TrainConfig, data, evaluation, plots, train

plan = profiles.load(profile, "mnist")
digits = data.load(plan.dataset, data_folder)
line, plane = (
    train(
        digits,
        TrainConfig(K, plan.short.epochs, seed, plan.batch_size),
        runs_folder,
    ).model()
    for K in (1, 2)
)
count, test_count = len(digits.train), len(digits.test)
print(f"{digits.name}: {count:,} training and {test_count:,} test images")

# %% [markdown]
# ## The map of codes
#
# Each point is the posterior mean of one test image. The labels only colour the points:
# the model was trained without them. The left map shows the plane as it is. In the right map,
# both axes are stretched so that the prior would cover the square evenly, which spreads out
# the crowd in the middle.

# %% mystnb={"figure": {"caption": "Posterior means of the test images in the latent plane, coloured by digit: most digits have a region. Left: as they are. Right: stretched to the prior's quantiles.", "name": "fig-codes"}, "image": {"alt": "Two scatter plots of the test images in the latent plane, coloured by digit; most digits form a region of their own."}}
means, log_variances = evaluation.encode(plane, digits.test.images)
plots.codes(means, digits.test.labels, digits.names)

# %% [markdown]
# How well does the code show which digit it is? We classify the test images from the two
# numbers alone, by ten nearest neighbours with five-fold cross-validation, and then from the
# single number of K = 1. (± is the standard deviation over the five folds.)

# %% tags=["hide-input"]
for model in (line, plane):
    code = evaluation.encode(model, digits.test.images)[0]
    classifier = KNeighborsClassifier(10)
    scores = cross_val_score(classifier, code, digits.test.labels, cv=5)
    mean, deviation = 100 * scores.mean(), 100 * scores.std()
    print(
        f"K = {model.latent_dim}: {mean:.1f} ± {deviation:.1f}% told right"
    )

# %% [markdown]
# All codes together should fill the prior, a normal distribution with mean 0 and variance 1
# along each axis. The variance of all codes is the variance of the means plus the mean of
# the variances. If it isn't 1, samples from the prior miss some of the codes, or fall where
# there are none.

# %%
variance = means.var(0) + log_variances.exp().mean(0)
print("mean:    ", [f"{each:.2f}" for each in means.mean(0)])
print("variance:", [f"{each:.2f}" for each in variance])

# %% [markdown]
# ## The map of images
#
# Here is the plane, decoded on a grid. Its rows and columns have equal steps of the prior's
# *probability*, so each picture represents the same share of the prior's samples. The
# quantiles come from the inverse of the normal distribution, as in the original work
# {cite}`kingma2022auto`. This decodes the stretched map of {numref}`fig-codes`.

# %%
quantiles = torch.special.ndtri((torch.arange(20) + 0.5) / 20)
grid = torch.cartesian_prod(quantiles.flip(0), quantiles)  # rows, top down
with torch.inference_mode():
    images = plane.decode(grid.flip(1))  # the column is the first dimension

# %% mystnb={"figure": {"caption": "The latent plane, decoded at the prior's quantiles: the first dimension runs to the right, the second upwards.", "name": "fig-plane"}, "image": {"alt": "Twenty rows of twenty decoded digits that change gradually in both directions."}}
plots.panels({"": images}, columns=20, panels_in_row=1)

# %% [markdown]
# ## The line
#
# With K = 1, all codes are on one line. We show it from the prior's first percentile to its
# last. Digits that look alike are neighbours. A digit without room in the sequence is left
# out, or squeezed in where it doesn't belong.

# %% mystnb={"figure": {"caption": "The latent line of K = 1, decoded at 48 quantiles of the prior, in reading order.", "name": "fig-line"}, "image": {"alt": "Three rows of sixteen decoded digits that change gradually from one to the next."}}
quantiles = torch.special.ndtri((torch.arange(48) + 0.5) / 48)
with torch.inference_mode():
    images = line.decode(quantiles.unsqueeze(1))
plots.panels({"": images}, columns=16, panels_in_row=1)
