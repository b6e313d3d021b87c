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
# # The ELBO where everything is known
#
# **What can we say about the bound, and about its gap, where every quantity has a closed form?** We can compute the posterior, the
# maximum of the bound and the cost of a diagonal covariance. We also get the rate at which more samples help, even where the weights
# have infinite variance. The code asserts each equation to many digits.
#
# {doc}`../idea/elbo` watches the bound of a VAE with one latent dimension, on six selected images. The end of this page does the same
# for the first fifty test images of another VAE. The data are the small digits that come with scikit-learn, without a download.

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

from book.machinery import live
from vaelib import TrainConfig, data, evaluation, models, objective, plots
from vaelib.training import fit

plt.rcParams.update(plots.STYLE)
BLUE = live.COLOURS["encoder"]
torch.set_default_dtype(torch.float64)  # until the images come

# %% [markdown]
# ## Probabilistic PCA: evidence and posterior in closed form
#
# Let the code have $K = 2$ dimensions and the observation $D = 3$. Let the decoder be linear and the noise Gaussian:
#
# $$
# z \sim \mathcal{N}(0, I), \qquad
# x \mid z \sim \mathcal{N}(W z + b, \; s^2 I).
# $$ (eq-elbo-model)
#
# This is a factor model, known as probabilistic PCA {cite}`tipping1999probabilistic`. $x = Wz + b + s\varepsilon$ with
# $\varepsilon \sim \mathcal{N}(0, I)$ is a sum of independent Gaussians. It is therefore Gaussian, and the covariances add:
#
# $$
# p(x) = \mathcal{N}(x; \; b, \; W W^\top + s^2 I).
# $$ (eq-elbo-marginal)
#
# Up to a constant, the posterior's logarithm is $-\tfrac12 z^\top z - \|x - b - Wz\|^2 / (2 s^2)$. Sorted by powers of $z$, it is
# $-\tfrac12 z^\top \Lambda z + z^\top W^\top (x - b) / s^2$. This is the exponent of a Gaussian with the *precision* (inverse
# covariance) $\Lambda$ and the mean $m$:
#
# $$
# p(z \mid x) = \mathcal{N}(z; \; m, \; \Lambda^{-1}), \qquad
# \Lambda = I + \frac{W^\top W}{s^2}, \qquad
# m = \Lambda^{-1} \, \frac{W^\top (x - b)}{s^2} .
# $$ (eq-elbo-posterior)
#
# ```{admonition} A slip in section 2.1
# :class: margin
# The paper {cite}`astorga2025recreating` says there that even the simplest likelihood functions don't allow an exact solution. This
# one does: we have its posterior here, and exercise 3 climbs to the exact maximum of the likelihood.
# ```
#
# Two checks follow. The first compares $p(x)$ with the integral, computed as a sum over a grid of codes. (For Gaussians, such a sum is
# exact to rounding if the grid is a few times finer than they are wide.) The second is Bayes' rule,
# $p(x) = p(x \mid z) \, p(z) / p(z \mid x)$ *for every* $z$: with a wrong $m$ or $\Lambda$, the right side would depend on $z$.

# %%
W = torch.tensor([[1.0, 1.0], [2.0, 1.0], [1.0, 2.0]])
b = torch.tensor([0.0, 1.0, 0.0])
s = 0.5
D, K = W.shape
x = torch.tensor([0.0, 2.25, -1.25])  # the observation of this page
prior = MultivariateNormal(torch.zeros(K), torch.eye(K))
evidence = MultivariateNormal(b, W @ W.T + s**2 * torch.eye(D))
log_evidence = evidence.log_prob(x).item()
precision = torch.eye(K) + W.T @ W / s**2
m = torch.linalg.solve(precision, W.T @ (x - b) / s**2)
posterior = MultivariateNormal(m, precision_matrix=precision)

# %% tags=["hide-input"]
axis = torch.linspace(-9, 9, 361)
grid = torch.cartesian_prod(axis, axis)  # (361², 2), all pairs


def integral(values):
    """Over the plane of codes, of values on the grid."""
    return (values.sum() * (axis[1] - axis[0]) ** 2).item()


def log_joint(z):
    noise = torch.full((D,), 2 * math.log(s))  # log of the variance
    log_likelihood = objective.gaussian_log_prob(x, z @ W.T + b, noise)
    return log_likelihood + prior.log_prob(z)


assert math.isclose(math.log(integral(log_joint(grid).exp())), log_evidence)
z = 2 * torch.randn(1000, K, generator=torch.Generator().manual_seed(0))
ratio = log_joint(z) - posterior.log_prob(z)
assert (ratio - log_evidence).abs().max() < 1e-9
print(f"log p(x) = {log_evidence:.4f} nats")
print(
    "posterior: mean", [round(value, 6) for value in m.tolist()], end=", "
)
print("precision", precision.tolist())

# %% [markdown]
# ## The ELBO of a Gaussian q
#
# Let $q = \mathcal{N}(\mu, C)$, and let $\Delta = x - b - W\mu$ be the part of $x$ that its mean doesn't explain. Then
# $x - b - Wz = \Delta - W(z - \mu)$. Its expected squared length is $\|\Delta\|^2$ plus the variances of $W(z - \mu)$, because the
# cross term has mean zero. These variances add up to the trace of $W C W^\top$, so
#
# $$
# \mathbb{E}_q\left[ \log p(x \mid z) \right]
# = -\frac{D}{2} \log (2 \pi s^2)
#   - \frac{\|\Delta\|^2 + \operatorname{tr}(W C W^\top)}{2 s^2} .
# $$ (eq-elbo-reconstruction)
#
# Minus PyTorch's KL to the prior, this is the bound {eq}`eq-elbo-terms`. PyTorch's KL to the posterior is the gap. We can therefore
# check {eq}`eq-elbo-gap` for any Gaussian: first for a hundred random ones, then for four that this page uses. These are the prior,
# the posterior, the *wide* $q$ with twice the posterior's covariance, and the *narrow* $q$ with a third of it.


# %%
def reconstruction(q):
    delta = x - b - W @ q.loc
    spread = (W @ q.covariance_matrix @ W.T).trace()
    constant = -D / 2 * math.log(2 * math.pi * s**2)
    return constant - (delta @ delta + spread) / (2 * s**2)


def elbo(q):
    return reconstruction(q) - kl_divergence(q, prior)


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

# %% tags=["hide-input"]
named = {
    "prior": prior,
    "wide": MultivariateNormal(m, 2 * posterior.covariance_matrix),
    "posterior": posterior,
    "narrow": MultivariateNormal(m, posterior.covariance_matrix / 3),
}
table = []
for name, q in named.items():
    terms = reconstruction(q), kl_divergence(q, prior), elbo(q)
    row = [*terms, kl_divergence(q, posterior)]
    table.append([name, *(f"{value.item() + 0.0:.4f}" for value in row)])
headers = ["q", "reconstruction", "KL to the prior"]
headers += ["ELBO", "KL to the posterior"]
Markdown(tabulate(table, headers, tablefmt="pipe", disable_numparse=True))

# %% [markdown]
# Reconstruction minus KL to the prior is the ELBO, and ELBO plus KL to the posterior is $\log p(x)$. The prior as $q$ pays no KL and
# explains the observation badly. The narrow $q$ explains it best, but pays too much.
#
# ## Gradient ascent on the ELBO, and the mean-field gap
#
# Gradient ascent doesn't need the posterior: it uses only the bound. Write $C = L L^\top$ with a lower triangular $L$, start at the
# prior ($\mu = 0$, $L = I$), and repeat, with a small step size $\eta$,
#
# $$
# \mu \leftarrow \mu + \eta \, \frac{\partial \mathcal{L}}{\partial \mu}, \qquad
# L \leftarrow L + \eta \, \frac{\partial \mathcal{L}}{\partial L} .
# $$ (eq-elbo-ascent)
#
# Which surface does it climb? By {eq}`eq-elbo-bound`, the bound is $\mathbb{E}_q[\log p(x, z)]$ plus the *entropy*
# $-\mathbb{E}_q[\log q(z)]$, which keeps $q$ from becoming a spike at the most probable code. The parts that depend on $C$ and $\mu$
# are, up to constants:
#
# - From the joint log-density, which is $-\tfrac12 z^\top \Lambda z$ and terms linear in $z$:
#   $-\tfrac12 \operatorname{tr}(\Lambda C)$ from the covariance, and $-\tfrac12 (\mu - m)^\top \Lambda (\mu - m)$ from the mean.
# - From the entropy of a Gaussian: $\tfrac12 \log \det C$.
#
# The parts with the covariance add up to $-\tfrac12 \operatorname{tr}(L^\top \Lambda L) + \sum_k \log L_{kk}$. All this is concave, so
# the bound has one summit. With small enough steps, every start with a positive diagonal leads there.
#
# A VAE's encoder gives a *diagonal* covariance (*mean field*). Such a Gaussian can't be a tilted ellipse, so some gap must remain.
# For a diagonal $C$, the part with the covariance is $\sum_k (-\tfrac12 \Lambda_{kk} C_{kk} + \tfrac12 \log C_{kk})$. It is largest at
# $C_{kk} = 1/\Lambda_{kk}$, where it is $-\tfrac{K}{2} - \tfrac12 \sum_k \log \Lambda_{kk}$. At the posterior,
# $C = \Lambda^{-1}$, it is $-\tfrac{K}{2} - \tfrac12 \log \det \Lambda$. The difference is the gap that remains:
#
# $$
# \min_{\text{diagonal } q} \mathrm{KL}\left(q \,\|\, p(z \mid x)\right)
# = \frac12 \left( \sum_{k=1}^{K} \log \Lambda_{kk}
#   - \log \det \Lambda \right).
# $$ (eq-elbo-diagonal)


# %%
def ascend(mask, steps=300, size=0.02):
    """Gradient ascent on μ and on those entries of L where mask is 1."""
    mu = torch.zeros(K, requires_grad=True)
    L = torch.eye(K, requires_grad=True)
    history = []
    for _ in range(steps):
        q = MultivariateNormal(mu, scale_tril=L * mask)
        history.append(elbo(q))
        slopes = torch.autograd.grad(history[-1], (mu, L))
        with torch.no_grad():
            mu += size * slopes[0]
            L += size * slopes[1]
    return q, torch.stack(history).detach()


# %%
full, full_history = ascend(torch.ones(K, K).tril())
off = full.covariance_matrix - posterior.covariance_matrix
assert (full.loc - m).abs().max() < 1e-9 and off.abs().max() < 1e-9
assert abs(elbo(full).item() - log_evidence) < 1e-9

diagonal, diagonal_history = ascend(torch.eye(K))
remaining = 0.5 * (precision.diag().log().sum() - precision.logdet()).item()
off = diagonal.variance - 1 / precision.diag()
assert (diagonal.loc - m).abs().max() < 1e-9 and off.abs().max() < 1e-9
assert abs(log_evidence - elbo(diagonal).item() - remaining) < 1e-9
print(f"the best diagonal q misses log p(x) by {remaining:.4f} nats")
print(f"its variances {diagonal.variance.detach().numpy().round(4)}")
print(f"the posterior's {posterior.variance.numpy().round(4)}")

# %% mystnb={"figure": {"caption": "Left: the posterior (shaded: two standard deviations around its mean), the start of both climbs (dotted), and the best diagonal q (dashed). Right: the gap during gradient ascent. With a full covariance, the gap falls to the size of rounding errors (drawn at 1e-14). With a diagonal covariance, it stops at the value of the closed form (dotted line).", "name": "fig-elbo-ascent"}, "image": {"alt": "Left: a thin tilted ellipse, a small circle within it, and a large circle around zero. Right: gap on a logarithmic axis against the steps of gradient ascent; one curve falls in a straight line by more than ten powers of ten, the other levels off at once."}} tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(plots.WIDTH, 2.6))
plt.close(figure)
angle = torch.linspace(0, 2 * math.pi, 200)
circle = 2 * torch.stack([angle.cos(), angle.sin()], 1)
left.fill(*(m + circle @ posterior.scale_tril.T).T, color="0.8")
left.plot(*circle.T, ":", color="0.4", label="start")
shape = diagonal.loc + circle @ diagonal.scale_tril.T
left.plot(*shape.detach().T, "--", color="C1", label="diagonal")
left.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
for name, history in (
    ("full covariance", full_history),
    ("diagonal covariance", diagonal_history),
):
    right.semilogy((log_evidence - history).clamp(1e-14), label=name)
right.axhline(remaining, color="0.4", ls=":")
right.set(xlabel="step", ylabel="log p(x) − ELBO, nats", ylim=(1e-15, 100))
right.legend(loc="center right")
figure

# %% [markdown]
# The best diagonal $q$ is narrower than the posterior in each coordinate, because it must avoid codes that the tilted posterior
# excludes.
#
# ## The importance-weighted bound: at what rate?
#
# Measure weights in units of $p(x)$: by Bayes' rule $r(z) = w(z)/p(x) = p(z \mid x)/q(z)$, with $\mathbb{E}_q[r] = 1$ and
# $V = \operatorname{Var}_q[r]$. Write the mean of $S$ of them as $1 + \delta$. Then $\delta$ has mean 0 and variance $V/S$. For small
# $\delta$, $\log(1 + \delta) \approx \delta - \delta^2/2$, whose expectation is $-V/(2S)$. So if $V$ is finite, and under mild
# conditions {cite}`domke2018importance`,
#
# $$
# \log p(x) - \mathcal{L}_S(q) \approx \frac{V}{2 S}
# \qquad \text{for large } S .
# $$ (eq-elbo-rate)
#
# For Gaussians $V$ has a closed form. Let $P = C^{-1}$ be the precision of $q$, $d = \mu - m$ the distance of the means, and
# $A = 2\Lambda - P$. If $A$ is positive definite, then
#
# $$
# 1 + V = \int \frac{p(z \mid x)^2}{q(z)} \, dz
# = \frac{\det \Lambda}{\sqrt{\det P \, \det A}}
#   \exp\left( d^\top P A^{-1} \Lambda \, d \right).
# $$ (eq-elbo-variance)
#
# If $A$ isn't positive definite, the integral is infinite: in every direction, the variance of $q$ must exceed *half* the posterior's.
#
# ```{dropdown} Derivation of the closed form
# The first equality holds because $\mathbb{E}_q[r^2] = 1 + V$. For the second, put $u = z - m$. The exponent of
# $p(z \mid x)^2 / q(z)$ is
#
# $$
# -u^\top \Lambda u + \tfrac12 (u - d)^\top P (u - d)
# = -\tfrac12 u^\top A u - u^\top P d + \tfrac12 d^\top P d .
# $$
#
# The integral of $\exp(-\tfrac12 u^\top A u - u^\top h)$ over all $u$ is $(2\pi)^{K/2} (\det A)^{-1/2} \exp(\tfrac12 h^\top A^{-1} h)$
# if $A$ is positive definite, and infinite otherwise. With $h = P d$ the exponent is
# $\tfrac12 d^\top (P A^{-1} P + P) d
# = \tfrac12 d^\top P A^{-1} (P + A) d = d^\top P A^{-1} \Lambda d$, because $P + A = 2 \Lambda$. The factors in front of the three
# Gaussians give $(2\pi)^{-K/2} \det \Lambda \, (\det P)^{-1/2}$.
# ```


# %%
def weight_variance(q):
    P, d = q.precision_matrix, q.loc - m
    A = 2 * precision - P
    if torch.linalg.eigvalsh(A).min() <= 0:
        return math.inf
    exponent = d @ P @ torch.linalg.solve(A, precision @ d)
    second = precision.det() / (P.det() * A.det()).sqrt() * exponent.exp()
    return second.item() - 1


# %% tags=["hide-input"]
beside = MultivariateNormal(0.7 * m, 0.3 * torch.eye(K))
for q in (named["wide"], prior, beside):
    log_r = posterior.log_prob(grid) - q.log_prob(grid)
    second = integral((q.log_prob(grid) + 2 * log_r).exp())
    assert math.isclose(second, 1 + weight_variance(q))
variances = {name: weight_variance(q) for name, q in named.items()}
assert variances["narrow"] == math.inf
for name in ("wide", "prior", "narrow"):
    print(f"{name}: V = {variances[name]:.4f}")

# %% [markdown]
# The narrow $q$ has the right mean, and its ELBO is far better than the prior's. But it almost never draws from the outer
# parts of the posterior. When it does, the weight is enormous.
#
# ### The gap for any S, as an integral
#
# How large must $S$ be for {eq}`eq-elbo-rate`, and what replaces it where $V$ is infinite? Measurements can't answer: noise hides the
# law, even with a million weights, and a sample misses the rare large weights. But we can compute the gap exactly. For a positive
# number $a$, $-\log a = \int_0^\infty (e^{-ta} - e^{-t}) \, dt / t$. Let $a$ be the mean of $S$ weights, take the average over all
# draws, and call $\varphi(u) = \mathbb{E}_q[e^{-u r}]$ the Laplace transform of a single weight. Then with $u = t / S$
#
# $$
# \log p(x) - \mathcal{L}_S
# = \int_0^\infty \left( \varphi(u)^S - e^{-S u} \right) \frac{du}{u} .
# $$ (eq-elbo-laplace)
#
# For the wide and the narrow $q$, $\varphi$ is a sum along a line. Let $q = \mathcal{N}(m, c \Lambda^{-1})$ with $K = 2$, and
# $2 c y = (z - m)^\top \Lambda (z - m)$. Dividing the densities gives $r = c \, e^{(1 - c) y}$. Under $q$, $2y$ is a sum of two squared
# standard normal numbers, so $y$ has the density $e^{-y}$ (integrate in polar coordinates). With $U = e^{-y}$, which is uniform between
# 0 and 1,
#
# $$
# r = c \, U^{\,c - 1} , \qquad
# \mathbb{E}_q[r^n] = \frac{c^n}{1 + n (c - 1)} .
# $$ (eq-elbo-uniform)
#
# (The moment is infinite if its denominator isn't positive.) The weights of the wide $q$, with $c = 2$, are simply *uniform between 0
# and $2\,p(x)$*. For the prior, $\varphi$ is a sum over the grid.

# %%
log_u = torch.arange(-40.0, 700.0, 0.5)
y = (torch.arange(70_000) + 0.5) / 100  # to 700


def exact_gaps(probability, r, S):
    """The gap for each S, from weights in units of p(x)."""
    probability = probability / probability.sum()
    r = r / (probability @ r)  # their mean is 1, on every grid
    u = log_u.exp()
    log_phi = [torch.log1p(probability @ torch.expm1(-v * r)) for v in u]
    log_phi = S[:, None] * torch.stack(log_phi)
    return (log_phi.exp() - (-S[:, None] * u).exp()).sum(1) / 2


# %% tags=["hide-input"]
sizes = [2**power for power in range(11)]
S = torch.tensor([*sizes, *(10.0**power for power in range(4, 9))])
at_prior = prior.log_prob(grid).exp()
on_prior = (posterior.log_prob(grid) - prior.log_prob(grid)).exp()
exact = {
    "wide": exact_gaps((-y).exp(), 2 * (-y).exp(), S),
    "prior": exact_gaps(at_prior, on_prior, S),
    "narrow": exact_gaps((-y).exp(), (2 / 3 * y).exp() / 3, S),
}
measured = {}
for name, gaps in exact.items():
    q, generator = named[name], torch.Generator().manual_seed(0)
    noise = torch.randn(2**21, K, generator=generator)
    z = q.loc + noise @ q.scale_tril.T
    log_r = log_joint(z) - q.log_prob(z) - log_evidence
    rows = []
    for size in sizes:
        bounds = objective.importance_weighted_bound(log_r.view(size, -1))
        rows.append((-bounds.mean(), bounds.std() / math.sqrt(len(bounds))))
    measured[name] = torch.tensor(rows).T
    line, error = measured[name]
    assert ((line - gaps[: len(sizes)]).abs() < 4 * error + 1e-5).all()
    by_torch = kl_divergence(q, posterior).item()
    assert math.isclose(gaps[0].item(), by_torch, rel_tol=1e-4)
    print(f"{name}: S = 1 {gaps[0]:.4f}, KL {by_torch:.4f}", end="; ")
    print(f"S = 16 {gaps[4]:.4f}, measured {line[4]:.4f} ± {error[4]:.4f}")

# %% [markdown]
# At $S = 1$ the integral equals the KL, and at each $S$ it agrees with two million weights. So we can use it for sizes that are too
# large to draw.
#
# ### If the variance is infinite
#
# From {eq}`eq-elbo-uniform`, for $c < 1$ a weight in units of $p(x)$ exceeds $t \geq c$ with the probability $(t/c)^{-\alpha}$, where
# $\alpha = 1/(1 - c)$. For $c < \tfrac12$ we have $1 < \alpha < 2$, so the mean exists but the variance is infinite. A sample of $S$
# weights usually underestimates $p(x)$, until a single weight of the order of $S$ makes up for it. The probability that one of $S$
# weights is that large is proportional to $S^{1 - \alpha}$, and so is the gap:
#
# $$
# \log p(x) - \mathcal{L}_S \approx
# \frac{\pi \, c^\alpha}{\sin(\pi (\alpha - 1))} \, S^{1 - \alpha}
# \qquad \text{for large } S \text{ and } 1 < \alpha < 2.
# $$ (eq-elbo-slow)
#
# For the narrow $q$, $c = \tfrac13$ and $\alpha = \tfrac32$: you need four times as many samples to halve the gap, not twice as many.
#
# ```{dropdown} Where the constant comes from
# Let one weight be as large as $S v$. It raises the mean of the sample by $v$. The gap is the expectation of
# $\bar r - 1 - \log \bar r$, which this weight raises from about 0 to $g(v) = v - \log(1 + v)$. The expected number of weights beyond
# $S v$ in a sample is $S \, (S v / c)^{-\alpha} = c^\alpha S^{1 - \alpha} v^{-\alpha}$. The gap is the sum of $g$ over all sizes, and
# integrating by parts,
#
# $$
# \int_0^\infty g'(v) \, c^\alpha S^{1 - \alpha} v^{-\alpha} \, dv
# = c^\alpha S^{1 - \alpha} \int_0^\infty \frac{v^{1 - \alpha}}{1 + v} \, dv
# = c^\alpha S^{1 - \alpha} \, \frac{\pi}{\sin(\pi (\alpha - 1))} .
# $$
#
# The last integral is a beta function with arguments $2 - \alpha$ and $\alpha - 1$. It is finite for $1 < \alpha < 2$.
# ```
#
# Both laws are limits. We check them at a million and at a hundred million samples, where they must hold to three digits.

# %%
alpha = 1 / (1 - 1 / 3)
constant = math.pi * 3**-alpha / math.sin(math.pi * (alpha - 1))
laws = {name: variances[name] / (2 * S) for name in ("wide", "prior")}
laws["narrow"] = constant * S ** (1 - alpha)
for name, law in laws.items():
    off = (exact[name] / law - 1).abs()
    far = 1e8 if name == "narrow" else 1e6
    assert off[far <= S].max() < 1e-3
    near = S[off < 0.1].min().item()
    print(f"{name}: within a tenth of its law from S = {near:,.0f} on")
crossing = S[exact["prior"] < exact["narrow"]].min().item()
print(f"the prior is ahead of the narrow q from S = {crossing:,.0f} on")

# %% mystnb={"figure": {"caption": "Left: the gap of the importance-weighted bound, exact (lines) and measured (dots, bars of two standard errors; dots smaller than their bars are left out). Dashed: the laws for large S (V/(2S), and the law for infinite variance for the narrow q). Right: the exact gap divided by its law, which tends to 1.", "name": "fig-elbo-rate"}, "image": {"alt": "Left: three falling lines on logarithmic axes with points on them, two of which join dashed lines of slope minus one, the third one of slope minus one half. Right: three lines that go to one."}} tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(plots.WIDTH, 3))
plt.close(figure)
for number, (name, gaps) in enumerate(exact.items()):
    colour = f"C{number}"
    line, error = measured[name]
    clear = line > 2 * error
    drawn = torch.tensor(sizes)[clear], line[clear], 2 * error[clear]
    left.errorbar(*drawn, fmt="o", ms=3, color=colour)
    left.plot(S, gaps, color=colour, lw=1)
    left.plot(S, laws[name], "--", color=colour, lw=1)
    right.plot(S, gaps / laws[name], color=colour, label=name)
for plot in (left, right):
    plot.set(xscale="log", yscale="log", xlabel="$S$")
left.set(ylabel="gap, nats", ylim=(1e-7, 50), xlim=(0.8, 1e6))
right.set(
    yscale="linear", ylabel="gap / law", xlim=(0.8, 1e6), ylim=(0, 2.5)
)
right.legend()
figure

# %% [markdown]
# "Large" means much larger than $V$. With many samples, a $q$ that is too wide beats one that is too narrow. Even the prior overtakes
# the narrow $q$, whose ELBO is so much better. The standard error is computed from the drawn weights only, so it can't warn of a tail
# that the sample missed.
#
# ## Fifty images: approximation and amortisation gap
#
# {doc}`../idea/elbo` examines six images of MNIST. Here we train a VAE with $K = 1$ on the small digits for ten epochs, and examine its
# first fifty test images in the same way.

# %% tags=["hide-input"]
torch.set_default_dtype(torch.float32)
digits = data.load("digits")
torch.manual_seed(0)
line = models.mlp(digits.image_shape, latent_dim=1)
settings = TrainConfig(latent_dim=1, epochs=10)
with tempfile.TemporaryDirectory() as folder:
    history = fit(line, digits, settings, Path(folder, "K = 1"))
print(f"epoch 10: {history[-1]['train_elbo']:.0f} nats per image")

# %% tags=["hide-input"]
images = digits.test.images[:50]
pixels = data.to_float(images).double().flatten(1)  # (50, 784)
codes = torch.linspace(-6, 6, 4801, dtype=torch.float64)
step = (codes[1] - codes[0]).item()
decoder = copy.deepcopy(line.decoder.logits).double()
with torch.no_grad():
    logits = decoder(codes[:, None]).flatten(1)  # (4801, 784)
log_likelihood = torch.stack(
    [
        objective.bernoulli_log_prob(image.expand_as(logits), logits)
        for image in pixels
    ]
)  # (50, 4801)
joint = log_likelihood + Normal(0.0, 1.0).log_prob(codes)
log_p = torch.logsumexp(joint, 1) + math.log(step)
coarser = torch.logsumexp(joint[:, ::2], 1) + math.log(2 * step)
assert (log_p - coarser).abs().max() < 1e-3
log_posterior = joint - log_p[:, None]


def gap_of(mean, log_variance):
    """KL to the posterior of each image's q."""
    log_q = objective.gaussian_log_prob(
        codes[:, None], mean[:, None], log_variance[:, None]
    )
    return (log_q.exp() * step * (log_q - log_posterior)).sum(1)


# %% [markdown]
# To find each image's best Gaussian, we maximise the exact bound over its mean and log-variance. We take a hundred steps of Adam,
# starting from the mean and variance of the posterior. (Starting from the encoder's output, a climb can end at a lower maximum.) The
# gap that remains is at least the approximation gap.

# %%
encoded = [each.double() for each in evaluation.encode(line, images)]
gap = gap_of(*encoded)
true = log_posterior.exp() * step
true_mean = (true * codes).sum(1, keepdim=True)
true_variance = (true * (codes - true_mean) ** 2).sum(1, keepdim=True)
own = [
    each.clone().requires_grad_()
    for each in (true_mean, true_variance.log())
]
optimizer = torch.optim.Adam(own, lr=0.05)
for _ in range(100):
    optimizer.zero_grad()
    gap_of(*own).sum().backward()
    optimizer.step()
own = [each.detach() for each in own]
own_gap = gap_of(*own)
assert (own_gap > 0).all() and own_gap.mean() < gap.mean() / 10

# %% tags=["hide-input"]
table = [
    ("log p(x), on the grid", log_p.mean()),
    ("ELBO, the best Gaussian found", (log_p - own_gap).mean()),
    ("ELBO, the encoder's q", (log_p - gap).mean()),
    ("approximation gap", own_gap.mean()),
    ("amortisation gap", (gap - own_gap).mean()),
]
headers = ["mean over fifty test images", "nats per image"]
Markdown(tabulate(table, headers, tablefmt="pipe", floatfmt=".3f"))

# %% mystnb={"figure": {"caption": "Four test images, from the smallest gap to a large one (nats in the title): the true posterior over the one latent dimension (shaded), the encoder's q (solid), and the best Gaussian found for this image alone (dashed). The dashed curves fit the posteriors, while the encoder's can miss.", "name": "fig-elbo-posteriors"}, "image": {"alt": "Four plots of densities over z, each with a small picture of the digit: a shaded posterior, the encoder's bell curve, and a dashed bell curve."}} tags=["hide-input"]
figure, panels = plt.subplots(1, 4, figsize=(plots.WIDTH, 2.3))
plt.close(figure)
chosen = gap.argsort()[[0, 16, 33, 47]]
curves = [
    objective.gaussian_log_prob(codes[:, None], m[:, None], v[:, None])
    for m, v in (encoded, own)
]
for plot, image in zip(panels, chosen, strict=True):
    by_encoder, by_ascent = (curve[image].exp() for curve in curves)
    truth = log_posterior[image].exp()
    plot.fill_between(codes, truth, color="0.8", lw=0)
    plot.plot(codes, by_encoder, color=BLUE, lw=1.2)
    plot.plot(codes, by_ascent, "--", color="C1", lw=1.2)
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
# After so short a run, and on test images, the encoder causes nearly all of the gap. How close does the importance-weighted bound,
# `evaluation.log_prob`, come to $\log p(x)$ with this encoder? We compare it with a wider encoder: adding 2 to the log-variance
# multiplies every standard deviation by $e$.

# %% tags=["hide-input"]
wider = copy.deepcopy(line)
with torch.no_grad():
    wider.encoder.log_variance.bias += 2
table, short, stated = [], {}, {}
for name, each in (("as trained", line), ("made wider", wider)):
    q = [value.double() for value in evaluation.encode(each, images)]
    row = [(log_p - gap_of(*q)).mean().item()]
    for samples in (10, 100, 500):
        bounds, errors = evaluation.log_prob(each, images, samples)
        row.append(bounds.mean().item())
    short[name] = log_p - bounds  # of each image, at S = 500
    stated[name] = errors.square().sum().sqrt().item() / len(images)
    table.append([name, *row, log_p.mean().item(), stated[name]])
assert table[1][1] < table[0][1] < log_p.mean()  # wider: a worse ELBO
assert short["made wider"].mean().abs() < 4 * stated["made wider"]
assert short["as trained"].mean() > stated["as trained"]
headers = ["encoder", "ELBO", "S = 10", "S = 100", "S = 500"]
headers += ["log p(x)", "error stated at S = 500"]
Markdown(tabulate(table, headers, tablefmt="pipe", floatfmt=".2f"))

# %%
beside = ((encoded[0] - true_mean) / (encoded[1] / 2).exp()).abs()
width = (encoded[1] / 2).exp() / true_variance.sqrt()
missing = short["as trained"].sort(descending=True).values
print(f"q beside the posterior: median {beside.median():.1f} σ", end=", ")
print(f"at most {beside.max():.1f} σ; as wide: {width.median():.2f} times")
print(f"missed: {missing.sum():.1f} nats, one image {missing[0]:.1f}")
assert missing[0] > missing.sum() / 2 and width.median() > 0.8

# %% [markdown]
# As trained, the encoder has the better ELBO, but its importance-weighted bound misses $\log p(x)$ by more than twice the stated error. Made
# wider, it has the worse ELBO, but its bound reaches $\log p(x)$. The trained $q$ wasn't too narrow but in the wrong place, and a
# single image makes most of the difference.
#
# ## Exercises
#
# **1.** Compute the gap of the wide $q$ for $S = 1$ and for $S = 2$ by hand.
#
# ```{dropdown} Solution
# In units of $p(x)$ a weight is $2U$. For $S = 1$ the gap is $-\mathbb{E}[\log 2U] = -\log 2 + 1$, because
# $\int_0^1 \log u \, du = -1$. For $S = 2$ it is $-\mathbb{E}[\log(U_1 + U_2)]$. The sum $a$ of two uniform numbers has the density
# $a$ up to 1 and $2 - a$ from 1 to 2. With
#
# $$
# \int_0^1 a \log a \, da = -\tfrac14, \qquad
# \int_1^2 (2 - a) \log a \, da = 2 \log 2 - \tfrac54 ,
# $$
#
# the gap is $\tfrac32 - 2 \log 2$.
# ```

# %% tags=["hide-cell"]
by_pencil = torch.tensor([1 - math.log(2), 1.5 - 2 * math.log(2)])
assert (exact["wide"][:2] / by_pencil - 1).abs().max() < 1e-4
print("gaps by pencil:", [round(value, 4) for value in by_pencil.tolist()])

# %% [markdown]
# **2.** Take the prior as $q$, and a model of $K$ independent copies: a code with $K$ dimensions and $K$ pixels, each
# $x_k = 3 z_k + \varepsilon_k$ with $\varepsilon_k \sim \mathcal{N}(0, 1)$, and $x_k = 3$ for all $k$. How does $V$ depend on $K$? How
# many samples do you need, by {eq}`eq-elbo-rate`, to come within 0.1 nats of $\log p(x)$?
#
# ```{dropdown} Solution
# The weights of independent coordinates multiply, and so do their second moments: $1 + V = (1 + V_1)^K$, where $V_1$ belongs to one
# coordinate. In {eq}`eq-elbo-variance` with one dimension, $\Lambda = 10$, $P = 1$, $A = 19$ and $d = -m = -\tfrac{9}{10}$, so
# $1 + V_1 = \tfrac{10}{\sqrt{19}} \exp(\tfrac{8.1}{19})$. The number of samples is $V / 0.2$. It grows exponentially with $K$, just
# like the grid.
# ```
#
# Solution to exercise 2, in numbers. A grid checks the one-dimensional $V_1$:

# %% tags=["hide-cell"]
z = torch.linspace(-12, 12, 4801, dtype=torch.float64)
base, target = Normal(0.0, 1.0), Normal(0.9, 10**-0.5)
second = (2 * target.log_prob(z) - base.log_prob(z)).exp().sum() * 0.005
one = 10 / math.sqrt(19) * math.exp(8.1 / 19)
assert math.isclose(second.item(), one, rel_tol=1e-6)
table = [[k, f"{(one**k - 1) / 0.2:.0e}"] for k in (1, 2, 8, 16, 64)]
assert one**64 > 1e20
Markdown(tabulate(table, ["K", "samples"], "pipe", disable_numparse=True))

# %% [markdown]
# **3.** The paper starts from expectation-maximisation (EM), which climbs the same bound in turns. The E-step sets each $q_i$ to the
# posterior of $x_i$. The M-step holds these $q_i$ fixed, and chooses the $W$ and $s^2$ that maximise the average bound. Write $m_i$ and
# $C$ for the posterior's mean and covariance, $a_i = x_i - b$, and $b$ for the mean of the data. Derive the M-step, and show that no
# step lowers the average $\log p(x)$.
#
# ```{dropdown} Solution
# After the E-step the gap is zero, so the bound is $\log p(x)$. The M-step raises the bound. The new $\log p(x)$ is at least the raised
# bound, which is at least the old $\log p(x)$.
#
# For the M-step, only the reconstruction terms {eq}`eq-elbo-reconstruction` matter. Setting their derivatives to zero gives
# $W = \left(\sum_i a_i m_i^\top\right) \left(\sum_i (m_i m_i^\top + C)\right)^{-1}$. The new $s^2$ is the mean over $i$ of
# $\|a_i - W m_i\|^2 + \operatorname{tr}(W C W^\top)$, divided by $D$.
#
# For this model we know the summit {cite}`tipping1999probabilistic`. Let $\ell_1 \geq \dots \geq \ell_D$ be the eigenvalues of the
# data's covariance. The best $s^2$ is the mean of the last $D - K$ of them, and the covariance of $x$ keeps the first $K$ as they are.
# ```
#
# Solution to exercise 3, on 500 draws from the page's own model: the average log p(x) never falls, and ends at the summit.

# %% tags=["hide-cell"]
generator = torch.Generator().manual_seed(2)
z, noise = (
    torch.randn(500, size, generator=generator, dtype=torch.float64)
    for size in (K, D)
)
a = z @ W.T + s * noise
a = a - a.mean(0)
covariance = a.T @ a / len(a)
found, variance = torch.eye(D, K, dtype=torch.float64), 1.0  # W and s²
eye, climb = torch.eye(D, dtype=torch.float64), []
for _ in range(500):
    marginal = found @ found.T + variance * eye
    climb.append(
        -0.5 * (2 * math.pi * marginal).logdet()
        - 0.5 * torch.linalg.solve(marginal, covariance).trace()
    )
    C = torch.linalg.inv(eye[:K, :K] + found.T @ found / variance)  # E-step
    means = a @ found @ C / variance
    second = means.T @ means / len(a) + C
    found = torch.linalg.solve(second, means.T @ a / len(a)).T  # M-step
    left_over = (a - means @ found.T).square().sum(1).mean()
    variance = (left_over + (found @ C @ found.T).trace()) / D
climb = torch.stack(climb)
assert (climb.diff() > -1e-12).all()
eigenvalues = torch.linalg.eigvalsh(covariance)
eigenvalues[: D - K] = eigenvalues[: D - K].mean()
summit = -0.5 * (D * math.log(2 * math.pi) + eigenvalues.log().sum() + D)
assert abs(climb[-1] - summit) < 1e-6
print(f"from {climb[0]:.3f} to {climb[-1]:.3f} nats per observation")

# %% [markdown]
# **4.** Consider the VAE above, and an image for which the encoder gives $\sigma^2 < \tfrac12$. Show that the variance of its weights is
# infinite. Why don't samples show it?
#
# ```{dropdown} Solution
# The decoder consists of linear layers and ReLUs. Its logits are therefore piecewise linear in $z$, and at most proportional to $|z|$
# far out. The log-likelihood {eq}`eq-elbo-bernoulli`, with a sigmoid's $\pi$, is at least minus the sum of the logits' absolute values,
# up to a constant. So for some $\kappa$, $\log p(x, z)$ is at least $-\tfrac12 z^2 - \kappa |z|$, up to a constant. The exponent of
# $p(x, z)^2 / q(z)$ is then at least $-z^2 + z^2/(2\sigma^2)$, up to terms linear in $|z|$. If $\sigma^2 < \tfrac12$ it grows without
# limit, and the integral is infinite.
#
# But as the table below shows, the growth starts many $\sigma$ away from the mean. Samples fall within a few $\sigma$.
# ```
#
# Solution to exercise 4: for the first image, the logarithm of the integral of $p(z \mid x)^2 / q(z)$, up to larger and larger
# multiples of $\sigma$ from the mean.

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
    log_r = objective.bernoulli_log_prob(
        pixels[0].expand_as(logits), logits
    )
    log_r = log_r + Normal(0.0, 1.0).log_prob(z) - log_p[0]
    log_square = 2 * log_r - Normal(mean, sigma).log_prob(z)
    table.append((log_square.logsumexp(0) + (z[1] - z[0]).log()).item())
assert table == sorted(table)
assert table[-1] > table[0] + 1000
headers = ["cut at, in σ", "log of the integral"]
rows = list(zip(multiples, table, strict=True))
Markdown(tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f"))
