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
# # Binary MNIST, next to the literature
#
# **How close does Burda's model, trained with this package, come to the literature's numbers on binary MNIST?** Within half a nat for a VAE,
# and within 0.8 nats for an IWAE, which weights five samples per image. After 400 epochs, our VAE has $-\log p(x)$ = 87.24 ± 0.03 nats (three seeds),
# and our IWAE 86.33 nats (two seeds, 0.05 apart). Burda et al. {cite}`burda2016importance` report 86.76 and 85.54 nats after 3,280 epochs. Hierarchical models reach 78 nats.
#
# We can't compare numbers of grey pixels in this way, because a Bernoulli likelihood isn't a density of grey pixels. Here pixels are
# binary: each is white with a probability equal to its grey value. This page reads records and published weights, and trains nothing.

# %% tags=["parameters", "hide-input"]
import os

# "paper": MNIST; "quick": the digits that come with scikit-learn
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
images: int = 500  # test images on which log p(x) is estimated again
samples: int = 200 if "paper" in profile else 20  # for each of them
draws: int = 200 if "paper" in profile else 20  # of the gradient
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib

# %% tags=["hide-input"]
import json
from functools import partial
from statistics import mean, median

import torch
from IPython.display import Markdown
from tabulate import tabulate

from book.experiments import long_runs
from book.machinery import claims
from vaelib import burda, data, evaluation, objective, plots, runs, storage
from vaelib.binarization import binarized
from vaelib.seeding import seeded

digits = data.load("mnist" if profile == "paper" else "digits", data_folder)
count, test_count = len(digits.train), len(digits.test)
print(f"{digits.name}: {count:,} training and {test_count:,} test images")

# %% [markdown]
# ## Our runs
#
# The model has layers of 784 - 200 - 200 - 50 units with tanh. Its output biases start at the logits of the pixels' means. Pixels are drawn again each time an
# image is used (*dynamic* binarization). Adam (ε = 10⁻⁴) takes batches of 20, and one cosine lowers the learning rate from 0.001 to zero. 400 epochs
# are 1.2 million updates, an eighth of Burda et al.'s. The estimate of $-\log p(x)$ takes 5,000 samples for each of the 10,000 test images.
#
# One command retrains a run, such as seed 10 of `vae`. On one CPU thread, this takes more than an hour.
#
# ```sh
# python -m book.experiments.long_runs vae:10
# ```
#
# The table lists every run that has a record `burda-*` in `book/records/fresh`. In the names, `vae` is one sample, `mean5` averages five, `iwae5` weights five, and
# `dreg5` weights five with another gradient for the encoder {cite}`tucker2019doubly`. With one or two seeds it shows
# their values, and with more their mean ± standard deviation. "Error" is the standard error over test images. Active units have posterior means whose
# variance is above 0.01.

# %% tags=["hide-input"]
records = long_runs.RECORDS / "beyond"
ours = {}
for path in sorted((long_runs.RECORDS / "fresh").glob("burda-*.json")):
    run = runs.load(path, builder=None)
    name = path.stem.removeprefix("burda-").rpartition("-s")[0]
    key = name.removesuffix("-short"), run.config.epochs
    ours.setdefault(key, []).append(run)


def values(found, metric):
    return [run.evaluation[metric] for run in found]


def shown(numbers, form=".2f"):
    if len(numbers) > 2:
        return runs.plus_minus(numbers, form)
    return ", ".join(format(each, form) for each in numbers)


def nats(found, metric="log_prob"):
    return shown([-each for each in values(found, metric)])


headers = [
    "training",
    "epochs",
    "seeds",
    "−log p(x), nats",
    "error",
    "−ELBO",
    "active units",
    "seconds per epoch",
]
table = [
    [
        *key,
        len(found),
        nats(found),
        f"{max(values(found, 'log_prob_image_error')):.2f}",
        nats(found, "test_elbo"),
        shown(values(found, "active_units"), ".0f"),
        f"{median(e['seconds'] for run in found for e in run.metrics):.0f}",
    ]
    for key, found in ours.items()
]
Markdown(tabulate(table, headers, "github", disable_numparse=True))

# %% tags=["hide-input"]
for asked, name in ((87.5, "vae"), (86.3, "iwae5")):
    if found := values(ours.get((name, 400), []), "log_prob"):
        spread = f", range {max(found) - min(found):.2f}"
        print(
            f"{name}: {-mean(found):.2f}{spread if found[1:] else ', one seed'};"
            f" at most {asked}: {'yes' if -mean(found) <= asked else 'no'}"
        )

# %% [markdown]
# Before we trained anything, we asked for at most 87.5 nats of the VAE and 86.3 of the IWAE. The seconds are of one CPU thread that had other work to do.

# %% mystnb={"figure": {"caption": "Minus the ELBO on test images after each epoch, with the first seed of each method that has 400 epochs. Both curves are flat at the end, where the learning rate is close to zero. The IWAE's ELBO is worse than the VAE's, although its log p(x) is better.", "name": "fig-bounds-long"}, "image": {"alt": "Two falling curves over 400 epochs. The upper one, of iwae5, ends at 93 nats, the lower one, of vae, at 91."}} tags=["hide-input"]
plots.lines(
    range(1, 401),
    {
        name: [-line["test_elbo"] for line in found[0].metrics]
        for (name, epochs), found in ours.items()
        if epochs == 400
    },
    "epoch",
    "−ELBO, nats",
    xscale="log",
)

# %% [markdown]
# ## The literature
#
# The rows **here** are the runs above. We quote the others, and each source is linked with its commit. The columns VAE average the given number of
# samples, and the columns IWAE weight them. All values are $-\log p(x)$ from 5,000 samples, unless the protocol says otherwise. Apart from pixels, the two-level models
# and the hierarchies differ from ours in size.


# %% tags=["hide-input"]
def github(name, repository, commit, path="README.md"):
    address = f"https://github.com/{repository}/blob/{commit}/{path}"
    return f"[{name}]({address}), {commit[:7]}"


theirs = "[Burda et al.](https://arxiv.org/abs/1509.00519)"
nbip = github(
    "nbip", "nbip/IWAE", "0216b45b26fe4ba0b76738fe80a5de99b30ef963"
)
earlier = github(
    "nbip", "nbip/IWAE", "36e3ae8b6de35530b524ae0fa68dad9224adc873"
)
xqding = github(
    "xqding",
    "xqding/Importance_Weighted_Autoencoders",
    "1bc97530076ebd044273fe9a79fd20fb539a9861",
)
pythae = github(
    "pythae",
    "clementchadebec/benchmark_VAE",
    "2a782b9e87671f13778c8728d827a46fe5ceea4c",
    "examples/scripts/reproducibility/README.md",
)
ladder = github(
    "addtt",
    "addtt/ladder-vae-pytorch",
    "03e86d23b7b4bb71b0ebbeea825178d322b4ffd1",
)
nvae = "[Vahdat and Kautz](https://arxiv.org/abs/2007.03898), table 1"
large = "batches of 1,000, constant learning rate"
one_level = [
    f"{theirs}, table 1 | 3,280 epochs | 86.76 | 86.47 | 86.35 | 85.54 | 84.78",
    f"{nbip} | 3,280 epochs, 100 latent dimensions | 86.35 | 86.10 | 86.06 | 85.18 | 84.59",
    f"{nbip} | the same with DReG | 86.08 | | | 84.90 | 84.32",
    f"{earlier} | 3,280 epochs, 50 latent dimensions | 87.75 | | | 85.50 | 84.65",
    f"{xqding} | {large} | 87.78 | 87.15 | 87.47 | 85.46 | 84.59",
]
two_levels = [
    f"{theirs}, table 1 | 3,280 epochs | 85.33 | 85.01 | 84.78 | 83.89 | 82.90",
    f"{nbip} | 3,280 epochs | 84.83 | 84.08 | 83.89 | 83.48 | 82.82",
    f"{xqding} | {large} | 89.16 | 91.37 | 89.16 | 84.69 | 83.29",
]
published_set = [
    f"{theirs}, appendix D | 3,280 epochs | 88.71 | 88.83 | 89.05 | 87.63 | 87.10",
    f"{earlier} | 3,280 epochs | 89.93 | | | 87.65 | 86.71",
    f"{pythae} | VAE 1: from 200 samples | 89.78 | | | | 86.82",
    f"{ladder} | 12 levels, convolutional, from 1,000 samples | 78.30 | | | |",
]
hierarchy = [
    f"NVAE, {nvae} | 15 groups of codes, convolutional | 78.01 | | | |"
]
columns = "vae", "mean5", "mean50", "iwae5", "iwae50"
for epochs in sorted({epochs for _, epochs in ours}, reverse=True):
    cells = [nats(ours.get((name, epochs), [])) for name in columns]
    one_level.append(" | ".join([f"**here** | {epochs} epochs", *cells]))
    if dreg := ours.get(("dreg5", epochs)):
        protocol = f"**here** | {epochs} epochs, DReG"
        one_level.append(f"{protocol} | | | | {nats(dreg)} |")
groups = {
    "dynamic, one level": one_level,
    "dynamic, two levels": two_levels,
    "dynamic, hierarchy": hierarchy,
    "published fixed set": published_set,
}
lines = [
    "| pixels, model | source | protocol | VAE 1 | VAE 5 | VAE 50 | IWAE 5 | IWAE 50 |",
    "|---|---|---|---|---|---|---|---|",
]
for title, rows in groups.items():
    lines += [f"| {title} | {row} |" for row in rows]
Markdown("\n".join(lines))

# %% [markdown]
# The IWAE gains 0.90 nats over the VAE, and Burda et al.'s gains 1.22. With one sample, our VAE is behind Burda et al. and behind nbip's model of 100 latent dimensions. It is ahead of nbip's earlier one and of xqding's. The gap is half a nat.
# Fewer updates may explain it, but we didn't test that. In Burda et al.'s numbers a second level gains a nat and a half, and NVAE's hierarchy gains almost nine {cite}`vahdat2020nvae`.
# Pythae {cite}`chadebec2022pythae` trains on the published fixed set.
#
# Burda et al.'s code differs from ours. Adam's β₁ is 0.99 (0.9 in their paper and here). The VAE's KL is sampled (here in closed form). 400 training images are held out, and test images are binarized
# again each time they are used (here once).
#
# We left abdulfatir/IWAE-tensorflow out. At commit 29eaa4f, its code averages $\log p(x \mid z)$ over samples, so it doesn't estimate $\log p(x)$.
#
# ## The published weights
#
# `burda-vae.safetensors` and `burda-iwae5.safetensors` have the weights of seed 10 in half precision. We evaluate them again. The ELBO on all test images has to agree with the
# record within 0.05 nats, which is a sharp check. That of $-\log p(x)$ is a weak one: we take 500 images, which may be easier than the others, and 200 samples. It has to
# agree within two standard errors, about two nats.

# %%
means = data.to_float(digits.train.images).mean(0)
builder = partial(binarized, builder=partial(burda.build, means=means))
if profile == "paper":
    published = {
        name: storage.load(
            records / f"burda-{name}.safetensors", builder=builder
        )
        for name in ("vae", "iwae5")
    }
else:  # the weights fit MNIST only, so that this checks the code
    with seeded(0):
        published = {"vae": builder(digits.image_shape, 50).eval()}
chosen = digits.test.images[:: max(1, test_count // images)]
for name, model in published.items():
    reconstruction, kl = evaluation.elbo(model, digits.test.images)
    elbo = (reconstruction - kl).mean().item()
    estimate, _ = evaluation.log_prob(model, chosen, samples)
    error = estimate.std() / len(chosen) ** 0.5
    again = f"-log p(x) {-estimate.mean():.2f} ± {error:.2f}"
    print(f"{name}: -ELBO {-elbo:.2f}, {again}")
    if profile == "paper":
        path = long_runs.RECORDS / "fresh" / f"burda-{name}-s10"
        record = runs.load(path, builder=None)
        stored = record.evaluation
        assert abs(elbo - stored["test_elbo"]) < 0.05
        assert abs(estimate.mean() - stored["log_prob"]) < 2 * error

# %% [markdown]
# ## Average or weight?
#
# Draw $k$ codes $z_i$ from $q(z \mid x)$, and let $w_i = p(x, z_i) / q(z_i \mid x)$. The mean of $\log w_i$ has the ELBO
# as its expectation, so averaging only reduces noise. The logarithm of the mean weight gives a tighter bound ({doc}`/book/idea/elbo`):
#
# $$\mathbb{E} \Big[\frac{1}{k} \sum_i \log w_i\Big] \;\le\; \mathbb{E} \Big[\log \frac{1}{k} \sum_i w_i\Big] \;\le\; \log p(x).$$
#
# Claim B1 says that weighting makes a better model. We judge it by 16 earlier runs of 12 epochs, with Adam's ε at 10⁻⁸ and seeds 0 to 2. Six of them have pixels that
# we drew once ("fixed by us"). That isn't the published fixed set, so you can't compare these numbers with any others. The table has $-\log p(x)$ from 200 samples on all test
# images, ± the standard deviation over seeds.

# %% tags=["hide-input"]
ways = {
    "VAE 1": "",
    "VAE 5": "-MeanELBO_samples=5",
    "IWAE 5": "-ImportanceWeighted_samples=5",
    "IWAE 50": "-ImportanceWeighted_samples=50",
}
end = "-CosineAnnealingLR_T_max=12.json"
short = {}
for pixels, start in (("dynamic", "mnist"), ("fixed by us", "mnist-fixed")):
    for name, way in ways.items():
        pattern = (
            f"{start}-k50-e12-s?-b20-binarized_builder=model{way}{end}"
        )
        paths = sorted(records.glob(pattern))
        if paths:
            loaded = [runs.load(path, builder=None) for path in paths]
            short[pixels, name] = loaded
table = [
    [
        *key,
        len(found),
        nats(found, "test_elbo"),
        nats(found),
        shown(values(found, "active_units"), ".0f"),
        f"{median(e['seconds'] for run in found for e in run.metrics):.0f}",
    ]
    for key, found in short.items()
]
headers = ["pixels", "training", "seeds", "−ELBO", "−log p(x), nats"]
headers += ["active units", "seconds per epoch"]
Markdown(tabulate(table, headers, "github", disable_numparse=True))

# %% mystnb={"figure": {"caption": "Minus the ELBO on test images after each of 12 epochs (first seed, dynamic pixels). Averaging lowers the curve and weighting raises it, although five weighted samples have a higher log p(x) than one in the table above. Claim B1 is therefore judged by log p(x).", "name": "fig-bounds-course"}, "image": {"alt": "Four falling curves over twelve epochs. From bottom to top: five averaged samples, one sample, five weighted samples, and, far above, fifty weighted samples."}} tags=["hide-input"]
plots.lines(
    range(1, 13),
    {
        name: [-line["test_elbo"] for line in found[0].metrics]
        for (pixels, name), found in short.items()
        if pixels == "dynamic"
    },
    "epoch",
    "−ELBO, nats",
)

# %% [markdown]
# The verdict rests on gains of log p(x) from 1,000 samples on every tenth test image, between runs with the same seed. `book/records/bounds.json` has them. These runs' weights aren't published,
# so this page can't measure the gains again.

# %% tags=["hide-input"]
text = (long_runs.RECORDS / "bounds.json").read_bytes()
gains = json.loads(text)["gains"]
pairs = zip(gains["one"], gains["averaged"], strict=True)
print(
    "nats that five averaged samples gain over one:",
    shown([one - averaged for one, averaged in pairs], "+.2f"),
)
claims.judge(
    "B1",
    "every 10th test image of mnist, binary pixels, 12 epochs",
    [run for found in short.values() for run in found],
    **gains,
)

# %% [markdown]
# **Five samples gain more than a nat over one, averaged (1.19) or weighted (1.32).** Weighting leads averaging by 0.13 nats, which isn't decided,
# because the interval contains zero. Fifty weighted samples gain another 0.96 nats, in one seed. After 3,280 epochs, Burda et al.
# gain 0.29 nats by averaging five, and another 0.93 by weighting them.
#
# ## The encoder's gradient
#
# The more samples are weighted, the more noise hides the encoder's gradient {cite}`rainforth2018tighter`. In theory, DReG avoids this loss. The table shows the
# gradient's mean divided by its standard deviation. It is of the VAE's published weights, twenty images and the active dimensions. Pure noise would give 0.06.

# %% tags=["hide-input"]
model = published["vae"]
some = data.to_float(digits.test.images[:20])
codes, _ = evaluation.encode(model, digits.test.images)
active = codes.var(0) > 0.01


def signal_to_noise(way):
    weight, drawn = model.encoder.mean.weight, []
    for _ in range(draws):
        terms = model.terms(some, **objective.options(way))
        loss = way(terms, 1).mean()
        drawn.append(torch.autograd.grad(loss, weight)[0][active])
    drawn = torch.stack(drawn)
    return (drawn.mean(0).abs() / drawn.std(0)).mean().item()


estimators = {
    "averaged": objective.MeanELBO,
    "weighted": objective.ImportanceWeighted,
    "DReG": long_runs.DReG,
}
table = []
for k in (1, 5, 50):
    with seeded(0):
        ratios = [signal_to_noise(way(k)) for way in estimators.values()]
    table.append([k, *ratios])
Markdown(tabulate(table, ["k", *estimators], "github", floatfmt=".2f"))

# %% [markdown]
# With 50 weighted samples, the ratio is 0.30 instead of 0.42 with one. The theory's $1/\sqrt{k}$, which holds for large $k$, would leave 0.06, as much as
# pure noise has here. DReG's ratio falls too, from 0.76 to 0.60, but stays higher. The weights are those of training with one sample. We didn't measure the
# decoder's gradient, whose ratio should rise with $k$.
#
# ## Limits
#
# | limit | what it could change |
# |---|---|
# | B1's runs have 12 epochs, and every curve still falls. | The gains. The rows `iwae5` and `mean5` of our runs will show them later in training. |
# | We compare equal epochs. | In equal time, or for equally many codes, fewer samples would do better. |
# | Short runs are scored with few samples. | log p(x) is too low, probably more so for weighted runs. From 200 samples on all images, weighting five is 0.02 nats behind averaging. |
# | Weighted runs sample the KL, and averaged ones have it in closed form. | The sampled KL, not the weights, may activate more dimensions. |
# | We quote the literature as its sources print it. | Few sources say how much seeds differ. |
