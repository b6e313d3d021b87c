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
# # How many dimensions does a digit need?
#
# **The paper trains the same VAE with codes of 1, 2, 4, 8, 16 and 64 numbers,
# and looks at what each of them invents.** It finds recognisable digits with one
# dimension already, less blur with two, and hardly any gain beyond. This page
# repeats the experiment with several seeds, puts nats beside the pictures,
# and trains once more for much longer, to see whether more dimensions overfit.
# The page after it, {doc}`/book/mnist/samples`, judges the looks.

# %% tags=["parameters"]
import os

# "paper": MNIST; "quick": the digits that come with scikit-learn
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-input"]
from IPython.display import Markdown
from myst_nb import glue
from tabulate import tabulate

from book.machinery import claims, profiles
from vaelib import data, plots, runs

plan = profiles.load(profile, "mnist")
digits = data.load(plan.dataset, data_folder)
count, test_count = len(digits.train), len(digits.test)
print(f"{digits.name}: {count:,} training and {test_count:,} test images")

# %% [markdown]
# Runs that exist are loaded; a missing one is trained here.
# (`python -m book.machinery sweep mnist` trains them several at once.)

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

# %% mystnb={"figure": {"caption": "Images decoded from codes of the prior, for K = 1, 2, 4, 8, 16 and 64. Our version of the paper's Figure 1.", "name": "fig-mnist-prior-samples"}, "image": {"alt": "Six grids of 36 decoded digits, one for each number of latent dimensions."}}
invented = {
    f"K = {K}": first.model().sample(36, seed=0)
    for K, (first, *_) in short.items()
}
plots.panels(invented, columns=6)

# %% [markdown]
# With one dimension all samples lie on a curve, and there are only as many kinds
# of digit as fit along it. How much crisper the strokes become, and whether a
# judge recognises the digits, is measured in {doc}`/book/mnist/samples`.
#
# ## What they are worth
#
# The bound, its two terms, a tighter bound of $\log p(x)$ from 200 samples an
# image, and the number of latent dimensions in use, over all test images: nats
# per image, mean ± standard deviation over the seeds of the short training.


# %%
def shown(K, figure):
    return runs.plus_minus([run.evaluation[figure] for run in short[K]])


columns = {
    "ELBO": "test_elbo",
    "reconstruction term": "test_reconstruction",
    "KL": "test_kl",
    "log p(x), at least": "log_prob",
    "active units": "active_units",
}
table = {"K": list(short)}
for title, figure in columns.items():
    table[title] = [shown(K, figure) for K in short]
Markdown(tabulate(table, "keys", tablefmt="github", disable_numparse=True))

# %% mystnb={"figure": {"caption": "The same against the number of latent dimensions, in nats per image where it is nats; a point is a seed, the line joins the means.", "name": "fig-over-dimensions"}, "image": {"alt": "Six plots against the number of latent dimensions: ELBO, reconstruction term, KL, log p(x), active units and squared error per pixel."}}
columns["squared error per pixel"] = "reconstruction_error"
values = {
    title: [[run.evaluation[figure] for run in short[K]] for K in short]
    for title, figure in columns.items()
}
plots.over_dimensions(list(short), values)

# %% [markdown]
# ## Do more dimensions overfit?
#
# The short training cannot tell: on the training images a model may go on
# improving long after it has stopped doing so on the test images. The long one
# shows it. A gap between the dashed and the solid line is overfitting; a solid
# line that falls is overfitting that does harm.

# %% mystnb={"figure": {"caption": "The ELBO over the long training. Dashed: the training images; solid: the test images.", "name": "fig-long-training"}, "image": {"alt": "Six plots of the ELBO over the epochs of a long training, one for each number of latent dimensions, on training and test images."}}
histories = {f"K = {K}": run.metrics for K, (run,) in long.items()}
plots.histories(histories)

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
# ## What that says of a claim
#
# *More dimensions do not overfit the bound*, say Kingma and Welling, and the paper after them.
# We ask that after the long training the gap between train and test be smaller for the
# largest K than for K = 2; that the largest K be within 1 nat of the best K on the test
# images; and that no K have lost more than 1 nat there since its best epoch. (A loss at a small K speaks against the
# third condition, and yet is no fault of too many dimensions.)

# %%
most = max(final)
tested = {K: each["test_elbo"] for K, each in final.items()}
lost = [
    max(epoch["test_elbo"] for epoch in run.metrics) - tested[K]
    for K, (run,) in long.items()
]
claims.judge(
    "C6",
    f"{digits.name}, {count:,} + {test_count:,} images, {plan.long.epochs} epochs",
    [run for (run,) in long.values()],
    gap=gap[most] - gap[2],
    behind=max(tested.values()) - tested[most],
    lost=max(lost),
)

# %% [markdown]
# The front page shows these figures again.

# %% tags=["hide-cell"]
for K in short:
    elbo, deviation = runs.mean_and_std(short[K], "test_elbo")
    glue(f"negative_elbo_{K}", -elbo, display=False)
    glue(f"deviation_{K}", deviation, display=False)
    log_prob, units = (
        runs.mean_and_std(short[K], figure)[0]
        for figure in ("log_prob", "active_units")
    )
    glue(f"negative_log_prob_{K}", -log_prob, display=False)
    glue(f"active_units_{K}", units, display=False)
    glue(f"long_{K}", -tested[K], display=False)
