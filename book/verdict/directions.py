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
# # Which way does an attribute lie?
#
# **Five ways to make a direction of the same labels: which one shows the
# attribute?** {doc}`/book/celeba/attributes` uses two of them. This page tries
# five, on digits (the attribute is "is a 3", and so on) and on faces, and on
# models that leave many of their dimensions unused, where a wrong direction goes
# unnoticed: its steps end where the decoder does not listen.

# %% tags=["parameters"]
import os

# "paper": MNIST, CelebA and drawn faces; "quick": small digits and drawn faces
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from tabulate import tabulate

from book.machinery import profiles
from vaelib import (
    TrainConfig,
    attributes,
    data,
    evaluation,
    features,
    plots,
    progress,
    train,
)

# %% [markdown]
# The candidates are made of the regression's weights $w$ of codes that were
# divided by their standard deviations $s$, of the codes' covariance $\Sigma$ and
# of the difference $\Delta$ of the mean codes with and without the attribute:
#
# | direction | what it is |
# |---|---|
# | $d \propto w / s$ | the gradient of the regression's score: a *filter* |
# | $w$ | what the authors' scripts walked along |
# | $s w$ | where the score grows fastest for each standard deviation |
# | $\Sigma d$ | what goes with the score: the filter's *pattern* {cite}`haufe2014interpretation` |
# | $\Delta$ | what goes with the attribute itself |


# %%
def candidates(attribute, means):
    scale, weights = means.std(0), attribute.standardised_direction
    ways = {
        "d": attribute.gradient,
        "w": weights,
        "s w": scale * weights,
        "Σ d": torch.cov(means.T) @ attribute.gradient,
        "Δ": attribute.direction,
    }
    return {title: way / way.norm() for title, way in ways.items()}


# %% [markdown]
# A judge that has only seen real images, a classifier of the pixels, looks at
# the ends of a walk of a hundred test images from -4 to 4, each direction being
# of length 1. For digits we ask how much its probability of the digit rises, for
# faces its log-odds of the attribute. A model's *active* dimensions are those
# whose posterior means have a variance above 0.01.


# %%
walked = 100 if "paper" in profile else 20  # test images, along each way


def study(experiment, latent_dim):
    plan = profiles.load(profile, experiment)
    images = data.load(plan.dataset, data_folder)
    settings = TrainConfig(
        latent_dim, plan.short.epochs, plan.short.seeds[0], plan.batch_size
    )
    run = train(images, settings, runs_folder)
    model, judge = run.model(), features.load(images, runs_folder)[0]
    labels = images.test.labels
    if digits := labels.ndim == 1:
        labels = torch.nn.functional.one_hot(labels.long()).bool()
    present = labels.sum(0)
    usable = (present >= 10) & (present <= len(labels) - 10)
    columns = usable.nonzero().flatten().tolist()
    names = [images.names[column] for column in columns]
    means, _ = evaluation.encode(model, images.test.images)
    found = attributes.fit(means, labels[:, usable], names)
    rises, active, unused = {}, means.var(0) > 0.01, {}
    label = f"{images.name}, K = {latent_dim}"
    pairs = list(zip(columns, found.values(), strict=True))
    for column, attribute in progress.bar(pairs, desc=label):
        for title, way in candidates(attribute, means).items():
            walks = attributes.traverse(
                model, means[:walked], way, torch.tensor([-4.0, 4])
            )
            with torch.inference_mode():
                seen = judge(walks.flatten(0, 1))
            seen = seen.softmax(1) if digits else seen
            rise = seen[:, column].unflatten(0, (-1, 2)).diff(dim=1).mean()
            rises.setdefault(title, []).append(rise.item())
            unused.setdefault(title, []).append(way[~active].square().sum())
    rises = {title: torch.tensor(rise) for title, rise in rises.items()}
    print(f"{label}: {run.folder.name}, {active.sum()} dimensions active")
    unused = {
        title: torch.stack(all_).mean() for title, all_ in unused.items()
    }
    return label, rises, unused


# %%
tried = {
    "quick": (("mnist", 64), ("celeba", 64)),
    "paper": (
        ("mnist", 16),
        ("mnist", 64),
        ("celeba", 64),
        ("celeba", 96),
        ("faces", 32),
    ),
}
results = [study(*pair) for pair in tried[profile]]

# %% [markdown]
# The mean rise over all attributes, as a share of that along $\Delta$:

# %%
titles = list(results[0][1])
shares = {
    label: [rises[title].mean() / rises["Δ"].mean() for title in titles]
    for label, rises, _ in results
}
table = [
    [label, *map(float, shares[label]), rises["Δ"].mean().item()]
    for label, rises, _ in results
]
headers = ["", *titles, "rise along Δ"]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".2f"))

# %% mystnb={"figure": {"caption": "The mean rise of the judge's opinion along each direction, as a share of that along the difference of the means.", "name": "fig-directions-rise"}, "image": {"alt": "A line for each model and a dot for each direction: the gradient is far to the left, the coefficients and their products with the spreads follow, the pattern is close to one."}}
series = {
    title: [float(share[i]) for share in shares.values()]
    for i, title in enumerate(titles[:-1])
}
with plt.rc_context(plots.STYLE):
    figure, panel = plt.subplots(figsize=(plots.WIDTH, 2.2))
for (title, values), marker in zip(series.items(), "os^D", strict=True):
    panel.plot(
        values, range(len(shares)), marker, markersize=4, label=title
    )
panel.axvline(1, color="0.6", linewidth=1)
panel.set_yticks(range(len(shares)), list(shares))
panel.set(xlabel="share of the rise along Δ", xlim=(0, None))
panel.invert_yaxis()
panel.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
plt.show()

# %% [markdown]
# And where the steps go: the share of the squared length that lies in dimensions
# that are not active.

# %%
table = [
    [label, *(f"{unused[title]:.0%}" for title in titles)]
    for label, _, unused in results
]
Markdown(
    tabulate(table, ["", *titles], tablefmt="github", stralign="right")
)

# %% [markdown]
# The gradient goes furthest where a dimension says little: its $s$ is small, and
# it divides. Multiplying by the spreads brings the steps back into what the
# model uses, and multiplying by the whole covariance also restores what
# dimensions share. What remains between $\Sigma d$ and $\Delta$ is the
# regression's own error: it has to find $K$ weights together, where each mean is
# found by itself. So `attributes.fit` gives $\Delta$ as the `direction` of an
# attribute. It asks for nothing but the two means, cannot lead into dimensions
# that the model does not use, since there all means are alike, and none of the
# others shows more.
#
# **A limit.** $\Delta$ takes along whatever comes together with the attribute in
# the data, and whoever wants to change one thing while all others stay asks
# another question; {doc}`/book/celeba/attributes` measures that leak.
