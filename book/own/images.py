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
# # Your own images
#
# **How well does the paper's convolutional model reproduce your own pictures?** This page trains it on them and shows the results.
# Name their folder in the first cell, or on a command line:
#
# ```sh
# .venv/bin/papermill book/own/images.ipynb mine.ipynb \
#     -p folder my-images -p latent_dim 16 -p epochs 50
# ```
#
# (For height and width, use `-y "size: [48, 64]"`.) Without a folder, the page uses faces that the package draws, as in the figures
# here.

# %% tags=["parameters"]
import os

# "quick" shortens the training, for a check that all of this runs
quick: bool = "quick" in os.environ.get("VAELIB_PROFILE", "")  # shorter
folder: str = None  # of images of any kind; subfolders are classes
size: int = 48  # pixels: one number; or two, height and width, by -y
latent_dim: int = 8  # K
epochs: int = 5 if quick else 20  # passes over the training images
batch_size: int = 32  # images in a step
skip_damaged: bool = False  # leave out, with a warning, what cannot be read
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-input"]
import contextlib
import io
import tempfile
from pathlib import Path

import torch
from torchvision.io import write_png

from vaelib import TrainConfig, attributes, data, evaluation, plots, train

if folder is None:
    made = Path(tempfile.mkdtemp())
    folder, runs_folder = made / "drawn-faces", made / "runs"
    folder.mkdir()
    for number, face in enumerate(
        data.load("faces-small").train.images[:600]
    ):
        write_png(face, str(folder / f"{number:03}.png"))
    print("No folder was named: these are 600 drawn faces.")

shape = size if isinstance(size, int) else tuple(size)
with contextlib.redirect_stdout(io.StringIO()) as said:
    images = data.image_folder(folder, shape, skip_damaged=skip_damaged)
parent = Path(folder).expanduser().absolute().parent
print(said.getvalue().replace(f"{parent}/", ""), end="")
print("Each is of shape", images.image_shape)
print(f"K = {latent_dim}, {epochs} epochs, batches of {batch_size}")

# %% [markdown]
# ## Training
#
# The same call resumes a stopped run from its last checkpoint, and loads a complete one. If the images have changed, it raises an error.
#
# With only a few dozen images, train for more epochs. In evaluation, the model's batch norms use averages over many steps. After only
# some twenty steps, these lag behind the weights, so the results on test images are worse than in training.

# %% mystnb={"figure": {"caption": "Training on these images: ELBO, reconstruction term and KL per epoch. The gap between training and test images shows how much the model overfits.", "name": "fig-own-training"}, "image": {"alt": "Three panels with the ELBO, the reconstruction term and the KL over the epochs, on training and test images."}}
settings = TrainConfig(latent_dim, epochs, batch_size=batch_size)
run = train(images, settings, runs_folder)
model = run.model()
plots.training(run.metrics)

# %%
for key in (
    "test_elbo",
    "log_prob",
    "active_units",
    "reconstruction_error",
):
    print(f"{key:22}{run.evaluation[key]:12.4f}")

# %% [markdown]
# ## Reconstructions
#
# The model has never seen these images. It reconstructs each from {math}`K` numbers:

# %% mystnb={"figure": {"caption": "Test images and their reconstructions. Compare them to see which details the code keeps.", "name": "fig-own-reconstructions"}, "image": {"alt": "Two rows of eight images: test images, and their reconstructions."}}
seen = data.to_float(images.test.images[:8])
with torch.no_grad():
    decoded = model.decode(model.encode(seen)[0])
plots.rows({"image": seen, "reconstruction": decoded})

# %% [markdown]
# ## Samples

# %% mystnb={"figure": {"caption": "Images decoded from codes that were drawn from the prior. We didn't select any.", "name": "fig-own-samples"}, "image": {"alt": "A grid of images decoded from codes that were drawn from the prior."}}
plots.rows(
    {"samples": model.sample(8, seed=0), "": model.sample(8, seed=1)}
)

# %% [markdown]
# ## Traversals
#
# Each row takes the same image and moves one number of its code from −3 to 3, while the others stay. We show the three numbers that vary
# most over the images.

# %% mystnb={"figure": {"caption": "Three dimensions of the code, each moved from \u22123 to 3. Each row shows what one dimension controls.", "name": "fig-own-traversals"}, "image": {"alt": "Three rows of seven images. In each row one latent number is moved from minus three to three."}}
codes, _ = evaluation.encode(model, images.test.images)
steps = torch.linspace(-3, 3, 7)
most = codes.var(0).topk(min(3, latent_dim)).indices.tolist()
moved = {}
for k in most:
    code = codes[:1].clone()
    code[:, k] = 0
    direction = torch.eye(latent_dim)[k]
    moved[f"z{k + 1}"] = attributes.traverse(model, code, direction, steps)[
        0
    ]
plots.rows(moved)
