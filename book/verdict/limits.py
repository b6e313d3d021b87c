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
# # What this book does not show
#
# **How far do its numbers reach, and who is in the pictures?** A reproduction is only worth what its limits allow. This page lists them: the data
# and the computing at hand, the yardsticks, and the photographs themselves, whose labels and whose composition are counted here: a data set should
# come with such an account {cite}`gebru2021datasheets`, and this one did not. With the quick profile the same cells count drawn faces, which
# represent nobody: there, the tables show how the page works, and nothing about people.

# %% tags=["parameters"]
import os

# "paper": CelebA; "quick": faces drawn by the package itself
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
latent_dim: int = 64  # K
seed: int = 0  # of weights, order and noise
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from sklearn.metrics import roc_auc_score
from tabulate import tabulate

from book.machinery import profiles
from vaelib import data, evaluation, features, plots, runs

plan = profiles.load(profile, "celeba")
photos = data.load(plan.dataset, data_folder)
trained = runs.train_all(photos, plan.settings(plan.short), runs_folder)
run = trained[latent_dim][seed]
model = run.model()
count, test_count = len(photos.train), len(photos.test)
print(f"{photos.name}: {count:,} training and {test_count:,} test images")
if photos.name.startswith("faces"):
    print("These faces are drawn. Nothing below is about people.")


# %%
def show(rows, headers):
    return Markdown(
        tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    )


# %% [markdown]
# ## Data and computing
#
# CelebA has 202,599 photographs; the official split gives 162,770 of them to training and 19,962 to testing. The stored pages have seen a small
# part of its training images, split by name. To make up for that a little, the models go over it more often than the paper's ten times; they still
# make far fewer updates.

# %%
settings, batch = run.config, run.config.batch_size
rows = [
    ("this page", count, test_count, settings.epochs),
    ("the paper's scripts", 162_770, 19_962, 10),
]
table = []
for name, images, tests, epochs in rows:
    updates = epochs * math.ceil(images / batch)
    table.append(
        (name, *(f"{n:,}" for n in (images, tests, epochs, updates)))
    )
headers = ["", "training images", "test images", "epochs", "updates"]
show(table, headers)

# %% [markdown]
# Seen so early in training, what a large K could do with twenty times as many images is unknown. A model may overfit these images and not those;
# and rare attributes are very rare here. Two more consequences:
#
# *The same people on both sides.* The official split keeps each person on one side. A split by name, within the official training images, does not:
# the names are in no order of persons, and the list of identities is not among the files used. There are about 20 photographs of a person in CelebA
# {cite}`liu2015deep`. If each of the other 19 had an equal chance to be among the training images, a test image would share its person with one of
# them with probability:

# %%
chance = 1 - (1 - count / 162_770) ** 19
print(f"{chance:.0%} (a rough estimate, for CelebA only)")

# %% [markdown]
# So "test" means here: another photograph, and often not another person.
#
# *Few seeds.* What happens to a number under another seed is known for some K only. The paper's settings were not tuned here, neither were ours:
# one learning rate, one batch size, one architecture.

# %%
table = []
for K, each in trained.items():
    levels = torch.tensor([one.evaluation["test_elbo"] for one in each])
    deviation = f"{levels.std():.1f}" if len(each) > 1 else "unknown"
    error = each[0].evaluation["elbo_standard_error"]
    table.append([K, len(each), deviation, f"{error:.1f}"])
headers = ["K", "seeds", "ELBO: deviation over seeds"]
show(table, [*headers, "standard error over test images"])

# %% [markdown]
# (Differences between models on the same images are known more exactly than either value: the images' own differences cancel.)
#
# ## Yardsticks
#
# *The judge.* Fréchet distances, the share of samples that passes as real, and the change of a smile are read from a small classifier that was
# trained on the same training images. They say nothing beyond this book, and are no "FID". How well does the judge know what it judges? The area
# under the ROC curve (AUC) on the test images, for attributes that at least ten of them have:

# %%
judge = features.train(photos, runs_folder)
labels = photos.test.labels
with torch.inference_mode():
    pixels = data.to_float(photos.test.images).split(500)
    logits = torch.cat([judge(part) for part in pixels])
usable = (labels.sum(0) >= 10) & ((~labels).sum(0) >= 10)
areas = {
    photos.names[i]: roc_auc_score(labels[:, i], logits[:, i])
    for i in usable.nonzero().flatten().tolist()
}
ranked = sorted(areas, key=areas.get)
print(f"median of {len(areas)}: {areas[ranked[len(ranked) // 2]]:.2f}")
for name in (*ranked[-3:][::-1], *ranked[:3]):
    print(f"{name}: {areas[name]:.2f}")

# %% [markdown]
# *Log-likelihoods.* They are lower bounds, from a finite number of posterior samples, of an objective that is no density
# ({doc}`/book/verdict/slips`). How far up does the bound still climb? On 20 test images:

# %%
small = photos.test.images[:20]
reconstruction, kl = evaluation.elbo(model, small)
table = [("1 (ELBO)", f"{(reconstruction - kl).mean():.1f}", "")]
for samples in (10, 50, 250):
    estimate, error = evaluation.log_prob(model, small, samples)
    error = error.square().sum().sqrt() / len(small)
    table.append((samples, f"{estimate.mean():.1f}", f"{error:.1f}"))
show(table, ["samples", "log p(x), at least, nats", "Monte Carlo error"])

# %% [markdown]
# Where the last steps still climb, the true value is not reached, and the bound need not be equally tight for all models.
#
# *The rules.* The paper states no conditions under which its claims would be false. Those of the verdicts are ours, some of them
# rewritten after numbers were known ({doc}`claims` names them), and another threshold could turn a verdict. The numbers are given so that readers can apply their own.
#
# ## Whose faces
#
# CelebA's photographs were collected from the web, of people who are famous {cite}`liu2015deep`. They did not agree to be in a data set; it is
# offered for research that is not commercial, and this book shows some in its figures,
# small and cropped, and includes none of the files. The faces are not a sample of humankind, nor of any
# country, but of those whom photographers, search engines and magazines chose, often smiling, made up and well lit. What a model learns as *the*
# face is an average over that choice.
#
# The 40 labels are two-valued, given by annotators of a company {cite}`liu2015deep`. For many that is a coarse description (is the mouth open?),
# for some no description at all: *Attractive* is a judgement of those who labelled, and of no use as a fact about anybody. *Male* has two values
# and was given by looks: it is no person's own word on their gender, knows no third answer, and the "direction of Male" is a direction of that
# label. *Young*, *Pale_Skin*, *Big_Nose* and *Chubby* are opinions with a threshold. An audit found that two annotators agree in nearly all images
# on 12 of the 40 labels only, and that the labels of duplicate images contradict each other {cite}`wu2022consistency`.
#
# ### Who is there
#
# The share of each label in all images at hand (training and test), with the 95% interval (Wilson's) for the share in what the images are a sample
# of. If names are in no order, that is the training part of CelebA, and no population of people.

# %%
chosen = "Male Young Attractive Smiling Heavy_Makeup Pale_Skin Eyeglasses"
chosen += " Wearing_Hat Gray_Hair Bald Chubby Blurry Blond_Hair Black_Hair"
chosen = [name for name in chosen.split() if name in photos.names]
everyone = torch.cat([photos.train.labels, labels])
total = len(everyone)


def wilson(hits, n):
    """The 95% interval of a share."""
    p, z = hits / n, 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    half *= z / (1 + z * z / n)
    return middle - half, middle + half


table = []
for name in chosen:
    hits = everyone[:, photos.column(name)].sum().item()
    low, high = wilson(hits, total)
    table.append((name, hits, f"{hits / total:.1%}"))
    table[-1] += (f"{low:.1%} to {high:.1%}",)
show(table, ["label", f"of {total:,}", "share", "95% interval"])

# %% [markdown]
# There is no label for skin colour but *Pale_Skin*, none for origin, and none for disability. For which skin a model does worse, as was asked of
# commercial systems and answered with labels made for it {cite}`buolamwini2018gender`, cannot be asked here; that is a limit, and no sign that all
# is well.
#
# ### What comes together
#
# Labels do not come independently. The share of other labels among images labelled *Male* and among those not so labelled:

# %%
male = everyone[:, photos.column("Male")]
sides = [everyone[male].float().mean(0), everyone[~male].float().mean(0)]
gap = sides[0] - sides[1]
gap[photos.column("Male")] = 0
largest = gap.abs().argsort(descending=True)[:8]
wanted = [photos.names[i] for i in largest if gap[i] != 0]
wanted += [n for n in ("Young", "Attractive", "Smiling") if n in chosen]
table = []
for name in dict.fromkeys(wanted):
    i = photos.column(name)
    error = [p[i] * (1 - p[i]) for p in sides]
    error = (error[0] / male.sum() + error[1] / (~male).sum()).sqrt()
    row = (f"{sides[0][i]:.1%}", f"{sides[1][i]:.1%}")
    table.append((name, *row, f"{100 * gap[i]:+.1f} ± {196 * error:.1f}"))
headers = ["label", "Male", "not Male", "difference, points (95%)"]
show(table, headers)

# %% [markdown]
# Fashion, the choice of who is photographed, and the annotators' own expectations all go into such a table, and it cannot separate them. A
# direction fitted to one label takes along what comes with it ({doc}`/book/celeba/attributes` compares the directions; {doc}`/book/celeba/factors`
# measures what leaks where the factors are independent). Whoever walks along "Male" and sees make-up vanish has seen the data's habits.
#
# ### Whom the model serves worse
#
# The squared error per pixel of the reconstruction of test images (from the posterior mean), with and without each label: the difference, relative
# to the mean error of all, ± its standard error. Many labels are compared, so with $A$ of them a difference counts only beyond the quantile of the
# normal distribution for $0.05 / A$ (Bonferroni).

# %%
errors = evaluation.reconstruction_error(model, photos.test.images)
compared = usable.nonzero().flatten().tolist()
shift, half, counted = [], [], []
for i in compared:
    groups = errors[labels[:, i]], errors[~labels[:, i]]
    difference = groups[0].mean() - groups[1].mean()
    variance = sum(group.var() / len(group) for group in groups)
    shift.append(difference / errors.mean())
    half.append(variance.sqrt() / errors.mean())
    counted.append(len(groups[0]))
shift, half = torch.stack(shift), torch.stack(half)
tail = torch.tensor(0.025 / len(compared), dtype=torch.float64)
limit = -torch.special.ndtri(tail).item()
clear = shift.abs() > limit * half
print(
    f"{clear.sum()} of {len(compared)} beyond {limit:.1f} standard errors"
)
print(f"of these, {(clear & (shift > 0)).sum()} with a larger error")

# %%
order = shift.argsort(descending=True).tolist()
ends = order[:8] + order[-6:] if len(order) > 16 else order
named = [j for j in order if photos.names[compared[j]] in chosen]
table = []
for j in sorted({*ends, *named}, key=order.index):
    value = f"{shift[j]:+.0%} ± {half[j]:.0%}"
    name = photos.names[compared[j]]
    table.append((name, counted[j], value, "yes" if clear[j] else ""))
show(table, ["label", "test images", "difference of the error", "clear"])

# %% mystnb={"figure": {"caption": "Each point is a label: its share of the test images, and by how much the reconstruction of images with it is worse (above) or better (below) than without, relative to the mean error; bars are two standard errors. Named: those that are clearly worse.", "name": "fig-limits-groups"}, "image": {"alt": "A scatter plot of the relative difference of the reconstruction error against the share of each label, with error bars that grow towards rare labels."}} tags=["hide-input"]
share = torch.tensor(counted) / test_count
with plt.rc_context(plots.STYLE):
    figure, panel = plt.subplots(figsize=(plots.WIDTH, 2.8))
plt.close(figure)
panel.axhline(0, color="grey", linewidth=0.8)
panel.errorbar(share, shift, yerr=2 * half, fmt="o", markersize=3)
for j in (j for j in order if clear[j] and shift[j] > 0):
    name = photos.names[compared[j]].replace("_", " ")
    panel.annotate(f" {name}", (share[j], shift[j]), fontsize=7)
panel.set(
    xlabel="share of the test images", ylabel="difference of the error"
)
figure

# %%
together = torch.stack([share, shift]).corrcoef()[0, 1]
print(f"correlation of share and difference: {together:.2f}")

# %% [markdown]
# What covers a face and is rare costs most, where the table says so; but a common label may be among the clear ones too, and a larger error has more
# than one cause: few examples to learn from, a lively background, a hat's edge, strong contrast. The table says that groups differ, and not why. And
# it takes one label at a time, though labels come together.
#
# ### Labels that contradict each other
#
# Some pairs of labels exclude each other by what the words mean. How often are both there? (Of *No_Beard* and *5_o_Clock_Shadow* one may argue; the
# other pairs leave little room.)

# %%
pairs = "No_Beard Goatee,No_Beard Mustache,No_Beard Sideburns,"
pairs += "No_Beard 5_o_Clock_Shadow,Bald Bangs,Bald Wavy_Hair,"
pairs += "Straight_Hair Wavy_Hair,Black_Hair Blond_Hair,"
pairs += "Black_Hair Brown_Hair,Blond_Hair Brown_Hair"
table = []
for first, second in (pair.split() for pair in pairs.split(",")):
    if {first, second} <= set(photos.names):
        a = everyone[:, photos.column(first)]
        b = everyone[:, photos.column(second)]
        both = (a & b).sum().item()
        rarer = min(a.sum(), b.sum()).item()
        table.append((first, second, both, f"{both / rarer:.1%}"))
show(table, ["label", "and", "both", "share of the rarer one"])

# %% [markdown]
# The opposite fault is silence. Every head has hair of some colour, or is bald, or covered:

# %%
answers = "Black_Hair Blond_Hair Brown_Hair Gray_Hair Bald Wearing_Hat"
columns = [photos.column(n) for n in answers.split() if n in photos.names]
silent = ~everyone[:, columns].any(1)
print(
    f"none of these: {silent.sum():,} of {total:,} ({silent.float().mean():.1%})"
)

# %% [markdown]
# Where labels contradict each other or are silent, a regression on codes is fitted to noise as well, and no code could make it accurate beyond the
# labels' own consistency.
#
# ## And so
#
# The verdicts of this book hold for these images, this many of them, these models and these rules. They tell how well the paper's statements can be
# had again by someone with little data and a small computer. They do not tell what the models would do for faces of people who are not in the
# pictures, and nothing here should be used to judge, sort or recognise anybody.
