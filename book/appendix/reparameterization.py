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
# # Gradients through chance: proofs and checks
#
# **Are the statements of {doc}`../idea/reparameterization` right?** Yes: this page proves them and checks each by a computation, mostly
# without random numbers. They concern the estimators' means and variances, the cost of the leave-one-out baseline, discrete codes, and the
# codes' share of a minibatch's noise. The notation is the same, and in addition $\delta_k = \mu_k - c_k$, $F = \mathbb{E}[f]$,
# $V = \operatorname{Var}[f]$.

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown
from tabulate import tabulate
from torch.distributions import Bernoulli, RelaxedBernoulli

from vaelib import plots

plt.rcParams.update(plots.STYLE)

mean = torch.tensor([0.7, -1.2], dtype=torch.float64)
sigma = torch.exp(torch.tensor([-0.5, 0.3], dtype=torch.float64))
c = torch.tensor([-0.3, 0.4], dtype=torch.float64)
a = torch.tensor([0.5, -0.3], dtype=torch.float64)
delta = mean - c

# %% [markdown]
# ## Means, by quadrature
#
# We can compute a mean over a Gaussian in two dimensions without random numbers. Gauss–Hermite quadrature replaces it by a weighted sum
# over a grid of $\varepsilon$. With 40 points along each axis, the sum is exact for polynomials up to degree 79. For the quadratic
# $f = \sum_k (z_k - c_k)^2$
#
# $$
# J = \sum_k \left(\delta_k^2 + \sigma_k^2\right), \qquad
# \frac{\partial J}{\partial \mu_k} = 2 \delta_k, \qquad
# \frac{\partial J}{\partial \ell_k} = \sigma_k^2 ,
# $$ (eq-rpa-quadratic)
#
# because the mean of a square is the square of the mean plus the variance. For $f = e^{a \cdot z}$, whose exponent is Gaussian (complete
# the square),
#
# $$
# J = \exp \sum_k \left(a_k \mu_k + \tfrac12 a_k^2 \sigma_k^2\right), \qquad
# \frac{\partial J}{\partial \mu_k} = a_k J, \qquad
# \frac{\partial J}{\partial \ell_k} = \tfrac12 a_k^2 \sigma_k^2 J .
# $$ (eq-rpa-exponential)
#
# The path derivative {eq}`eq-rp-path` and the score function {eq}`eq-rp-score`, with four baselines, must have these means to nine digits.


# %%
points, weights = np.polynomial.hermite_e.hermegauss(40)
points, weights = torch.from_numpy(points), torch.from_numpy(weights)
grid = torch.cartesian_prod(points, points)  # (1600, 2), values of ε
weights = torch.cartesian_prod(weights, weights).prod(1) / (2 * math.pi)


def average(values):
    """The mean over ε of values that are given on the grid."""
    return torch.tensordot(weights, values, 1)


def variance(values):
    return average(values**2) - average(values) ** 2


z = mean + sigma * grid
score = torch.cat([grid / sigma, (grid**2 - 1) / 2], 1)  # (1600, 4)
quadratic, exponential = (z - c).square().sum(1), torch.exp(z @ a)
J = torch.exp(a @ mean + (a * sigma).square().sum() / 2)
cases = {  # values, slopes, exact gradient
    "quadratic": (quadratic, 2 * (z - c), torch.cat([2 * delta, sigma**2])),
    "exponential": (
        exponential,
        a * exponential[:, None],
        torch.cat([a * J, (a * sigma) ** 2 * J / 2]),
    ),
}
for name, (values, slopes, gradient) in cases.items():
    path = torch.cat([slopes, slopes * sigma * grid / 2], 1)
    torch.testing.assert_close(average(path), gradient, rtol=1e-9, atol=0)
    for b in (0, -500, 3, 40):
        found = average((values - b)[:, None] * score)
        torch.testing.assert_close(found, gradient, rtol=0, atol=1e-9)
    print(f"{name}:", gradient.numpy().round(6))

# %% [markdown]
# ## Variances for the quadratic
#
# Take the derivative in one mean, $\mu_i$, from one draw. The path derivative is $2(z_i - c_i) = 2(\delta_i + \sigma_i \varepsilon_i)$,
# with the variance $4 \sigma_i^2$. For the score function we need
#
# $$
# F = \sum_k \left(\delta_k^2 + \sigma_k^2\right), \qquad
# V = \sum_k \left(4 \delta_k^2 \sigma_k^2 + 2 \sigma_k^4\right).
# $$ (eq-rpa-moments)
#
# $V$ follows from $f = \sum_k (\delta_k^2 + 2 \delta_k \sigma_k \varepsilon_k + \sigma_k^2 \varepsilon_k^2)$, because $\varepsilon_k$ and
# $\varepsilon_k^2$ are uncorrelated and have the variances 1 and 2. We also need $\mathbb{E}[(f - b)^2 \varepsilon_i^2]$. The normal
# density has $\varphi''(t) = (t^2 - 1)\, \varphi(t)$. Integrating by parts twice moves these derivatives to a smooth function $h$ of
# $\varepsilon$:
#
# $$
# \mathbb{E}\left[h\, (\varepsilon_i^2 - 1)\right]
#   = \mathbb{E}\left[\frac{\partial^2 h}{\partial \varepsilon_i^2}\right].
# $$ (eq-rpa-parts)
#
# Take $h = (f - b)^2$, whose mean is $(F - b)^2 + V$. Its second derivative is $2 f'^2 + 2 (f - b) f''$, with
# $f' = 2 \sigma_i (\delta_i + \sigma_i \varepsilon_i)$ and $f'' = 2 \sigma_i^2$. The mean of that is
# $8 \sigma_i^2 (\delta_i^2 + \sigma_i^2) + 4 \sigma_i^2 (F - b)$. The two means add up to $\mathbb{E}[h\, \varepsilon_i^2]$. Divide by
# $\sigma_i^2$ and subtract the square of the estimator's mean, $(2 \delta_i)^2$:
#
# $$
# \operatorname{Var}_{\text{score}}(b) = \frac{(F - b)^2 + V}{\sigma_i^2}
#   + 4 (F - b) + 4 \delta_i^2 + 8 \sigma_i^2 .
# $$ (eq-rpa-variance)
#
# With $\delta_k = \sigma_k = 1$ in all coordinates, $F = 2K$ and $V = 6K$. The variance is then $4K^2 + 14K + 12$ at $b = 0$ and $6K + 12$
# at $b = F$.
#
# **The best constant baseline.** The variance of $(f - b)\, \partial \log q$ is a parabola in $b$ with its minimum at
# $\mathbb{E}[f (\partial \log q)^2] / \mathbb{E}[(\partial \log q)^2]$. Here this is $b = F + 2 \sigma_i^2$, where the variance is lower
# than at $b = F$ by $4 \sigma_i^2$. That is little if $K$ is large.


# %%
def score_variance(delta, sigma, b):
    """Of each mean's derivative."""
    F = (delta**2 + sigma**2).sum()
    V = (4 * (delta * sigma) ** 2 + 2 * sigma**4).sum()
    rest = 4 * (F - b) + 4 * delta**2 + 8 * sigma**2
    return ((F - b) ** 2 + V) / sigma**2 + rest


F, scores = average(quadratic), score[:, :2]
for b in (0, F, 10):
    found = variance((quadratic - b)[:, None] * scores)
    torch.testing.assert_close(found, score_variance(delta, sigma, b))
torch.testing.assert_close(variance(2 * (z - c)), 4 * sigma**2)

best = average(quadratic[:, None] * scores**2) / average(scores**2)
torch.testing.assert_close(best, F + 2 * sigma**2)
found = variance((quadratic[:, None] - best) * scores)
by_formula = score_variance(delta, sigma, F) - 4 * sigma**2
torch.testing.assert_close(found, by_formula)

for K in (1, 8, 128):
    one = torch.ones(K, dtype=torch.float64)
    for b, known in ((0, 4 * K**2 + 14 * K + 12), (2 * K, 6 * K + 12)):
        assert score_variance(one, one, b)[0] == known
print("path:           ", (4 * sigma**2).numpy().round(2))
print("score, b = 0:   ", score_variance(delta, sigma, 0).numpy().round(2))
print("score, b = F:   ", score_variance(delta, sigma, F).numpy().round(2))
print("score, best b:  ", found.numpy().round(2))

# %% [markdown]
# ## Variances for a sine
#
# Let $f(z) = \sin \omega z$ with $\mu = 0$, $\sigma = 1$, so that $z = \varepsilon$. Both estimators have the mean
# $\mathbb{E}[\omega \cos \omega \varepsilon] = \omega e^{-\omega^2/2}$, by the characteristic function
# $\mathbb{E}[\cos t \varepsilon] = e^{-t^2/2}$. Their mean squares follow from $\cos^2 u = \frac12 (1 + \cos 2u)$ and
# $\sin^2 u = \frac12 (1 - \cos 2u)$. The score function's also needs
# $\mathbb{E}[\varepsilon^2 \cos t \varepsilon] = -\frac{d^2}{dt^2} e^{-t^2/2} = (1 - t^2)\, e^{-t^2/2}$ at $t = 2 \omega$:
#
# $$
# \begin{aligned}
# \operatorname{Var}_{\text{path}} &= \tfrac12 \omega^2 \left(1 + e^{-2\omega^2}\right) - \omega^2 e^{-\omega^2}, \\
# \operatorname{Var}_{\text{score}} &= \tfrac12 \left(1 - (1 - 4 \omega^2)\, e^{-2 \omega^2}\right) - \omega^2 e^{-\omega^2}.
# \end{aligned}
# $$ (eq-rpa-sine)
#
# Quadrature agrees:

# %%
epsilon, w = np.polynomial.hermite_e.hermegauss(100)  # it swings more
w /= w.sum()
for omega in (0.5, 1, 2, 5):
    path = omega * np.cos(omega * epsilon)
    by_score = epsilon * np.sin(omega * epsilon)
    squared_mean = omega**2 * math.exp(-(omega**2))
    forms = (
        omega**2 / 2 * (1 + math.exp(-2 * omega**2)) - squared_mean,
        (1 - (1 - 4 * omega**2) * math.exp(-2 * omega**2)) / 2
        - squared_mean,
    )
    found = [w @ each**2 - (w @ each) ** 2 for each in (path, by_score)]
    assert np.allclose(found, forms, rtol=1e-6, atol=0)
    print(f"ω = {omega}: path {found[0]:.4f}, score {found[1]:.4f}")

# %% [markdown]
# ## What the leave-one-out baseline costs
#
# With $f_i = f(z_i)$, the estimate from $S$ draws is $\frac1S \sum_i ( f_i - \frac{1}{S-1} \sum_{j \ne i} f_j )\, s_i$, where $s_i$ is the
# score of draw $i$ in one of the encoder's outputs. Let $G$ be the true derivative and $u_i = f_i - F$, so that
# $\mathbb{E}[u_i s_i] = G$. The baseline of term $i$ is $F$ plus $\frac{1}{S-1} \sum_{j \ne i} u_j$. This sum has mean zero and variance
# $V / (S-1)$, and is independent of draw $i$. It adds $\frac{V}{S-1} \mathbb{E}[s^2]$ to the variance of the term. Two terms $i \ne j$
# have the product
#
# $$
# \Big( u_i - \frac{u_j}{S-1} - r \Big) s_i\,
# \Big( u_j - \frac{u_i}{S-1} - r \Big) s_j ,
# $$ (eq-rpa-pair)
#
# where $r$ comes from the other draws. It has nine parts. $u_i s_i\, u_j s_j$ has the mean $G^2$, which cancels in the covariance, and
# $u_j s_i\, u_i s_j / (S-1)^2$ has the mean $G^2 / (S-1)^2$. The other seven have mean zero, because they contain a score without its $u$.
# With $S$ variances and $S(S-1)$ covariances, divided by $S^2$, for any $f$
#
# $$
# \operatorname{Var}_{\text{leave-one-out}} = \frac1S \left[
#   \operatorname{Var}_{\text{score}}(F)
#   + \frac{V\, \mathbb{E}[s^2] + G^2}{S - 1} \right].
# $$ (eq-rpa-variance-loo)
#
# For the quadratic and a mean, $\mathbb{E}[s^2] = 1/\sigma_i^2$ and $G = 2 \delta_i$. With two draws in one dimension, we can use the grid's
# axes as the two draws, and check the formula without random numbers.


# %%
def loo_variance(delta, sigma, S):
    F = (delta**2 + sigma**2).sum()
    V = (4 * (delta * sigma) ** 2 + 2 * sigma**4).sum()
    extra = (V / sigma**2 + 4 * delta**2) / (S - 1)
    return (score_variance(delta, sigma, F) + extra) / S


d, s = delta[:1], sigma[:1]
pair = (d + s * grid) ** 2  # (1600, 2): f of two draws
terms = (pair - pair.flip(1)) * grid / s
torch.testing.assert_close(average(terms), (2 * d).expand(2))
covariance = average(terms.prod(1)) - average(terms).prod()
torch.testing.assert_close(covariance, 4 * d[0] ** 2)
by_formula = loo_variance(d, s, 2)[0]
torch.testing.assert_close(variance(terms.mean(1)), by_formula)
print(
    f"S = 2, K = 1: covariance {covariance:.6f}, variance {by_formula:.6f}"
)

# %% [markdown]
# Now we sample, for $K = 16$ and $\delta_k = \sigma_k = 1$: 4,000 estimates for each $S$. A measured variance has a standard error too,
# from the fourth moment. Each must be within 5 standard errors of its formula. A horizontal line in {numref}`fig-rpa-draws` shows how many
# more draws a noisier estimator needs.

# %%
K, sizes = 16, [2**power for power in range(7)]
one = torch.ones(K, dtype=torch.float64)
over_S = {"path": [], "score function": [], "leave-one-out": []}
for S in sizes:
    generator = torch.Generator().manual_seed(S)
    noise = torch.randn(S, 4000, K, generator=generator).double()
    f = (1 + noise).square().sum(-1)  # (S, 4000)
    first = noise[..., 0]  # the score of the first mean
    plain = score_variance(one, one, 0)[0].item()
    rows = {
        "path": (2 * (1 + first), 4 / S),
        "score function": (f * first, plain / S),
    }
    if S > 1:  # a single draw has no others
        others = (f.sum(0) - f) / (S - 1)
        form = loo_variance(one, one, S)[0].item()
        rows["leave-one-out"] = (f - others) * first, form
    for name, (each, form) in rows.items():
        each = each.mean(0)
        squares = (each - each.mean()) ** 2
        error = (squares.std() / math.sqrt(len(each))).item()
        over_S[name].append((S, form, squares.mean().item(), error))
        assert abs(squares.mean() - form) < 5 * error

# %% mystnb={"figure": {"caption": "Variance of the derivative in one mean for the quadratic at K = 16, against the number S of averaged draws (lines: closed forms, points: measured). The leave-one-out baseline saves much of the score function's variance, but the path derivative has far less.", "name": "fig-rpa-draws"}, "image": {"alt": "Three falling lines on logarithmic axes: the score function on top, the leave-one-out baseline below it and steeper at first, the path derivative far below both."}} tags=["hide-input"]
figure, panel = plt.subplots(figsize=(4.5, 2.6))
plots.laws(panel, over_S)
panel.set(xlabel="draws S", ylabel="variance")
plt.close(figure)
figure

# %% [markdown]
# (rpa-discrete)=
# ## Where there is no path: discrete codes
#
# We can reparameterize a code that is 0 or 1, but only through a jump. With logistic noise $\lambda$, the draw
# $z = \mathbb{1}[a + \lambda > 0]$ is 1 with the probability $\pi = 1/(1 + e^{-a})$. The slope of a jump is zero wherever it exists, so the
# path derivative in $a$ is zero for every draw. This is wrong, because $J = \pi f(1) + (1 - \pi) f(0)$ depends on $a$. There are four
# alternatives:
#
# - *Sum over all values*, as in this formula, if they are few. This is exact.
# - *Use the score function* with a baseline. It is unbiased but noisy, and jumps don't affect it.
# - *Relax* the jump to a sigmoid, $z = 1/(1 + e^{-(a + \lambda)/\tau})$, the Concrete or Gumbel-softmax distribution
#   {cite}`maddison2017concrete,jang2017categorical`. It has a path, but belongs to another function. As the temperature $\tau$ goes to 0,
#   the bias vanishes and the noise grows.
# - *Straight-through* {cite}`bengio2013estimating`: jump in the forward pass, but use the slope of $\pi$ for $\partial z / \partial a$ in
#   the backward pass. It is biased, and in use {cite}`oord2017neural`.

# %% tags=["hide-input"]
assert RelaxedBernoulli.has_rsample and not Bernoulli.has_rsample
logit, count = torch.tensor(0.5).double(), 200_000
pi = logit.sigmoid()


def f(z):
    return (z - 0.45) ** 2


exact_slope = (f(1) - f(0)) * pi * (1 - pi)
torch.manual_seed(5)
z = Bernoulli(pi).sample((count, 2))
score = z - pi  # of log q in the logit
pairs = ((f(z) - f(z.flip(1))) * score).mean(1)
logits = logit.expand(count).clone().requires_grad_()
estimates = {
    "score function, leave-one-out of 2": pairs,
    "straight-through": 2 * (z[:, 0] - 0.45) * pi * (1 - pi),
}
for tau in (1.0, 0.1):
    relaxed = RelaxedBernoulli(tau, logits=logits).rsample()
    (slope,) = torch.autograd.grad(f(relaxed).sum(), logits)
    estimates[f"relaxed, τ = {tau}"] = slope
off = {name: each.mean() - exact_slope for name, each in estimates.items()}
error = {name: each.std() / count**0.5 for name, each in estimates.items()}
unbiased = [name for name in off if abs(off[name]) < 5 * error[name]]
assert unbiased == ["score function, leave-one-out of 2"]
assert abs(off["relaxed, τ = 0.1"]) < abs(off["relaxed, τ = 1.0"])
assert error["relaxed, τ = 0.1"] > error["relaxed, τ = 1.0"]
table = [("exact, by the sum", exact_slope, 0)] + [
    (name, each.mean(), each.std()) for name, each in estimates.items()
]
headers = [
    "f = (z - 0.45)², π = 0.62",
    "mean slope in a",
    "± of an estimate",
]
assert f"{pi:.2f}" == "0.62"
Markdown(tabulate(table, headers, "github", floatfmt=".4f"))

# %% [markdown]
# ## The law of total variance, and three gradients
#
# Let $g$ be the gradient of the loss for one random image with one code, $m(x) = \mathbb{E}[g \mid x]$ and $\bar g = \mathbb{E}[m(x)]$.
# Split $g - \bar g = (g - m(x)) + (m(x) - \bar g)$, square each coordinate and average. The product of the two brackets has mean zero,
# because for each image $g - m(x)$ averages to zero while $m(x) - \bar g$ is fixed:
#
# $$
# \operatorname{Var}(g) = \operatorname{Var}(m(x))
#   + \mathbb{E}\left[\operatorname{Var}(g \mid x)\right].
# $$ (eq-rpa-law)
#
# A mean over $B$ images divides both parts by $B$. A mean over $S$ codes of each image also divides the second part by $S$. This is
# {eq}`eq-rp-total`.
#
# To measure the parts, let $\hat g_1$ and $\hat g_2$ have the same images and independent codes, and $\hat g_3$ other images and codes. The
# difference of two independent draws has twice the variance of one, so for $S = 1$
#
# $$
# \frac12\, \mathbb{E}\left\| \hat g_1 - \hat g_2 \right\|^2
#   = \frac1B\, \mathbb{E}\left[\operatorname{Var}(g \mid x)\right],
# \qquad
# \frac12\, \mathbb{E}\left\| \hat g_1 - \hat g_3 \right\|^2
#   = \operatorname{Var}(\hat g).
# $$ (eq-rpa-three)
#
# We check both formulas on synthetic gradients whose means are all known: 64 images with 256 codes each, where images differ in their
# noise. The variances of 2,000 random minibatches of 16 must agree with the formulas (z-scores below 5).

# %%
generator = torch.Generator().manual_seed(8)
B = 16
world = torch.randn(256, 64, 5, generator=generator).double()
world = world**3 * torch.rand(64, 1, generator=generator)
world += torch.randn(64, 5, generator=generator)  # (codes, images, weights)
of_images = world.mean(0).var(0, correction=0).sum()
of_codes = world.var(0, correction=0).mean(0).sum()


def compare(name, squares, expected):
    error = squares.std() / math.sqrt(len(squares))
    assert abs(squares.mean() - expected) < 5 * error
    print(f"{name}: {squares.mean():.3f}, expected {expected:.3f}")


for S in (1, 5, 25):
    shape = (2000, B, S)
    who = torch.randint(64, (2000, B, 1), generator=generator)
    which = torch.randint(256, shape, generator=generator)
    batches = world[which, who].mean((1, 2))  # (2000, 5)
    squares = (batches - world.mean((0, 1))).square().sum(1)
    compare(f"S = {S}", squares, (of_images + of_codes / S) / B)

who = torch.randint(64, (3, 2000, B), generator=generator)
who[1] = who[0]  # the same images
which = torch.randint(256, who.shape, generator=generator)
first, again, other = world[which, who].mean(2)  # each (2000, 5)
for name, each, known in (
    ("same images", again, of_codes),
    ("other images", other, of_images + of_codes),
):
    compare(name, (first - each).square().sum(1) / 2, known / B)
