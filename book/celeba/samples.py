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
# # Faces that don't exist
#
# **Are faces from random codes new, and are they as diverse as real ones?** New, yes. They are
# as far from training images as reconstructed test images are, so the model doesn't repeat
# training images. As diverse, no. With K = 64, on a part of CelebA, they have half of the variance
# of test images. The paper calls its samples diverse and distinct. Our rule for this asks for
# just that half, so it isn't decided.
#
# Pictures of samples can't answer these questions, so this page measures both.

# %% tags=["parameters", "hide-input"]
import os

# "paper": CelebA; "quick": faces drawn by the package itself
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
latent_dim: int = 64  # K
seed: int = None  # default: 10, or the profile's first
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-cell"]
import torch
from IPython.display import Markdown
from tabulate import tabulate

from book.experiments import scoring
from book.machinery import claims, profiles
from vaelib import (
    TrainConfig,
    data,
    evaluation,
    features,
    plots,
    progress,
    runs,
    train,
)
from vaelib.objective import reparameterize

plan = profiles.load(profile, "celeba")
photos = data.load(plan.dataset, data_folder)
if seed is None:
    seed = 10 if profile == "paper" else plan.short.seeds[0]
settings = TrainConfig(latent_dim, plan.short.epochs, seed, plan.batch_size)
run = train(photos, settings, runs_folder)
model = run.model()
count, test_count = len(photos.train), len(photos.test)
print(f"{photos.name}: {count:,} training and {test_count:,} test images")
print(f"{run.folder.name}: {settings.epochs} epochs")

# %% [markdown]
# ## Samples

# %% mystnb={"figure": {"caption": "Images decoded from codes that were drawn from the prior. They are smooth, and differ in pose, hair and light. Our version of the paper's Figure 3.", "name": "fig-celeba-samples", "classes": "wide"}, "image": {"alt": "Four rows of sixteen decoded faces."}}
samples = model.sample(test_count, seed=0)
plots.panels({"": samples[:64]}, columns=16, panels_in_row=1)

# %% [markdown]
# ## Are they copies?
#
# Below each sample is the nearest training image, by squared error of the pixels. If the
# model had memorised its training images, both would show the same face.

# %% tags=["hide-input"]
library = data.to_float(photos.train.images).flatten(1)


def nearest(pictures):
    """Squared error to the nearest training image, and which one it is."""
    parts = [torch.cdist(part, library) for part in pictures.split(500)]
    distance, index = torch.cat(parts).min(1)
    return distance.square() / library.shape[1], index


distance, index = nearest(samples.flatten(1))

# %% mystnb={"figure": {"caption": "Twelve samples, and below each the training image nearest to it. None is a copy.", "name": "fig-celeba-nearest"}, "image": {"alt": "Two rows of twelve faces: samples above, and below them photographs with similar light and pose, but of other faces."}}
neighbours = photos.train.images[index[:12]]
plots.rows({"samples": samples[:12], "nearest training images": neighbours})

# %% [markdown]
# Samples are smooth, and smooth images are near to many others. A fair comparison needs
# images that are just as smooth and certainly aren't copies: reconstructions of *test*
# images. Reconstructions of *training* images show how near a copy would be. All three use
# sampled codes. The table shows the median squared error to the nearest training image, and
# the share of images whose error is below the median of reconstructed training images.

# %% tags=["hide-input"]
generator = torch.Generator().manual_seed(0)


def reconstructed(images):
    codes = reparameterize(*evaluation.encode(model, images), generator)
    with torch.inference_mode():
        return torch.cat([model.decode(part) for part in codes.split(500)])


copies = {
    "prior samples": samples,
    "reconstructed test images": reconstructed(photos.test.images),
    "reconstructed training images": reconstructed(
        photos.train.images[:test_count]
    ),
}
nearness = {
    name: nearest(each.flatten(1))[0]
    for name, each in progress.bar(copies.items(), desc="nearest images")
}
close = nearness["reconstructed training images"].median()
table = [
    (name, each.median().item(), f"{(each < close).float().mean():.0%}")
    for name, each in nearness.items()
]
headers = ["images", "median squared error", "closer than a copy"]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".4f"))

# %% [markdown]
# Does "nearest" find a copy if there is one? Here is the share of the training images'
# reconstructions whose nearest training image is their original:

# %%
own = nearest(copies["reconstructed training images"].flatten(1))[1]
recited = (own == torch.arange(test_count)).float().mean().item()
print(f"{recited:.0%} of reconstructed training images find their original")

# %% [markdown]
# ## Are they diverse?
#
# The first measure is the variance over the images, summed over pixels, as a share of the
# test images'. The second is the (squared) Fréchet distance to the test images, in the
# features of five classifiers that have seen only real images: the mean ± the standard
# deviation over them. (It isn't comparable with other papers' FID, because their classifier
# differs.) Other real images show the best value to hope for, and the average face, repeated,
# the worst. {doc}`/book/celeba/dimensions` shows how much the distance
# of samples varies between training seeds and draws.

# %% tags=["hide-input"]
judges = features.load(photos, runs_folder)
tests = data.to_float(photos.test.images)
real = scoring.extract(judges, photos.test.images)
average = data.to_float(photos.train.images).mean(0)
others = {
    "other real images": data.to_float(photos.train.images[:test_count]),
    **copies,
    "the average image": average.expand(test_count, -1, -1, -1),
}


def diversity(pictures):
    """Variance as a share of the test images', and the Fréchet distance."""
    share = (pictures.var(0).sum() / tests.var(0).sum()).item()
    found = scoring.extract(judges, pictures)
    distances = scoring.distances(real, found).tolist()
    return f"{share:.2f}", runs.plus_minus(distances, ".2f")


table = [
    [name, *diversity(each)]
    for name, each in progress.bar(others.items(), desc="distances")
]
headers = ["images", "variance, share", "Fréchet distance"]
Markdown(tabulate(table, headers, tablefmt="github", disable_numparse=True))

# %% [markdown]
# ## Verdict on claim C8
#
# **C8 is not decided.** The samples have 51.1% of the variance of real faces, and their
# {func}`kernel distance <vaelib.features.kernel_distance>` (as in KID) from real faces is 40% of the average face's. We ask for more than half, and
# for less than half. Both intervals contain the bound.
#
# The paper states no conditions, so these are ours. We wrote them before we trained the
# runs that decide, with seeds 10 to 12 ({doc}`/book/verdict/claims`).

# %% tags=["hide-input"]
claims.published("C8")
