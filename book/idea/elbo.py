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
# # From log p(x) to the bound
#
# **A model with hidden variables gives every image a probability, but to know
# it one has to integrate over all the codes that might have made the image. How
# can training maximise a number that it cannot compute?** It maximises a number
# below it instead: the *evidence lower bound*, or ELBO. This page derives the
# bound on a model so simple that nothing about it is hidden. Its log p(x), its
# posterior and the distance between bound and truth have closed forms, so that
# every equation can be followed by a cell that asserts it, most of them to nine
# digits or more. Then it takes the step to images, and measures what the bound
# misses on a small VAE.
#
# Logarithms are natural and their values are in nats. The only data are the
# small digits of scikit-learn, which come with the project: the page needs no
# folder and no network.

# %% tags=["hide-input"]
import copy
import math
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from tabulate import tabulate
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vaelib import Settings, data, evaluation, figures, models, objective
from vaelib.training import fit

plt.rcParams.update(figures.STYLE)
torch.set_default_dtype(torch.float64)  # until the images come

# %% [markdown]
# ## A model whose answers are known
#
# A latent variable model tells how an observation $x$ comes about. First a code
# $z$ is drawn from the *prior* $p(z)$; nobody gets to see it. Then $x$ is drawn
# from $p(x \mid z)$. Let the code have $K = 2$ numbers and the observation
# $D = 3$ ("three pixels"), and let both steps be Gaussian:
#
# $$
# z \sim \mathcal{N}(0, I), \qquad
# x \mid z \sim \mathcal{N}(W z + b, \; s^2 I).
# $$ (eq-elbo-model)
#
# $W$ is a $D \times K$ matrix, $b$ a vector of $D$ numbers, and $s$ the standard
# deviation of the noise. This is a factor model, known as probabilistic PCA
# {cite}`tipping1999probabilistic`. The numbers below are small, so that all of
# this can be followed with a pencil.

# %%
W = torch.tensor([[1.0, 1.0], [2.0, 1.0], [1.0, 2.0]])
b = torch.tensor([0.0, 1.0, 0.0])
s = 0.5
D, K = W.shape
x = torch.tensor([0.0, 2.25, -1.25])  # the observation of this page
prior = MultivariateNormal(torch.zeros(K), torch.eye(K))

# %% [markdown]
# What is the probability density of $x$ when $z$ is not known? By the rules of
# probability, the density of both, integrated over all $z$. This is called the
# *evidence*:
#
# $$
# p(x) = \int p(x \mid z) \, p(z) \, dz .
# $$ (eq-elbo-evidence)
#
# In this model the integral need not be computed. $x = Wz + b + s\varepsilon$,
# with $\varepsilon \sim \mathcal{N}(0, I)$, is a sum of independent Gaussians,
# therefore Gaussian, and covariances add:
#
# $$
# p(x) = \mathcal{N}(x; \; b, \; W W^\top + s^2 I).
# $$ (eq-elbo-marginal)
#
# The check computes the integral all the same, as a sum over a grid of codes.
# For Gaussians, a grid that is a few times finer than they are wide makes such a
# sum exact to rounding.

# %%
axis = torch.linspace(-9, 9, 361)
grid = torch.cartesian_prod(axis, axis)  # (361², 2), all pairs


def integral(values):
    """Over the plane of codes, of values on the grid."""
    return (values.sum() * (axis[1] - axis[0]) ** 2).item()


# %%
def log_likelihood(z):
    noise = torch.full((D,), 2 * math.log(s))  # log of the variance
    return objective.gaussian_log_prob(x, z @ W.T + b, noise)


def log_joint(z):
    return log_likelihood(z) + prior.log_prob(z)


# %%
evidence = MultivariateNormal(b, W @ W.T + s**2 * torch.eye(D))
log_evidence = evidence.log_prob(x).item()
on_grid = log_joint(grid)
assert math.isclose(math.log(integral(on_grid.exp())), log_evidence)
print(f"log p(x) = {log_evidence:.4f} nats")

# %% [markdown]
# ```{margin} Two slips in section 2.1
# The paper {cite}`astorga2025recreating` says there that an exact solution is
# out of reach for even the simplest likelihood functions. For this one it is in
# reach: the posterior stands here, and exercise 4 meets the exact maximum of the
# likelihood. And its recipe for an image, to draw $z$ from $p(z)$ and then from
# $p(x)$, should end with $p(x \mid z)$.
# ```
#
# After $x$ has been seen, which codes are likely to be behind it? The answer is
# the *posterior*, by Bayes' rule
# $p(z \mid x) = p(x \mid z)\,p(z) / p(x)$. The logarithm of the numerator is
# $-\tfrac12 z^\top z - \|x - b - Wz\|^2 / (2 s^2)$ and a constant. Sorted by
# powers of $z$ that is
# $-\tfrac12 z^\top \Lambda z + z^\top W^\top (x - b) / s^2$ and a constant, which
# is the exponent of a Gaussian:
#
# $$
# p(z \mid x) = \mathcal{N}(z; \; \mu, \; \Lambda^{-1}), \qquad
# \Lambda = I + \frac{W^\top W}{s^2}, \qquad
# \mu = \Lambda^{-1} \, \frac{W^\top (x - b)}{s^2} .
# $$ (eq-elbo-posterior)
#
# $\Lambda$, the inverse of the covariance, is called the *precision*. Bayes'
# rule can be read from right to left, too:
#
# $$
# p(x) = \frac{p(x \mid z) \, p(z)}{p(z \mid x)} \qquad
# \text{for every } z .
# $$ (eq-elbo-bayes)
#
# The right-hand side seems to depend on $z$, and does not. All that follows
# hangs on this line, and a wrong $\mu$ or $\Lambda$ would break it, so the
# check tries a thousand codes.

# %%
precision = torch.eye(K) + W.T @ W / s**2
mu = torch.linalg.solve(precision, W.T @ (x - b) / s**2)
posterior = MultivariateNormal(mu, precision_matrix=precision)

generator = torch.Generator().manual_seed(0)
z = 2 * torch.randn(1000, K, generator=generator)
ratio = log_joint(z) - posterior.log_prob(z)
assert (ratio - log_evidence).abs().max() < 1e-9
print("posterior precision", precision.tolist())
print("posterior mean", [round(value, 6) for value in mu.tolist()])

# %% [markdown]
# ## Why the integral is the trouble
#
# Both closed forms rest on everything being linear and Gaussian. Put a neural
# network between $z$ and $x$, and neither the integral
# {eq}`eq-elbo-evidence` nor the posterior has a formula. The grid remains, but
# not for long: with $n$ points along each axis it has $n^K$ points. Here are
# grids of only 20 points an axis, and the time that a billion evaluations of the
# network a second would take. (A year has $3 \cdot 10^7$ seconds.)

# %%
table = []
for dimensions in (1, 2, 8, 16, 64):
    points = 20.0**dimensions
    table.append([dimensions, f"{points:.0e}", f"{points / 1e9:.0e}"])
headers = ["K", "points of the grid", "seconds"]
Markdown(tabulate(table, headers, tablefmt="github", disable_numparse=True))

# %% [markdown]
# Nor does it help much to draw codes from the prior and to average
# $p(x \mid z)$. The average is right in the long run, but hardly any of the
# codes has to do with this $x$; exercise 3 counts how many draws it takes.
#
# ## The integral as an average
#
# Codes should be drawn where they matter. Take *any* density $q(z)$ that is
# positive wherever the posterior is, and multiply and divide by it:
#
# $$
# p(x) = \int q(z) \, \frac{p(x, z)}{q(z)} \, dz
#   = \mathbb{E}_{z \sim q}\left[ w(z) \right], \qquad
# w(z) = \frac{p(x, z)}{q(z)},
# $$ (eq-elbo-weight)
#
# where $p(x, z) = p(x \mid z) \, p(z)$. The evidence has become the average of the *weight* $w$ over codes drawn from
# $q$. Nothing was lost: the equation holds for every $q$. As an example we
# shall often take the Gaussian around the posterior's mean with *twice* the
# posterior's covariance, and call it the wide $q$. The check averages its weights
# over a million codes and asks whether the mean, in units of $p(x)$, is 1 within
# four of its standard errors.

# %%
wide = MultivariateNormal(mu, 2 * posterior.covariance_matrix)


def draw(q, count):
    """Codes of a Gaussian q, always from the same noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, K, generator=generator)
    return q.loc + noise @ q.scale_tril.T


def log_ratio(q, z):
    """log of the weights in units of p(x)."""
    return log_joint(z) - q.log_prob(z) - log_evidence


# %%
weights = log_ratio(wide, draw(wide, 2**20)).exp()
error = weights.std().item() / math.sqrt(len(weights))
assert abs(weights.mean().item() - 1) < 4 * error
print(f"mean weight / p(x): {weights.mean():.3f} ± {error:.4f}")

# %% [markdown]
# ## Logarithm of a mean, mean of a logarithm
#
# Training wants $\log p(x)$: images are many and independent, their
# probabilities multiply, their logarithms add. Now {eq}`eq-elbo-weight` makes
# of it the *logarithm of a mean*. A finite sample would rather estimate a *mean
# of logarithms*, which it does without bias. The two differ, but in a known
# direction. The logarithm is *concave*: its chords lie below its graph, its
# tangents above. Jensen's inequality says for all averages what the chord says
# for two points,
#
# $$
# \log \mathbb{E}[w] \;\geq\; \mathbb{E}[\log w],
# $$ (eq-elbo-jensen)
#
# with equality only if $w$ does not vary. The tangent proves it: with
# $\bar w = \mathbb{E}[w]$, its being above the graph means
# $\log w \leq \log \bar w + (w - \bar w) / \bar w$, and the mean of the last
# fraction is zero.
#
# Take a $w$ that is 1 or 9, each with probability one half. Its mean is 5. The
# mean of its logarithms is $\tfrac12 (0 + \log 9) = \log 3$: the middle of the
# chord, below the graph.

# %%
two = torch.tensor([1.0, 9.0])
log_of_mean, mean_of_log = two.mean().log().item(), two.log().mean().item()
assert math.isclose(log_of_mean, math.log(5))
assert math.isclose(mean_of_log, math.log(3))
assert mean_of_log < log_of_mean
print(f"log 5 = {log_of_mean:.4f}, log 3 = {mean_of_log:.4f}")


# %%
def canvas(columns, height=2.6):
    """A row of empty plots in the book's style."""
    figure, axes = plt.subplots(1, columns, figsize=(figures.WIDTH, height))
    plt.close(figure)  # a cell shows what it returns
    return figure, axes


# %% mystnb={"figure": {"caption": "Jensen's inequality. Left: a weight that is 1 or 9; the mean of its logarithms is the middle of the chord (open dot), the logarithm of its mean lies above it on the graph (full dot). Right: forty weights of the wide q in units of p(x). The full dot is their true mean and its logarithm, the open dot below it the true mean of their logarithms; the bar between is what the bound loses.", "name": "fig-elbo-jensen"}, "image": {"alt": "Two plots of the logarithm. On the left a chord from 1 to 9 with its middle below the curve; on the right many points along the curve between 0 and 2 and their mean below the curve."}} tags=["hide-input"]
figure, (left, right) = canvas(2)
several = weights[:40]
mean_log = -kl_divergence(wide, posterior).item()  # derived below
for plot, points, mean, low, high in (
    (left, two, 5, mean_of_log, log_of_mean),
    (right, several, 1, mean_log, 0),
):
    curve = torch.linspace(0.8 * points.min(), 2.05 * mean, 1000)
    plot.plot(curve, curve.log(), color="0.6")
    plot.plot(points, points.log(), "o", color="C0", ms=4, alpha=0.6)
    plot.vlines(mean, low, high, color="C3", lw=2)
    plot.plot(mean, high, "o", color="C3")
    plot.plot(mean, low, "o", color="C3", mfc="white")
left.plot(two, two.log(), "--", color="C0", lw=1)
left.annotate("log 5", (5, log_of_mean), (4.1, 1.85))
left.annotate("log 3", (5, mean_of_log), (5.2, 0.85))
left.set(xlabel="$w$", title="two weights", ylabel="$\\log w$")
right.set(xlabel="$w / p(x)$", title="the weights of the wide $q$")
figure

# %% [markdown]
# Apply {eq}`eq-elbo-jensen` to the weights {eq}`eq-elbo-weight`:
#
# $$
# \log p(x) = \log \mathbb{E}_{q}\left[ w(z) \right]
# \;\geq\; \mathbb{E}_{q}\left[ \log w(z) \right]
# = \mathbb{E}_{q}\left[ \log \frac{p(x, z)}{q(z)} \right]
# = \mathcal{L}(q).
# $$ (eq-elbo-bound)
#
# $\mathcal{L}(q)$ is the evidence lower bound. It is an average over $q$, which
# a few codes estimate without bias, and it needs no $p(x)$: only the prior, the
# likelihood and the density that we chose. On the grid, for the wide $q$:


# %%
def average(q, values):
    """E[values] over q, of values on the grid."""
    return integral(q.log_prob(grid).exp() * values)


bound_on_grid = average(wide, on_grid - wide.log_prob(grid))
assert bound_on_grid < log_evidence
print(f"the bound {bound_on_grid:.4f} < log p(x) {log_evidence:.4f}")

# %% [markdown]
# ## The gap is a divergence
#
# Jensen says that something is lost, but not how much. Start again from
# {eq}`eq-elbo-bayes`, take logarithms, and add and subtract $\log q(z)$:
#
# $$
# \log p(x) = \log \frac{p(x, z)}{q(z)} + \log \frac{q(z)}{p(z \mid x)}
# \qquad \text{for every } z .
# $$ (eq-elbo-pointwise)
#
# Average both sides over $z \sim q$. The left side does not depend on $z$ and
# stays. The first term on the right becomes the bound. The second one has a
# name, the *Kullback-Leibler divergence* of two densities $q$ and $p$:
#
# $$
# \mathrm{KL}(q \,\|\, p)
# = \mathbb{E}_{z \sim q}\left[ \log \frac{q(z)}{p(z)} \right] \geq 0 .
# $$ (eq-elbo-kl)
#
# It is never negative, again by Jensen: $-\mathbb{E}_q[\log (p/q)] \geq
# -\log \mathbb{E}_q[p/q] \geq -\log 1 = 0$. (The mean $\mathbb{E}_q[p/q]$ is the
# mass that $p$ has where $q$ has any, at most 1.) It is zero only if both hold
# with equality: $p/q$ does not vary where $q$ lives, and $p$ has no mass
# elsewhere, that is, if $q = p$. Between Gaussians it has a closed form (the
# chapter on the divergence derives it against $\mathcal{N}(0, I)$, and its exercise 1 for
# any two in one dimension); here PyTorch's is held against the grid.

# %%
log_weight = on_grid - wide.log_prob(grid)
log_quotient = wide.log_prob(grid) - posterior.log_prob(grid)
assert (log_weight + log_quotient - log_evidence).abs().max() < 1e-9
gap = kl_divergence(wide, posterior).item()
assert math.isclose(average(wide, log_quotient), gap)
assert gap > 0
assert abs(kl_divergence(posterior, posterior).item()) < 1e-12
print(f"KL from the wide q to the posterior: {gap:.4f} nats")

# %% [markdown]
# What is left after averaging is the first of the two ways to split the bound:
#
# $$
# \log p(x) = \mathcal{L}(q)
#   + \mathrm{KL}\left(q(z) \,\|\, p(z \mid x)\right).
# $$ (eq-elbo-gap)
#
# This is the equation that the paper's section 2.2 starts from. The bound misses
# the truth by exactly the divergence of $q$ from the posterior. Since
# $\log p(x)$ does not depend on $q$, raising the bound *is* bringing $q$ to the
# posterior, although the posterior appears nowhere in {eq}`eq-elbo-bound`.

# %%
assert math.isclose(bound_on_grid + gap, log_evidence)
print(f"{bound_on_grid:.4f} + {gap:.4f} = {bound_on_grid + gap:.4f}")

# %% [markdown]
# ## The same bound, written for computing
#
# Since $p(x, z) = p(x \mid z) \, p(z)$, the logarithm inside the bound splits in
# another way, which no longer mentions the posterior:
#
# $$
# \mathcal{L}(q) = \mathbb{E}_{q}\left[ \log p(x \mid z) \right]
#   - \mathrm{KL}\left(q(z) \,\|\, p(z)\right).
# $$ (eq-elbo-terms)
#
# The first term asks that codes drawn from $q$ explain $x$ well; it is called
# the *reconstruction* term. The second charges for every nat by which $q$
# departs from the prior. These are the two terms that the paper trains with.
#
# In our model the first has a closed form as well. Let $m$ and $C$ be the mean
# and the covariance of $q$, and $\Delta = x - b - Wm$ what the mean code leaves
# unexplained. Then $x - b - Wz = \Delta - W(z - m)$. Its expected squared length
# is $\|\Delta\|^2$ plus the sum of the variances of $W(z - m)$, which is the
# trace of $W C W^\top$; the cross term has mean zero. So
#
# $$
# \mathbb{E}_q\left[ \log p(x \mid z) \right]
# = -\frac{D}{2} \log (2 \pi s^2)
#   - \frac{\|\Delta\|^2 + \operatorname{tr}(W C W^\top)}{2 s^2} .
# $$ (eq-elbo-reconstruction)


# %%
def reconstruction(q):
    delta = x - b - W @ q.loc
    spread = (W @ q.covariance_matrix @ W.T).trace()
    constant = -D / 2 * math.log(2 * math.pi * s**2)
    return constant - (delta @ delta + spread) / (2 * s**2)


def elbo(q):
    return reconstruction(q) - kl_divergence(q, prior)


# %%
explained = average(wide, log_likelihood(grid))
assert math.isclose(explained, reconstruction(wide).item())
assert math.isclose(bound_on_grid, elbo(wide).item())
print(f"{explained:.4f} - {kl_divergence(wide, prior):.4f}", end=" ")
print(f"= {elbo(wide):.4f}")

# %% [markdown]
# A third way keeps the joint density together. The entropy
# $\mathrm{H}(q) = -\mathbb{E}_q[\log q(z)]$ measures how spread out $q$ is, and
# $-\log p(x, z)$ is what physicists call an energy:
#
# $$
# \mathcal{L}(q) = \mathbb{E}_{q}\left[ \log p(x, z) \right] + \mathrm{H}(q).
# $$ (eq-elbo-entropy)
#
# Without the entropy the best $q$ would be a spike at the single most probable
# code. The entropy is what makes it a density with a width.

# %%
energy = -average(wide, on_grid)
assert math.isclose(wide.entropy().item() - energy, elbo(wide).item())
print(f"{wide.entropy():.4f} - {energy:.4f} = {elbo(wide):.4f}")

# %% [markdown]
# Now the identity {eq}`eq-elbo-gap` can be tried on any Gaussian without a grid.
# First on a hundred random ones, then on four that this page uses: the prior,
# the wide $q$, the posterior, and a narrow $q$ with a third of the posterior's
# covariance.

# %%
generator = torch.Generator().manual_seed(1)
totals = []
for _ in range(100):
    root = torch.randn(K, K, generator=generator)
    mean = 2 * torch.randn(K, generator=generator)
    q = MultivariateNormal(mean, root @ root.T + 0.1 * torch.eye(K))
    totals.append(elbo(q) + kl_divergence(q, posterior))
totals = torch.stack(totals)
assert (totals - log_evidence).abs().max() < 1e-9
print(f"all {len(totals)} sums are {totals.mean():.9f}")

# %%
narrow = MultivariateNormal(mu, posterior.covariance_matrix / 3)
named = {"prior": prior, "wide": wide, "posterior": posterior}
named["narrow"] = narrow
table = []
for name, q in named.items():
    terms = reconstruction(q), kl_divergence(q, prior), elbo(q)
    row = [*terms, kl_divergence(q, posterior)]
    table.append([name, *(f"{value.item() + 0.0:.4f}" for value in row)])
    assert math.isclose((row[2] + row[3]).item(), log_evidence)
headers = ["q", "reconstruction", "KL to the prior"]
headers += ["ELBO", "KL to the posterior"]
Markdown(tabulate(table, headers, tablefmt="github", disable_numparse=True))

# %% [markdown]
# In every row the third number is the first less the second, and the last two
# add up to $\log p(x)$. The prior pays nothing to the prior and explains the
# observation badly. The narrow $q$ explains it best, and pays too much for it.
#
# ## The gap closes
#
# Let $q$ walk from the prior to the posterior, mean and covariance both along a
# straight line:
#
# $$
# q_t = \mathcal{N}\left(t \mu, \; (1 - t) I + t \Lambda^{-1}\right),
# \qquad 0 \leq t \leq 1 .
# $$ (eq-elbo-path)
#
# All covariances on the way share their principal directions with $\Lambda$.
# Let $\lambda_1, \dots, \lambda_K$ be the eigenvalues of $\Lambda$, none of them
# below one. Along the $k$-th direction the variance of $q_t$ is
# $1 - t + t / \lambda_k$. The posterior's is $1 / \lambda_k$, so that the ratio
# of the two is $\rho_k = (1 - t) \lambda_k + t$; the means are $(1 - t) \mu_k$ apart,
# where $\mu_k$ is the component of $\mu$ along that direction. Both densities are products
# over these directions, so the divergence is a sum of one-dimensional ones, each
# $\tfrac12 (\rho_k - 1 - \log \rho_k + (1 - t)^2 \lambda_k \mu_k^2)$ by exercise 1 of the
# chapter on the divergence. Since $\sum_k \lambda_k \mu_k^2 = \mu^\top \Lambda \mu$,
#
# $$
# \mathrm{KL}\left(q_t \,\|\, p(z \mid x)\right)
# = \frac12 \sum_{k=1}^{K} \left( \rho_k - 1 - \log \rho_k \right)
#   + \frac{(1 - t)^2}{2} \, \mu^\top \Lambda \mu .
# $$ (eq-elbo-path-gap)
#
# As $t$ grows to 1, each $\rho_k$ falls to 1, and each term falls to 0. So the
# bound rises all the way, and arrives at $\log p(x)$.


# %%
def path(t):
    covariance = (1 - t) * torch.eye(K) + t * posterior.covariance_matrix
    return MultivariateNormal(t * mu, covariance)


times = torch.linspace(0, 1, 101)
eigenvalues = torch.linalg.eigvalsh(precision)
rho = (1 - times[:, None]) * eigenvalues + times[:, None]
gaps = 0.5 * (rho - 1 - rho.log()).sum(1)
gaps += 0.5 * (1 - times) ** 2 * (mu @ precision @ mu)
bounds = torch.stack([elbo(path(t)) for t in times])
assert (bounds + gaps - log_evidence).abs().max() < 1e-9
assert (bounds.diff() > 0).all()
print(f"the bound rises from {bounds[0]:.4f} to {bounds[-1]:.4f}")

# %% mystnb={"figure": {"caption": "Left: the walk from the prior (dark circle) to the posterior (bright ellipse), as curves two standard deviations around the mean. Right: the bound along the walk; the shaded distance to log p(x) is the divergence from the posterior. Dots and ellipses of one colour belong together.", "name": "fig-elbo-path"}, "image": {"alt": "Left: five ellipses in the plane of codes that shrink and turn from a circle around zero to a thin tilted ellipse. Right: a curve that rises to a horizontal line."}} tags=["hide-input"]
figure, (left, right) = canvas(2, 3.0)
angle = torch.linspace(0, 2 * math.pi, 200)
circle = torch.stack([angle.cos(), angle.sin()], 1)
right.axhline(log_evidence, color="0.4", lw=1, ls="--")
right.plot(times, bounds, color="0.4")
right.fill_between(times, bounds, log_evidence, color="C0", alpha=0.15)
for t in (0.0, 0.25, 0.5, 0.75, 1.0):
    q, colour = path(t), plt.cm.viridis(0.9 * t)
    left.plot(*(q.loc + 2 * circle @ q.scale_tril.T).T, color=colour)
    left.plot(*q.loc, "o", color=colour, ms=4)
    right.plot(t, elbo(q), "o", color=colour)
left.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
right.set(xlabel="$t$", ylabel="nats")
right.annotate("$\\log p(x)$", (0.02, log_evidence + 0.5))
right.annotate("KL$(q_t \\,\\|\\, p(z \\mid x))$", (0.12, -12))
right.annotate("ELBO", (0.32, elbo(path(0.3)).item() - 2.5))
figure

# %% [markdown]
# ## Climbing the bound
#
# The walk knew where to go. Gradient ascent does not: it only sees the bound
# {eq}`eq-elbo-terms`, in which no posterior occurs. Write the covariance as
# $C = L L^\top$ with a lower triangular $L$, start at the prior ($m = 0$,
# $L = I$), and repeat, with a small step size $\eta$,
#
# $$
# m \leftarrow m + \eta \, \frac{\partial \mathcal{L}}{\partial m}, \qquad
# L \leftarrow L + \eta \, \frac{\partial \mathcal{L}}{\partial L} .
# $$ (eq-elbo-ascent)
#
# What does it climb on? Take the bound in the form {eq}`eq-elbo-entropy`. The
# joint log-density is $-\tfrac12 z^\top \Lambda z$, terms linear in $z$, and a constant. The
# mean of the quadratic term is
# $-\tfrac12 m^\top \Lambda m - \tfrac12 \operatorname{tr}(\Lambda C)$; those of the others do
# not see $C$. The entropy
# of a Gaussian is $\tfrac12 \log \det C$ and a constant. So the part of the
# bound that depends on the covariance is
# $-\tfrac12 \operatorname{tr}(\Lambda C) + \tfrac12 \log \det C$, or
# $-\tfrac12 \operatorname{tr}(L^\top \Lambda L) + \sum_k \log L_{kk}$. All this is
# concave in $m$ and $L$: there is one summit, and with steps that are small
# enough every start with a positive diagonal leads there.
#
# VAEs take a shortcut. Their encoder gives each image a *diagonal* covariance,
# that is, a diagonal $L$. No such Gaussian is a tilted ellipse, and some gap
# must remain. For a diagonal $C$ the part above is
# $\sum_k (-\tfrac12 \Lambda_{kk} C_{kk} + \tfrac12 \log C_{kk})$. It is largest at
# $C_{kk} = 1/\Lambda_{kk}$, where it is
# $-\tfrac{K}{2} - \tfrac12 \sum_k \log \Lambda_{kk}$. At the posterior,
# $C = \Lambda^{-1}$, it is $-\tfrac{K}{2} - \tfrac12 \log \det \Lambda$. The
# difference is the gap that remains:
#
# $$
# \min_{\text{diagonal } q} \mathrm{KL}\left(q \,\|\, p(z \mid x)\right)
# = \frac12 \left( \sum_{k=1}^{K} \log \Lambda_{kk}
#   - \log \det \Lambda \right).
# $$ (eq-elbo-diagonal)


# %%
def ascend(mask, steps=300, size=0.02):
    """Gradient ascent on m and on those entries of L where mask is 1."""
    m = torch.zeros(K, requires_grad=True)
    L = torch.eye(K, requires_grad=True)
    history = []
    for _ in range(steps):
        q = MultivariateNormal(m, scale_tril=L * mask)
        history.append(elbo(q))
        slopes = torch.autograd.grad(history[-1], (m, L))
        with torch.no_grad():
            m += size * slopes[0]
            L += size * slopes[1]
    return q, torch.stack(history).detach()


# %%
full, full_history = ascend(torch.ones(K, K).tril())
off = full.covariance_matrix - posterior.covariance_matrix
assert (full.loc - mu).abs().max() < 1e-9 and off.abs().max() < 1e-9
assert abs(elbo(full).item() - log_evidence) < 1e-9
print(f"ELBO {elbo(full):.9f}, log p(x) {log_evidence:.9f}")

# %%
diagonal, diagonal_history = ascend(torch.eye(K))
remaining = 0.5 * (precision.diag().log().sum() - precision.logdet()).item()
off = diagonal.variance - 1 / precision.diag()
assert (diagonal.loc - mu).abs().max() < 1e-9 and off.abs().max() < 1e-9
assert abs(log_evidence - elbo(diagonal).item() - remaining) < 1e-9
print(f"the best diagonal q misses log p(x) by {remaining:.4f} nats")
print(f"its variances {diagonal.variance.detach().numpy().round(4)}")
print(f"the posterior's {posterior.variance.numpy().round(4)}")

# %% mystnb={"figure": {"caption": "The gap to log p(x) while gradient ascent raises the bound from the same start. With a full covariance it falls to the size of rounding errors (drawn at 1e-14); with a diagonal one it stops at the value of the closed form (dotted).", "name": "fig-elbo-ascent"}, "image": {"alt": "Gap on a logarithmic axis against the steps of gradient ascent: one curve falls in a straight line by more than ten powers of ten, the other levels off at once."}} tags=["hide-input"]
figure, plot = canvas(1, 2.4)
for name, history in (
    ("full covariance", full_history),
    ("diagonal covariance", diagonal_history),
):
    plot.semilogy((log_evidence - history).clamp(1e-14), label=name)
plot.axhline(remaining, color="0.4", ls=":")
plot.set(xlabel="step", ylabel="log p(x) − ELBO, nats", ylim=(1e-15, 100))
plot.legend()
figure

# %% [markdown]
# Note the price of the diagonal: to avoid codes that the tilted posterior
# forbids, its best approximation is narrower than the posterior in each
# coordinate, as the printed variances show.
#
# ## More samples, a tighter bound
#
# There is a second way to close the gap, and it leaves $q$ as it is. Jensen's
# inequality loses little when its argument varies little; and a mean of $S$
# weights varies less than one weight. For independent codes
# $z_1, \dots, z_S \sim q$, the *importance-weighted bound* is
# {cite}`burda2016importance`
#
# $$
# \mathcal{L}_S(q) = \mathbb{E}\left[
#   \log \frac1S \sum_{i=1}^{S} w(z_i) \right]
#   \leq \log p(x), \qquad \mathcal{L}_1 = \mathcal{L} .
# $$ (eq-elbo-importance)
#
# It never gets worse with more samples:
#
# $$
# \mathcal{L}_1 \leq \mathcal{L}_2 \leq \mathcal{L}_3 \leq \dots
# \leq \log p(x) .
# $$ (eq-elbo-monotone)
#
# The reason fits in two lines. The mean of $S$ numbers is also the mean of $S$
# means, each leaving one number out; and the logarithm of that mean is, by
# Jensen, at least the mean of the logarithms. Each mean that leaves one out has
# $S - 1$ weights, so that its logarithm has the expectation $\mathcal{L}_{S-1}$.
#
# Hence more than {eq}`eq-elbo-monotone` is true. With all ways of leaving one
# out averaged, the inequality holds for every sample, not only in expectation,
# and the cell can assert it without any tolerance for chance: 10,000 samples of
# five weights of the wide $q$, in units of $p(x)$, with `vaelib`'s own bound. (The
# first assertion asks it for the logarithm of the mean of 1 and 9.)

# %%
iw_bound = objective.importance_weighted_bound
assert math.isclose(iw_bound(two.log()[:, None]).item(), math.log(5))

fives = log_ratio(wide, draw(wide, 50000)).reshape(5, -1)
fours = [torch.cat([fives[:i], fives[i + 1 :]]) for i in range(5)]
without_one = torch.stack([iw_bound(four) for four in fours]).mean(0)
assert (without_one <= iw_bound(fives) + 1e-12).all()
for size, values in ((4, without_one), (5, iw_bound(fives))):
    print(f"S = {size}: {values.mean():.3f} nats")

# %% [markdown]
# ### At what rate
#
# Measure weights in units of $p(x)$: by {eq}`eq-elbo-bayes`,
#
# $$
# r(z) = \frac{w(z)}{p(x)} = \frac{p(z \mid x)}{q(z)}, \qquad
# \mathbb{E}_q[r] = 1, \qquad V = \operatorname{Var}_q[r] .
# $$ (eq-elbo-ratio)
#
# Write the mean of $S$ of them as $1 + \delta$. Then $\delta$ has mean 0 and
# variance $V/S$. For small $\delta$,
# $\log(1 + \delta) \approx \delta - \delta^2/2$, whose expectation is
# $-V/(2S)$. So the gap closes like
#
# $$
# \log p(x) - \mathcal{L}_S(q) \approx \frac{V}{2 S}
# \qquad \text{for large } S,
# $$ (eq-elbo-rate)
#
# if $V$ is finite, and under mild conditions {cite}`domke2018importance`. For
# Gaussians $V$ has a closed form. Let $P = C^{-1}$ be the precision of $q$,
# $d = m - \mu$ the distance of the means, and $A = 2\Lambda - P$. If $A$ is
# positive definite, then
#
# $$
# 1 + V = \int \frac{p(z \mid x)^2}{q(z)} \, dz
# = \frac{\det \Lambda}{\sqrt{\det P \, \det A}}
#   \exp\left( d^\top P A^{-1} \Lambda \, d \right);
# $$ (eq-elbo-variance)
#
# if $A$ is not, the integral is infinite. In words: in every direction the
# variance of $q$ must exceed *half* the posterior's.
#
# ```{dropdown} Derivation of the closed form
# Since $\mathbb{E}_q[r^2] = 1 + V$, and $r = p(z \mid x) / q(z)$, the first
# equality is a definition. For the second, put $u = z - \mu$. The exponent of
# $p(z \mid x)^2 / q(z)$ is
#
# $$
# -u^\top \Lambda u + \tfrac12 (u - d)^\top P (u - d)
# = -\tfrac12 u^\top A u - u^\top P d + \tfrac12 d^\top P d .
# $$
#
# The integral of $\exp(-\tfrac12 u^\top A u - u^\top h)$ over all $u$ is
# $(2\pi)^{K/2} (\det A)^{-1/2} \exp(\tfrac12 h^\top A^{-1} h)$ if $A$ is
# positive definite, and infinite otherwise. With $h = P d$ the exponent is
# $\tfrac12 d^\top (P A^{-1} P + P) d
# = \tfrac12 d^\top P A^{-1} (P + A) d = d^\top P A^{-1} \Lambda d$, because
# $P + A = 2 \Lambda$. The factors in front of the three Gaussians give
# $(2\pi)^{-K/2} \det \Lambda \, (\det P)^{-1/2}$.
# ```


# %%
def weight_variance(q):
    P, d = q.precision_matrix, q.loc - mu
    A = 2 * precision - P
    if torch.linalg.eigvalsh(A).min() <= 0:
        return math.inf
    exponent = d @ P @ torch.linalg.solve(A, precision @ d)
    second = precision.det() / (P.det() * A.det()).sqrt() * exponent.exp()
    return second.item() - 1


# %%
for q in (wide, prior, path(torch.tensor(0.7))):
    ratio = posterior.log_prob(grid) - q.log_prob(grid)
    assert math.isclose(average(q, ratio.exp()), 1)
    second = average(q, (2 * ratio).exp())
    assert math.isclose(second, 1 + weight_variance(q))
variances = {name: weight_variance(q) for name, q in named.items()}
print({name: round(V, 4) + 0.0 for name, V in variances.items()})

# %% [markdown]
# The wide $q$ has a small variance, the prior a large one, and the narrow $q$
# an infinite one. The last is a warning: the narrow $q$ stands at the right
# place, and its ELBO is far better than the prior's. But where it hardly ever
# looks there is posterior left, and when it does look there, the weight is
# enormous.
#
# ### A family for the pencil
#
# For $q = \mathcal{N}(\mu, c \Lambda^{-1})$ and $K = 2$ the weights have a
# formula. Put $\tau^2 = (z - \mu)^\top \Lambda (z - \mu)$. The densities are
# $p(z \mid x) \propto e^{-\tau^2/2}$ and $q(z) \propto \tfrac1c e^{-\tau^2/(2c)}$
# with the same constant, so that
# $r = c \, e^{-\tau^2 (c-1)/(2c)}$. Under $q$, $\tau^2 / c$ is a sum of two
# squared standard normal numbers, which exceeds $t$ with the probability $e^{-t/2}$
# (integrate the density in polar coordinates). So $e^{-\tau^2/(2c)}$ falls below $u$ with
# the probability $u$: it is uniformly distributed between 0 and 1. Call it $U$:
#
# $$
# r = c \, U^{\,c - 1}, \qquad U \sim \text{uniform on } (0, 1),
# \qquad \mathbb{E}_q[r^n] = \frac{c^n}{1 + n (c - 1)} .
# $$ (eq-elbo-uniform)
#
# (The moment is infinite if its denominator is not positive.) For the wide $q$,
# $c = 2$: its weights are simply *uniform between 0 and $2\,p(x)$*. For $n = 2$
# the denominator is $2c - 1$: the variance is $c^2/(2c - 1) - 1$ while
# $c > \tfrac12$, and infinite from there on down. The check compares the
# distributions at every sample: the largest difference of the two distribution
# functions should be a few times one over the root of their number.

# %%
count = 2**20
for q, c in ((wide, 2), (narrow, 1 / 3)):
    ratio = log_ratio(q, draw(q, count)).exp()
    U = (ratio / c) ** (1 / (c - 1))
    ranks = (torch.arange(count) + 0.5) / count
    assert (U.sort().values - ranks).abs().max() < 3 / math.sqrt(count)
assert math.isclose(weight_variance(wide), 2**2 / 3 - 1)
print(f"{count:,} weights each: distributed as the formula says")

# %% [markdown]
# ### Measured
#
# Two million weights of each $q$ are cut into groups of $S$, and the gap is the
# mean, over the groups, of $-\log \bar r$, where $\bar r$ is the mean of a
# group. There is a way to see it much more sharply: $\bar r - 1$ is zero on
# average, so that adding it changes no expectation. It takes away the part of
# the noise that is linear in $\delta$:
#
# $$
# \log p(x) - \mathcal{L}_S
# = \mathbb{E}\left[ -\log \bar r \right]
# = \mathbb{E}\left[ \bar r - 1 - \log \bar r \right].
# $$ (eq-elbo-control)
#
# (With an infinite variance $\bar r - 1$ would be noise itself; the narrow $q$
# goes without.)


# %%
def measure(q, sizes):
    """The gap for each S, with its standard error over the groups."""
    log_r = log_ratio(q, draw(q, 2**21))
    rows = []
    for S in sizes:
        log_mean = iw_bound(log_r.reshape(S, -1))
        gap = -log_mean
        if weight_variance(q) < math.inf:
            gap = log_mean.expm1() + gap
        rows.append([gap.mean(), gap.std() / math.sqrt(len(gap))])
    return torch.tensor(rows).T


# %%
sizes = [2**power for power in range(11)]
measured = {
    q: measure(named[q], sizes) for q in ("wide", "prior", "narrow")
}
for name, (gap, error) in measured.items():
    exact = kl_divergence(named[name], posterior)  # the gap at S = 1
    assert (gap[0] - exact).abs() < 4 * error[0]
    rise = -gap.diff()
    noise = torch.hypot(error[1:], error[:-1])
    assert (rise > -4 * noise).all() and (rise[:5] > 4 * noise[:5]).all()
    print(f"{name}: gap at S = 1 {gap[0]:.3f}, divergence {exact:.3f}")

# %% [markdown]
# With one sample the gap is the divergence from the posterior, as it must be,
# and doubling $S$ makes it smaller. How fast? {eq}`eq-elbo-rate` says that on
# logarithmic axes the points of large $S$ lie on a line of slope $-1$, at the
# height $V/(2S)$. The cell asks it of the last three.

# %%
S = torch.tensor(sizes, dtype=torch.float64)


def slope(gap, first, last):
    """Of the straight line through log gap against log S."""
    from_S, to_gap = S[first:last].log(), gap[first:last].log()
    from_S = from_S - from_S.mean()
    return (from_S @ to_gap / (from_S @ from_S)).item()


# %%
table = []
for name in ("wide", "prior"):
    (gap, error), V = measured[name], variances[name]
    predicted = V / (2 * S)
    next_order = 2 * (1 + V) / S * predicted
    assert ((gap - predicted).abs() < 4 * error + next_order)[8:].all()
    assert abs(slope(gap, 8, 11) + 1) < 0.1
    for row in (0, 2, 4, 6, 8, 10):
        values = gap[row], error[row], predicted[row]
        table.append([name, sizes[row], *(f"{v:.6f}" for v in values)])
headers = ["q", "S", "measured gap", "standard error", "V/(2S)"]
Markdown(tabulate(table, headers, tablefmt="github", disable_numparse=True))

# %% [markdown]
# The formula describes large $S$, and "large" means much larger than $V$: for
# the prior it takes hundreds of samples before the two columns agree.
#
# ### If the variance is infinite
#
# From {eq}`eq-elbo-uniform`, for $c < 1$ a weight in units of $p(x)$ exceeds
# $t \geq c$ with the probability
#
# $$
# \Pr(r > t) = \left( \frac{t}{c} \right)^{-\alpha}, \qquad
# \alpha = \frac{1}{1 - c}.
# $$ (eq-elbo-tail)
#
# For $c < \tfrac12$ we have $1 < \alpha < 2$: there is a mean, but no variance.
# A sample of $S$ weights then goes wrong in one way. Typically it underrates
# $p(x)$, until a single weight of the order of $S$ comes along and makes up for
# it. The probability that one of $S$ weights is that large is about
# $S \cdot \Pr(r > S) \propto S^{1 - \alpha}$, and the gap is proportional to it:
#
# $$
# \log p(x) - \mathcal{L}_S \approx
# \frac{\pi \, c^\alpha}{\sin(\pi (\alpha - 1))} \, S^{1 - \alpha}
# \qquad \text{for large } S \text{ and } 1 < \alpha < 2.
# $$ (eq-elbo-slow)
#
# For the narrow $q$, $c = \tfrac13$ and $\alpha = \tfrac32$: to halve the gap
# takes four times as many samples, not twice as many.
#
# ```{dropdown} Where the constant comes from
# Let one weight be as large as $S y$. It lifts the mean of the group by $y$, and
# $\bar r - 1 - \log \bar r$ from about 0 to $g(y) = y - \log(1 + y)$. The
# expected number of weights beyond $S y$ in a group is
# $S \, \Pr(r > S y) = c^\alpha S^{1 - \alpha} y^{-\alpha}$. The gap is the sum of
# $g$ over all sizes, and integrating by parts,
#
# $$
# \int_0^\infty g'(y) \, c^\alpha S^{1 - \alpha} y^{-\alpha} \, dy
# = c^\alpha S^{1 - \alpha} \int_0^\infty \frac{y^{1 - \alpha}}{1 + y} \, dy
# = c^\alpha S^{1 - \alpha} \, \frac{\pi}{\sin(\pi (\alpha - 1))} .
# $$
#
# The last integral is a classical one (the beta function with arguments
# $2 - \alpha$ and $\alpha - 1$); it is finite for $1 < \alpha < 2$.
# ```

# %%
alpha = 1 / (1 - 1 / 3)
ratio = log_ratio(narrow, draw(narrow, 2**20)).exp()
for t in (1, 3, 10, 30):
    chance = (3 * t) ** -alpha
    share = (ratio > t).double().mean().item()
    assert abs(share - chance) < 4 * math.sqrt(chance / len(ratio))
    print(f"r > {t}: {share:.4f} of the weights, by formula {chance:.4f}")

# %%
gap, error = measured["narrow"]
constant = math.pi * 3**-alpha / math.sin(math.pi * (alpha - 1))
predicted = constant * S ** (1 - alpha)
next_order = predicted / S.sqrt()
assert ((gap - predicted).abs() < 4 * error + next_order).all()
assert abs(slope(gap, 3, 8) + 0.5) < 0.1
print(f"slope {slope(gap, 3, 8):.1f} from S = {sizes[3]} to {sizes[7]}")

# %% mystnb={"figure": {"caption": "Left: the probability that a weight exceeds r, in units of p(x). The weights of the wide q end at 2 and those of the prior at some tens; those of the narrow q fall off as a power. Right: the gap of the importance-weighted bound against the number of samples; bars are two standard errors. Dashed: V/(2S), a slope of -1; dotted: the law for infinite variance, a slope of -1/2.", "name": "fig-elbo-samples"}, "image": {"alt": "Left: three curves of tail probabilities on logarithmic axes, one of which continues as a straight line. Right: three falling series of points with error bars; two join lines of slope minus one, the third one of slope minus one half."}} tags=["hide-input"]
figure, (left, right) = canvas(2, 3.0)
for number, (name, (gap, error)) in enumerate(measured.items()):
    colour = f"C{number}"
    r = log_ratio(named[name], draw(named[name], 100000)).exp()
    order = r.sort(descending=True).values
    chance = (torch.arange(len(r)) + 1) / len(r)
    left.loglog(order, chance, color=colour, label=name)
    right.errorbar(S, gap, 2 * error, fmt="o", ms=3, color=colour)
    if name == "narrow":
        right.loglog(S, predicted, ":", color=colour)
    else:
        right.loglog(S, variances[name] / (2 * S), "--", color=colour)
left.set(
    xlabel="$r$", ylabel="probability of more than $r$", xlim=(0.05, 1e3)
)
left.legend(loc="upper right")
right.set(xlabel="number of samples S", ylabel="gap, nats", ylim=(1e-4, 50))
figure

# %% [markdown]
# Two lessons for practice. For many samples a $q$ that is too wide beats one that
# is too narrow. And the weights that were seen say nothing of those that were
# not: no standard error warns of a tail that the sample has missed.
#
# ## From one x to all images
#
# So far there was one $x$ and one $q$, found by its own gradient ascent. With
# $N$ images that would be $N$ ascents, and again whenever the decoder changes. A
# VAE {cite}`kingma2022auto` replaces them by one function, the *encoder*, a
# neural network with weights $\phi$ that takes an image and answers with the
# mean and the standard deviation of its $q$, for each of the $K$ coordinates:
#
# $$
# q_\phi(z \mid x) = \mathcal{N}\left(z; \;
#   m_\phi(x), \; \operatorname{diag} \sigma_\phi(x)^2 \right).
# $$ (eq-elbo-encoder)
#
# This is called *amortised* inference: the cost of finding $q$ is paid once, for
# all images. The likelihood is a second network with weights $\theta$, the
# *decoder*. It takes a code and answers with a probability $\pi_j$ for each
# pixel $j$, and pixels are independent once $z$ is known:
#
# $$
# \log p_\theta(x \mid z) = \sum_{j=1}^{D} \left[
#   x_j \log \pi_j + (1 - x_j) \log (1 - \pi_j) \right],
# \qquad \pi = \pi_\theta(z) .
# $$ (eq-elbo-bernoulli)
#
# ```{margin} The paper's words
# Section 3.1 of the paper calls the network from images to two vectors the
# decoder, and the one from codes to pixels the encoder. It is the other way
# round, as in its sections 2.2 and 3.1.1. (Section 5.2.4 has a decoder that
# classifies images; that is the encoder, too.)
#
# Section 3.1 also calls the two vectors "mean and variance". But $q_\sigma$
# multiplies the noise where a code is sampled, and enters the KL squared: it is
# the standard deviation. Where $\mathcal{N}(q_\mu, q_\sigma)$ is written,
# $\mathcal{N}(q_\mu, q_\sigma^2)$ is meant.
# ```
#
# Nothing in the derivation asked for linear or Gaussian $p(x \mid z)$, so the
# bound {eq}`eq-elbo-terms` stands. (Grey pixels between 0 and 1 put into
# {eq}`eq-elbo-bernoulli` give no normalised density
# {cite}`loaiza2019continuous`. With "log p(x)" for the logarithm of the integral
# {eq}`eq-elbo-evidence`, every statement of this page holds for them as well.)
#
# Are the two terms that `VAE.elbo` returns those of the equations? The model is
# the paper's fully connected one, untrained; the weights of its two last encoder
# layers are made thirty times larger, or $q$ would hardly differ from the prior.
# The terms are recomputed from the layers, with the sums written out and the
# same noise.

# %%
torch.set_default_dtype(torch.float32)
digits = data.load("digits")
torch.manual_seed(0)
model = models.mlp(digits.image_shape, latent_dim=2)
for head in (model.encoder.mean, model.encoder.log_variance):
    head.weight.data *= 30
batch = data.to_float(digits.test.images[:8])  # (8, 1, 28, 28)
with torch.no_grad():
    torch.manual_seed(1)
    reconstructed, kl = model.elbo(batch)

# %%
noise = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    features = model.encoder.features(batch)
    mean = model.encoder.mean(features)
    sigma = torch.exp(model.encoder.log_variance(features) / 2)
    pi = model.decode(mean + sigma * noise)
log_p = batch * pi.log() + (1 - batch) * (1 - pi).log()
kl_by_torch = kl_divergence(Normal(mean, sigma), Normal(0.0, 1.0))
assert torch.allclose(reconstructed, log_p.sum((1, 2, 3)), rtol=1e-5)
assert torch.allclose(kl, kl_by_torch.sum(1), rtol=1e-5)
print(f"{reconstructed.mean():.1f} - {kl.mean():.2f} nats per image")

# %% [markdown]
# Both are sums, over pixels and over coordinates; a mean is taken over images
# only. That mean is what training maximises, in $\theta$ and $\phi$ at once:
#
# $$
# \frac1N \sum_{i=1}^{N} \mathcal{L}(x_i; \theta, \phi)
# = \frac1N \sum_{i=1}^{N} \log p_\theta(x_i)
#   - \frac1N \sum_{i=1}^{N} \mathrm{KL}\left(
#     q_\phi(z \mid x_i) \,\|\, p_\theta(z \mid x_i) \right).
# $$ (eq-elbo-objective)
#
# The encoder's weights $\phi$ occur in the last sum only: they can do nothing
# but close the gap. The decoder's $\theta$ occur in both: they raise $\log p(x)$,
# or make its posterior easier to match. Since the left side is a mean,
# a random batch estimates it without bias, and a random $z$ for each image does
# too. How its gradient is found is the matter of another chapter.
#
# ## What a VAE's bound misses
#
# Here is the bound to play with. The model is the VAE of one latent dimension that was trained on MNIST, and its code has only one number, so
# that the exact posterior can be computed on a grid (shaded). Drag $q$ over it. What is paid for reconstruction and KL
# changes with every move; what the two exceed $-\log p(x)$ by is the gap, and $\log p(x)$ itself does not move. The encoder's $q$ of
# the 0 lies beside the posterior, that of the 2 is too wide; only the 6 has got nearly what it could.
#
# ```{raw} html
# :file: ../live/bound.html
# ```
#
# ```{figure} ../live/bound.png
# :name: fig-elbo-live
# :figclass: live-still
# :alt: A shaded density with a shoulder, and beside it, to the right, a narrower bell curve.
#
# The exact posterior of a 0, and the encoder's $q$, which misses it: its gap is 19 nats. Where scripts run, $q$ can be dragged here.
# ```
#
# With a single latent dimension, $K = 1$, the integral over $z$ is an integral
# over a line, and a grid gives every quantity of {eq}`eq-elbo-objective` to many
# digits. So let us train such a VAE on the digits, for ten epochs, and look at
# the gap.

# %%
torch.manual_seed(0)
line = models.mlp(digits.image_shape, latent_dim=1)
settings = Settings(latent_dim=1, epochs=10)
with tempfile.TemporaryDirectory() as folder:
    history = fit(line, digits, settings, Path(folder, "K = 1"))
assert history[-1]["train_elbo"] > history[0]["train_elbo"]
print(f"epoch 1: {history[0]['train_elbo']:.0f} nats per image")
print(f"epoch 10: {history[-1]['train_elbo']:.0f} nats per image")

# %% [markdown]
# Now the grid, for fifty test images: the log-likelihood of each image at 4,801
# codes from $-6$ to 6, and from it $\log p(x)$. Is the grid fine enough? Every
# second point left out should make no difference.

# %%
images = digits.test.images[:50]
pixels = data.to_float(images).double().flatten(1)  # (50, 784)
codes = torch.linspace(-6, 6, 4801, dtype=torch.float64)
decoder = copy.deepcopy(line.decoder.logits).double()
with torch.no_grad():
    logits = decoder(codes[:, None]).flatten(1)  # (4801, 784)
likelihoods = torch.stack(
    [
        objective.bernoulli_log_prob(image.expand_as(logits), logits)
        for image in pixels
    ]
)  # (50, 4801)

# %%
step = (codes[1] - codes[0]).item()
joint = likelihoods + Normal(0.0, 1.0).log_prob(codes)
exact = torch.logsumexp(joint, 1) + math.log(step)
coarser = torch.logsumexp(joint[:, ::2], 1) + math.log(2 * step)
assert (exact - coarser).abs().max() < 1e-3
print(f"log p(x) from {exact.min():.0f} to {exact.max():.0f} nats")

# %% [markdown]
# With $\log p(x)$, the posterior of each image is known as well. The next cell
# takes a Gaussian $q$ for each image. It computes the reconstruction term and
# the divergence from the posterior as sums over the grid, and the divergence
# from the prior by `vaelib`'s closed form. Then {eq}`eq-elbo-gap` must come out,
# image by image. ($\log p(x)$ cancels here, since the posterior was made with it: what this
# tests is the mass of $q$ and the closed form. $\log p(x)$ itself was tested by the coarser
# grid, and will be by sampling, below.)


# %%
log_posterior = joint - exact[:, None]  # (50, 4801)


def split(mean, log_variance):
    """The two terms of the bound, and the gap, of each image's q."""
    log_q = objective.gaussian_log_prob(
        codes[:, None], mean[:, None], log_variance[:, None]
    )
    q = log_q.exp() * step
    return (
        (q * likelihoods).sum(1),
        objective.kl_divergence(mean, log_variance),
        (q * (log_q - log_posterior)).sum(1),
    )


# %%
encoded = [each.double() for each in evaluation.encode(line, images)]
explained, cost, gap = split(*encoded)
assert torch.allclose(explained - cost + gap, exact, atol=1e-6, rtol=0)
assert (gap > 0).all()
print(f"log p(x)  {exact.mean():.2f}")
print(f"ELBO      {(explained - cost).mean():.2f}")
print(f"gap       {gap.mean():.2f}")

# %% [markdown]
# The bound that `vaelib` estimates from one code an image is this bound: over
# twenty seeds its mean agrees with the grid's within five standard errors.

# %%
estimates = torch.stack(
    [
        torch.sub(*evaluation.elbo(line, images, seed)).mean()
        for seed in range(20)
    ]
)
error = (estimates.std() / math.sqrt(20)).item()
bound = (explained - cost).mean().item()
assert abs(estimates.mean().item() - bound) < 5 * error
print(f"sampled {estimates.mean():.1f} ± {error:.1f}, grid {bound:.1f}")

# %% [markdown]
# Is the gap there because the posterior is no Gaussian, or because the encoder
# does not find the best Gaussian? Let each image climb the exact bound by itself, in its
# mean and log-variance, with a hundred steps of Adam from the mean and the variance
# of its posterior, which the grid knows. (From what the encoder said, a climb can
# end on a lower hill.) What remains at the best Gaussian is the *approximation gap*
# (what remains here is at least that); what was gained is the *amortisation gap*
# {cite}`cremer2018inference`.

# %%
true = log_posterior.exp() * step  # (50, 4801)
true_mean = (true * codes).sum(1, keepdim=True)
true_variance = (true * (codes - true_mean) ** 2).sum(1, keepdim=True)
moments = true_mean, true_variance.log()
own = [each.clone().requires_grad_() for each in moments]
optimizer = torch.optim.Adam(own, lr=0.05)
for _ in range(100):
    explained, cost, _ = split(*own)
    optimizer.zero_grad()
    (cost - explained).sum().backward()
    optimizer.step()
with torch.no_grad():
    own_gap = split(*own)[2]
assert (own_gap > 0).all() and own_gap.mean() < gap.mean() / 2
table = [
    ("log p(x), on the grid", exact.mean()),
    (
        "bound, the best Gaussian found for each image",
        (exact - own_gap).mean(),
    ),
    ("bound, the encoder's Gaussian", (exact - gap).mean()),
    ("approximation gap", own_gap.mean()),
    ("amortisation gap", (gap - own_gap).mean()),
]
headers = ["mean over fifty test images", "nats per image"]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".3f"))

# %% [markdown]
# After so short a training, and on images it was not trained on, most of the gap
# is the encoder's. {numref}`fig-elbo-posteriors` shows why: many posteriors are
# close to Gaussians, but not to those that the encoder puts there.

# %% mystnb={"figure": {"caption": "Four test images of different gaps, from the smallest to a large one, nats in the title: the true posterior over the one latent dimension (shaded), the encoder's Gaussian (solid), and the best one found by gradient ascent for this image alone (dashed).", "name": "fig-elbo-posteriors"}, "image": {"alt": "Four plots of densities over z, each with a small picture of the digit: a shaded posterior, the encoder's bell curve, and a dashed bell curve."}} tags=["hide-input"]
figure, plots = canvas(4, 2.3)
chosen = gap.argsort()[[0, 16, 33, 47]]
with torch.no_grad():
    curves = [
        objective.gaussian_log_prob(codes[:, None], m[:, None], v[:, None])
        for m, v in (encoded, own)
    ]
for plot, image in zip(plots, chosen, strict=True):
    by_encoder, by_ascent = (curve[image].exp() for curve in curves)
    truth = log_posterior[image].exp()
    plot.fill_between(codes, truth, color="C0", alpha=0.35, lw=0)
    plot.plot(codes, by_encoder, color="C3", lw=1.2)
    plot.plot(codes, by_ascent, "--", color="0.2", lw=1.2)
    seen = codes[(truth + by_encoder + by_ascent) > 0.02]
    top = 1.45 * max(truth.max(), by_encoder.max(), by_ascent.max())
    plot.set(xlim=(seen.min() - 0.1, seen.max() + 0.1), ylim=(0, top))
    plot.set(xlabel="$z$", yticks=[])
    plot.set_title(f"gap {gap[image]:.2f} nats")
    corner = plot.inset_axes([0.03, 0.72, 0.28, 0.28])
    corner.imshow(255 - images[image, 0], cmap="gray", vmin=0, vmax=255)
    corner.set_axis_off()
figure

# %% [markdown]
# ### What `evaluation.log_prob` computes
#
# It is the importance-weighted bound {eq}`eq-elbo-importance` with the encoder's
# $q$. In the tables of this book it stands for $\log p(x)$; how far off is it?
# The grid knows. And the encoder is easily made wider: adding 2 to its
# log-variance multiplies every standard deviation by $e$.

# %%
wider = copy.deepcopy(line)
with torch.no_grad():
    wider.encoder.log_variance.bias += 2

table, results, stated, short = [], {}, {}, {}
for name, each in (("as trained", line), ("made wider", wider)):
    posteriors = [
        value.double() for value in evaluation.encode(each, images)
    ]
    explained, cost, _ = split(*posteriors)
    row = [(explained - cost).mean().item()]
    for samples in (10, 100, 500):
        bounds, errors = evaluation.log_prob(each, images, samples)
        row.append(bounds.mean().item())
    short[name] = exact - bounds  # of each image, at S = 500
    stated[name] = errors.square().sum().sqrt().item() / len(images)
    results[name] = row
    table.append([name, *row, exact.mean().item(), stated[name]])
headers = ["encoder", "ELBO", "S = 10", "S = 100", "S = 500"]
headers += ["log p(x)", "error stated at S = 500"]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".2f"))

# %%
truth = exact.mean().item()
trained, widened = results["as trained"], results["made wider"]
assert widened[0] < trained[0] < truth  # wider is worse for the ELBO
for name, row in results.items():  # ten samples are better than one
    assert row[0] < row[1] < truth + 4 * stated[name]
    assert row[0] < row[3] < truth + 4 * stated[name]
assert abs(widened[3] - truth) < 4 * stated["made wider"]
assert truth - trained[3] > 5 * stated["as trained"]
for name, row in results.items():
    print(f"{name}: {abs(truth - row[3]):.2f} nats off at S = 500")

# %% [markdown]
# As trained, the encoder has the better ELBO. But compare how far its
# importance-weighted bound is off with the error stated for it: that error knows
# only the weights that were seen. Made wider, the encoder has the worse ELBO, and
# its importance-weighted bound arrives at $\log p(x)$. Was it too narrow, then?
# How far is its mean from the posterior's, in its own standard deviations, how
# wide is it beside the posterior, and whose images are they that miss most?

# %%
deviation = (0.5 * encoded[1]).exp()
beside = ((encoded[0] - true_mean) / deviation).abs()
width = deviation / true_variance.sqrt()
missing = short["as trained"].sort(descending=True).values
print(
    f"beside the posterior: median {beside.median():.1f}, at most {beside.max():.1f}"
)
print(f"as wide as it: median {width.median():.2f}")
print(
    f"nats missed: {missing.sum():.1f} in all, {missing[0]:.1f} for one image"
)
assert missing[0] > missing.sum() / 2 and width.median() > 0.8

# %% [markdown]
# It is not too narrow, it is *misplaced*, and a single image makes most of the
# difference: where $q$ lies beside the posterior, no sample meets the weights that
# count, and a wider $q$ reaches them. So `evaluation.log_prob` returns what its
# name in the tables says, "log p(x), at least": right where the encoder covers the
# posterior, too low where it does not.
#
# ## What was asserted
#
# | equation | what the cell showed |
# |---|---|
# | {eq}`eq-elbo-model`, {eq}`eq-elbo-evidence`, {eq}`eq-elbo-marginal` | the integral over a grid is the closed form of $p(x)$, to nine digits |
# | {eq}`eq-elbo-posterior`, {eq}`eq-elbo-bayes` | the logarithm of the ratio is $\log p(x)$ at a thousand random codes, to $10^{-9}$ |
# | {eq}`eq-elbo-weight` | the mean of a million weights is $p(x)$, within four standard errors |
# | {eq}`eq-elbo-jensen` | log 3 < log 5, for a weight that is 1 or 9 |
# | {eq}`eq-elbo-bound` | the bound lies below $\log p(x)$, on the grid |
# | {eq}`eq-elbo-pointwise` | the two logarithms add up to $\log p(x)$ at every point of the grid |
# | {eq}`eq-elbo-kl` | the integral is PyTorch's closed form; positive, and zero for equal densities |
# | {eq}`eq-elbo-gap` | on the grid, and for a hundred random Gaussians to $10^{-9}$ |
# | {eq}`eq-elbo-terms`, {eq}`eq-elbo-reconstruction`, {eq}`eq-elbo-entropy` | the closed forms are the integrals over the grid |
# | {eq}`eq-elbo-path`, {eq}`eq-elbo-path-gap` | bound and gap add up to $\log p(x)$ at 101 places, and the bound rises at each |
# | {eq}`eq-elbo-ascent`, {eq}`eq-elbo-diagonal` | gradient ascent arrives at the posterior, and with a diagonal covariance at the gap of the closed form |
# | {eq}`eq-elbo-importance`, {eq}`eq-elbo-monotone` | averaged over the five ways to leave one weight out, the bound is never higher, in each of 10,000 samples; every doubling up to 32 lowers the measured gap |
# | {eq}`eq-elbo-ratio`, {eq}`eq-elbo-variance` | mean 1, and the closed form of the variance is the integral over the grid |
# | {eq}`eq-elbo-uniform` | a million weights have the distribution of the formula, and $c = 2$ gives the variance of the closed form |
# | {eq}`eq-elbo-rate`, {eq}`eq-elbo-control` | the gap at $S = 1$ is the divergence; for large $S$ it has the slope $-1$ and the height $V/(2S)$ |
# | {eq}`eq-elbo-tail`, {eq}`eq-elbo-slow` | the share of large weights, and a gap of slope about $-\tfrac12$ from $S = 8$ to 128, its height that of the formula up to a relative $1/\sqrt S$ and four standard errors |
# | {eq}`eq-elbo-encoder`, {eq}`eq-elbo-bernoulli` | both terms of `VAE.elbo`, recomputed by hand |
# | {eq}`eq-elbo-objective` | on a trained VAE with one latent dimension the two ways to split the bound agree, image by image, to $10^{-6}$; $\log p(x)$ by a coarser grid, to $10^{-3}$; the sampled ELBO agrees, and so does `evaluation.log_prob` with a wide encoder |
#
# ## Exercises
#
# **1.** When is the bound equal to $\log p(x)$? Answer once with
# {eq}`eq-elbo-jensen` and once with {eq}`eq-elbo-gap`, and show that the two
# answers are the same.
#
# ```{dropdown} Solution
# Jensen's inequality is an equality only if the weight does not vary, that is, if
# $p(x, z) / q(z)$ is the same for all $z$. Then $q(z)$ is proportional to
# $p(x, z)$, and since $q$ integrates to one, the factor is $p(x)$, so that
# $q(z) = p(x, z) / p(x) = p(z \mid x)$. The divergence in {eq}`eq-elbo-gap` is
# zero for this $q$ and for no other.
# ```
#
# **2.** The weights of the wide $q$ are uniform between 0 and $2\,p(x)$. Compute
# its gap for $S = 1$ and for $S = 2$ with a pencil.
#
# ```{dropdown} Solution
# In units of $p(x)$ a weight is $2U$. For $S = 1$ the gap is
# $-\mathbb{E}[\log 2U] = -\log 2 + 1$, as $\int_0^1 \log u \, du = -1$. For
# $S = 2$ it is $-\mathbb{E}[\log(U_1 + U_2)]$. The sum $y$ of two uniform numbers
# has the density $y$ up to 1 and $2 - y$ from 1 to 2, and
#
# $$
# \int_0^1 y \log y \, dy = -\tfrac14, \qquad
# \int_1^2 (2 - y) \log y \, dy = 2 \log 2 - \tfrac54 ,
# $$
#
# so that the gap is $\tfrac32 - 2 \log 2$.
# ```
#
# Solution to exercise 2, against the measurement:

# %% tags=["hide-cell"]
gap, error = measured["wide"]
by_pencil = torch.tensor([1 - math.log(2), 1.5 - 2 * math.log(2)])
assert ((gap[:2] - by_pencil).abs() < 4 * error[:2]).all()
print("gaps by pencil:", [round(value, 4) for value in by_pencil.tolist()])

# %% [markdown]
# **3.** Take the prior as $q$, and a model of $K$ independent copies: a code of
# $K$ numbers, $K$ pixels, each pixel $x_k = 3 z_k + \varepsilon_k$ with
# $\varepsilon_k \sim \mathcal{N}(0, 1)$, and $x_k = 3$ for all $k$. How does $V$
# depend on $K$, and how many samples does {eq}`eq-elbo-rate` ask for, to come
# within 0.1 nats of $\log p(x)$?
#
# ```{dropdown} Solution
# The weights of independent coordinates multiply, therefore so do their second
# moments: $1 + V = (1 + V_1)^K$, where $V_1$ belongs to one coordinate. In
# {eq}`eq-elbo-variance` with one dimension, $\Lambda = 10$, $P = 1$, $A = 19$
# and $d = -\mu = -\tfrac{9}{10}$, so that
# $1 + V_1 = \tfrac{10}{\sqrt{19}} \exp(\tfrac{8.1}{19})$. The number of samples
# is $V / 0.2$. It grows exponentially with $K$, just like the grid.
# ```
#
# Solution to exercise 3, in numbers, with the one-dimensional $V_1$ checked by a
# grid:

# %% tags=["hide-cell"]
z = torch.linspace(-12, 12, 4801, dtype=torch.float64)
base, target = Normal(0.0, 1.0), Normal(0.9, 10**-0.5)
second = (2 * target.log_prob(z) - base.log_prob(z)).exp().sum() * 0.005
one = 10 / math.sqrt(19) * math.exp(8.1 / 19)
assert math.isclose(second.item(), one, rel_tol=1e-6)
table = [[k, f"{(one**k - 1) / 0.2:.0e}"] for k in (1, 2, 8, 16, 64)]
assert one**64 > 1e20
Markdown(tabulate(table, ["K", "samples"], "github", disable_numparse=True))

# %% [markdown]
# **4.** Expectation-maximisation (EM), which the paper sets out from, climbs the
# same bound in turns. The E-step sets each $q_i$ to the posterior of $x_i$; the M-step chooses $W$ and $s^2$ to maximise
# the average bound with those $q_i$ held fixed. Write $m_i$ and $C$ for the
# posterior's mean and covariance, $a_i = x_i - b$, and $b$ for the mean of the
# data. Derive the M-step, and show that no step lowers the average $\log p(x)$.
#
# ```{dropdown} Solution
# After the E-step the gap is zero and the bound is $\log p(x)$. The M-step raises
# the bound. The new $\log p(x)$ is at least the raised bound, which is at least
# the old $\log p(x)$. For the M-step only the reconstruction terms
# {eq}`eq-elbo-reconstruction` matter. Setting their derivatives to zero,
# $W = \left(\sum_i a_i m_i^\top\right)
# \left(\sum_i (m_i m_i^\top + C)\right)^{-1}$, and $s^2$ is the mean over $i$ of
# $\|a_i - W m_i\|^2 + \operatorname{tr}(W C W^\top)$, divided by $D$.
#
# For this model the summit is known {cite}`tipping1999probabilistic`: let
# $\ell_1 \geq \dots \geq \ell_D$ be the eigenvalues of the data's covariance;
# then the best $s^2$ is the mean of the last $D - K$ of them, and the covariance
# of $x$ keeps the first $K$ as they are.
# ```
#
# Solution to exercise 4, on 500 draws from the page's own model: the average
# log p(x) never falls, and ends on the summit.

# %% tags=["hide-cell"]
generator = torch.Generator().manual_seed(2)
z, noise = (
    torch.randn(500, size, generator=generator, dtype=torch.float64)
    for size in (K, D)
)
a = z @ W.T + s * noise
a = a - a.mean(0)
covariance = a.T @ a / len(a)
A, variance = torch.eye(D, K, dtype=torch.float64), 1.0  # for W and s²
eye, climb = torch.eye(D, dtype=torch.float64), []
for _ in range(500):
    marginal = A @ A.T + variance * eye
    climb.append(
        -0.5 * (2 * math.pi * marginal).logdet()
        - 0.5 * torch.linalg.solve(marginal, covariance).trace()
    )
    C = torch.linalg.inv(eye[:K, :K] + A.T @ A / variance)  # E-step
    m = a @ A @ C / variance
    second = m.T @ m / len(a) + C
    A = torch.linalg.solve(second, m.T @ a / len(a)).T  # M-step
    variance = (a - m @ A.T).square().sum(1).mean() + (A @ C @ A.T).trace()
    variance = variance / D
climb = torch.stack(climb)
assert (climb.diff() > -1e-12).all()
eigenvalues = torch.linalg.eigvalsh(covariance)
eigenvalues[: D - K] = eigenvalues[: D - K].mean()
summit = -0.5 * (D * math.log(2 * math.pi) + eigenvalues.log().sum() + D)
assert abs(climb[-1] - summit) < 1e-6
print(f"from {climb[0]:.3f} to {climb[-1]:.3f} nats per observation")

# %% [markdown]
# **5.** Show that the variance of the weights of the VAE above is infinite for
# every image whose encoder answers with $\sigma^2 < \tfrac12$. Why is that
# nowhere to be seen in the samples?
#
# ```{dropdown} Solution
# The decoder is made of linear layers and ReLUs, so its logits are piecewise
# linear in $z$ and at most proportional to $|z|$ far out; and the log-likelihood
# {eq}`eq-elbo-bernoulli`, with a sigmoid's $\pi$, is at least minus the sum of
# the logits' absolute values, and a constant. So $\log p(x, z)$ is at least $-\tfrac12 z^2 - \kappa |z|$ and a
# constant, for some $\kappa$. The square of $p(x, z)$ over $q(z)$ then has an
# exponent of at least $-z^2 + z^2/(2\sigma^2)$ and terms linear in $|z|$. If
# $\sigma^2 < \tfrac12$ it grows without limit, and the integral is infinite.
#
# But as the table below shows, the growth sets in many $\sigma$ away from the
# mean, where no sample will ever be. What samples show is what happens within
# a few $\sigma$.
# ```
#
# Solution to exercise 5: the logarithm of the integral of $p(z \mid x)^2 / q(z)$,
# cut off at ever larger multiples of $\sigma$ from the mean, for the first image.

# %% tags=["hide-cell"]
mean, sigma = encoded[0][0], (encoded[1][0] / 2).exp()
assert sigma.square() < 0.5
multiples = (2, 4, 8, 16, 32, 64, 128)
table = []
for reach in multiples:
    z = torch.linspace(-reach, reach, 4001, dtype=torch.float64)
    z = mean + sigma * z
    with torch.no_grad():
        logits = decoder(z[:, None]).flatten(1)
    log_p = objective.bernoulli_log_prob(
        pixels[0].expand_as(logits), logits
    )
    log_p = log_p + Normal(0.0, 1.0).log_prob(z) - exact[0]
    log_square = 2 * log_p - Normal(mean, sigma).log_prob(z)
    table.append((log_square.logsumexp(0) + (z[1] - z[0]).log()).item())
assert table == sorted(table)
assert table[-1] > table[0] + 1000
headers = ["cut at, in σ", "log of the integral"]
rows = list(zip(multiples, table, strict=True))
Markdown(tabulate(rows, headers, tablefmt="github", floatfmt=".1f"))
