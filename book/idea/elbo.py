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
# # The ELBO, a bound on log p(x)
#
# **A VAE gives every image a probability $p(x)$, but to compute it we would have to try all
# codes that could have made the image. How can training raise a number that it can't
# compute?** It raises a lower bound on $\log p(x)$, the *evidence lower bound*, {term}`ELBO`.
# For the six images below, $\log p(x)$ is between −218 and −54 {term}`nats <nat>`. The bound
# is 0.13 nats too low for the best of them, and 19 for the worst. Minus the ELBO is the loss
# of the first chapter, reconstruction plus KL. This page's VAE has a code of one number, so
# we can sum over all codes and compare the bound with the truth.
#
# **Drag $q$ onto the grey hill.** The hill is the exact posterior: how probable each code
# is, once we know the image. $q$ is an approximation, which at first is the encoder's.
# Reconstruction and KL change with every move, but $-\log p(x)$ doesn't. Their sum exceeds
# it by the gap. Which $q$ has no gap?
#
# ```{raw} html
# :file: ../live/bound.html
# ```
#
# ## The evidence: an integral over all codes
#
# The model makes an image in two steps. It draws a code $z$ of $K$ numbers from the
# {term}`prior` $p(z) = \mathcal{N}(0, I)$. The decoder, with weights $\theta$, then outputs
# a probability $\pi_j$ for each of $D$ pixels, and the pixels are drawn one by one:
#
# $$
# \begin{aligned}
# \log p(x \mid z) &= \sum_{j=1}^{D} \left[
#   x_j \log \pi_j + (1 - x_j) \log (1 - \pi_j) \right], \\
# \pi &= \pi_\theta(z) .
# \end{aligned}
# $$ (eq-elbo-bernoulli)
#
# ```{admonition} Grey pixels
# :class: margin
# Pixels between 0 and 1, put into {eq}`eq-elbo-bernoulli`, give no normalised
# density {cite}`loaiza2019continuous`. If "log p(x)" means the logarithm of
# the integral {eq}`eq-elbo-evidence`, everything on this page still holds for
# them.
# ```
#
# The *evidence* is the probability of an image $x$, whatever its code. By Bayes' rule, it
# gives the density of the codes that could have made the image, the {term}`posterior`:
#
# $$
# p(x) = \int p(x \mid z) \, p(z) \, dz , \qquad
# p(z \mid x) = \frac{p(x \mid z) \, p(z)}{p(x)} .
# $$ (eq-elbo-evidence)
#
# The integral has no formula if $\pi$ is a neural network. A grid of $n$ points on each
# axis has $n^K$ points: $10^{83}$ for $K = 64$ and $n = 20$. For $K = 1$, a grid is easy.
# We therefore take the one-number VAE that comes with the package, trained on MNIST, and
# six test images.

# %% tags=["hide-input"]
import copy
import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown
from tabulate import tabulate
from torch.distributions import Normal

from book.machinery import live
from vaelib import evaluation, objective, plots, storage

plt.rcParams.update(plots.STYLE)
BLUE = live.COLOURS["encoder"]  # as in the picture to drag
model = storage.from_pretrained("mnist-k1")
chosen = json.loads(Path("../live/mnist.json").read_bytes())["digits"]
images = torch.tensor([each["pixels"] for each in chosen])
images = images.to(torch.uint8).view(-1, 1, 28, 28)
x = images / 255  # (6, 1, 28, 28)
digits = [each["label"] for each in chosen]
prior = Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
codes = torch.linspace(-6, 6, 24001, dtype=torch.float64)
step = (codes[1] - codes[0]).item()
with torch.inference_mode():
    parts = codes.float()[:, None].split(2000)
    logits = torch.cat([model.decoder.logits(z) for z in parts]).double()

# %%
log_likelihood = torch.stack(
    [
        objective.bernoulli_log_prob(image.expand_as(logits), logits)
        for image in x.double()
    ]
)  # log p(x | z), (6, 24001)
log_joint = log_likelihood + prior.log_prob(codes)
log_evidence = log_joint.logsumexp(1) + math.log(step)
log_posterior = log_joint - log_evidence[:, None]

coarser = log_joint[:, ::2].logsumexp(1) + math.log(2 * step)
assert (log_evidence - coarser).abs().max() < 1e-3
rounded = map(round, log_evidence.tolist())
print("log p(x), nats:", dict(zip(digits, rounded, strict=True)))

# %% [markdown]
# A grid of half the points gives the same numbers (the cell asserts it), so ours is fine
# enough. We compare the bound with these true values.
#
# ## Jensen's inequality: the bound
#
# With 64 numbers, no grid is possible, and we have to draw codes. A code drawn from the
# prior almost never fits $x$. So we draw codes where they matter, from *any* density $q(z)$
# that is positive wherever the posterior is, and correct for it by a weight:
#
# $$
# \begin{aligned}
# p(x) &= \int q(z) \, \frac{p(x \mid z) \, p(z)}{q(z)} \, dz
#   = \mathbb{E}_{z \sim q}\left[ w(z) \right], \\
# w(z) &= \frac{p(x \mid z) \, p(z)}{q(z)} .
# \end{aligned}
# $$ (eq-elbo-weight)
#
# So far this is exact: the evidence is the average of the *weight*. But training needs
# $\log p(x)$, because the probabilities of independent images multiply and their
# logarithms add. That is the logarithm of an average. From a few draws, we can estimate
# it only with a bias, but an *average of logarithms* without. The logarithm is *concave*
# (it bends down), so by Jensen's inequality
#
# $$
# \log \mathbb{E}[w] \;\geq\; \mathbb{E}[\log w],
# $$ (eq-elbo-jensen)
#
# with equality only if $w$ doesn't vary. (Proof: the graph is below its tangents,
# $\log w \leq \log \bar w + (w - \bar w) / \bar w$. Let $\bar w = \mathbb{E}[w]$ and
# average both sides. The fraction becomes zero.) Applied to {eq}`eq-elbo-weight`, this
# gives the ELBO:
#
# $$
# \begin{aligned}
# \log p(x) &\geq \mathcal{L}(q), \\
# \mathcal{L}(q) &= \mathbb{E}_{z \sim q}\left[ \log w(z) \right] \\
# &= \mathbb{E}_{q}\left[ \log p(x \mid z) + \log p(z) - \log q(z) \right] .
# \end{aligned}
# $$ (eq-elbo-bound)
#
# We can compute all of it, because we know the prior and the decoder, and choose $q$.

# %% tags=["hide-input"]
with torch.inference_mode():
    mu, log_variance = (each.double() for each in model.encode(x))
sigma = torch.exp(log_variance / 2)  # of the encoder's q, each (6, 1)


def log_weights(image, q, count=2**20):
    """Codes drawn from q, and their log w, interpolated on the grid."""
    torch.manual_seed(0)
    z = q.sample((count,))
    between = np.interp(z, codes, log_likelihood[image])
    return z, torch.from_numpy(between) + prior.log_prob(z) - q.log_prob(z)


two = digits.index(2)
encoders = [
    Normal(*each) for each in zip(mu[:, 0], sigma[:, 0], strict=True)
]
z, log_w = log_weights(two, encoders[two])
between = (log_likelihood[:, :-2] + log_likelihood[:, 2:]) / 2
off = (between - log_likelihood[:, 1:-1])[log_posterior[:, 1:-1] > -10]
assert (
    off.abs().max() < 0.02
)  # between every other point, so a fourth of it

ratio = (log_w - log_evidence[two]).exp()  # weights in units of p(x)
error = (ratio.std() / math.sqrt(len(ratio))).item()
assert abs(ratio.mean().item() - 1) < 4 * error
print(f"mean of a million weights / p(x): {ratio.mean():.4f} ± {error:.4f}")

# %% mystnb={"figure": {"caption": "The test image of a 2. Left: its exact posterior (shaded), and the encoder's q, from which forty codes are drawn (ticks). Right: the weights of these codes in units of p(x), and the logarithms of the weights. The full dot is the logarithm of the mean weight, log 1 = 0. The open dot below it is the mean logarithm, the ELBO. The bar between the dots is the gap of the bound. Both means are over a million codes.", "name": "fig-elbo-jensen"}, "image": {"alt": "Left: a narrow shaded bump, and a wider bell curve whose centre is to the left of it. Right: forty points along the graph of the logarithm, with weights between 0 and 2.5, and below the graph at weight 1 an open dot."}} tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(plots.WIDTH, 2.5))
plt.close(figure)
near = (codes - mu[two]).abs() < 4 * sigma[two]
left.fill_between(codes[near], log_posterior[two, near].exp(), color="0.8")
q = encoders[two].log_prob(codes[near]).exp()
left.plot(codes[near], q, color=BLUE)
left.plot(z[:40], torch.full((40,), -0.9), "|", color=BLUE, ms=5)
left.set(xlabel="$z$", yticks=[])
left.text(-1.055, 20, "$p(z \\mid x)$")
left.text(-1.2, 9, "encoder's $q$", color=BLUE)
missed = -ratio.log().mean().item()
curve = torch.linspace(0.004, 1.15 * ratio[:40].max(), 500)
right.plot(curve, curve.log(), color="0.6")
right.plot(ratio[:40], ratio[:40].log(), "o", color=BLUE, ms=4, alpha=0.5)
right.vlines(1, -missed, 0, color="k", lw=2)
right.plot(1, 0, "o", color="k")
right.plot(1, -missed, "o", color="k", mfc="white")
right.set(xlabel="$w / p(x)$", ylabel="$\\log\\, w / p(x)$")
figure

# %% [markdown]
# ## The gap is a KL divergence
#
# What exactly is lost? By Bayes' rule, $w(z) = p(x) \, p(z \mid x) / q(z)$. We take
# logarithms and average over $q$. The term $\log p(x)$ doesn't depend on $z$, so it stays:
#
# $$
# \begin{aligned}
# \log p(x) &= \mathcal{L}(q)
#   + \mathrm{KL}\left(q(z) \,\|\, p(z \mid x)\right), \\
# \mathrm{KL}(q \,\|\, p)
#   &= \mathbb{E}_{z \sim q}\left[ \log \frac{q(z)}{p(z)} \right] .
# \end{aligned}
# $$ (eq-elbo-gap)
#
# The gap is the *Kullback-Leibler divergence* of $q$ from the posterior. It is never
# negative, again by Jensen's inequality: $-\mathbb{E}_q[\log (p/q)] \geq
# -\log \mathbb{E}_q[p/q] \geq -\log 1 = 0$. (The mean $\mathbb{E}_q[p/q]$ is the mass of
# $p$ where $q$ is positive, at most 1.) It is zero only if both steps are equalities:
# $p/q$ doesn't vary where $q$ is positive, and $p$ has no mass elsewhere. Then $q = p$.
# So raising the bound by a better $q$ *means* bringing $q$ closer to the posterior,
# although the posterior doesn't occur in {eq}`eq-elbo-bound`.
#
# ## Reconstruction and KL: the bound as it is computed
#
# Regrouped, {eq}`eq-elbo-bound` is minus the loss of the first chapter:
#
# $$
# \mathcal{L}(q) = \mathbb{E}_{q}\left[ \log p(x \mid z) \right]
#   - \mathrm{KL}\left(q(z) \,\|\, p(z)\right).
# $$ (eq-elbo-terms)
#
# The first term, minus the {term}`reconstruction`, is large if codes drawn from $q$
# explain $x$. The second term is the price of what $q$ says beyond the prior. Don't
# confuse the two divergences. We pay for the divergence of $q$ from the *prior*, and can
# always compute it. The divergence of $q$ from the *posterior* is the gap, and we know it
# only where we know $p(x)$.
#
# The picture at the top of this page computes the gap as this divergence, not as the remainder.

# %% mystnb={"figure": {"caption": "The exact posterior of a 0, and the encoder's $q$, which misses it: its gap is 19 nats. Where scripts run, $q$ can be dragged here.", "classes": "live-still", "name": "fig-elbo-live"}, "image": {"alt": "A shaded density with a shoulder, and beside it, to the right, a narrower bell curve."}} tags=["remove-input"]
figure, axes = plots.densities(1)
exact, q = log_posterior[0].exp(), Normal(mu[0], sigma[0])
axes[0].fill_between(codes, exact, color="0.75", label="p(z | x), exact")
axes[0].plot(codes, q.log_prob(codes).exp(), BLUE, label="the encoder's q")
axes[0].set(xlabel="z", xlim=(mu[0] - 0.8, mu[0] + 0.4), ylim=(0, None))
axes[0].legend()
figure

# %% [markdown]
# The table lists all terms of {eq}`eq-elbo-gap` and {eq}`eq-elbo-terms` for the encoder's
# $q$, as sums over the grid. The KL to the prior is `vaelib`'s closed form, which {doc}`kl`
# derives. The column "drawn" is `vaelib`'s ELBO, the mean of 2,000 draws without a grid.


# %%
def split(mean, log_variance):
    """Both terms of the bound, and the gap, of each image's Gaussian q."""
    log_q = objective.gaussian_log_prob(
        codes[:, None], mean[:, None], log_variance[:, None]
    )
    q = log_q.exp() * step  # (6, 24001)
    explained = (q * log_likelihood).sum(1)
    gap = (q * (log_q - log_posterior)).sum(1)
    return explained, objective.kl_divergence(mean, log_variance), gap


explained, kl, gap = split(mu, log_variance)
assert torch.allclose(explained - kl + gap, log_evidence, atol=1e-3, rtol=0)

# %% tags=["hide-input"]
torch.manual_seed(0)
with torch.inference_mode():
    draws = [torch.sub(*model.elbo(x)) for _ in range(2000)]
drawn, error = torch.stack(draws).mean(0), torch.stack(draws).std(0)
error = error / math.sqrt(len(draws))
assert ((drawn - (explained - kl)).abs() < 4 * error).all()
columns = -explained, kl, explained - kl, drawn, log_evidence, gap
rows = zip(digits, *columns, strict=True)
headers = ["image", "reconstruction", "KL to the prior", "ELBO"]
headers += ["drawn", "log p(x)", "gap"]
Markdown(tabulate(rows, headers, "pipe", floatfmt=".2f"))

# %% [markdown]
# ## One encoder for all images: amortised inference
#
# So far, there was one $q$ for one $x$. For $N$ images, we would have to find $N$ of them,
# and again whenever the decoder changes. In a VAE {cite}`kingma2022auto`, a network finds
# them, the encoder, with weights $\phi$. For an image, it outputs the mean and the standard
# deviation of $q$ for each of the $K$ numbers:
#
# $$
# q(z \mid x) = \mathcal{N}\left(z; \;
#   \mu_\phi(x), \; \operatorname{diag} \sigma_\phi(x)^2 \right).
# $$ (eq-elbo-encoder)
#
# This is called *amortised* inference, because the cost of finding $q$ is paid once for
# all images. Training maximises the mean of the bounds in $\theta$ and $\phi$ together:
#
# $$
# \begin{aligned}
# \frac1N \sum_{i=1}^{N} \mathcal{L}(x_i)
# = \frac1N \sum_{i=1}^{N} \big[ &\log p(x_i) \\
#   &- \mathrm{KL}\left(
#     q(z \mid x_i) \,\|\, p(z \mid x_i) \right) \big].
# \end{aligned}
# $$ (eq-elbo-objective)
#
# The encoder's $\phi$ occurs only in the last sum, so it can only close the gap. The
# decoder's $\theta$ occurs in both sums. It can raise $\log p(x)$ *or* make the posterior
# easier to match, and the bound doesn't show which.
#
# {numref}`fig-elbo-touch` shows both effects along one direction of $\theta$: we multiply
# all weights of the decoder (not its biases) by one number. For a fixed $q$, the bound is
# a hill below $\log p(x)$. If $q$ is the exact posterior of some $\theta$, the hill touches
# $\log p(x)$ there. *Expectation-maximisation* (EM), from which the paper starts, climbs in
# turns: it moves $q$ to the posterior, then $\theta$ to the summit of its hill. An exercise
# of {doc}`../appendix/elbo` does it.
#
# The encoder's $q$ isn't the posterior of any $\theta$. Its hill never touches
# $\log p(x)$, and the two have their summits at different $\theta$. Training by the bound
# therefore gives a decoder that suits the encoder.

# %% mystnb={"figure": {"caption": "The 2 again, with all weights of the decoder multiplied by a number: log p(x) (thick), bounds whose q is the exact posterior at the dot (thin), and the bound of the encoder's q (blue). Triangles mark the highest points of log p(x) and of the encoder's bound, which differ.", "name": "fig-elbo-touch"}, "image": {"alt": "A wide grey curve, below it four narrow grey hills that each touch it at a dot, and a blue hill that stays below it everywhere, its summit to the right of the grey one's."}} tags=["hide-input"]
factors = torch.linspace(0.84, 1.12, 57, dtype=torch.float64)
few, wide = codes[6000:18001:8], 8 * step  # from -3 to 3
joint = []
for factor in factors:
    decoder = copy.deepcopy(model.decoder)
    with torch.inference_mode():
        for name, each in decoder.named_parameters():
            each *= factor if name.endswith("weight") else 1
        scaled = decoder.logits(few.float()[:, None]).double()
    image = x[two].double().expand_as(scaled)
    joint.append(objective.bernoulli_log_prob(image, scaled))
joint = torch.stack(joint) + prior.log_prob(few)  # (57, 1501)
truth = joint.logsumexp(1) + math.log(wide)


def bounds(log_q):
    """The ELBO of one q, for each factor."""
    q = log_q.exp() * wide
    return torch.where(q > 0, q * (joint - log_q), 0).sum(1)


touching = {at: bounds(joint[at] - truth[at]) for at in (10, 22, 34, 46)}
by_encoder = bounds(encoders[two].log_prob(few))
unscaled = (factors - 1).abs().argmin()
assert (truth[unscaled] - log_evidence[two]).abs() < 2e-3
assert (by_encoder[unscaled] - (explained - kl)[two]).abs() < 2e-3
for at, hill in touching.items():
    assert abs(hill[at] - truth[at]) < 1e-6
    others = torch.arange(len(factors)) != at
    assert (hill < truth)[others].all()
assert (by_encoder < truth - 0.1).all()
summits = [factors[hill.argmax()].item() for hill in (truth, by_encoder)]
assert abs(summits[0] - summits[1]) > 0.02

figure, plot = plt.subplots(figsize=(plots.WIDTH, 2.6))
plt.close(figure)
plot.plot(factors, truth, color="0.75", lw=4, label="$\\log p(x)$")
for at, hill in touching.items():
    first = at == min(touching)
    label = "ELBO, $q$ a posterior" if first else None
    plot.plot(factors, hill, lw=1, color="0.3", label=label)
    plot.plot(factors[at], truth[at], "o", color="0.3", ms=4)
plot.plot(factors, by_encoder, color=BLUE, label="ELBO, the encoder's $q$")
bottom = truth.max().item() - 20
for summit, colour in zip(summits, ("0.6", BLUE), strict=True):
    plot.plot(summit, bottom + 0.7, "^", color=colour)
plot.set(ylim=(bottom, None), xlabel="factor of all weights", ylabel="nats")
plot.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
figure

# %% [markdown]
# ## What the encoder's q misses
#
# Does a gap arise because the posterior isn't Gaussian, or because the encoder doesn't find
# the best Gaussian? The gap of the best Gaussian is the *approximation gap*, and the rest
# is the *amortisation gap* {cite}`cremer2018inference`. The Gaussian with the posterior's
# mean and width, which we know from the grid, bounds the approximation gap from above.

# %% tags=["hide-cell"]
posterior = log_posterior.exp() * step
mean = (posterior * codes).sum(1, keepdim=True)
width = (posterior * (codes - mean) ** 2).sum(1, keepdim=True).sqrt()
least = split(mean, 2 * width.log())[2]
assert (least < 0.05).all() and (least < gap / 10).all()
beside, wider = (mu - mean).abs() / sigma, sigma / width
columns = gap, least, beside[:, 0], wider[:, 0]
rows = zip(digits, *columns, strict=True)
headers = ["image", "gap", "approximation gap, at most"]
headers += ["q beside the posterior, in σ", "q wider than it, times"]
Markdown(
    tabulate(
        rows, headers, "pipe", floatfmt=("", ".2f", ".3f", ".1f", ".1f")
    )
)

# %% [markdown]
# The approximation gaps are below 0.05 nats, so nearly all of each gap is due to the
# encoder. The $q$ of the 0 is *misplaced*, next to the posterior. The $q$'s of the 2 and
# the 4 are too wide. The $q$ of the 6 is nearly as good as a Gaussian can be. Six images
# are few, but the appendix takes fifty, and another VAE, with the same result.
#
# ## More samples: the importance-weighted bound
#
# The gap can also be closed without changing $q$. Jensen's inequality loses little where
# its argument varies little, and a mean of $S$ weights varies less than one weight. The
# *importance-weighted bound* {cite}`burda2016importance` is
#
# $$
# \begin{aligned}
# &\mathcal{L}_S(q) = \mathbb{E}\left[
#   \log \frac1S \sum_{i=1}^{S} w(z_i) \right], \quad
#   z_1, \dots, z_S \sim q, \\
# &\mathcal{L} = \mathcal{L}_1 \leq \mathcal{L}_2 \leq \dots \leq \log p(x) .
# \end{aligned}
# $$ (eq-elbo-importance)
#
# More samples never make it worse (exercise 3). For large $S$, the gap falls to $V/(2S)$,
# where $V$ is the variance of the weights in units of $p(x)$. {doc}`../appendix/elbo`
# derives this, and shows what happens if $V$ is infinite. In the tables of this book, "log
# p(x), at least" is this bound with the encoder's $q$, which `evaluation.log_prob`
# computes. How far can you trust it?

# %% tags=["hide-input"]
nought, samples = digits.index(0), [2**power for power in range(13)]
proposals = {"encoder's q": encoders, "prior as q": [prior] * 6}
measured = {}
for image in (two, nought):
    for name, qs in proposals.items():
        log_r = log_weights(image, qs[image])[1] - log_evidence[image]
        rows = []
        for S in samples:
            bounds = objective.importance_weighted_bound(log_r.view(S, -1))
            rows.append((-bounds.mean(), bounds.std() / len(bounds) ** 0.5))
        measured[image, name] = torch.tensor(rows).T
one = measured[two, "encoder's q"][:, 0]
assert (one[0] - gap[two]).abs() < 4 * one[1]  # the grid's KL
assert measured[two, "encoder's q"][0, samples.index(16)] < 0.1
for line, error in measured.values():
    assert (line.diff() < 4 * error[1:].hypot(error[:-1])).all()
at = samples.index(1024)
for name in proposals:
    line, error = measured[nought, name]
    print(f"the 0, {name}: {line[0]:.1f} nats below log p(x)", end=" ")
    print(f"with one sample, {line[at]:.1f} with 1,024")
assert measured[nought, "encoder's q"][0, at] > 10
assert measured[nought, "prior as q"][0, at] < 1
found, stated = evaluation.log_prob(model, images, 1024)
short = log_evidence[nought] - found[nought]
assert short > 5 * stated[nought]
print(f"evaluation.log_prob of the 0: {short:.1f} nats too low", end=", ")
print(f"stated error {stated[nought]:.1f}")

# %% mystnb={"figure": {"caption": "How far the importance-weighted bound stays below log p(x), for two images and two q, from a million weights each. Bars are two standard errors, and values smaller than their bar are left out. Dashed: V/(2S) for the prior as q. For the 0, the encoder's q hardly gains from more samples.", "name": "fig-elbo-samples"}, "image": {"alt": "Two plots of gaps on logarithmic axes. For the 2, the encoder's q starts at one nat and falls steadily, the prior starts at a hundred and falls onto a dashed line. For the 0, the prior does the same, but the encoder's q stays near fifteen nats."}} tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(plots.WIDTH, 2.8), sharey=True)
plt.close(figure)
S = torch.tensor(samples)
for plot, image in zip(panels, (two, nought), strict=True):
    for name, colour in zip(proposals, (BLUE, "C1"), strict=True):
        line, error = measured[image, name]
        clear = line > 2 * error
        plot.errorbar(
            S[clear],
            line[clear],
            2 * error[clear],
            fmt="o",
            ms=3,
            color=colour,
            label=name,
        )
    V = (
        2 * log_posterior[image] - prior.log_prob(codes)
    ).exp().sum() * step - 1
    plot.plot(S, V / (2 * S), "--", color="C1", lw=1)
    plot.set(xscale="log", yscale="log", ylim=(3e-4, 300), xlabel="$S$")
    plot.set_title(f"the {digits[image]}")
panels[0].set_ylabel("log p(x) − $\\mathcal{L}_S$, nats")
panels[0].legend()
figure

# %% [markdown]
# For the 2, whose $q$ is too wide, sixteen samples leave less than 0.1 nats. For the 0, a
# thousand samples leave more than 10 nats: its $q$ is next to the posterior, so no draw
# reaches the weights that count. The prior is hopeless with one sample, but overtakes this
# $q$ because it covers all codes. The standard error gives no warning, because it's computed
# from the drawn weights only. So `evaluation.log_prob` is right only where the encoder's $q$
# covers the posterior, and too low elsewhere.
#
# ## Exercises
#
# **1.** When is the bound equal to $\log p(x)$? Answer once with {eq}`eq-elbo-jensen` and
# once with {eq}`eq-elbo-gap`, and show that the two answers are the same.
#
# ```{dropdown} Solution
# Jensen's inequality is an equality only if the weight doesn't vary, so
# $p(x \mid z) \, p(z) / q(z)$ is the same for all $z$. Then $q(z)$ is proportional to
# $p(x \mid z) \, p(z)$. Because $q$ integrates to one, the factor is $p(x)$, and
# $q(z) = p(z \mid x)$. The divergence in {eq}`eq-elbo-gap` is zero for this $q$ only.
# ```
#
# **2.** For one draw of $z$, can $\log w(z)$ be above $\log p(x)$? Is the bound broken
# then?
#
# ```{dropdown} Solution
# It can, and often is: wherever $q(z) < p(z \mid x)$. Only the mean of $\log w$ is bounded.
# (The mean of $w$ itself is $p(x)$, so if the weights vary at all, some of them are above.)
# ```
#
# How often does this happen for the 2 and the encoder's $q$?

# %% tags=["hide-cell"]
above = (ratio > 1).double().mean().item()
z = encoders[two].icdf((torch.arange(4096) + 0.5).double() / 4096)
lower = encoders[two].log_prob(z) < torch.from_numpy(
    np.interp(z, codes, log_posterior[two])
)
assert abs(above - lower.double().mean().item()) < 0.01
print(f"{above:.0%} of the draws")

# %% [markdown]
# **3.** Show that $\mathcal{L}_{S-1} \leq \mathcal{L}_S$. Hint: the mean of
# $S$ numbers is also the mean of $S$ means, each leaving one number out.
#
# ```{dropdown} Solution
# By Jensen's inequality, the logarithm of a mean of means is at least the mean of their
# logarithms. Each mean that leaves one out has $S - 1$ weights, so its logarithm has the
# expectation $\mathcal{L}_{S-1}$. Even more is true: averaged over all ways of leaving one
# out, the inequality holds for every draw, not only in expectation.
# ```
#
# We check this with `vaelib`'s bound, on a hundred thousand times five weights of the 2.

# %% tags=["hide-cell"]
iw_bound = objective.importance_weighted_bound
fives = log_w[:500_000].view(5, -1)
fours = [torch.cat([fives[:i], fives[i + 1 :]]) for i in range(5)]
without_one = torch.stack([iw_bound(four) for four in fours]).mean(0)
assert (without_one <= iw_bound(fives) + 1e-9).all()
print(f"S = 4: {without_one.mean():.3f} nats", end=", ")
print(f"S = 5: {iw_bound(fives).mean():.3f} nats")

# %% [markdown]
# **Further:** {doc}`../appendix/elbo` repeats this page on probabilistic PCA, a model where
# everything has a closed form: the posterior, the climb of the bound, the rate at which
# more samples help, and EM. {doc}`kl` explains the second term, and
# {doc}`reparameterization` finds the bound's gradient.
