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
# # The reparameterization trick: a gradient through chance
#
# **The encoder computes a distribution, and the code is drawn from it at random. How can the encoder learn from a random draw?**
# By the *reparameterization trick*: draw noise $\varepsilon$ first, and compute the code from it, $z = \mu + \sigma \varepsilon$. Then
# $z$ has derivatives in $\mu$ and $\sigma$, which a plain draw doesn't have {cite}`kingma2022auto,rezende2014stochastic`. The naive
# way, the *score function*, differentiates the density of the draw instead.
#
# This page derives both, and compares them on small digits. There, the naive gradient has at least 25,000 times the variance.
# (Subtracting the mean of other draws, a *baseline*, makes it usable too.) {doc}`/book/mnist/gradients` repeats this on MNIST, and judges
# two claims of the paper: that the reparameterized gradient is usable where the naive one isn't, and that one code per image is enough.
# {doc}`../appendix/reparameterization` has longer proofs.

# %% tags=["parameters", "hide-input"]
import os

# "quick" shortens the trainings, for a check that all of this runs
quick: bool = "quick" in os.environ.get("VAELIB_PROFILE", "")  # shorter
latent_dim: int = 8  # K of the VAE
batch_size: int = 16  # images in a step
long_passes: int = 4 if quick else 20  # before gradients are measured
short_passes: int = 3 if quick else 5  # of the trainings to compare
seeds: list = range(2 if quick else 3)  # of those with 1, 5 and 25 codes
rounds: int = 40 if quick else 200  # minibatches to compare gradients

# %% tags=["hide-input"]
import copy
import math
from functools import partial

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from tabulate import tabulate
from torch.distributions import Normal
from tqdm import tqdm

from vaelib import data, evaluation, models, plots
from vaelib.objective import (
    bernoulli_log_prob,
    gaussian_log_prob,
    kl_divergence,
    reparameterize,
)

plt.rcParams.update(plots.STYLE)

# %% [markdown]
# ## The stochastic node
#
# For an image $x$, the encoder computes $K$ means $\mu_k$ and $K$ log-variances $\ell_k = \log \sigma_k^2$. They define its $q$, a
# Gaussian with independent coordinates. The ELBO is the mean of $\log p(x \mid z)$ over codes $z$ from $q$, minus
# $\mathrm{KL}(q \,\|\, p)$. The KL has a closed form ({doc}`kl`), so the difficulty is in the mean. Write $f(z)$ for
# $\log p(x \mid z)$, or for any function of a code. We want the derivatives, in $\mu$ and $\ell$, of
#
# $$
# J(\mu, \ell) = \mathbb{E}_{z \sim \mathcal{N}(\mu, \sigma^2)}
#   \left[ f(z) \right].
# $$ (eq-rp-objective)
#
# But $f$ doesn't contain $\mu$ or $\ell$: only the distribution of $z$ depends on them. For $f(z) = z^2$ and $K = 1$ we know
# $J = \mu^2 + \sigma^2$, whose slopes are $2\mu$ and $2\sigma$. Which slopes does PyTorch compute if we just draw a code?

# %%
mean = torch.tensor(1.5, requires_grad=True)
sigma = torch.tensor(0.5, requires_grad=True)
torch.manual_seed(0)
drawn = {
    "Normal(mean, sigma).sample()": Normal(mean, sigma).sample(),
    "torch.normal(mean, sigma)": torch.normal(mean, sigma),
    "Normal(mean, sigma).rsample()": Normal(mean, sigma).rsample(),
}
slopes = []
for name, z in drawn.items():
    known = z.grad_fn is not None
    slopes += [torch.autograd.grad(z**2, (mean, sigma)) if known else None]
    print(f"{name:30}", slopes[-1])

# %% [markdown]
# `sample` returns a $z$ without a history. `torch.normal` is worse: it has a
# `grad_fn`, but the gradient is exactly zero, so an encoder would silently learn from the KL alone. `rsample` gives
# $2z$ and $2z(z - \mu)/\sigma$ for the $z$ that it drew. These aren't the slopes of $J$, but they are right on average. The "r" is
# for "reparameterized".
#
# ## The reparameterization trick
#
# Draw the noise first, from a distribution that doesn't depend on the encoder. Then scale and shift each coordinate:
#
# $$
# z = \mu + \sigma \odot \varepsilon, \qquad \varepsilon \sim \mathcal{N}(0, I).
# $$ (eq-rp-trick)
#
# This is a draw from $q$. In each coordinate, $z \le t$ is the same as $\varepsilon \le (t - \mu) / \sigma$, which has the probability
# $\Phi\left((t - \mu)/\sigma\right)$. Here $\Phi$ is the distribution function of $\mathcal{N}(0, 1)$, and $\varphi$ is its density.
# The slope in $t$, $\frac1\sigma \varphi\left((t - \mu)/\sigma\right)$, is the density of $\mathcal{N}(\mu, \sigma^2)$. We check this
# for one draw in two dimensions:

# %% tags=["hide-input"]
sample, normal, rsample = slopes
assert sample is None and normal == (0, 0)
z, known_mean, known_sigma = z.detach(), mean.detach(), sigma.detach()
by_hand = 2 * z, 2 * z * (z - known_mean) / known_sigma
torch.testing.assert_close(rsample, by_hand)

mean = torch.tensor([0.7, -1.2], dtype=torch.float64)
log_variance = torch.tensor([-1.0, 0.6], dtype=torch.float64)
sigma = torch.exp(log_variance / 2)
noise = torch.randn(2, dtype=torch.float64, generator=torch.manual_seed(1))
z = reparameterize(mean, log_variance, torch.manual_seed(1))
assert torch.equal(z, mean + sigma * noise)
density = Normal(0.0, 1.0).log_prob(noise).exp() / sigma
joint = gaussian_log_prob(z, mean, log_variance).exp()
assert torch.isclose(density.prod(), joint, rtol=1e-12)
print(f"density of z: {density.prod():.12f}, by vaelib {joint:.12f}")

# %% [markdown]
# Drag ε: $z$ follows, and the slope of $f(z)$ passes through $z$ to $\mu$ and $\sigma$. Press "z drawn from q", and the slope
# ends at $z$. The clouds are estimates of the slope of $J$ in $\mu$, by the two methods that the next sections derive.
#
# ```{raw} html
# :file: ../live/noise.html
# ```

# %% mystnb={"figure": {"caption": "400 estimates of one slope, each from one draw, at $\\mu = 1$ and $\\sigma = 0.6$. Above: by the path through $z$. Below: by the score of $q$, which is noisier. Where scripts run, you can drag \u03b5 here.", "classes": "live-still", "name": "fig-rp-live"}, "image": {"alt": "Two clouds of points around a vertical line: a narrow one above, a wide and skewed one below."}} tags=["remove-input"]
drawn = torch.Generator().manual_seed(0)
epsilon = torch.randn(400, generator=drawn)
heights = 0.6 * torch.rand(400, generator=drawn)
z = 1 + 0.6 * epsilon
figure, axes = plots.densities(1)
style = {"marker": ".", "ls": "none", "ms": 3, "alpha": 0.6}
path, score = 2 * z, z**2 * epsilon / 0.6
axes[0].plot(path, 1 + heights, label="by the path through z", **style)
axes[0].plot(score, heights, label="by the score of q", **style)
axes[0].axvline(2, color="0.3", label="the true slope")
axes[0].set(yticks=[], xlabel="estimates of the slope of E[z²] in μ")
axes[0].legend()
figure

# %% [markdown]
# ## The path derivative
#
# With {eq}`eq-rp-trick`, $J$ is the mean of $f(\mu + e^{\ell/2} \odot \varepsilon)$ over $\varepsilon$, whose distribution is fixed.
# So the derivative of the mean is the mean of the derivatives, and by the chain rule
#
# $$
# \frac{\partial J}{\partial \mu_k}
#   = \mathbb{E}\left[\frac{\partial f}{\partial z_k}(z)\right],
# \qquad
# \frac{\partial J}{\partial \ell_k}
#   = \mathbb{E}\left[\frac{\partial f}{\partial z_k}(z)\,
#     \tfrac12 \sigma_k \varepsilon_k\right].
# $$ (eq-rp-path)
#
# ```{admonition} When may the derivative move inside?
# :class: margin
# It is enough that $f$ is Lipschitz on every bounded set (its values at two points differ by at most a constant times their
# distance), and that its slope grows no faster than $e^{r |z|}$ for some $r$. The log-likelihood of a network of linear layers and
# ReLUs is such an $f$.
# ```
#
# For one draw, the bracket is the *path derivative*, or reparameterized gradient. It follows $f$ along the path of $z$ as $\mu$ and
# $\ell$ change and $\varepsilon$ stays. It needs the slope of $f$, which backpropagation through the decoder gives.
#
# ## The score function
#
# The score function is older. Write the mean as an integral, and differentiate the density instead of $f$. With
# $\nabla q = q\, \nabla \log q$,
#
# $$
# \nabla J = \int f(z)\, \nabla q(z)\, dz
#   = \mathbb{E}_{z \sim q}\left[f(z)\, \nabla \log q(z)\right],
# $$ (eq-rp-score)
#
# where $\nabla$ collects the derivatives in $\mu$ and $\ell$. $\nabla \log q$ is the *score*. For one draw, $f(z)\, \nabla \log q(z)$
# is the score-function gradient, or REINFORCE {cite}`williams1992simple`. It needs only values of $f$, so $f$ may be a reward without
# a derivative. Kingma and Welling call it the naive estimator. For our Gaussian
#
# $$
# \begin{gathered}
# \frac{\partial \log q}{\partial \mu_k} = \frac{\varepsilon_k}{\sigma_k},
# \qquad
# \frac{\partial \log q}{\partial \ell_k}
#   = \tfrac12 \left(\varepsilon_k^2 - 1\right), \\
# \varepsilon_k = \frac{z_k - \mu_k}{\sigma_k}.
# \end{gathered}
# $$ (eq-rp-score-gaussian)
#
# **A baseline.** A density always integrates to one, so the mean of the score is $\int \nabla q\, dz = \nabla 1 = 0$. We may therefore
# subtract from $f$ any number $b$ that doesn't depend on $z$: $(f(z) - b)\, \nabla \log q(z)$ has the mean $\nabla J$ as well. The mean
# stays, and much of the noise goes. Without a baseline, a log-likelihood of −500 pushes away every code, good or bad. With $S \ge 2$
# draws, a good one is free: for each draw, the mean $f$ of the *other* draws, which are independent of it. This is the leave-one-out
# baseline {cite}`kool2019buy`.


# %% tags=["hide-input"]
def derivatives(f, mean, log_variance, noise):
    """Values of f (...), path derivatives and scores (..., 2K).

    Every draw has its own copy of the encoder's outputs, on which one backward
    pass leaves that draw's gradient.
    """
    mean, log_variance = (
        each.expand_as(noise).clone().requires_grad_()
        for each in (mean, log_variance)
    )
    z = mean + torch.exp(log_variance / 2) * noise
    values = f(z)
    log_q = gaussian_log_prob(z.detach(), mean, log_variance)
    path, score = (
        torch.cat(torch.autograd.grad(each.sum(), (mean, log_variance)), -1)
        for each in (values, log_q)
    )
    return values.detach(), path, score


def leave_one_out(values):
    """For each of the S values along the first axis, the others' mean."""
    return (values.sum(0) - values) / (len(values) - 1)


# %% [markdown]
# Are the estimators right? For $f = \sum_k (z_k - c_k)^2$ and $f = e^{a \cdot z}$ we know the integral:
# $J = \sum_k [(\mu_k - c_k)^2 + \sigma_k^2]$ and $J = \exp \sum_k [a_k \mu_k + \frac12 a_k^2 \sigma_k^2]$. We average each estimator
# over 250,000 draws, and measure its distance from the exact gradient in standard errors: a *z-score*. **The rule: we call an
# estimator unbiased, as far as we can see, if none of its z-scores exceeds 5.**

# %% tags=["hide-input"]
c = torch.tensor([-0.3, 0.4], dtype=torch.float64)
a = torch.tensor([0.5, -0.3], dtype=torch.float64)


def quadratic(z):
    return (z - c).square().sum(-1)


def exponential(z):
    return torch.exp(z @ a)


J = torch.exp(a @ mean + (a * sigma).square().sum() / 2)
exact = {  # the gradient: first the means, then the log-variances
    quadratic: torch.cat([2 * (mean - c), sigma**2]),
    exponential: torch.cat([a * J, (a * sigma) ** 2 * J / 2]),
}
generator = torch.manual_seed(4)
noise = torch.randn(5, 50_000, 2, dtype=torch.float64, generator=generator)
z = mean + sigma * noise
known_slopes = 2 * (z - c), a * exponential(z)[..., None]
worst = {}
for f, slope in zip(exact, known_slopes, strict=True):
    values, path, score = derivatives(f, mean, log_variance, noise)
    by_hand = torch.cat([slope, slope * sigma * noise / 2], -1)
    torch.testing.assert_close(path, by_hand, rtol=1e-9, atol=1e-9)
    by_hand = torch.cat([noise / sigma, (noise**2 - 1) / 2], -1)
    torch.testing.assert_close(score, by_hand, rtol=1e-9, atol=1e-9)
    with_baseline = (values - leave_one_out(values))[..., None] * score
    estimators = {
        "path": path.flatten(0, 1),
        "score function": (values[..., None] * score).flatten(0, 1),
        "score function, leave-one-out of 5": with_baseline.mean(0),
    }
    for name, each in estimators.items():
        error = each.std(0) / math.sqrt(len(each))
        z_scores = (each.mean(0) - exact[f]) / error
        worst[name, f.__name__] = z_scores.abs().max().item()
assert max(worst.values()) < 5
largest = max(each for (name, _), each in worst.items() if name == "path")
print(
    f"{4 * len(worst)} z-scores, the largest {max(worst.values()):.1f};"
    f" of the path derivatives {largest:.1f}"
)

# %% [markdown]
# ## Which one is noisier?
#
# Both are right on average, so they differ in their variance {cite}`mohamed2020monte`. Take the derivative in one mean, $\mu_i$, from
# one draw, for the quadratic with $\mu_k - c_k = \sigma_k = 1$ in all coordinates. Its variance is 4 for the path derivative,
# $6K + 12$ for the score function with $b = \mathbb{E}[f]$, and $4K^2 + 14K + 12$ without a baseline.
#
# **Constant, linear, quadratic in $K$.** The path derivative is $2(z_i - c_i)$: the other coordinates drop out. In
# $f \varepsilon_i / \sigma_i$ they all remain, through $f$. The baseline removes one power of $K$, the path both.
#
# But this holds *for this function*. The path derivative uses only the slope of $f$, and loses where $f$ oscillates many times within
# one $\sigma$. Take $f(z) = \sin \omega z$ at $\mu = 0$ and $\sigma = 1$, where no baseline helps because $\mathbb{E}[f] = 0$. The path
# derivative's variance grows with $\omega^2$, while the score function's stays near one half. The appendix derives all five lines of
# {numref}`fig-rp-toy`. (A code that is 0 or 1 jumps, so it has no path: see {ref}`rpa-discrete`.)

# %% tags=["hide-input"]


def measured(values):
    """The sample's variance, and the standard error of that."""
    squares = (values - values.mean()) ** 2
    error = squares.std() / math.sqrt(len(values))
    return squares.mean().item(), error.item()


def single(f, mean, seed):
    """Values, path derivatives and scores in the first mean, at σ = 1."""
    noise = torch.randn(
        20_000, len(mean), generator=torch.Generator().manual_seed(seed)
    ).double()
    values, *rest = derivatives(f, mean, 0 * mean, noise)
    return values, *(each[:, 0] for each in rest)


def square(z):
    return z.square().sum(-1)


def sine(omega, z):
    return torch.sin(omega * z).sum(-1)


def sine_variances(omega):
    path = omega**2 / 2 * (1 + math.exp(-2 * omega**2))
    score = (1 - (1 - 4 * omega**2) * math.exp(-2 * omega**2)) / 2
    squared_mean = omega**2 * math.exp(-(omega**2))
    return path - squared_mean, score - squared_mean


names = ("path", "score function", "with a baseline")
over_K, over_omega = (
    {name: [] for name in names},
    {n: [] for n in names[:2]},
)
for K in (1, 2, 4, 8, 16, 32, 64, 128):
    values, path, score = single(square, torch.ones(K).double(), K)
    estimates = path, values * score, (values - 2 * K) * score
    forms = 4, 4 * K**2 + 14 * K + 12, 6 * K + 12
    for name, form, each in zip(names, forms, estimates, strict=True):
        over_K[name].append((K, form, *measured(each)))
for omega in (0.25, 0.5, 1, 2, 3, 5, 8):
    f, zero = partial(sine, omega), torch.zeros(1).double()
    values, path, score = single(f, zero, 0)
    estimates, forms = (path, values * score), sine_variances(omega)
    for name, form, each in zip(names, forms, estimates, strict=False):
        over_omega[name].append((omega, form, *measured(each)))
z_scores = [
    abs(found - form) / error
    for panel in (over_K, over_omega)
    for rows in panel.values()
    for _, form, found, error in rows
]
assert max(z_scores) < 5
path, score = sine_variances(5)
assert f"{path:.1f} {score:.2f}" == "12.5 0.50"
print(
    f"f = sin 5z: variance {path:.1f} by the path, {score:.2f} by the score"
)


# %% mystnb={"figure": {"caption": "Variance of the derivative in one mean: closed forms (lines), and 20,000 draws (points). Left: for the quadratic, only the path derivative doesn't get noisier as K grows. Right: for sin \u03c9z, the path derivative is the noisier one from \u03c9 = 2 on.", "name": "fig-rp-toy"}, "image": {"alt": "Two plots on logarithmic axes. Left: against K, the variance of the score function rises with slope two, with a baseline with slope one, and that of the path derivative is flat. Right: against omega, the path derivative starts below the score function, crosses it near one and rises with slope two, while the score function levels off at one half."}} tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(plots.WIDTH, 2.1))
for panel, lines in zip(axes, (over_K, over_omega), strict=True):
    plots.laws(panel, lines)
axes[0].set(xlabel="dimensions K", ylabel="variance")
axes[1].set(xlabel="ω")
plt.close(figure)
figure

# %% [markdown]
# ## A real encoder
#
# In a VAE $f(z) = \log p(x \mid z)$, and the decoder decides how $f$ oscillates. We train the paper's fully connected model on the
# small digits of scikit-learn {cite}`alpaydin1998optical`. Batches of 16 images instead of 128 give many steps in a short time, and are
# the harder test for a noisy gradient. Before, halfway through and after training, we draw 256 codes for each of
# 64 images. For every draw, we record both gradients in the encoder's $2K$ outputs. (We leave out the KL's gradient, which is exact.)

# %% tags=["hide-input"]
digits = data.load("digits")
images = data.to_float(digits.train.images)


def log_likelihoods(model, x, z):
    """log p(x | z) for S codes of each image, (S, B, K): (S, B)."""
    logits = model.decoder.logits(z.flatten(0, 1))
    copies = x.repeat(len(z), 1, 1, 1)
    return bernoulli_log_prob(copies, logits).unflatten(0, z.shape[:2])


def path_loss(model, x, generator, samples=1):
    """The negative ELBO of a batch, whose gradient is reparameterized."""
    mean, log_variance = model.encode(x)
    shape = (samples, *mean.shape)
    many = mean.expand(shape), log_variance.expand(shape)
    f = log_likelihoods(model, x, reparameterize(*many, generator))
    return kl_divergence(mean, log_variance).mean() - f.mean()


torch.manual_seed(seeds[0])
model = models.mlp(digits.image_shape, latent_dim)
ours = path_loss(model, images[:64], torch.manual_seed(1))
torch.manual_seed(1)
log_likelihood, kl = model.elbo(images[:64])  # what other chapters train
torch.testing.assert_close(ours, (kl - log_likelihood).mean())


def test_elbo(model):
    log_likelihood, kl = evaluation.elbo(model, digits.test.images)
    return (log_likelihood - kl).mean().item()


def fit(loss, seed, passes, name, keep=()):
    """The test ELBO, first and after each half pass; and copies to keep.

    The same seed means the same weights to begin with, and the same batches.
    """
    torch.manual_seed(seed)
    model = models.mlp(digits.image_shape, latent_dim)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    shuffle = torch.Generator().manual_seed(2 * seed)
    noise = torch.Generator().manual_seed(2 * seed + 1)
    curve, kept = [test_elbo(model)], {0: copy.deepcopy(model)}
    for number in tqdm(range(1, passes + 1), desc=name, unit="pass"):
        order = torch.randperm(len(images), generator=shuffle)
        for half in order.chunk(2):
            for batch in half.split(batch_size):
                value = loss(model, images[batch], noise)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
            curve.append(test_elbo(model))
        if number in keep:
            kept[number] = copy.deepcopy(model)
    return curve, kept


keep = long_passes // 2, long_passes
curve, kept = fit(
    path_loss, seeds[0], long_passes, "the model to measure", keep
)
stages = dict(zip(("start", "middle", "end"), kept.values(), strict=True))

x, draws = images[:64], 256


def sampled(model):
    """Values (draws, 64); path derivatives and scores (draws, 64, 2K)."""
    with torch.no_grad():
        q = model.encode(x)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(draws, len(x), latent_dim, generator=generator)
    return derivatives(partial(log_likelihoods, model, x), *q, noise)


raw = {stage: sampled(model) for stage, model in stages.items()}
recorded = {
    stage: {
        "path": path,
        "plain": values[..., None] * score,
        "baseline": (values - leave_one_out(values))[..., None] * score,
    }
    for stage, (values, path, score) in raw.items()
}

# %% mystnb={"figure": {"caption": "Gradients of the log-likelihood in the first two means, from single draws for one image after training. All three estimators have the same mean, but the path derivatives scatter far less.", "name": "fig-rp-clouds"}, "image": {"alt": "Two scatter plots. A wide cloud of score-function gradients, a narrower one with the baseline inside it, and a small core of path derivatives in the middle."}} tags=["hide-input"]
clouds = {name: g[:, 0, :2] for name, g in recorded["end"].items()}
labels = ("score function", "with a baseline", "path")
limits = [clouds[name].abs().max() * 1.05 for name in ("plain", "baseline")]
figure, axes = plt.subplots(1, 2, figsize=(plots.WIDTH, 2.3))
for panel, limit in zip(axes, limits, strict=True):
    for color, name in enumerate(("plain", "baseline", "path")):
        points = clouds[name].T
        style = {"s": 6, "alpha": 0.6, "linewidths": 0}
        style |= {"color": plots.COLOURS[(1, 2, 0)[color]]}
        panel.scatter(*points, label=labels[color], **style)
    panel.set(xlim=(-limit, limit), ylim=(-limit, limit), box_aspect=1)
    panel.set(xlabel=r"$\partial / \partial \mu_1$")
axes[0].set(ylabel=r"$\partial / \partial \mu_2$")
axes[1].set_title(f"enlarged {limits[0] / limits[1]:.0f} times")
handles = axes[0].get_legend_handles_labels()
figure.legend(*handles, markerscale=3, loc="outside right center")
plt.close(figure)
figure

# %% [markdown]
# The table shows variances, summed over coordinates and averaged over images, relative to the path derivative. The ranges are 95%
# intervals, from a bootstrap over the draws. A leave-one-out baseline from the 255 other draws is as good as the mean of $f$ itself. A
# single other draw makes a worse one (in pairs, compared with two path derivatives).


# %% tags=["hide-input"]
def resampled(counts, values):
    """The variance of values (draws, ...), for each row of counts."""
    centred = (values - values.mean(0)).flatten(1)
    first, second = (
        counts @ each / draws for each in (centred, centred**2)
    )
    return (second - first**2).sum(1) * draws / (draws - 1)


def in_pairs(values, path, score):
    """Variance of leave-one-out of two, over that of the path's mean."""
    f, path, score = (
        each.unflatten(0, (-1, 2)).transpose(0, 1)
        for each in (values, path, score)
    )
    estimates = ((f - leave_one_out(f))[..., None] * score).mean(0)
    return estimates.var(0).sum() / path.mean(0).var(0).sum()


def interval(values):
    """The middle 95%."""
    return values.quantile(torch.tensor([0.025, 0.975])).tolist()


def rounded(number):
    return (
        f"{float(f'{number:.3g}'):,.0f}"
        if number >= 100
        else f"{number:.3g}"
    )


generator = torch.Generator().manual_seed(6)
picks = torch.randint(draws, (500, draws), generator=generator)
counts = torch.stack([row.bincount(minlength=draws) for row in picks])
counts = torch.cat([torch.ones(1, draws), counts])  # the first: each once
g = recorded["end"]["path"]
found = resampled(counts, g)[0]
torch.testing.assert_close(found, g.var(0).sum(), rtol=1e-3, atol=0)

outputs = {
    "means": slice(latent_dim),
    "log-variances": slice(latent_dim, None),
}
ratios, table = {}, []
for stage, estimates in recorded.items():
    for part, which in outputs.items():
        noises = {
            name: resampled(counts, g[..., which])
            for name, g in estimates.items()
        }
        row = [f"{stage}, {part}"]
        for name in ("plain", "baseline"):
            ratio = noises[name] / noises["path"]
            found = ratio[0].item(), *interval(ratio[1:])
            ratios[stage, part, name] = found
            row.append("{1} to {2}".format(*map(rounded, found)))
        values, path, score = raw[stage]
        pairs = in_pairs(values, path[..., which], score[..., which])
        assert pairs > 1.2 * ratios[stage, part, "baseline"][0]
        table.append((*row, f"{pairs:.3g}"))
headers = ["variance over that of the path", "score function"]
headers += ["baseline from 255 other draws", "from one other"]
Markdown(tabulate(table, headers, "github", disable_numparse=True))

# %% [markdown]
# **Can we train with the score function?** For one image and one code, take the loss
# $\mathrm{KL}\left(q \,\|\, p\right) - f(z) - (f(z) - b)\, \log q(z)$, with $z$ and the bracket held constant. It has the
# score-function gradient for the encoder, and the ordinary gradient for the decoder.


# %% tags=["hide-input"]
def score_loss(model, x, generator, samples=1):
    """A loss whose gradient in the encoder is the score function's."""
    mean, log_variance = model.encode(x)
    shape = (samples, *mean.shape)
    many = mean.expand(shape), log_variance.expand(shape)
    z = reparameterize(*many, generator).detach()
    f = log_likelihoods(model, x, z)
    b = leave_one_out(f) if samples > 1 else 0
    surrogate = f + (f - b).detach() * gaussian_log_prob(z, *many)
    return kl_divergence(mean, log_variance).mean() - surrogate.mean()


# The gradient of the bias of the means' head, by the loss and by hand
model = stages["end"]
loss = score_loss(model, x, torch.manual_seed(7), samples=5)
(found,) = torch.autograd.grad(loss, model.encoder.mean.bias)
with torch.no_grad():
    q = model.encode(x)
shape = (5, len(x), latent_dim)
noise = torch.randn(shape, generator=torch.manual_seed(7))
values, _, score = derivatives(
    partial(log_likelihoods, model, x), *q, noise
)
naive = ((values - leave_one_out(values))[..., None] * score).mean(0)
expected = (q[0] - naive[:, :latent_dim]).mean(0)
torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)

naive = {
    "score function, one code": score_loss,
    "score function, leave-one-out of 5": partial(score_loss, samples=5),
}
reached = {
    name: fit(loss, seeds[0], short_passes, name)[0][-1]
    for name, loss in naive.items()
}
reached["path, one code"] = curve[2 * short_passes]
plain, with_baseline, path = reached.values()
assert plain < path - 25  # nats: falls far behind
assert abs(with_baseline - path) < 5  # keeps up
print(f"test ELBO after {short_passes} passes:")
for name, elbo in reached.items():
    print(f"{name:36}{elbo:.1f}")

# %% [markdown]
# Without a baseline, training falls far behind. With one, and five codes per image, it keeps up: a noisier gradient can still be
# useful. (This is one seed. Adam divides by the size of recent gradients, which tames even noisy ones.)
#
# The paper doesn't define "usable". {doc}`/book/mnist/gradients` judges by the variance without a baseline, because an estimator with
# one is not naive.

# %% [markdown]
# ## More codes or more images?
#
# Two things make a minibatch's gradient random: which images are in it, and which codes we draw for them. More codes per image reduce
# only the noise of the codes. Let $g$ be the gradient of the loss for one random image with one code, and $m(x) = \mathbb{E}[g \mid x]$
# its mean over the codes of an image. Take a minibatch of $B$ images with $S$ codes each. By the law of total variance, its gradient
# $\hat g$ has
#
# $$
# \operatorname{Var}(\hat g) = \frac1B \Big(
#   \underbrace{\operatorname{Var}(m(x))}_{\text{choice of images}}
#   + \frac1S
#   \underbrace{\mathbb{E}\left[\operatorname{Var}(g \mid x)\right]}_{\text{choice of codes}}
# \Big).
# $$ (eq-rp-total)
#
# The codes' *share* $\rho$ of the variance at $S = 1$ doesn't depend on $B$. Even infinitely many codes would remove only this share.
# While $\rho < \tfrac12$, doubling the batch does better. And if decoding dominates the cost, a budget of $M = BS$ codes has the
# variance $\left(S \operatorname{Var}(m) + \mathbb{E}[\operatorname{Var}(g \mid x)]\right) / M$. One code each for more images is
# then better than more codes for fewer images, *whatever* the share.
#
# Three gradients measure the share. $\hat g_1$ and $\hat g_2$ have the same images but separate codes, and $\hat g_3$ has other images.
# Half the mean square of $\hat g_1 - \hat g_2$ is the codes' part of the variance, and half that of $\hat g_1 - \hat g_3$ is all of it. The
# table shows the share for the weights of both networks:


# %% tags=["hide-input"]
def flat_gradient(model, batch, generator):
    """The gradients of encoder and decoder, each as one long vector."""
    loss = path_loss(model, images[batch], generator)
    model.zero_grad()
    loss.backward()
    parts = {True: [], False: []}
    for name, each in model.named_parameters():
        parts[name.startswith("decoder")].append(each.grad.flatten())
    return torch.cat(parts[False]), torch.cat(parts[True])


def three(model, generator):
    """The codes' part and the whole, for encoder and decoder: (2, 2)."""
    batches = torch.randint(
        len(images), (2, batch_size), generator=generator
    )
    first, again, other = (
        flat_gradient(model, batches[which], generator)
        for which in (0, 0, 1)
    )
    halves = [
        (a - b).square().sum() / 2
        for each in (again, other)
        for a, b in zip(first, each, strict=True)
    ]
    return torch.stack(halves).view(2, 2)


shares, table = {}, []
generator = torch.Generator().manual_seed(9)
bar = tqdm(total=rounds * len(stages), desc="gradients, in threes")
for stage, model in stages.items():
    found = []
    for _ in range(rounds):
        found.append(three(model, generator))
        bar.update()
    found = torch.stack(found)
    found = torch.cat([found, found.sum(2, keepdim=True)], 2)
    picks = torch.randint(rounds, (1000, rounds), generator=generator)
    row = [stage]
    for number, weights_of in enumerate(("encoder", "decoder", "both")):
        codes, whole = found[..., number].T
        share = (codes.mean() / whole.mean()).item()
        again = codes[picks].mean(1) / whole[picks].mean(1)
        low, high = interval(again)
        shares[stage, weights_of] = share, low, high
        row.append(f"{share:.0%} ({low:.0%} to {high:.0%})")
    table.append(row)
bar.close()
headers = ["share of the codes", "encoder's weights", "decoder's", "both"]
Markdown(tabulate(table, headers, "github", disable_numparse=True))

# %% [markdown]
# Less noise doesn't guarantee a better model, so we train with 1, 5 and 25 codes per image. Each seed has the same initial weights and
# batches in all three runs.


# %% tags=["hide-input"]
def trainings(S):
    """The test ELBO after each half pass: (seeds, 2 * passes)."""
    loss = partial(path_loss, samples=S)
    curves = [
        fit(loss, seed, short_passes, f"codes per image: {S}, seed {seed}")[
            0
        ]
        for seed in seeds
    ]
    return torch.tensor(curves)[:, 1:]


elbos = {S: trainings(S) for S in (1, 5)}

# %% tags=["hide-input"]
elbos[25] = trainings(25)

# %% mystnb={"figure": {"caption": "Test ELBO with 1, 5 and 25 codes per image (thin lines: seeds, thick lines: their means). Left: after equal passes over the data, the curves are close. Right: for the same number of decoded codes, one code per image is far ahead.", "name": "fig-rp-samples"}, "image": {"alt": "Two plots of the test ELBO. Against passes over the data the three curves lie close together; against decoded codes the curve of one code is far to the left of the others."}} tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(plots.WIDTH, 2.1), sharey=True)
for color, (S, lines) in enumerate(elbos.items()):
    for panel, cost in zip(axes, (1, S * len(images)), strict=True):
        at = cost * torch.arange(1, 2 * short_passes + 1) / 2
        style = {"color": plots.COLOURS[color]}
        panel.plot(at, lines.mean(0), label=f"S = {S}", **style)
        panel.plot(at, lines.T, linewidth=0.6, alpha=0.6, **style)
axes[0].set(xlabel="passes over the data", ylabel="nats per image")
axes[1].set(xlabel="codes decoded", xscale="log")
axes[0].legend()
plt.close(figure)
figure

# %% [markdown]
# For the same number of decoded codes, one code per image takes 5 or 25 times as many steps, and is far ahead. After equal passes, 25
# codes are ahead, and this matters where a machine decodes 25 codes almost as fast as one. But the batches here have 16 images.
# Kingma and Welling call one code enough *if the minibatch is large enough*, say a hundred images. {doc}`/book/mnist/gradients` tries
# that.
#
# ```{dropdown} Two exercises
# *We use the mean $\bar f$ of all $S$ values as the baseline of each draw. Is the estimate biased?*
# *You want half of a gradient's variance. Twice the batch does it. For which shares $\rho$ can more codes per image do it, and how many?*
#
# 1. Since $f_i - \frac{1}{S-1} \sum_{j \ne i} f_j = \frac{S}{S-1}(f_i - \bar f)$, it is $(S-1)/S$ times the leave-one-out estimate. The
#    direction is right, but the estimate is too short: with $S = 2$ by half.
# 2. By {eq}`eq-rp-total`, $S$ codes multiply the variance by $1 - \rho + \rho / S$. This is at most one half if
#    $S \ge \rho / (\rho - \tfrac12)$, which needs $\rho > \tfrac12$: three codes for $\rho = 0.8$, six for $\rho = 0.6$.
# ```
