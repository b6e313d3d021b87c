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
# # Blur and the likelihood
#
# **How much of a VAE's blur comes from its likelihood?** On digits, much of it: the more nats of
# code a likelihood pays for, the sharper the reconstructions (rank correlation 0.99 over six
# likelihoods). Samples don't follow: with a learned σ, the error of reconstructions falls from
# 0.0175 to 0.0098, but the distance of samples rises from 6.19 to 8.95.
#
# The paper finds its faces too smooth, and names "Gaussian or mixed Gaussian" outputs as future
# work. We compare six likelihoods, which differ only in the decoder's last layer.

# %% tags=["parameters"]
import os

# "paper": MNIST and CelebA; "quick": the digits that come with scikit-learn
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
epochs: int = 5 if "paper" in profile else 1  # of each training
seeds: int = 2 if "paper" in profile else 1  # of digits; faces have one
judged: int = 2000 if "paper" in profile else 300  # test images, samples
data_folder: str = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-input"]
import math
from functools import partial

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from scipy.stats import spearmanr
from tabulate import tabulate
from torch.distributions import Independent

from book.machinery import claims, profiles
from vaelib import (
    TrainConfig,
    data,
    decoders,
    distributions,
    evaluation,
    features,
    models,
    objective,
    plots,
    storage,
    train,
)
from vaelib.seeding import seeded

digits = data.load(profiles.load(profile, "mnist").dataset, data_folder)
studied = {"digits": (digits, models.mlp, 16, seeds)}
if "paper" in profile:  # convolutions take too long for a quick look
    photos = data.load("celeba", data_folder)
    studied["faces"] = photos, models.conv, 64, 1

# %% [markdown]
# ## Six likelihoods
#
# - **Bernoulli**, the paper's, on grey values.
# - **continuous Bernoulli** {cite}`loaiza2019continuous`, normalised to a density.
# - **Gaussian, σ = 1**: half the squared error, the loss of many tutorials.
# - **Gaussian, σ learned**: one σ for all pixels and images.
# - **Gaussian, best σ**: the σ that fits each batch best {cite}`rybkin2021simple`.
# - **logistic mixture**: five logistic distributions per pixel value, rounded to the 256 grey
#   levels {cite}`salimans2017pixelcnn`. On digits it has five times the weights of the others.


# %% tags=["hide-input"]
class UnitGaussian(decoders.Gaussian):
    def __init__(self, mean):
        super().__init__(mean)
        self.log_sigma.data.zero_()
        self.log_sigma.requires_grad_(False)


class Clamped(decoders.Bernoulli):
    def forward(self, z):
        logits = self.logits(z).float()
        pixels = torch.distributions.ContinuousBernoulli(
            logits=logits, validate_args=False
        )
        return Independent(pixels, 3, validate_args=False)


# %% [markdown]
# ## Which of them have bits
#
# Bits per dimension are the length of a code: −log₂ of the *probability* of an image with 256
# grey levels, per pixel value. The logistic mixture gives this probability.
#
# **A density** gives an upper bound on bits after *dequantization* {cite}`theis2016note`. We
# train and score it on $(k + u)/256$ instead of the level k, with u uniform in [0, 1). All bits
# here come from the ELBO, so they are upper bounds.
#
# **The Bernoulli likelihood** has neither. On grey values it isn't a density, because its
# integral depends on p:

# %% tags=["hide-input"]
x = torch.linspace(0, 1, 10_001)
for p in (0.001, 0.1, 0.5):
    log_density = x * math.log(p) + (1 - x) * math.log(1 - p)
    mass = torch.trapezoid(log_density.exp(), x).item()
    print(f"p = {p}: {mass:.3f}")
    assert mass < 0.5001


# %% tags=["hide-input"]
def dequantized(x):
    """Grey levels k / 255 as (k + u) / 256."""
    return (255 * x + torch.rand_like(x)) / 256


class Dequantized(models.VAE):
    """A VAE that is trained on dequantized values, drawn at each look."""

    def __init__(self, vae):
        super().__init__(
            vae.encoder, vae.decoder, vae.prior, vae.image_shape
        )

    def preprocess(self, x):
        x = super().preprocess(x)
        return dequantized(x) if self.training else x


def dequantized_vae(image_shape, latent_dim, builder):
    return Dequantized(builder(image_shape, latent_dim))


BERNOULLI, MIXTURE = "Bernoulli", "logistic mixture"
likelihoods = {
    BERNOULLI: decoders.Bernoulli,
    "continuous Bernoulli": Clamped,
    "Gaussian, σ = 1": UnitGaussian,
    "Gaussian, σ learned": decoders.Gaussian,
    "Gaussian, best σ": decoders.OptimalGaussian,
    MIXTURE: decoders.DiscretizedLogisticMixture,
}

# %% [markdown]
# We wrote **two rules** before the first run. ("That have bits" was added during the Bernoulli
# runs.)
#
# 1. *Bits and visual quality disagree* if, among the likelihoods that have bits, the fewest bits
#    and the nearest samples never belong to the same one.
# 2. *Blur is a price* if the rank correlation of KL and sharpness is at least 0.8. The likelihood
#    sets the cost of a wrong pixel, and so the nats of code worth paying.
#
# ## Training

# %% tags=["hide-input"]
faces_only = (BERNOULLI, "Gaussian, σ = 1", "Gaussian, best σ", MIXTURE)
trained, tests, finished = {}, {}, []
for kind, (dataset, network, K, count) in studied.items():
    tests[kind] = dataset.test.images[
        :: max(1, len(dataset.test) // judged)
    ]
    tests[kind] = tests[kind][:judged]
    # each run ends with an evaluation, here of few images: see below for all
    evaluated = judged // 20
    few = data.Split(
        dataset.test.images[:evaluated], dataset.test.labels[:evaluated]
    )
    part = data.Dataset(
        f"{dataset.name}-likelihoods", dataset.train, few, dataset.names
    )
    for name in likelihoods if kind == "digits" else faces_only:
        builder = partial(network, decoder=likelihoods[name])
        if name not in (BERNOULLI, MIXTURE):
            builder = partial(dequantized_vae, builder=builder)
        done = [
            train(
                part,
                TrainConfig(K, epochs, seed),
                runs_folder,
                builder=builder,
            )
            for seed in range(count)
        ]
        trained[kind, name] = [run.model() for run in done]
        finished += done
    print(
        f"{dataset.name}: {len(dataset.train):,} training images, {epochs} epochs, "
        f"K = {K}\n  seeds: {count}; {len(tests[kind]):,} test images judged"
    )

# %% [markdown]
# ## Bits
#
# Don't compare ELBOs across rows, because each likelihood counts in its own nats. Pairs are two
# seeds.


# %% tags=["hide-input"]
@torch.no_grad()
def scored(model, images, name):
    """ELBO and KL of each image, in nats; the second is of the codes alone."""
    terms = []
    with seeded(0):
        for x in data.to_float(images).split(500):
            grey = name in (BERNOULLI, MIXTURE)
            terms.append(
                torch.stack(model.elbo(x if grey else dequantized(x)))
            )
    reconstruction, kl = torch.cat(terms, 1)
    return reconstruction - kl, kl


def bits(elbo, name, dimensions):
    if name == BERNOULLI:
        return None  # no density, no bits
    levels = 0 if name == MIXTURE else math.log(256)
    return (levels - elbo / dimensions) / math.log(2)


def standard_error(each):
    return each.std().item() / len(each) ** 0.5


def sigma(model):
    decoder = model.decoder
    if hasattr(decoder, "log_sigma"):
        return decoder.log_sigma.exp().item()
    return (
        decoder.variance.sqrt().item()
        if hasattr(decoder, "variance")
        else None
    )


numbers = {}
for (kind, name), seeds_here in trained.items():
    D = tests[kind][0].numel()
    numbers[kind, name] = []
    for model in seeds_here:
        terms = scored(model, tests[kind], name)
        elbo, kl = (each.mean().item() for each in terms)
        errors = [standard_error(each) for each in terms]
        numbers[kind, name].append(
            {
                "ELBO": elbo,
                "KL": kl,
                "bits": bits(elbo, name, D),
                "σ": sigma(model),
                "errors": [*errors, errors[0] / D / math.log(2)],
            }
        )
for kind in studied:
    rows = [
        one["errors"]
        for (which, name), each in numbers.items()
        if which == kind and name != BERNOULLI
        for one in each
    ]
    most = [max(column) for column in zip(*rows, strict=True)]
    print(
        f"{kind}: standard errors at most {most[0]:.0f} (ELBO), "
        f"{most[1]:.1f} (KL), {most[2]:.3f} (bits)"
    )


def both(measured, key, form):
    """A number for each seed; a dash where it does not exist."""
    values = [each[key] for each in measured]
    return (
        "–" if None in values else ", ".join(f"{v:{form}}" for v in values)
    )


def table(measured, forms):
    lines, last = [], None
    for (kind, name), each in measured.items():
        cells = (both(each, key, form) for key, form in forms.items())
        lines.append([kind if kind != last else "", name, *cells])
        last = kind
    headers = ["images", "likelihood", *forms]
    return Markdown(
        tabulate(lines, headers, "github", disable_numparse=True)
    )


table(numbers, {"ELBO": ".0f", "KL": ".1f", "bits": ".2f", "σ": ".3f"})

# %% [markdown]
# A uniform distribution needs eight bits, and σ = 1 needs more. A model without a code, one
# histogram per pixel value, needs:

# %% tags=["hide-input"]
for kind, (dataset, *_) in studied.items():
    first = 256 * torch.arange(tests[kind][0].numel())
    counts = 1 / 256  # no level is impossible
    for part in dataset.train.images.split(1000):
        found = (first + part.flatten(1)).flatten()
        counts = counts + torch.bincount(found, minlength=256 * len(first))
    shares = counts.view(-1, 256) / counts.view(-1, 256).sum(1, True)
    met = shares.flatten()[first + tests[kind].flatten(1)]
    print(f"{kind}, histograms, no code: {-met.log2().mean():.2f} bits")

# %% [markdown]
# On digits, only the mixture needs fewer bits than the histograms.
#
# ## Visual quality
#
# Samples and reconstructions are *mean* images of the likelihood, and not selected.


# %% tags=["hide-input"]
def decoded(model, codes, pixels=False):
    """Mean images of the codes, or images with drawn pixels, in [0, 1]."""
    parts = []
    with torch.inference_mode():
        for part in codes.split(250):
            likelihood = model.decoder(part)
            image = likelihood.sample() if pixels else likelihood.mean
            parts.append(image.clamp(0, 1))
    return torch.cat(parts)


def looks(model, images, others):
    """Of test images and of the prior; "seen" are codes of training images."""
    with seeded(0):
        codes, seen = (
            objective.reparameterize(*evaluation.encode(model, each))
            for each in (images, others)
        )
        prior = torch.randn(len(images), model.latent_dim)
        return {
            "reconstructions": decoded(model, codes),
            "seen": decoded(model, seen),
            "samples": decoded(model, prior),
            "drawn": decoded(model, prior, pixels=True),
        }


training = {
    kind: dataset.train.images[: len(tests[kind])]
    for kind, (dataset, *_) in studied.items()
}
pictures = {
    (kind, name): looks(seeds_here[0], tests[kind], training[kind])
    for (kind, name), seeds_here in trained.items()
}


def gallery(kind):
    images = tests[kind] / 255
    found = {
        "test images, and six more": torch.cat([images[:6], images[-6:]])
    }
    for (which, name), each in pictures.items():
        if which == kind:
            pair = each["reconstructions"][:6], each["samples"][:6]
            found[name] = torch.cat(pair)
    return found


# %% mystnb={"figure": {"caption": "Digits: reconstructions of six test images, then six samples. The first row has twelve test images. \u03c3 = 1 and the logistic mixture blur most. A learned \u03c3 gives sharp reconstructions, but broken samples.", "name": "fig-likelihoods-digits"}, "image": {"alt": "Seven rows of twelve digits: test images, then for each likelihood reconstructions and samples; those of the Gaussian with \u03c3 = 1 and of the logistic mixture are the most blurred, and the continuous Bernoulli has a grey background."}}
plots.rows(gallery("digits"))

# %% [markdown]
# Strictly, a sample's pixels are drawn from the likelihood, too. Bits measure such samples.

# %% mystnb={"figure": {"caption": "The first twelve of the same samples, with drawn pixels. \u03c3 = 1 gives noise. (The best \u03c3 is left out, because it resembles the learned one.)", "name": "fig-likelihoods-drawn"}, "image": {"alt": "Five rows of twelve digits with drawn pixels: those of \u03c3 = 1 are noise in which hardly a digit can be made out."}} tags=["hide-input"]
plots.rows(
    {
        name: each["drawn"][:12]
        for (kind, name), each in pictures.items()
        if kind == "digits" and name != "Gaussian, best σ"
    }
)

# %% [markdown]
# ## Visual quality, measured
#
# - **error**: the mean squared error of reconstructions.
# - **sharp**: the standard deviation of the Laplacian, relative to test images. Noise counts as
#   sharpness, too.
# - **distance**: the squared Fréchet distance from test images, as in {doc}`/book/mnist/samples`.
#   Decoded codes of *training images* show the decoder's part of it.
#
# The lines before the table show the distance of real images, and of samples from other codes.


# %% tags=["hide-input"]
def laplacian(x):
    inner = 4 * x[..., 1:-1, 1:-1]
    upright = x[..., :-2, 1:-1] + x[..., 2:, 1:-1]
    return (inner - upright - x[..., 1:-1, :-2] - x[..., 1:-1, 2:]).std()


ramp = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
assert laplacian(ramp) < 1e-6 < laplacian(ramp.round())  # an edge is sharp
judges = {
    kind: features.load(dataset, runs_folder)[0]
    for kind, (dataset, *_) in studied.items()
}
real = {
    kind: features.extract(judges[kind], tests[kind]) for kind in studied
}


def distance(kind, images):
    found = features.extract(judges[kind], images)
    return features.frechet_distance(real[kind], found)


for kind in studied:
    print(
        f"{kind}: distance of real images {distance(kind, training[kind]):.2f}"
    )


def measure(kind, made):
    x, again = data.to_float(tests[kind]), made["reconstructions"]
    return {
        "error": (again - x).square().mean().item(),
        "sharp, rec.": (laplacian(again) / laplacian(x)).item(),
        "sharp, samples": (
            laplacian(made["samples"]) / laplacian(x)
        ).item(),
        "distance, samples": distance(kind, made["samples"]),
        "training codes": distance(kind, made["seen"]),
        "drawn": distance(kind, made["drawn"]),
    }


measured = {}
for (kind, name), seeds_here in trained.items():
    made = [pictures[kind, name]]
    for model in seeds_here[1:]:
        made.append(looks(model, tests[kind], training[kind]))
    measured[kind, name] = [measure(kind, each) for each in made]
forms = dict.fromkeys(measured[kind, name][0], ".2f") | {"error": ".4f"}
for kind, name in trained:
    # of the same training, other codes
    if name in (BERNOULLI, MIXTURE):
        model, again = trained[kind, name][0], []
        for seed in (1, 2):
            with seeded(seed):
                codes = torch.randn(len(tests[kind]), model.latent_dim)
            again.append(distance(kind, decoded(model, codes)))
        first = measured[kind, name][0]["distance, samples"]
        others = ", ".join(f"{each:.2f}" for each in again)
        print(f"{kind}, {name}: samples {first:.2f}, drawn anew {others}")
table(measured, forms)

# %% mystnb={"figure": {"caption": "Left: on digits, reconstructions are sharper the more nats of code a likelihood pays for. The four models of faces differ too little to show it. Right: the likelihood with the fewest bits never has the smallest distance. Each point is a run.", "name": "fig-likelihoods-agree"}, "image": {"alt": "Two plots for each data set: sharpness of reconstructions against the KL, and the Fr\u00e9chet distance against bits per dimension, with a mark for each likelihood."}} tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, panels = plt.subplots(
        len(studied),
        2,
        figsize=(plots.WIDTH, 2.3 * len(studied)),
        squeeze=False,
    )
markers = dict(zip(likelihoods, "osv^Dx", strict=True))
for (kind, name), each in measured.items():
    left, right = panels[list(studied).index(kind)]
    here = numbers[kind, name]
    style = {"marker": markers[name], "linestyle": "", "markersize": 5}
    style |= {"color": f"C{list(likelihoods).index(name)}", "label": name}
    sharp = [one["sharp, rec."] for one in each]
    left.plot([one["KL"] for one in here], sharp, **style)
    left.set(title=kind, xlabel="KL, nats", ylabel="sharp")
    right.set(title=kind, xlabel="bits per dimension", ylabel="distance")
    if name != BERNOULLI:
        far = [one["distance, samples"] for one in each]
        right.plot([one["bits"] for one in here], far, **style)
handles = panels[0, 0].get_legend_handles_labels()
figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)
plt.show()

# %% [markdown]
# ## Three controls, added afterwards
#
# **Open edges.** A Gaussian wastes the probability below black and above white, while the mixture
# adds it to its outermost levels. We give Gaussians the same advantage:


# %% tags=["hide-input"]
def log_interval(normal, level):
    """log P of the interval of a level, in double precision; the outermost are open."""
    below, above = (
        ((level + edge) / 256 - normal.mean) / normal.stddev
        for edge in (0, 1)
    )
    below = torch.where(level == 0, -torch.inf, below)
    above = torch.where(level == 255, torch.inf, above)
    turned = below + above > 0  # into the left tail, where nothing cancels
    low = torch.where(turned, -above, below).double()
    high = torch.where(turned, -below, above).double()
    low, high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return high + torch.log(-torch.expm1(low - high))


levels = torch.arange(256.0)
for spread in (0.1, 1.0):  # all levels together have probability 1
    normal = torch.distributions.Normal(0.3, spread)
    assert abs(log_interval(normal, levels).exp().sum() - 1) < 1e-5


@torch.no_grad()
def closed(model, images):
    """Bits per dimension of each image, from the same codes as `scored`."""
    found = []
    with seeded(0):
        for x in data.to_float(images).split(500):
            x = dequantized(x)
            q = model.encoder(x)
            pixels = model.decoder(q.rsample()).base_dist
            level = (256 * x).floor().clamp(max=255)
            log_p = log_interval(pixels, level).flatten(1).sum(1)
            kl = torch.distributions.kl_divergence(q, model.prior())
            found.append((kl - log_p) / x[0].numel() / math.log(2))
    return torch.cat(found)


whole = {}
for kind, name in trained:
    if "Gaussian" in name:
        each = [closed(m, tests[kind]) for m in trained[kind, name]]
        whole[kind, name] = [one.mean().item() for one in each]
        shown = ", ".join(
            f"{one.mean():.2f} ± {standard_error(one):.2f}" for one in each
        )
        print(
            f"{kind}, {name}: {both(numbers[kind, name], 'bits', '.2f')} "
            f"become {shown}"
        )

# %% [markdown]
# On digits this saves four bits or more, and σ = 1 now needs *fewer* bits than a fitted σ. One
# disadvantage is left: the mixture's centres can be below black, a Gaussian's mean can't.

# %% tags=["hide-input"]
black = (tests["digits"] == 0).double().mean().item()
normal = torch.distributions.Normal(0.0, 0.1)  # σ as learned above
price = -log_interval(normal, torch.tensor(0)).item() / math.log(2)
print(
    f"a black pixel costs {price:.2f} bits or more with σ = 0.1;"
    f" over all values of digits {black * price:.2f}"
)

# %% [markdown]
# **No clamp.** Torch keeps the continuous Bernoulli's p above 10⁻⁷. Its mean is then at least
# 0.0627: backgrounds are grey. We make them black, and train a model without the clamp:


# %% tags=["hide-input"]
inner = torch.tensor([-9.0, -1.0, 0.5, 9.0]).view(4, 1, 1, 1)
torchs = torch.distributions.ContinuousBernoulli(logits=inner)
value = torch.full_like(inner, 0.3)
expected = torchs.log_prob(value).flatten()
exactly = distributions.ContinuousBernoulli(inner)
torch.testing.assert_close(exactly.log_prob(value).flatten(), expected)
torch.testing.assert_close(exactly.mean, torchs.mean)

name = "continuous Bernoulli"
floor = torch.distributions.ContinuousBernoulli(
    logits=torch.tensor(-1e3)
).mean
made = pictures["digits", name]["samples"]
stretched = ((made - floor) / (1 - 2 * floor)).clamp(0, 1)
builder = partial(models.mlp, decoder=decoders.ContinuousBernoulli)
builder = partial(dequantized_vae, builder=builder)
dataset = data.Dataset(
    f"{digits.name}-likelihoods",
    digits.train,
    data.Split(digits.test.images[:100], digits.test.labels[:100]),
    digits.names,
)
exact = train(
    dataset, TrainConfig(16, epochs), runs_folder, builder=builder
).model()
elbo, kl = scored(exact, tests["digits"], name)
D = tests["digits"][0].numel()
with seeded(0):
    codes = torch.randn(len(tests["digits"]), exact.latent_dim)
print(f"lowest mean {floor:.4f}, darkest pixel of samples {made.min():.4f}")
print(f"distance of samples {distance('digits', made):.2f}")
print(f"with a black ground {distance('digits', stretched):.2f}")
print(
    f"without the clamp {distance('digits', decoded(exact, codes)):.2f}, "
    f"bits {bits(elbo.mean().item(), name, D):.2f} ± "
    f"{standard_error(elbo) / D / math.log(2):.2f}, KL {kl.mean():.1f}"
)

# %% [markdown]
# **Longer training.** The published model of faces (Bernoulli) has 30 epochs:

# %% tags=["hide-input"]
if "faces" in studied:
    longer = storage.from_pretrained("celeba-k64")
    made = looks(longer, tests["faces"], training["faces"])
    print("the paper's likelihood, 30 epochs, faces:")
    for key, value in measure("faces", made).items():
        print(f"  {key} {value:{forms[key]}}")

# %% [markdown]
# ## Verdict


# %% tags=["hide-input"]
def with_edges(kind, name, seed):
    """Bits as in the first control, of Gaussians with open edges."""
    if (kind, name) in whole:
        return whole[kind, name][seed]
    return numbers[kind, name][seed]["bits"]


asked = {"B2": {}, "B3": {}}  # what the ledger's claims ask for
for kind, (*_, count) in studied.items():
    names = [name for which, name in trained if which == kind]
    dense = [name for name in names if name != BERNOULLI]
    pairs = []
    for seed in range(count):
        fewest = min(dense, key=lambda n: numbers[kind, n][seed]["bits"])
        nearest = min(
            dense,
            key=lambda n: measured[kind, n][seed]["distance, samples"],
        )
        pairs.append((fewest, nearest))
        print(
            f"{kind}, seed {seed}: fewest bits: {fewest}; nearest: {nearest}"
        )
    asked["B2"][kind] = [fewest != nearest for fewest, nearest in pairs]
    apart = all(asked["B2"][kind])
    # as the first control has it: the Gaussians' bits with open edges
    again = all(
        min(dense, key=lambda n: with_edges(kind, n, seed)) != nearest
        for seed, (_, nearest) in enumerate(pairs)
    )
    kl = [one["KL"] for n in names for one in numbers[kind, n]]
    sharp = [one["sharp, rec."] for n in names for one in measured[kind, n]]
    rank = spearmanr(kl, sharp).statistic
    if kind == "digits":  # four points, as faces have, say nothing
        asked["B3"][kind] = rank
    print(
        f"  rule 1, they disagree: {'yes' if apart else 'no'}; "
        f"with the Gaussians' edges open: {'yes' if again else 'no'}"
    )
    print(
        f"  rule 2, blur is a price: {'yes' if rank >= 0.8 else 'no'} "
        f"(rank correlation {rank:.2f})"
    )

# %% [markdown]
# In the {doc}`ledger </book/verdict/claims>`, neither claim is decided. B2 has one seed of faces.
# B3 has a single value. It leaves out faces, because four points say little about a correlation.

# %% tags=["hide-input"]
on = ", ".join(
    f"{len(tests[kind]):,} test images of {studied[kind][0].name}"
    for kind in studied
)
if both := len(studied) == 2:
    first = claims.judge("B2", on, finished, **asked["B2"])
    second = claims.judge("B3", on, finished, **asked["B3"])
first if both else None

# %% tags=["hide-input"]
second if both else None

# %% [markdown]
# Later we counted black values, and compared drawn pixels:

# %% tags=["hide-input"]
for kind in studied:
    black = (tests[kind] == 0).float().mean()
    print(f"{kind}: {black:.0%} of the values are exactly black")
    dense = [n for which, n in trained if which == kind and n != BERNOULLI]
    for seed in range(studied[kind][-1]):
        near = min(dense, key=lambda n: measured[kind, n][seed]["drawn"])
        print(f"  nearest with drawn pixels, seed {seed}: {near}")

# %% [markdown]
# The published numbers show:
#
# **On digits, blur is a price.** With σ = 1, the model pays for 5 to 6 nats of code, and
# sharpness is 0.36 to 0.39. With a learned σ of 0.1, it pays for 48 to 50 nats, and sharpness is
# 0.74 to 0.75. Only σ differs, so it is the cause.
#
# **Fewer bits don't mean nearer samples.** On digits, the mixture has the fewest bits (1.48), but
# its samples are at 16.24, and a learned σ's at 8.95. Open edges explain three quarters of its
# lead in bits.
#
# **Better reconstructions don't mean better samples.** On digits, a learned σ halves the distance
# of decoded training codes, from 1.94 to 0.93. Its samples are farther nevertheless, because the
# prior's part of the distance grows from 4.25 to 8.02. {doc}`priors` shows a cure.
#
# | limit | what it could change |
# |---|---|
# | Faces have five epochs, and one seed. | Everything about faces. In 30 epochs, the paper's likelihood improves from 30.88 to 14.18. {cite}`rybkin2021simple` report far better faces with a fitted σ. |
# | Digits have five epochs, and two seeds. | The order of close rows. Not σ = 1 against 0.1. |
# | Two random rankings of five differ in first place with probability 4/5. | B2 is easy to meet. |
# | A mixture's mean image is blurred by nature. | Its distance. With drawn pixels, the mixture is nearest on digits. |
# | Torch's clamp costs two bits (4.72 and 2.46). | The continuous Bernoulli's place. |
# | {cite}`loaiza2019continuous` publish ELBOs of 6.15 bits for the continuous Bernoulli, and 4.52 for a Gaussian. | The order of these two, which is opposite here. Their σ varies by pixel, ours doesn't. |
