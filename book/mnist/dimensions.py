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
# # How many dimensions does a digit need?
#
# **The paper trains the same VAE with codes of 1, 2, 4, 8, 16 and 64 numbers, and looks at what each of them invents.**
# It finds recognisable digits with one dimension already, less blur with two, and hardly any gain beyond. This page
# repeats the experiment with three seeds, puts numbers beside the pictures, and trains once more for much longer, to see
# whether more dimensions overfit.

# %% tags=["parameters"]
import os

profile = os.environ.get("VAELIB_PROFILE", "paper")  # "paper": MNIST; "quick": scikit-learn's digits
data_folder = None  # default: the environment variable VAELIB_DATA, else ~/.cache/vaelib
runs_folder = None  # default: the environment variable VAELIB_RUNS, else this project's `runs`

# %%
import torch
from IPython.display import Markdown
from myst_nb import glue
from sklearn.neighbors import KNeighborsClassifier
from tabulate import tabulate

from vaelib import Settings, data, figures, profiles, runs, train

experiment = profiles.load(profile, "mnist")
digits = data.load(experiment.dataset, data_folder)
print(f"{digits.name}: {len(digits.train):,} training and {len(digits.test):,} test images")

# %% [markdown]
# Runs that exist are loaded; a missing one would be trained here. (`python -m vaelib sweep mnist` trains them several at
# once.)

# %%
short = {
    K: [train(digits, Settings(K, experiment.short.epochs, seed), runs_folder) for seed in experiment.short.seeds]
    for K in experiment.latent_dims
}
long = {K: train(digits, Settings(K, experiment.long.epochs, experiment.long.seeds[0]), runs_folder) for K in short}
print(f"{len(short)} dimensions, {experiment.short.epochs} epochs with seeds {experiment.short.seeds}")
print(f"and {experiment.long.epochs} epochs with seed {experiment.long.seeds[0]}")

# %% [markdown]
# ## What they invent
#
# Our version of the paper's first figure: 36 codes from the prior for each K, decoded by the model of the first seed.

# %% mystnb={"figure": {"caption": "Images decoded from codes of the prior, for K = 1, 2, 4, 8, 16 and 64. The paper's Figure 1.", "name": "fig-prior-samples"}, "image": {"alt": "Six grids of 36 decoded digits, one for each number of latent dimensions."}}
with torch.inference_mode():
    invented = {K: each[0].model().sample(400, torch.Generator().manual_seed(0)) for K, each in short.items()}
figures.panels({f"K = {K}": images[:36] for K, images in invented.items()}, columns=6)

# %% [markdown]
# With one dimension the samples lie on a curve, and so there are only as many kinds of digit as fit along it; with two
# they get crisper. From about sixteen on they are crisper still, but more of them are no digit at all: the prior
# holds regions that no image was encoded into.
#
# ## What they are worth
#
# The bound, its two terms, an estimate of log p(x) and the number of latent dimensions in use: over all test images, in
# nats per image, mean ± standard deviation over the seeds.


# %%
def cell(K, figure, digits=1):
    mean, deviation = runs.spread(short[K], figure)
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


keys = ["test_elbo", "test_reconstruction", "test_kl", "log_prob", "active_units", "reconstruction_error"]
headers = ["K", "ELBO", "log p(x \\| z)", "KL", "log p(x)", "active units", "squared error per pixel"]
table = [[K, *(cell(K, key, 4 if key == "reconstruction_error" else 1) for key in keys)] for K in short]
Markdown(tabulate(table, headers=headers, tablefmt="github", disable_numparse=True))

# %% mystnb={"figure": {"caption": "The bound and its terms against the number of latent dimensions; a point is a seed.", "name": "fig-over-dimensions"}, "image": {"alt": "Four plots against the number of latent dimensions: ELBO, log p(x | z), KL and active units."}}
titles = {"test_elbo": "ELBO", "test_reconstruction": "log p(x | z)", "test_kl": "KL", "active_units": "active units"}
values = {title: [[run.evaluation[key] for run in each] for each in short.values()] for key, title in titles.items()}
figures.over_dimensions(list(short), values, ["nats per image", "", "", ""])

# %% [markdown]
# ## What they look like, in numbers
#
# Nats are not looks. Two figures stand in for a reader's eye, measured on what the models decode:
#
# - **recognised**: how often a classifier that has seen only real digits (five nearest neighbours among the first 10,000
#   training images) reads the right digit in a test image's reconstruction, for the first 1,000 test images;
# - **greyness**: how undecided the pixels of prior samples are, the mean of 4 p (1 - p), which is 0 for black and white
#   and 1 for an even grey. Blur is grey.

# %%
classifier = KNeighborsClassifier(5).fit(digits.train.images[:10000].flatten(1), digits.train.labels[:10000])
originals, labels = data.to_float(digits.test.images[:1000]), digits.test.labels[:1000].numpy()


def recognised(images):
    return float((classifier.predict(images.flatten(1) * 255) == labels).mean())


def greyness(images):
    return float((4 * images * (1 - images)).mean())


# %%
looks = {}
for K, each in short.items():
    models = [run.model() for run in each]
    with torch.inference_mode():
        read = [recognised(model.decode(model.encode(originals)[0])) for model in models]
        grey = [greyness(model.sample(1000, torch.Generator().manual_seed(0))) for model in models]
    looks[K] = torch.tensor([read, grey], dtype=torch.float64)  # (2, seeds)

# %%
table = [[K, *(f"{value.mean():.3f} ± {value.std():.3f}" for value in looks[K])] for K in looks]
table.append(["real images", f"{recognised(originals):.3f}", f"{greyness(originals):.3f}"])
Markdown(tabulate(table, headers=["K", "recognised", "greyness"], tablefmt="github", disable_numparse=True))

# %% [markdown]
# ## Do more dimensions overfit?
#
# Ten epochs are too few to tell: on the training set a model may go on improving long after it has stopped doing so on
# the test set. The long training shows it. A gap between the dashed and the solid line is overfitting; a solid line that
# falls is overfitting that does harm.

# %% mystnb={"figure": {"caption": "The ELBO over a much longer training. Dashed: the training images; solid: the test images.", "name": "fig-long-training"}, "image": {"alt": "Six plots of the ELBO over the epochs of a long training, one for each number of latent dimensions, on training and test images."}}
figures.histories({f"K = {K}": run.metrics for K, run in long.items()})

# %%
table = [
    [
        K,
        run.evaluation["train_elbo"],
        run.evaluation["test_elbo"],
        run.evaluation["train_elbo"] - run.evaluation["test_elbo"],
        max(line["test_elbo"] for line in run.metrics),
        max(run.metrics, key=lambda line: line["test_elbo"])["epoch"],
        run.evaluation["log_prob"],
        run.evaluation["active_units"],
    ]
    for K, run in long.items()
]
headers = ["K", "train ELBO", "test ELBO", "gap", "best test ELBO", "at epoch", "log p(x)", "active units"]
Markdown(tabulate(table, headers=headers, tablefmt="github", floatfmt=".1f"))

# %% [markdown]
# ## What that says of the paper's claims
#
# Each line is computed from the tables above; the rule stands beside the figure it is applied to.

# %%
elbo = {K: runs.spread(each, "test_elbo")[0] for K, each in short.items()}
read, grey = ({K: float(looks[K][row].mean()) for K in looks} for row in (0, 1))
most = max(short)
best = max(elbo, key=elbo.get)
harm = {K: max(line["test_elbo"] for line in run.metrics) - run.metrics[-1]["test_elbo"] for K, run in long.items()}
worst = max(harm, key=harm.get)


def verdict(holds):
    return "holds" if holds else "does not hold"


claims = [
    [
        "One dimension already gives recognisable digits",
        "more than half of the reconstructions are read correctly (chance: one in ten)",
        f"{100 * read[1]:.0f}%",
        verdict(read[1] > 0.5),
    ],
    [
        "Two dimensions are less blurry",
        "samples are less grey than with one",
        f"greyness {grey[1]:.3f} to {grey[2]:.3f}",
        verdict(grey[2] < grey[1]),
    ],
    [
        "Beyond two, the gain is hardly noticeable",
        "the step from two to the best K gains less than half of the step from one to two, in nats",
        f"{elbo[best] - elbo[2]:.1f} (K = {best}) against {elbo[2] - elbo[1]:.1f}",
        verdict(elbo[best] - elbo[2] < 0.5 * (elbo[2] - elbo[1])),
    ],
    [
        "More dimensions do not overfit the bound",
        "after the long training no K has lost more than 1 nat against its best epoch on the test images",
        f"largest loss {harm[worst]:.1f} (K = {worst})",
        verdict(harm[worst] < 1),
    ],
]
Markdown(tabulate(claims, headers=["claim", "rule", "measured", "verdict"], tablefmt="github"))

# %% [markdown]
# The authors report 144.87 nats for -ELBO at K = 2, from one training on MNIST. The comparison with ours, on the same
# data and after as many epochs, is on the front page.

# %%
for K in short:
    mean, deviation = runs.spread(short[K], "test_elbo")
    glue(f"negative_elbo_{K}", -mean, display=False)
    glue(f"negative_elbo_{K}_deviation", deviation, display=False)
    glue(f"log_prob_{K}", runs.spread(short[K], "log_prob")[0], display=False)
    glue(f"active_units_{K}", runs.spread(short[K], "active_units")[0], display=False)
    glue(f"recognised_{K}", 100 * read[K], display=False)
    glue(f"long_negative_elbo_{K}", -long[K].evaluation["test_elbo"], display=False)
for name, claim in zip(("recognisable", "blur", "beyond_two", "overfit"), claims, strict=True):
    glue(f"claim_{name}", claim[2], display=False)
    glue(f"verdict_{name}", claim[3], display=False)
