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
# **The paper trains the same VAE with codes of 1, 2, 4, 8, 16 and 64 numbers,
# and looks at what each of them invents.** It finds recognisable digits with one
# dimension already, less blur with two, and hardly any gain beyond. This page
# repeats the experiment with several seeds, puts numbers beside the pictures,
# and trains once more for much longer, to see whether more dimensions overfit.

# %% tags=["parameters"]
import os

# "paper": MNIST; "quick": the digits that come with scikit-learn
profile = os.environ.get("VAELIB_PROFILE", "paper")
data_folder = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-input"]
import torch
from IPython.display import Markdown
from myst_nb import glue
from sklearn.neighbors import KNeighborsClassifier
from tabulate import tabulate

from vaelib import data, figures, profiles, runs

plan = profiles.load(profile, "mnist")
digits = data.load(plan.dataset, data_folder)
count, test_count = len(digits.train), len(digits.test)
print(f"{digits.name}: {count:,} training and {test_count:,} test images")

# %% [markdown]
# Runs that exist are loaded; a missing one is trained here.
# (`python -m vaelib sweep mnist` trains them several at once.)

# %%
short = runs.train_all(digits, plan.settings(plan.short), runs_folder)
long = runs.train_all(digits, plan.settings(plan.long), runs_folder)
for name, schedule in (("short", plan.short), ("long", plan.long)):
    print(f"{name}: {schedule.epochs} epochs, seeds {schedule.seeds}")

# %% [markdown]
# ## What they invent
#
# Our version of the paper's first figure: 36 codes from the prior for each K,
# decoded by the model of the first seed.

# %% mystnb={"figure": {"caption": "Images decoded from codes of the prior, for K = 1, 2, 4, 8, 16 and 64. The paper's Figure 1.", "name": "fig-mnist-prior-samples"}, "image": {"alt": "Six grids of 36 decoded digits, one for each number of latent dimensions."}}
invented = {
    f"K = {K}": first.model().sample(36, torch.manual_seed(0))
    for K, (first, *_) in short.items()
}
figures.panels(invented, columns=6)

# %% [markdown]
# With one dimension all samples lie on a curve, and there are only as many kinds
# of digit as fit along it. How much crisper the strokes become, and how much of
# an image survives the code, is measured further below.
#
# ## What they are worth
#
# The bound, its two terms, a tighter bound of $\log p(x)$ from 200 samples an
# image, and the number of latent dimensions in use, over all test images: nats
# per image, mean ± standard deviation over the seeds of the short training.


# %%
def spread(K, figure):
    mean, deviation = runs.spread(short[K], figure)
    return f"{mean:.1f} ± {deviation:.1f}"


columns = {
    "ELBO": "test_elbo",
    "reconstruction term": "test_reconstruction",
    "KL": "test_kl",
    "log p(x), at least": "log_prob",
    "active units": "active_units",
}
table = {"K": list(short)}
for title, figure in columns.items():
    table[title] = [spread(K, figure) for K in short]
Markdown(tabulate(table, "keys", tablefmt="github", disable_numparse=True))

# %% mystnb={"figure": {"caption": "The same against the number of latent dimensions, in nats per image where it is nats; a point is a seed, the line joins the means.", "name": "fig-over-dimensions"}, "image": {"alt": "Six plots against the number of latent dimensions: ELBO, reconstruction term, KL, log p(x), active units and squared error per pixel."}}
columns["squared error per pixel"] = "reconstruction_error"
values = {
    title: [[run.evaluation[figure] for run in short[K]] for K in short]
    for title, figure in columns.items()
}
figures.over_dimensions(list(short), values)

# %% [markdown]
# ## What they look like, in numbers
#
# Nats are not looks. Two figures stand in for a reader's eye, measured on what
# the models decode:
#
# - **recognised**: how often a classifier that has seen only real digits (five
#   nearest neighbours among the first 10,000 training images) reads the right
#   digit in a test image's reconstruction, for the first 1,000 test images. It
#   errs on real images too, and can hardly tell models apart beyond that;
# - **greyness**: how undecided the pixels of prior samples are, the mean of
#   $4p(1-p)$, which is 0 for black and white and 1 for an even grey. Blur is
#   grey.

# %%
classifier = KNeighborsClassifier(5).fit(
    data.to_float(digits.train.images[:10000]).flatten(1),
    digits.train.labels[:10000],
)
originals = data.to_float(digits.test.images[:1000])
labels = digits.test.labels[:1000].numpy()


def recognised(images):
    """The percentage that is read as the digit that it should show."""
    right = classifier.predict(images.flatten(1)) == labels
    return 100 * float(right.mean())


def greyness(images):
    return float((4 * images * (1 - images)).mean())


# %%
read, grey = {}, {}
for K, each in short.items():
    read[K], grey[K] = torch.empty(2, len(each))
    for number, model in enumerate(run.model() for run in each):
        with torch.inference_mode():
            copies = model.decode(model.encode(originals)[0])
        samples = model.sample(1000, torch.manual_seed(0))
        read[K][number] = recognised(copies)
        grey[K][number] = greyness(samples)

# %%
table = {
    "K": [*short, "real images"],
    "recognised, %": [
        *(f"{read[K].mean():.1f} ± {read[K].std():.1f}" for K in short),
        f"{recognised(originals):.1f}",
    ],
    "greyness": [
        *(f"{grey[K].mean():.3f} ± {grey[K].std():.3f}" for K in short),
        f"{greyness(originals):.3f}",
    ],
}
Markdown(tabulate(table, "keys", tablefmt="github", disable_numparse=True))

# %% [markdown]
# ## Do more dimensions overfit?
#
# The short training cannot tell: on the training images a model may go on
# improving long after it has stopped doing so on the test images. The long one
# shows it. A gap between the dashed and the solid line is overfitting; a solid
# line that falls is overfitting that does harm.

# %% mystnb={"figure": {"caption": "The ELBO over the long training. Dashed: the training images; solid: the test images.", "name": "fig-long-training"}, "image": {"alt": "Six plots of the ELBO over the epochs of a long training, one for each number of latent dimensions, on training and test images."}}
histories = {f"K = {K}": run.metrics for K, (run,) in long.items()}
figures.histories(histories)

# %% [markdown]
# After the last epoch, and at the best epoch on the test images:

# %%
final = {K: run.evaluation for K, (run,) in long.items()}
gap = {K: final[K]["train_elbo"] - final[K]["test_elbo"] for K in final}
table = []
for K, (run,) in long.items():
    best = max(run.metrics, key=lambda epoch: epoch["test_elbo"])
    ends = [final[K]["train_elbo"], final[K]["test_elbo"], gap[K]]
    units = final[K]["active_units"]
    table.append([K, *ends, best["test_elbo"], best["epoch"], units])
headers = ["K", "train ELBO", "test ELBO", "gap", "best test ELBO"]
headers += ["at epoch", "active units"]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".1f"))

# %% [markdown]
# ## What that says of the paper's claims
#
# A claim *holds* if all of its conditions do, *holds in part* if some do. The
# paper states no conditions, so these are ours; each is applied to the figures
# above.


# %%
def judge(conditions):
    if all(conditions):
        return "holds"
    return "holds in part" if any(conditions) else "does not hold"


elbo = {K: runs.spread(short[K], "test_elbo")[0] for K in short}
read = {K: read[K].mean().item() for K in short}
grey = {K: grey[K].mean().item() for K in short}
best = max(elbo, key=elbo.get)
claims = {}

# %% [markdown]
# *One dimension already gives recognisable digits, two are less blurry.* The
# conditions: with K = 1 more than half of the reconstructions are recognised
# (chance: one in ten); with K = 2 prior samples are less grey than with K = 1.

# %%
claims["few"] = (
    "One dimension gives recognisable digits, two are less blurry",
    f"{read[1]:.0f}% recognised; "
    f"greyness from {grey[1]:.3f} to {grey[2]:.3f}",
    judge([read[1] > 50, grey[2] < grey[1]]),
)

# %% [markdown]
# *Beyond two dimensions the gain is hardly noticeable.* The conditions: the step
# from two dimensions to the best K is less than half of the step from one to
# two, in nats, and in recognised digits (each with its own best K).

# %%
nats = elbo[best] - elbo[2], elbo[2] - elbo[1]
points = max(read.values()) - read[2], read[2] - read[1]
claims["more"] = (
    "Beyond two dimensions the gain is hardly noticeable",
    f"{nats[0]:.1f} nats from K = 2 to {best}, {nats[1]:.1f} from 1 to 2; "
    f"{points[0]:.0f} and {points[1]:.0f} points recognised",
    judge([nats[0] < nats[1] / 2, points[0] < points[1] / 2]),
)

# %% [markdown]
# *More dimensions do not overfit the bound* (Kingma and Welling). The conditions,
# after the long training: the gap between train and test is no larger for the
# largest K than for K = 2; the largest K is within 1 nat of the best K on the
# test images; and no K has lost more than 1 nat there since its best epoch. (A
# loss at a small K speaks against the third condition, and yet is no fault of
# too many dimensions.)

# %%
most = max(final)
best = max(final, key=lambda K: final[K]["test_elbo"])
behind = final[best]["test_elbo"] - final[most]["test_elbo"]
lost = {
    K: max(epoch["test_elbo"] for epoch in run.metrics)
    - final[K]["test_elbo"]
    for K, (run,) in long.items()
}
worst = max(lost, key=lost.get)
claims["overfit"] = (
    "More dimensions do not overfit the bound",
    f"gap of {gap[most]:.1f} nats at K = {most}, {gap[2]:.1f} at K = 2; "
    f"{behind:.1f} nats behind K = {best}; "
    f"largest loss {lost[worst]:.1f}, at K = {worst}",
    judge([gap[most] <= gap[2], behind < 1, lost[worst] < 1]),
)

# %%
headers = ["claim", "measured", "verdict"]
Markdown(tabulate(claims.values(), headers, tablefmt="github"))

# %% [markdown]
# The front page shows these figures again.

# %% tags=["hide-cell"]
for K in short:
    deviation = runs.spread(short[K], "test_elbo")[1]
    glue(f"negative_elbo_{K}", -elbo[K], display=False)
    glue(f"deviation_{K}", deviation, display=False)
    log_prob, units = (
        runs.spread(short[K], figure)[0]
        for figure in ("log_prob", "active_units")
    )
    glue(f"negative_log_prob_{K}", -log_prob, display=False)
    glue(f"active_units_{K}", units, display=False)
    glue(f"recognised_{K}", read[K], display=False)
    glue(f"long_{K}", -final[K]["test_elbo"], display=False)
glue("recognised_real", recognised(originals), display=False)
for name, (_, measured, verdict) in claims.items():
    glue(f"{name}_measured", measured, display=False)
    glue(f"{name}_verdict", verdict, display=False)
