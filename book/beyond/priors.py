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
# # The dead spots, repaired
#
# **How much of a bad sample is the prior's fault?** The paper blames "dead spots":
# places where the prior N(0, I) puts codes, and the encoder never put an image. Their
# cure is known, and needs no new training of the VAE: leave encoder and decoder as
# they are, look where the codes of the training images lie, and draw from there. If
# the dead spots are to blame, the samples become better. {doc}`/book/celeba/dimensions`
# tried the simplest such prior, one normal distribution, on faces. Here are four,
# on digits too, and the best that any prior could do; and beside them a prior that is
# trained along with its VAE.

# %% tags=["parameters"]
import os

# "paper": MNIST and CelebA; "quick": digits of scikit-learn and drawn faces
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
draws: int = 3 if "paper" in profile else 1  # of samples from each prior
steps: int = 2000 if "paper" in profile else 100  # of flow and second VAE
along_epochs: int = 10 if "paper" in profile else 2  # of digits' VampPriors
faces_sizes: list = [64, 96] if "paper" in profile else [64]  # K
along_faces: int = 30 if "paper" in profile else 0  # epochs; 0: none
scored: int = 200 if "paper" in profile else 50  # images, for log p(x)
scored_along: int = 2000 if "paper" in profile else 50  # of VampPriors
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import torch
import zuko
from IPython.display import Markdown
from sklearn.mixture import GaussianMixture
from tabulate import tabulate
from torch import nn
from torch.distributions import (
    Categorical,
    MixtureSameFamily,
    MultivariateNormal,
)

from book.machinery import claims, profiles
from vaelib import (
    TrainConfig,
    data,
    distributions,
    encoders,
    evaluation,
    features,
    models,
    objective,
    plots,
    priors,
    storage,
    train,
)
from vaelib.models import VAE
from vaelib.seeding import seeded

plan = profiles.load(profile, "mnist")
faces_plan = profiles.load(profile, "celeba")
digits = data.load(plan.dataset, data_folder)
photos = data.load(faces_plan.dataset, data_folder)

# %% [markdown]
# Three models of digits and two of faces, trained as everywhere in this book. (With the
# profile "quick", one of faces.) With the profile "paper", the smallest of each are those
# whose weights come with the package.

# %% tags=["hide-input"]
trained, trainings = {}, []
for dataset, which, sizes in (
    (digits, plan, (2, 16, 64)),
    (photos, faces_plan, faces_sizes),
):
    for K in sizes:
        title = f"{'digits' if which is plan else 'faces'}, K = {K}"
        name = f"{dataset.name}-k{K}"
        if name in ("mnist-k2", "celeba-k64"):
            trained[title] = dataset, storage.from_pretrained(name)
        else:
            epochs = which.short.epochs
            settings = TrainConfig(K, epochs, batch_size=which.batch_size)
            run = train(dataset, settings, runs_folder)
            trained[title] = dataset, run.model()
            trainings.append(run)
    print(f"{dataset.name}: {len(dataset.train):,} + {len(dataset.test):,}")

# %% [markdown]
# ## What is asked
#
# All codes together, one drawn from the posterior of each training image, follow the
# *aggregated posterior* $q(z) = \frac{1}{N} \sum_n q(z \mid x_n)$. Wherever N(0, I)
# differs from it, by a hole or otherwise, is a dead spot to this page. A sample has two
# ways to be bad: its code comes from where q(z) has nothing, or the decoder makes
# nothing better of codes that do. The second part is about what is left when the codes of
# *training images themselves* are drawn and decoded; a prior can hardly do
# better, but by copying, or by leaving out what is hard to decode. So of the Fréchet distance of samples from test images, the
# prior's part is what lies between codes of N(0, I) and codes of training images.
#
# **The rule,** written down before a prior was fitted: dead spots are a cause of bad
# samples if for at least one of the models some fitted prior lowers the Fréchet
# distance by at least a fifth. And it must not recite: a code that it draws should
# lie no nearer to the training images' codes than those of test images do. A prior that
# is trained along should lower it by a fifth as well, for at least one K; this part was
# added later, before such a prior was trained.
#
# ## Two dimensions, where one can look
#
# On the left q(z), from all training images; then N(0, I); then the logarithm of their
# ratio. Red is where images lie closer than the prior expects, blue is a dead spot.


# %%
def posterior(model, images):
    return distributions.DiagonalNormal(*evaluation.encode(model, images))


def drawn(q, count):
    """Codes of so many images, taken at random with replacement."""
    some = torch.randint(len(q.mean), (count,))
    return objective.reparameterize(q.mean[some], q.log_variance[some])


def aggregated(q):
    equal = Categorical(logits=torch.zeros(len(q.mean)))
    return MixtureSameFamily(equal, q)


q = {
    title: posterior(model, dataset.train.images)
    for title, (dataset, model) in trained.items()
}

# %% tags=["hide-input"]
flat, plane = q["digits, K = 2"], trained["digits, K = 2"][1]
ticks = torch.linspace(-4, 4, 81)
grid = torch.cartesian_prod(ticks, ticks)
standard = distributions.StandardNormal(2).log_prob(grid)


def density(codes):
    parts = [aggregated(flat).log_prob(part) for part in codes.split(50)]
    return torch.cat(parts)


ratio = density(grid) - standard

# %% mystnb={"figure": {"caption": "K = 2: the aggregated posterior, the prior on the same scale, and the logarithm of their ratio, in nats.", "name": "fig-priors-plane"}, "image": {"alt": "Three maps of the plane: the aggregated posterior is a patchwork of dark islands between white seams, the prior is a round cloud, and their ratio is red on the islands and far out, blue along the seams."}} tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, panels = plt.subplots(1, 3, figsize=(plots.WIDTH, 2.5))
maps = {
    "q(z), where images lie": (ratio + standard).exp(),
    "N(0, I)": standard.exp(),
    "log q(z) - log N(z; 0, I)": ratio,
}
most = max(each.max() for each in list(maps.values())[:2])
for panel, (title, values) in zip(panels, maps.items(), strict=True):
    scale = {"vmin": 0, "vmax": most, "cmap": "Greys"}
    if values is ratio:
        scale = {"vmin": -3, "vmax": 3, "cmap": "RdBu_r"}
    image = panel.imshow(
        values.view(81, 81).T,
        origin="lower",
        extent=(-4, 4, -4, 4),
        **scale,
    )
    panel.set(title=title, xticks=(-3, 0, 3), yticks=(-3, 0, 3))
figure.colorbar(image, ax=panels[-1], extend="both", label="nats")
plt.show()

# %% [markdown]
# Codes of the prior, codes of training images, and codes of the prior that fell into
# dead spots, where q(z) is less than a fifth of N(z; 0, I):


# %% mystnb={"figure": {"caption": "K = 2: decoded codes of the prior, of the aggregated posterior, and those of the prior in dead spots.", "name": "fig-priors-plane-samples"}, "image": {"alt": "Three rows of fourteen decoded digits; several of the last row are between two digits."}} tags=["hide-input"]
def decode(model, codes):
    with torch.inference_mode():
        return torch.cat([model.decode(part) for part in codes.split(500)])


with seeded(0):
    codes = torch.randn(1000, 2)
    images_codes = drawn(flat, 14)
thin = density(codes) - distributions.StandardNormal(2).log_prob(codes)
dead = codes[thin < -math.log(5)]
shown = {
    "N(0, I)": codes[:14],
    "q(z)": images_codes,
    "N(0, I), in dead spots": dead[:14],
}
print(f"{len(dead) / len(codes):.0%} of the prior's codes in dead spots")
plots.rows({name: decode(plane, each) for name, each in shown.items()})

# %% [markdown]
# ## Four priors, fitted afterwards
#
# - **one Gaussian** with the codes' mean and covariance;
# - a **mixture** of 3, 10 or 30 Gaussians with full covariances, whichever gives
#   a tenth of 10,000 training codes, left out of the fit, the highest density;
# - a **flow**, [zuko](https://zuko.readthedocs.io)'s masked autoregressive one with
#   five transforms;
# - a **second VAE**, whose "images" are the codes {cite}`dai2019diagnosing`: what it
#   invents goes to the first one's decoder. Both of its networks are
#   `encoders.Gaussian`, for a decoder of codes is nothing else, and
#   `priors.Marginal` makes a prior of it.
#
# The last two see codes that are drawn afresh at each step. All are fitted once, from
# one seed.


# %%
def gaussian(q):
    codes = q.sample()
    return MultivariateNormal(codes.mean(0), codes.T.cov())


def mixture(q):
    codes = q.sample()[torch.randperm(len(q.mean))[:10_000]]
    left_out, kept = codes[::10], codes[torch.arange(len(codes)) % 10 > 0]
    tried = [
        GaussianMixture(parts, tol=0.01, max_iter=200, random_state=0).fit(
            kept
        )
        for parts in (3, 10, 30)
    ]
    best = max(tried, key=lambda each: each.score(left_out))
    weights, means, covariances = (
        torch.tensor(each).float()
        for each in (best.weights_, best.means_, best.covariances_)
    )
    parts = MultivariateNormal(means, covariances)
    return MixtureSameFamily(Categorical(weights), parts)


# %%
def descend(module, loss, q):
    optimizer = torch.optim.Adam(module.parameters())
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(drawn(q, 256)).mean().backward()
        optimizer.step()
        rate.step()
    module.eval().requires_grad_(False)


def flow(q):
    K = q.event_shape[0]
    module = zuko.flows.MAF(K, transforms=5, hidden_features=(128, 128))
    descend(module, lambda z: -module().log_prob(z), q)
    return module()


def network(size):
    layers = nn.Linear(size, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()
    return encoders.Gaussian(nn.Sequential(*layers), 256, size)


def second_vae(q):
    K = q.event_shape[0]
    vae = VAE(network(K), network(K), priors.Standard(K), (K,))
    descend(vae, lambda z: objective.negative_elbo(vae(z), 0), q)
    return priors.Marginal(vae, 50)


# %% tags=["hide-input"]
ways = {
    "one Gaussian": gaussian,
    "mixture": mixture,
    "flow": flow,
    "second VAE": second_vae,
}
fitted = {title: {} for title in trained}
for title, codes in q.items():
    for name, way in ways.items():
        with seeded(0):
            fitted[title][name] = way(codes)

# %% [markdown]
# ## One that is trained along
#
# The VampPrior {cite}`tomczak2018vampprior` is the aggregated posterior of a few images
# that are learned, 100 here: a mixture of what the encoder makes of them. It
# moves with the encoder, and the encoder with it, so that these are other models, each
# trained from the start like its counterpart with N(0, I). Those of faces came last, when
# all the other numbers of this page were known.


# %%
def vamp(image_shape, latent_dim):
    model = models.build(image_shape, latent_dim)
    model.prior = priors.Vamp(model.encoder, image_shape, 100)
    return model


along = {}
for title, (dataset, model) in trained.items():
    epochs = along_epochs if dataset is digits else along_faces
    if epochs:
        settings = TrainConfig(model.latent_dim, epochs)
        run = train(dataset, settings, runs_folder, builder=vamp)
        along[title] = run.model()
        trainings.append(run)
own = {
    title: posterior(other, trained[title][0].train.images)
    for title, other in along.items()
}

# %% [markdown]
# ## What they are worth
#
# Each prior's samples, as many as there are test images, are judged as in
# {doc}`/book/mnist/samples` and {doc}`/book/celeba/samples`: the (squared) Fréchet
# distance from the test images in the features of the book's own classifier, and for digits
# the share of which it is **sure**. Mean ± standard deviation over the draws of samples.

# %% tags=["hide-input"]
judges = {
    each.name: features.train(each, runs_folder)
    for each in (digits, photos)
}
real = {
    each.name: features.extract(judges[each.name], each.test.images)
    for each in (digits, photos)
}


def worth(dataset, images):
    """The Fréchet distance, and the share of which the judge is sure."""
    judge = judges[dataset.name]
    found = features.extract(judge, images)
    with torch.inference_mode():
        sure = (judge[-1](found).softmax(1).amax(1) > 0.9).float().mean()
    distance = features.frechet_distance(real[dataset.name], found)
    return distance, sure.item()


for each in (digits, photos):
    some = each.train.images[: len(each.test)]
    print(f"{each.name}, real images: {worth(each, some)[0]:.2f}")

# %% tags=["hide-input"]
TRAINING, STANDARD = "codes of training images", "N(0, I)"
ALONG = "VampPrior, trained along"
ALONG_TRAINING = "codes of training images, its own"
samples = {}
for title, (dataset, model) in trained.items():
    count, K = len(dataset.test), model.latent_dim
    sources = {STANDARD: distributions.StandardNormal(K).sample}
    sources |= {name: each.sample for name, each in fitted[title].items()}
    sources[TRAINING] = lambda size, q=q[title]: drawn(q, *size)
    for name, source in sources.items():
        measured = []
        for seed in range(draws):
            with seeded(seed):
                codes = source((count,))
            measured.append(worth(dataset, decode(model, codes)))
        samples[title, name] = torch.tensor(measured)  # (draws, 2)
    if title in along:
        measured = [
            worth(dataset, along[title].sample(count, seed))
            for seed in range(draws)
        ]
        samples[title, ALONG] = torch.tensor(measured)
        measured = []
        for seed in range(draws):
            with seeded(seed):
                images = decode(along[title], drawn(own[title], count))
            measured.append(worth(dataset, images))
        samples[title, ALONG_TRAINING] = torch.tensor(measured)

# %% [markdown]
# In nats: how much higher is the log density of *test* images' codes than under
# N(0, I)? Encoder and decoder being the same, that is also what the **ELBO** gains when the
# fitted prior is put in the place of N(0, I). And **log p(x)**, importance-weighted, of some
# test images, from the same samples of each posterior. ± is the standard error of the mean
# gain over images. (That of the second VAE is itself a bound, so it gains at least so much.)
# The VampPrior's row is of another encoder and decoder: what its whole ELBO gains, and its
# log p(x), from more images and samples (all test images of faces, two thousand digits; 100 samples of each posterior).
#
# In the row of training images' codes stands what q(z) itself would gain as a prior, from 500 test codes: the
# KL of q(z) from N(0, I), the "misfit" in {doc}`/book/idea/kl` {cite}`hoffman2016elbo`, but for the training images being others. With many
# dimensions few training codes are near a test image's, and it is far too low.


# %% tags=["hide-input"]
def mean_error(values):
    return f"{values.mean():+.2f} ± {values.std() / len(values) ** 0.5:.2f}"


def put(model, prior):
    return VAE(
        model.encoder, model.decoder, lambda: prior, model.image_shape
    )


nats = {}
for title, (dataset, model) in trained.items():
    images = dataset.test.images[:scored]
    with seeded(0):
        codes = posterior(model, dataset.test.images[:2000]).sample()
    before = distributions.StandardNormal(model.latent_dim).log_prob(codes)
    plain, _ = evaluation.log_prob(model, images, 20)
    nats[title, STANDARD] = (
        f"({before.mean():.2f})",
        f"({plain.mean():.2f})",
    )
    for name, prior in fitted[title].items():
        after = torch.cat(
            [prior.log_prob(part) for part in codes.split(500)]
        )
        exact, _ = evaluation.log_prob(put(model, prior), images, 20)
        nats[title, name] = (
            mean_error(after - before),
            mean_error(exact - plain),
        )
    standard = distributions.StandardNormal(model.latent_dim)
    parts = [
        aggregated(q[title]).log_prob(part) - standard.log_prob(part)
        for part in codes[: 5 * scored // 2].split(10)
    ]
    nats[title, TRAINING] = (mean_error(torch.cat(parts)), "")
    if other := along.get(title):
        images = dataset.test.images[:scored_along]
        (log_p, cost), (usual, price) = (
            evaluation.elbo(each, images) for each in (other, model)
        )
        exact, plain = (
            evaluation.log_prob(each, images, scored // 2)[0]
            for each in (other, model)
        )
        nats[title, ALONG] = (
            mean_error(log_p - cost - usual + price),
            mean_error(exact - plain),
        )

# %% tags=["hide-input"]
table = []
for (title, name), measured in samples.items():
    distance, sure = measured.T
    spread = f" ± {distance.std():.2f}" if draws > 1 else ""
    table.append(
        [
            title if name == STANDARD else "",
            name,
            f"{distance.mean():.2f}{spread}",
            f"{sure.mean():.1%}" if "digits" in title else "",
            *nats.get((title, name), ("", "")),
        ]
    )
headers = ["model", "codes from", "distance", "sure"]
headers += ["ELBO", "log p(x)"]
Markdown(tabulate(table, headers, "github", disable_numparse=True))

# %% [markdown]
# In brackets the values of N(0, I), from which the gains are counted: log p(z), log p(x).

# %% mystnb={"figure": {"caption": "The Fr\u00e9chet distance of samples, as a share of that with N(0, I). The cross is what codes of training images reach, and hardly any prior can repair what lies left of it. The star is of another model, with an encoder and a decoder of its own; the plus is what codes of training images reach by these.", "name": "fig-priors-distances"}, "image": {"alt": "Five lines, one for each model, with a mark for each prior between zero and one; the marks of the better priors lie near the cross for digits with K = 2, between it and one for the others. The stars lie left of the cross for K = 2, and else between it and the fitted priors, or among them."}} tags=["hide-input"]
mean = {key: each[:, 0].mean().item() for key, each in samples.items()}
with plt.rc_context(plots.STYLE):
    figure, panel = plt.subplots(figsize=(plots.WIDTH, 2.2))
names = {
    STANDARD: "|",
    **dict(zip(ways, "os^D", strict=True)),
    TRAINING: "x",
    ALONG: "*",
    ALONG_TRAINING: "+",
}
for name, marker in names.items():
    share = [
        mean.get((title, name), math.nan) / mean[title, STANDARD]
        for title in trained
    ]
    panel.plot(share, range(len(trained)), marker, label=name, markersize=6)
panel.set_yticks(range(len(trained)), trained)
panel.set(xlabel="distance over that of N(0, I)")
panel.invert_yaxis()
panel.set_xlim(left=0)
panel.grid(axis="y", alpha=0.3)
panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()


# %% mystnb={"figure": {"caption": "Digits with K = 16: the first samples of each prior, none of them chosen.", "name": "fig-priors-digits"}, "image": {"alt": "Seven rows of fourteen decoded digits: codes of N(0, I), of the four fitted priors, and of training images, and of a VampPrior by its own decoder."}} tags=["hide-input"]
def gallery(title):
    """The first codes of each prior, decoded."""
    _, model = trained[title]
    priors_here = {STANDARD: distributions.StandardNormal(model.latent_dim)}
    with seeded(0):
        codes = {
            name: prior.sample((14,))
            for name, prior in (priors_here | fitted[title]).items()
        }
        codes[TRAINING] = drawn(q[title], 14)
    shown = {name: decode(model, each) for name, each in codes.items()}
    if title in along:
        shown[ALONG] = along[title].sample(14, seed=0)
    return shown


plots.rows(gallery("digits, K = 16"))

# %% mystnb={"figure": {"caption": "Faces with K = 64, in the same way.", "name": "fig-priors-faces"}, "image": {"alt": "Seven rows of fourteen decoded faces: codes of N(0, I), of the four fitted priors, and of training images, and of a VampPrior by its own decoder."}}
plots.rows(gallery("faces, K = 64"))

# %% [markdown]
# ## Do they recite?
#
# A prior that puts all its codes on those of training images would have the best
# samples of all, and invent nothing. So, from each drawn code, the distance
# to the nearest posterior mean of a training image; for codes of each model's best prior,
# of test images, and of training images drawn again, which are copies; and the same among the codes of each VampPrior's
# own encoder. Medians, and the share that lies nearer than half of the copies do.


# %% tags=["hide-input"]
def nearest(codes, means):
    parts = [torch.cdist(part, means).min(1) for part in codes.split(500)]
    distances, indices = zip(*parts, strict=True)
    return torch.cat(distances), torch.cat(indices)


best = {
    title: min(ways, key=lambda name: mean[title, name])
    for title in trained
}
spaces = {
    (title, best[title]): (model, fitted[title][best[title]], q[title])
    for title, (_, model) in trained.items()
}
spaces |= {
    (title, ALONG): (other, other.prior(), own[title])
    for title, other in along.items()
}
away_from, table = {}, []
for (title, name), (model, prior, seen) in spaces.items():
    held_out = posterior(model, trained[title][0].test.images)
    ratios, rows = [], []
    for seed in range(draws):
        with seeded(seed):
            codes = [prior.sample((1000,))]
            codes += [drawn(each, 1000) for each in (held_out, seen)]
        away = [nearest(each, seen.mean)[0] for each in codes]
        middle = [each.median().item() for each in away]
        near = [(each < middle[2]).float().mean() for each in away[:2]]
        ratios.append(middle[0] / middle[1])
        rows.append([*middle, *near])
    away_from[title, name] = ratios
    numbers = torch.tensor(rows).mean(0).tolist()
    shown = [f"{each:.2f}" for each in numbers[:3]]
    shown += [f"{each:.0%}" for each in numbers[3:]]
    table.append([title, name, *shown])
headers = ["model", "prior", "its codes", "test images", "copies"]
headers += ["prior, nearer than a copy", "test, nearer"]
Markdown(tabulate(table, headers, "github", disable_numparse=True))

# %% mystnb={"figure": {"caption": "Digits with K = 16: samples of the best fitted prior, and below each the training image nearest to it in pixels.", "name": "fig-priors-nearest"}, "image": {"alt": "Two rows of fourteen digits: samples, and below them training images, nearly always of the same digit, in a similar but not the same hand."}}
title = "digits, K = 16"
made = gallery(title)[best[title]]
library = data.to_float(digits.train.images).flatten(1)
_, index = nearest(made.flatten(1), library)
plots.rows({best[title]: made, "nearest": digits.train.images[index]})

# %% [markdown]
# ## The verdict

# %% tags=["hide-input"]
for title in trained:
    start, least = mean[title, STANDARD], mean[title, TRAINING]
    less = 1 - mean[title, best[title]] / start
    away = sum(away_from[title, best[title]]) / draws
    met = "yes" if less >= 0.2 and away >= 1 else "no"
    print(
        f"{title}: {best[title]} lowers the distance by {less:.0%} "
        f"(a fifth: {met}); codes of training images by {1 - least / start:.0%}"
    )

# %% [markdown]
# In the {doc}`ledger </book/verdict/claims>`, of the model whose samples a prior that was
# fitted afterwards repairs most, and of the K at which a VampPrior does most:


# %% tags=["hide-input"]
def lowered(title, name):
    """By which share, in each draw of samples."""
    return 1 - samples[title, name][:, 0] / mean[title, STANDARD]


repaired = max(trained, key=lambda it: lowered(it, best[it]).mean())
vamped = max(along, key=lambda it: lowered(it, ALONG).mean())
print(f"{repaired}: {best[repaired]}; {vamped}: {ALONG}")
claims.judge(
    "B6",
    f"{len(digits.test):,} test images of {digits.name}, "
    f"{len(photos.test):,} of {photos.name}; the numbers are of "
    f"{repaired}, and of {vamped}",
    trainings,
    afterwards=lowered(repaired, best[repaired]),
    away=away_from[repaired, best[repaired]],
    along=lowered(vamped, ALONG),
)

# %% [markdown]
# Of the published numbers, with the profile "paper":
#
# **By the rule, dead spots are a cause of bad samples, in digits.** (With K = 2 the rule
# cannot be passed: codes of training images themselves lower the distance by less.) With 16 dimensions
# nearly all of the distance lies between the codes of N(0, I) and those of training
# images, and a mixture of Gaussians repairs most of that: the same decoder, other
# codes. With 64, where the model leaves many dimensions unused, less is repaired; why, was not
# asked. (The mixture saw nine thousand codes once, the flow half a million draws of all: with so many dimensions they are not
# compared on equal terms.) With two, what two numbers can carry is the limit, or the decoder.
#
# **In nats it is little, as far as it was measured.** The prior that makes the samples of 16 dimensions several times
# better gains a nat or two of a hundred in log p(x), as estimated from few samples. (These are nats of grey pixels, to be compared
# within this page; fitted priors of 200 images, where the column of the ELBO has 2,000.) With K = 2 the codes' own q(z) would gain
# 0.28 nats as a prior, of which the mixture has 0.22; with more dimensions this ceiling is not known. On faces the flow
# gains eight nats of five thousand, and its samples are little nearer than with one Gaussian, which gains four or five. This holds for priors fitted afterwards, to codes that were trained
# towards N(0, I).
#
# **Trained along, the VampPrior has nearer samples with every K, and more nats with some.** On digits with K = 2 it gains a nat, and part of its nearer
# samples is the decoder's: codes of training images, decoded by its own model, lie nearer, too. With K = 16 it gains 1.7 nats, about what the mixture gains, and its samples lie between those
# of N(0, I) and of the mixture. With K = 64 they are nearer than those of any fitted prior, and nothing is seen in log p(x). On faces with K = 64 its samples are the nearest, and pass the rule's fifth, with a quarter of
# the nats that the flow gains; with 96 they are as near as the mixture's, and do not pass. Codes of
# training images, by its own model, would be nearer still: by 4% with K = 2, an eighth and a fifth on faces, six tenths or more on the other digits. So it is no perfect fit either. It has a hundred pseudo-inputs here, and digits ten epochs, without a warm-up:
# {cite}`tomczak2018vampprior` train larger ones for much longer, so this says how such priors begin, and not what they can do.
#
# **What is left of the paper's explanation** (claim C10, in {doc}`/book/verdict/claims`)? The dead
# spots are real: with K = 2 they are seen. With more, what is measured is a mismatch of any kind; codes of test images, too, lie
# far from all training codes, so that an empty place is by itself no fault. And for faces, where the paper blames them, no fitted prior passes the rule.
# The rule is harsh there: even codes of training images keep three quarters of the distance, so that a fifth is nearly three quarters
# of what any prior could repair. The best one repairs about half of that (54% and 63%), no less than in digits with K = 64 (44%), which pass. The three quarters are
# no prior's fault; how much of them is blur, the code's size or the length of the training was not separated. And 96 dimensions are no
# worse off than 64: N(0, I)'s share in the distance is the same, as is what the best prior repairs of it, within what one training each can tell.
#
# To fit a density to the codes afterwards is no new idea: {cite}`ghosh2020variational` do it
# for autoencoders without noise, {cite}`dai2019diagnosing` for VAEs.
#
# **Limits.** The judge is the book's own small classifier, and was the one that picked each model's
# best prior, and the models that the ledger tells of. Each model was trained once, those with a VampPrior too, and each prior fitted once; ± is of the samples alone, or of the images, and seeds differ by more, on faces by
# much more ({doc}`/book/mnist/samples`, {doc}`/book/celeba/samples`). An earlier series of the digits' trainings, with the same seeds on a processor of another kind, gave samples of
# the VampPrior at 1.46 (K = 16) and 1.78 (K = 64) where 1.89 and 1.87 stand above, and by its runs' own evaluations gains in log p(x) that were 0.4 nats higher (K = 16) and 0.4 lower (K = 64): so much is by
# chance. The faces are 8,100 photographs, judged by 900 others. That
# nothing is recited is known of distances of codes; with many unused
# dimensions those in codes are mostly noise. The second VAE is a small one, trained briefly. On digits with K = 16 and 64 its density is hardly
# other than that of N(0, I); on faces with K = 64 the four priors can hardly be told apart. Nor is the first VAE as {cite}`dai2019diagnosing` have it,
# who learn the decoder's variance; so this says nothing of their method.
