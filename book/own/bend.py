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
# # Bend it
#
# **What if the pixels are Gaussian, the prior is a mixture, the posterior a flow?**
# The paper fixes one answer to each of these. Here they are modules that you
# replace, each in a few lines of plain torch, and everything else follows:
# training, checkpoints, log p(x), samples, the records on disk. The page trains
# every variant on the small digits of scikit-learn, which come with the
# project. A folder of images of your own is the subject of {doc}`images`; what
# each function takes and returns stands in {doc}`api`.

# %% tags=["parameters"]
import os

# "quick" shortens the trainings, for a check that all of this runs
quick: bool = "quick" in os.environ.get("VAELIB_PROFILE", "")  # shorter
latent_dim: int = 8  # K
epochs: int = 3 if quick else 10  # passes over the training images

# %% tags=["hide-input"]
import contextlib
import csv
import tempfile
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import zuko
from IPython.display import Markdown
from matplotlib.patches import FancyBboxPatch
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.linear_model import LogisticRegression
from tabulate import tabulate
from torch import nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    Laplace,
    MixtureSameFamily,
    Normal,
)
from torch.optim.lr_scheduler import CosineAnnealingLR

from vaelib import (
    Settings,
    data,
    evaluation,
    likelihoods,
    objective,
    posteriors,
    priors,
    train,
)
from vaelib.binarization import binarized
from vaelib.figures import rows
from vaelib.models import VAE, mlp

# %% [markdown]
# ## The seam
#
# A VAE is three modules, and a call of each returns a
# `torch.distributions.Distribution`:

# %% mystnb={"figure": {"caption": "The seam: three boxes that return distributions, and what is computed from these alone.", "name": "fig-seam"}, "image": {"alt": "Three boxes. The encoder turns an image x into the posterior q of z given x, the decoder turns a code z into the likelihood p of x given z, and the prior gives p of z without any input. From the three follow the ELBO, log p of x, and samples."}} tags=["hide-input"]
BLUE, RED, GREEN, BLACK = "#1d3fe6", "#93272f", "#00807a", "#12141a"
figure, axes = plt.subplots(figsize=(7, 2.5))
boxes = {
    "encoder": (0.0, BLUE, "images  x", "q(z | x)"),
    "decoder": (2.5, RED, "codes  z", "p(x | z)"),
    "prior": (5.0, GREEN, "", "p(z)"),
}
for name, (left, colour, takes, gives) in boxes.items():
    box = FancyBboxPatch(
        (left, 1.5), 1.6, 0.7, "round,pad=0.1", fc="none", ec=colour
    )
    axes.add_patch(box)
    middle = {"ha": "center", "va": "center", "color": colour}
    axes.text(left + 0.8, 1.85, name, weight="bold", **middle)
    axes.text(left + 0.8, 2.85, takes, **middle)
    axes.text(left + 0.8, 0.85, gives, size=13, **middle)
    arrow = {"arrowstyle": "->", "color": colour}
    if takes:
        ends = (left + 0.8, 2.32), (left + 0.8, 2.7)
        axes.annotate("", *ends, arrowprops=arrow)
    ends = (left + 0.8, 1.05), (left + 0.8, 1.38)
    axes.annotate("", *ends, arrowprops=arrow)
follows = "ELBO  ·  log p(x)  ·  samples  ·  reconstructions"
axes.plot([0, 6.6], [0.55, 0.55], color=BLACK, linewidth=0.8)
axes.text(3.3, 0.2, follows, ha="center", va="center", color=BLACK)
axes.set(xlim=(-0.2, 6.8), ylim=(0, 3.1))
axes.set_axis_off()
plt.show()

# %% [markdown]
# What follows from them is written once, in `vaelib.models` and
# `vaelib.evaluation`, and is right for every choice because each distribution
# knows its own density:
#
# ```python
# q, p = encoder(x), prior()
# z = q.rsample()
# reconstruction = decoder(z).log_prob(x)
# kl = kl_divergence(q, p)  # or, where torch knows no closed form:
# kl = q.log_prob(z) - p.log_prob(z)
# ```
#
# A model is made by a *builder*, a function of the images' shape and the latent
# dimension. `models.mlp` and `models.conv` are builders with the paper's
# networks; `functools.partial` gives them another likelihood, posterior or
# prior. `train` takes the builder, and records it by its name, so that a run is
# not taken for one of another builder. So it takes functions and classes, no
# lambdas and no modules that were made already. If you change one and keep its
# name, you get the earlier run, with a warning: give it another name, or delete
# that run's folder. Keep your own in a module that you import, or a run of one
# script is refused by another, where they have another name.
#
# Each variant below is trained by this function. It is stopped in the middle,
# as by Ctrl-C or by the notebook's stop button, and the same call goes on from
# the checkpoint. One is written every ten seconds, and that much a stop can
# lose; here they come at every look at the loss, `checkpoint_seconds=0`. The
# package's tests hold that a stopped training ends with the very weights of one
# without a stop, for every likelihood, posterior, prior and objective that comes
# with it; below it is shown for one of this page's own.

# %%
digits = data.load("digits")
settings = Settings(latent_dim, epochs)
folder = Path(tempfile.mkdtemp())  # of all runs
results = []


def stop(model, line):
    if line["epoch"] == epochs // 2:
        raise KeyboardInterrupt


def study(title, **own):
    with contextlib.suppress(KeyboardInterrupt):
        train(
            digits,
            settings,
            folder,
            on_epoch=stop,
            checkpoint_seconds=0,
            **own,
        )
    run = train(digits, settings, folder, **own)
    figures = [run.evaluation[key] for key in ("test_elbo", "log_prob")]
    results.append([title, *figures, run.evaluation["active_units"]])
    return run


paper = study("the paper's")

# %% [markdown]
# ## Another likelihood
#
# Grey pixels have no probability under the paper's Bernoulli likelihood; its
# "density" does not integrate to one. `likelihoods` has four that are densities
# of grey pixels: `ContinuousBernoulli`, `Gaussian` (one σ, learned),
# `OptimalGaussian` (the σ that is best), and `DiscretizedLogisticMixture` (over
# the 256 grey levels).

# %%
gaussian = study(
    "Gaussian", builder=partial(mlp, likelihood=likelihoods.Gaussian)
)
print(f"σ = {gaussian.model().decoder.log_sigma.exp():.3f}")

# %% [markdown]
# One of your own is a module that takes the network from codes to pixels, and
# returns a distribution over images. With an attribute `outputs`, the network
# has that many numbers for each pixel value:


# %%
class LaplacePixels(nn.Sequential):  # of one module: the network
    outputs = 2

    def forward(self, z):
        middle, width = super().forward(z).chunk(2, 1)  # (B, 1, 28, 28)
        scale = nn.functional.softplus(width) + 0.01
        return Independent(Laplace(middle.sigmoid(), scale), 3)


laplace = study("Laplace", builder=partial(mlp, likelihood=LaplacePixels))

# %% [markdown]
# Both log densities are far above the paper's, and that says nothing: nats of
# densities, of probabilities and of the paper's objective are different things.
# Within one likelihood they compare models, across likelihoods they do not.
#
# ## Another prior
#
# A prior is a module whose call, without arguments, returns a distribution over
# codes. Its weights are trained along. A mixture of Gaussians:


# %%
class Mixture(nn.Embedding):  # a table of vectors that are learned
    def __init__(self, latent_dim):
        super().__init__(10, latent_dim)

    def forward(self):
        parts = Independent(Normal(self.weight, 1.0), 1)
        return MixtureSameFamily(Categorical(torch.ones(10)), parts)


mixture = study("mixture prior", builder=partial(mlp, prior=Mixture))

# %% [markdown]
# `priors.Mixture` learns the variances and weights too, and whatever is put in
# goes together: `partial(mlp, likelihood=likelihoods.Gaussian,
# prior=priors.Mixture)`. A flow of
# [zuko](https://zuko.readthedocs.io) needs no adapter; and the VampPrior, a
# mixture of the encoder's own posteriors at images that are learned, is put
# into a model that has an encoder. (Importing zuko turns off, in the whole
# process, torch's checks of what distributions are given. Without zuko, say
# `validate_args=False` where torch refuses what you mean: grey pixels under its
# `Bernoulli`.)


# %%
def vamp(image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    model.prior = priors.Vamp(model.encoder, image_shape)
    return model


flow = study("flow prior", builder=partial(mlp, prior=zuko.flows.MAF))
vamp_run = study("VampPrior", builder=vamp)

# %% mystnb={"figure": {"caption": "Ten samples from each prior, none of them chosen.", "name": "fig-own-priors"}, "image": {"alt": "Four rows of ten digits decoded from codes that were drawn from the prior: the paper's, the mixture, the flow, and the VampPrior."}}
rows(
    {
        title: run.model().sample(10, seed=0)
        for title, run in (
            ("the paper's", paper),
            ("mixture", mixture),
            ("flow", flow),
            ("VampPrior", vamp_run),
        )
    }
)

# %% [markdown]
# ## Another posterior
#
# What makes the encoder gets the network from images to features, their number,
# and the latent dimension; the encoder returns a distribution for each image.
# `posteriors` has the paper's, and `InverseAutoregressive`, which can take any
# shape. One of your own, with a flow of zuko's whose context the features are:


# %%
def coupling(features, size, latent_dim):
    flow = zuko.flows.MAF(latent_dim, context=size, passes=2)
    return nn.Sequential(features, flow)


iaf = study(
    "inverse autoregressive posterior",
    builder=partial(mlp, posterior=posteriors.InverseAutoregressive),
)
flexible = study("coupling flow", builder=partial(mlp, posterior=coupling))

# %% [markdown]
# Trained again in another folder, without a stop, it has the same weights, bit
# for bit:

# %%
other = Path(tempfile.mkdtemp())
whole = train(digits, settings, other, builder=flexible.builder)
pairs = zip(
    whole.model().parameters(), flexible.model().parameters(), strict=True
)
assert all(torch.equal(one, two) for one, two in pairs)

# %% [markdown]
# ## Another objective
#
# An objective is a function of the model, a batch, and the progress of the
# training, which grows with every step from 0 to 1. It returns what is
# minimised, and the ELBO's two terms for the record, each with a value for every
# image. `objective` has `BetaELBO` (β-VAE, and annealing by its
# `warm_up`), `FreeBits`, `MeanELBO` and `ImportanceWeighted`. One of your own:


# %%
def in_waves(model, x, progress):
    reconstruction, kl = model(x)
    weight = min(1.0, 4 * progress % 2)  # twice from 0 to 1
    return weight * kl - reconstruction, reconstruction, kl


iwae = study(
    "five importance samples", objective=objective.ImportanceWeighted(5)
)
waves = study("annealed in cycles", objective=in_waves)

# %% [markdown]
# ## Other pixels, another network, another learning rate
#
# `binarized` makes of any builder one whose model sees binary pixels: drawn
# afresh at each look in training, once and for all in evaluation. A network of
# your own is a builder of your own. A schedule is one of torch's, without its
# optimizer, and takes a step after each epoch. As progress and schedules depend
# on the number of epochs, a longer training is another run, from the start.


# %%
def small(image_shape, latent_dim):
    features = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.Tanh())
    encoder = posteriors.Gaussian(features, 64, latent_dim)
    output = nn.Linear(latent_dim, 784), nn.Unflatten(1, image_shape)
    decoder = likelihoods.Bernoulli(nn.Sequential(*output))
    return VAE(encoder, decoder, priors.Standard(latent_dim), image_shape)


binary = study("binary pixels", builder=binarized)
one_layer = study(
    "one layer, cosine schedule",
    builder=small,
    schedule=partial(CosineAnnealingLR, T_max=epochs),
)

# %% [markdown]
# ## What came out

# %% tags=["hide-input"]
Markdown(
    tabulate(
        results,
        ("variant", "ELBO", "log p(x), at least", "active units"),
        "github",
        (None, ".1f", ".1f", ".0f"),
    )
)

# %% [markdown]
# In nats an image, on the test images, after a training that is too short to
# tell which variant is best: the table shows that each is trained, scored and
# resumed by one and the same code. The lines of the Gaussian, the Laplace and
# the binary pixels are of other densities than the rest.
#
# ## After each epoch
#
# `on_epoch` gets the model, in evaluation mode, and the epoch's line of metrics.
# Here it adds to a table of one's own what the package does not record. (An
# epoch that a stop has cut off is done again, and reported again.)


# %%
def watch(model, line):
    mean, _ = model.encode(data.to_float(digits.test.images))
    writer.writerow([line["epoch"], line["test_elbo"], mean.std().item()])


with (folder / "mine.csv").open("a", newline="") as file:
    writer = csv.writer(file)
    train(digits, Settings(2, 3), folder, on_epoch=watch)
print((folder / "mine.csv").read_text())

# %% [markdown]
# For TensorBoard it takes four lines (not run here, since the project does not
# install it):
#
# ```python
# from torch.utils.tensorboard import SummaryWriter
# writer = SummaryWriter()
# def log(model, line):
#     writer.add_scalar("ELBO/test", line["test_elbo"], line["epoch"])
# ```
#
# ## Images from arrays
#
# Pixels are uint8, channels first; labels are for those who have some. Here are
# windows from a photograph that comes with scikit-learn, as NumPy arrays of
# shape (N, H, W, C). Colour gets the convolutional model by itself:

# %%
china, _ = load_sample_images().images
windows = extract_patches_2d(
    china, (32, 32), max_patches=400, random_state=0
)
pixels = torch.as_tensor(windows).permute(
    0, 3, 1, 2
)  # uint8 (400, 3, 32, 32)
patches = data.Dataset(
    "patches", data.Split(pixels[:360]), data.Split(pixels[360:])
)
run = train(patches, Settings(8, 2), folder)
print(f"{run.evaluation['test_elbo']:.1f} nats an image, after two epochs")

# %% [markdown]
# Values from 0 to 1 become pixels by `(255 * values).round().to(torch.uint8)`.
#
# ## Use the model
#
# `sample` gives the mean images of codes of the prior, `decode` of any codes.
# Pixels that are drawn too come from the likelihood itself:

# %% mystnb={"figure": {"caption": "Ten codes of the Gaussian model: the mean image of each, and one that is drawn, pixel by pixel.", "name": "fig-own-drawn"}, "image": {"alt": "Two rows of ten digits: above smooth ones, below the same with noise on every pixel."}}
torch.manual_seed(0)
model = gaussian.model()
codes = model.prior().sample((10,))
likelihood = model.decoder(codes)
drawn = likelihood.sample().clamp(0, 1)  # a Gaussian goes beyond
rows({"mean": likelihood.mean.detach(), "drawn": drawn})

# %% [markdown]
# Codes are plain tensors. A classifier on the means of the posteriors:

# %%
train_codes, _ = evaluation.encode(model, digits.train.images)
test_codes, _ = evaluation.encode(model, digits.test.images)
classifier = LogisticRegression(max_iter=1000)
classifier.fit(train_codes, digits.train.labels)
accuracy = classifier.score(test_codes, digits.test.labels)
print(f"{accuracy:.0%} of the test digits are named rightly")

# %% [markdown]
# ## Judge somebody else's model
#
# A VAE from elsewhere need not know this package. It is scored by the same
# `log_prob` as soon as somebody says what its numbers mean: two functions that
# return distributions.


# %% tags=["hide-input"]
class Theirs(nn.Module):  # as in many a repository
    def __init__(self):
        super().__init__()
        self.fc1, self.fc21 = nn.Linear(784, 400), nn.Linear(400, 20)
        self.fc22, self.fc3 = nn.Linear(400, 20), nn.Linear(20, 400)
        self.fc4 = nn.Linear(400, 784)

    def encode(self, x):
        h1 = self.fc1(x.view(-1, 784)).relu()
        return self.fc21(h1), self.fc22(h1)

    def decode(self, z):
        return self.fc4(self.fc3(z).relu()).sigmoid().view(-1, 1, 28, 28)


torch.manual_seed(0)
theirs = Theirs()


# %%
def encode(x):
    return posteriors.DiagonalNormal(*theirs.encode(x))


def decode(z):
    return Independent(Bernoulli(theirs.decode(z), validate_args=False), 3)


judged = VAE(encode, decode, priors.Standard(20), (1, 28, 28))
judged.theirs = theirs  # its weights, of which VAE asks the device
estimate, _ = evaluation.log_prob(judged, digits.test.images, samples=100)
print(f"untrained: log p(x) is {estimate.mean():.1f} nats an image")

# %% [markdown]
# ## Keep, compile, repeat
#
# - **A run is loaded** by `runs.load(folder, builder)`, a file of weights by
#   `models.load(path, builder=...)`. The file holds the name of its builder, and
#   nothing in it is executed; you give the function.
# - **Compiled:** a builder that ends with `return torch.compile(model)` trains
#   compiled, and is saved as the model that it is.
# - **A sweep,** with joblib, or with whatever starts processes:
#
# ```python
# from joblib import Parallel, delayed
# objectives = [objective.BetaELBO(beta) for beta in (1, 2, 4)]
# jobs = [delayed(train)(digits, Settings(8), objective=o) for o in objectives]
# runs = Parallel(n_jobs=3)(jobs)
# ```
#
# Each β has a folder of its own (and 2 another one than 2.0). The learning rate and the batch size are
# `Settings`; they are in the folder's name too, if they are not the paper's.
