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
# # The KL divergence, in detail
#
# **How noisy is a sampled KL, where does the closed form break, and does it make the bound less noisy?** One sample of the KL has the
# variance $\mu^2 \sigma^2 + \tfrac12 (\sigma^2 - 1)^2$. In float32 the closed form breaks above a log-variance of 88.7, and loses its
# digits very close to the prior. After training, it makes the bound *noisier*: its standard deviation is 1.24 nats, and 0.66 with a
# sampled KL.
#
# This page continues {doc}`../idea/kl`, with the same notation. It also derives the cost of the other direction, the cost of
# correlated codes, and the largest $\beta$ at which a code survives.

# %% tags=["hide-input"]
import decimal
import math
from functools import partial

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from tabulate import tabulate
from torch.distributions import MultivariateNormal, Normal
from torch.distributions import kl_divergence as torch_kl
from tqdm import trange

from book.machinery import live
from vaelib import objective, plots
from vaelib.data.digits import small

equal = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
float64 = {"dtype": torch.float64}
zero, one = torch.zeros(1, **float64), torch.ones(1, **float64)
generator = torch.Generator().manual_seed(0)
means = torch.linspace(-3, 3, 13, **float64)
sigmas = torch.logspace(-2, 1, 13, **float64)
mean, sigma = torch.cartesian_prod(means, sigmas).T[..., None]  # (169, 1)
log_variance = 2 * sigma.log()

# %% [markdown]
# (kl-noise)=
# ## The variance of one log ratio
#
# Write $z = \mu + \sigma \varepsilon$ with $\varepsilon \sim \mathcal{N}(0, 1)$. Then the log ratio {eq}`eq-kl-ratio` is
#
# $$
# \log \frac{q(z)}{p(z)}
#   = -\log \sigma + \tfrac12 \mu^2 + \mu \sigma \, \varepsilon
#   + \tfrac12 \left(\sigma^2 - 1\right) \varepsilon^2 .
# $$ (eq-kl-noise)
#
# $\varepsilon$ has variance 1, $\varepsilon^2$ has variance 2, and the two are uncorrelated. So one sample has the variance
#
# $$
# V = \mu^2 \sigma^2 + \tfrac12 \left(\sigma^2 - 1\right)^2 .
# $$ (eq-kl-variance)
#
# We check it by the trapezoidal rule, on the grid of {doc}`../idea/kl`:

# %% tags=["hide-input"]
noise = torch.linspace(-12, 12, 1201, **float64)
ratio = -sigma.log() + mean**2 / 2 + mean * sigma * noise
ratio = ratio + (sigma**2 - 1) * noise**2 / 2  # (169, 1201)
z = mean + sigma * noise
equal(ratio, Normal(mean, sigma).log_prob(z) - Normal(0, 1).log_prob(z))
density = Normal(0, 1).log_prob(noise).exp()
centred = ratio - objective.kl_divergence(mean, log_variance)[:, None]
V = mean**2 * sigma**2 + (sigma**2 - 1) ** 2 / 2
measured = torch.trapezoid(density * centred**2, noise)
equal(measured[:, None], V, rtol=1e-8)

# %% [markdown]
# A mean of $S$ log ratios therefore has the standard error $\sqrt{V / S}$, as {numref}`fig-kl-monte-carlo` shows.

# %% mystnb={"figure": {"caption": "Monte Carlo estimates of one divergence, $\\mu = 1$ and $\\sigma = 1/2$. Left: six running means, and the band of two standard errors around the closed form. Right: the root mean square error of 500 running means follows $\\sqrt{V / S}$ (logarithmic axes).", "name": "fig-kl-monte-carlo"}, "image": {"alt": "Left: six jagged lines settle towards a horizontal line inside a narrowing band. Right: the error falls along a straight line of slope minus one half."}} tags=["hide-input"]
q = Normal(torch.tensor(1.0, **float64), 0.5)
exact = torch_kl(q, Normal(0, 1)).item()
deviation = math.sqrt(0.5**2 + 0.75**2 / 2)  # the root of V
noise = torch.randn(500, 10_000, generator=generator, **float64)
drawn = q.loc + q.scale * noise
S = torch.arange(1, 10_001)
running = (q.log_prob(drawn) - Normal(0, 1).log_prob(drawn)).cumsum(1) / S
error = (running - exact).square().mean(0).sqrt()
assert (abs(error * S.sqrt() / deviation - 1) < 0.2).all()

with plt.rc_context(plots.STYLE):
    figure, (left, right) = plt.subplots(1, 2, figsize=(plots.WIDTH, 2.1))
    band = 2 * deviation / S.sqrt()
    left.fill_between(S, exact - band, exact + band, color="0.88")
    left.plot(S, running[:6].T, linewidth=0.8)
    left.axhline(exact, color="black", linewidth=1)
    left.set(xscale="log", xlabel="samples S", ylabel="estimate, nats")
    style = {"color": "0.8", "linewidth": 5, "label": r"$\sqrt{V / S}$"}
    right.loglog(S, deviation / S.sqrt(), **style)
    right.loglog(S, error, linewidth=1, label="measured")
    right.set(xlabel="samples S", ylabel="error, nats")
    right.legend()
plt.close(figure)
figure

# %% [markdown]
# (kl-edges)=
# ## Where numbers end: overflow and cancellation
#
# The table compares three values near the limits {eq}`eq-kl-limits`: the formula with fifty decimal digits, and our function in float64
# and in float32. Models are trained in float32.


# %% tags=["hide-input"]
def fifty_digits(mean, log_variance):
    mean = decimal.Decimal(mean)
    log_variance = decimal.Decimal(log_variance)
    with decimal.localcontext(prec=50):
        return float((mean**2 + log_variance.exp() - 1 - log_variance) / 2)


def computed(mean, log_variance, dtype):
    pair = torch.tensor([[mean], [log_variance]], dtype=dtype)
    return objective.kl_divergence(*pair).item()


# %% tags=["hide-input"]
table = []
for sigma_value in (1e-6, 1e-3, 1e3):
    for mean_value in (0.0, 1e3):
        point = mean_value, 2 * math.log(sigma_value)
        edge = mean_value**2 / 2 - 0.5 - math.log(sigma_value)
        if sigma_value > 1:
            edge = (mean_value**2 + sigma_value**2) / 2
        values = [
            computed(*point, each)
            for each in (torch.float64, torch.float32)
        ]
        truth = fifty_digits(*point)
        slack = sigma_value**2 if sigma_value < 1 else 1e-4 * edge
        assert abs(truth - edge) < slack + 1e-9
        assert math.isclose(values[0], truth, rel_tol=1e-14)
        assert math.isclose(values[1], truth, rel_tol=1e-6)
        table.append([sigma_value, mean_value, edge, truth, *values])
headers = ["σ", "μ", "limit", "fifty digits", "float64", "float32"]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".10g"))

# %% [markdown]
# (In the last row the limit is $\tfrac12(\mu^2 + \sigma^2)$, because $\mu$ is large too.) So nothing breaks at a millionth or at a
# thousand. It breaks in two places: far beyond these values, and right at the prior.
#
# **Overflow.** $\sigma^2 = \exp(\log \sigma^2)$ exceeds the largest float32 if $\log \sigma^2$ exceeds about 89, and the largest float64
# if it exceeds about 710. The divergence is then infinite. For finite $\mu$ and $\log \sigma^2$ it's never undefined, because the terms
# that can overflow, $\mu^2$ and $\sigma^2$, have the same sign. But its gradient is infinite too, and one step with it ruins the
# weights. This book's training loop stops there with a message. ($\mu^2$ also overflows, but only for a mean beyond $10^{19}$.)

# %% tags=["hide-input"]
for dtype in (torch.float32, torch.float64):
    largest = math.log(torch.finfo(dtype).max)
    below, above = math.floor(largest), math.ceil(largest)
    assert math.isfinite(computed(0.0, below, dtype))
    assert computed(0.0, above, dtype) == math.inf
    print(f"{dtype}: finite up to log-variance {largest:.2f}")

log_variance_32 = torch.tensor([89.0], requires_grad=True)
objective.kl_divergence(torch.zeros(1), log_variance_32).backward()
assert log_variance_32.grad.isinf().all()

# %% tags=["hide-input"]
sizes = torch.tensor([0, 1e-30, 1e-6, 1, 80, 90, 1e10, 3e38])
pairs = torch.cartesian_prod(torch.cat([-sizes, sizes]), sizes)
pairs = torch.cat([pairs, pairs.flip(1)])
assert not objective.kl_divergence(*pairs.T.unsqueeze(-1)).isnan().any()

# %% [markdown]
# **Cancellation.** Close to the prior, two terms of {eq}`eq-kl-closed`, 1 and $\sigma^2$, almost cancel, and the rest is tiny. With
# $\ell = \log \sigma^2$ and the series of the exponential,
#
# $$
# \tfrac12 \left(\sigma^2 - 1 - \log \sigma^2\right)
#   = \tfrac12 \left(e^\ell - 1 - \ell\right)
#   = \tfrac14 \ell^2 + \tfrac{1}{12} \ell^3 + \dots
# $$ (eq-kl-near)
#
# Adding numbers near one has an error of about $u$, the spacing of floating-point numbers there: $1.2 \cdot 10^{-7}$ in float32 and
# $2.2 \cdot 10^{-16}$ in float64. As soon as $\ell$ is below $2 \sqrt{u}$, this error is as large as $\ell^2 / 4$. A function that
# computes $e^\ell - 1$ in one step, `expm1`, loses less.

# %% tags=["hide-input"]
near = torch.logspace(-6, 0, 241)  # float32
origin = torch.zeros(241, 1)
truth = torch.tensor(
    [fifty_digits(0, each.item()) for each in near], **float64
)
exact_near = near.double()
series = exact_near**2 / 4 + exact_near**3 / 12
assert ((truth / series - 1).abs() < exact_near**2 / 10).all()
pair = origin, near.unsqueeze(1)
ways = {
    "float32": objective.kl_divergence(*pair),
    "float32, expm1": (near.expm1() - near) / 2,
    "float64": objective.kl_divergence(*(each.double() for each in pair)),
}
errors = {name: (value - truth).abs() for name, value in ways.items()}
assert errors["float32"].max() < 5e-7
nearest = near < 1e-4  # where no digit of float32 is right
assert (errors["float32"] > truth / 2)[nearest].all()

# %% mystnb={"figure": {"caption": "Relative error of the formula near the prior, $\\mu = 0$. At the line (error 1), no digit of the result is right: there float32 returns zero. With expm1, the error is smaller. (Missing dots have no error.)", "name": "fig-kl-cancellation"}, "image": {"alt": "Relative error against the distance of the log-variance from zero, on logarithmic axes. The float32 error is one up to a few ten-thousandths, then falls with slope minus two; with expm1 it is smaller, with slope minus one; float64 lies nine orders of magnitude lower than float32."}} tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 2.6))
    for name, value in errors.items():
        axes.loglog(near, value / truth, ".", markersize=3, label=name)
    axes.axhline(1, color="0.6", linewidth=0.8)
    axes.set(xlabel=r"$\ell = \log \sigma^2$", ylabel="relative error")
    figure.legend(loc="outside right upper")
plt.close(figure)
figure

# %% [markdown]
# This does no harm. An error of $10^{-7}$ nats is nothing compared with the nats of an image. Training isn't affected, because the
# gradient {eq}`eq-kl-gradient` is right to the same $u$. But a KL of $10^{-7}$ nats in one dimension, computed in float32, is noise.

# %% tags=["hide-input"]
pair = origin, near.unsqueeze(1).requires_grad_()
objective.kl_divergence(*pair).sum().backward()
by_hand = (exact_near.expm1() / 2).unsqueeze(1)
assert (pair[1].grad - by_hand).abs().max() < 3e-7

# %% [markdown]
# ## The second derivatives: one valley
#
# The derivatives of {eq}`eq-kl-gradient` are never negative:
#
# $$
# \frac{\partial^2\, \mathrm{KL}}{\partial \mu^2} = 1, \qquad
# \frac{\partial^2\, \mathrm{KL}}{\partial (\log \sigma^2)^2}
#   = \tfrac12 \sigma^2, \qquad
# \frac{\partial^2\, \mathrm{KL}}{\partial \mu \, \partial \log \sigma^2} = 0 .
# $$ (eq-kl-curvature)
#
# So in $\mu$ and $\log \sigma^2$ the cost is a single valley, and the prior is its only minimum.

# %% tags=["hide-input"]
for point in ((0.0, 0.0), (2.0, -3.0), (-1.0, 2.0)):
    pair = torch.tensor(point, **float64)
    hessian = torch.autograd.functional.hessian(
        lambda each: objective.kl_divergence(each[:1], each[1:]), pair
    )
    equal(hessian, torch.diag(torch.stack([one[0], pair[1].exp() / 2])))

# %% [markdown]
# (kl-reverse)=
# ## The other direction, KL(p || q)
#
# The divergence of the prior from $q$ is another function. We take the means under $p$, so that
# $\mathbb{E}_p[(z - \mu)^2] = 1 + \mu^2$. The same three lines then give
#
# $$
# \mathrm{KL}(p \,\|\, q)
#   = \log \sigma + \frac{1 + \mu^2}{2 \sigma^2} - \tfrac12 .
# $$ (eq-kl-reverse)
#
# Most codes from the prior fall where a narrow $q$ has almost no density, and this is costly: halving a narrow $\sigma$ multiplies the
# cost by four.


# %% tags=["hide-input"]
def reverse(mean, sigma):
    return sigma.log() + (1 + mean**2) / (2 * sigma**2) - 0.5


equal(
    reverse(mean, sigma), torch_kl(Normal(zero, one), Normal(mean, sigma))
)
ratio = reverse(zero, one / 2000) / reverse(zero, one / 1000)
assert math.isclose(ratio, 4, rel_tol=1e-3)

# %% [markdown]
# ## Full covariance: what correlation costs
#
# What if the $K$ coordinates of a code weren't independent under $q$? With a full covariance matrix $\Sigma$, the three lines give
#
# $$
# \mathrm{KL}\left(\mathcal{N}(\mu, \Sigma) \,\|\, \mathcal{N}(0, I)\right)
#   = \tfrac12 \left(\operatorname{tr} \Sigma + \mu^\top \mu - K
#     - \log \det \Sigma\right).
# $$ (eq-kl-full)
#
# The trace $\operatorname{tr} \Sigma$ is the sum of the variances, and the determinant replaces their product. ($K$ is the mean of
# $(z - \mu)^\top \Sigma^{-1} (z - \mu)$, as 1 was the mean of $(z - \mu)^2 / \sigma^2$.) A diagonal $\Sigma$ gives {eq}`eq-kl-sum`.
#
# Only the determinant depends on the covariances. So a correlated $q$ costs
# $\tfrac12 (\log \prod_k \Sigma_{kk} - \log \det \Sigma)$ more than an independent one with the same means and variances. This is never
# negative. In two dimensions with correlation $\rho$, $\det \Sigma = \Sigma_{11} \Sigma_{22} (1 - \rho^2)$, so the extra cost is
# $-\tfrac12 \log (1 - \rho^2)$: the mutual information of the two coordinates.

# %% tags=["hide-input"]
K = 5
root = torch.randn(1000, K, K, generator=generator, **float64)
covariance = root @ root.mT + 0.1 * torch.eye(K, **float64)
means = torch.randn(1000, K, generator=generator, **float64)
variances = covariance.diagonal(dim1=-2, dim2=-1)
full = variances.sum(-1) + (means**2).sum(-1) - K - covariance.logdet()
prior = MultivariateNormal(
    torch.zeros(K, **float64), torch.eye(K, **float64)
)
joint = MultivariateNormal(means, covariance)
equal(full / 2, torch_kl(joint, prior), rtol=1e-8)
assert (full / 2 >= objective.kl_divergence(means, variances.log())).all()

# %% tags=["hide-input"]
prior = MultivariateNormal(
    torch.zeros(2, **float64), torch.eye(2, **float64)
)
for rho in (0.0, 0.5, -0.9):
    scales = torch.tensor([0.3, 0.6], **float64)
    correlation = torch.tensor([[1, rho], [rho, 1]], **float64)
    tied = scales[:, None] * correlation * scales
    joint = MultivariateNormal(torch.ones(2, **float64), tied)
    loose = objective.kl_divergence(joint.loc, 2 * scales.log())
    excess = torch_kl(joint, prior) - loose
    equal(excess.item(), -math.log(1 - rho**2) / 2)

# %% [markdown]
# (kl-threshold)=
# ## Posterior collapse: how large may β be?
#
# Let the code be one number, so weak that the decoder's logits depend on it linearly:
# $\operatorname{logit} p_j = \operatorname{logit} \bar x_j + w_j z$ with small $w_j$, where $\bar x_j$ is the mean of pixel $j$ over the
# images. To second order in $w$, the log-likelihood changes by $a z - \tfrac12 v z^2$. Here $a = \sum_j (x_j - \bar x_j) w_j$ depends on
# the image, and $v = \sum_j \bar x_j (1 - \bar x_j) w_j^2$. The mean under $q$ is $a \mu - \tfrac12 v (\mu^2 + \sigma^2)$. So the loss of
# a $\beta$-VAE changes by
#
# $$
# -a \mu + \tfrac12 v (\mu^2 + \sigma^2)
#   + \tfrac12 \beta (\mu^2 + \sigma^2 - 1 - \log \sigma^2) .
# $$ (eq-kl-weak)
#
# The best $q$ has $\mu = a / (\beta + v)$ and $\sigma^2 = \beta / (\beta + v)$. It leaves
# $\tfrac12 \beta \log (1 + v / \beta) - \tfrac12 a^2 / (\beta + v)$. For small $w$, the mean over the images is
# $\tfrac12 (v - \overline{a^2} / \beta)$. If it's negative, the code pays. This holds if
#
# $$
# \beta < \frac{\overline{a^2}}{v} = \frac{w^\top C w}{w^\top T w} ,
# $$ (eq-kl-threshold)
#
# with the pixels' covariance matrix $C$ and the diagonal matrix $T$ of $\bar x_j (1 - \bar x_j)$. Over all $w$, the largest value of this
# quotient is the largest eigenvalue of $T^{-1/2} C T^{-1/2}$. With a larger $\beta$, a code doesn't grow from nothing. (For a linear
# decoder with normal pixels, {cite:t}`lucas2019blame` derive the threshold.)
#
# A mean over pixels acts like $\beta = D$, and then no images bring the code to life. The eigenvalues are non-negative, and their sum is
# the trace $\sum_j C_{jj} / T_{jj}$. A pixel between 0 and 1 has $x^2 \le x$, so its variance is at most $\bar x (1 - \bar x)$. No term
# of the trace therefore exceeds 1, and no eigenvalue exceeds $D$.

# %% tags=["hide-input"]
pixels, labels, held_out = small()
x, test = pixels[~held_out] / 16, pixels[held_out] / 16  # (N, 1, 8, 8)
flat = x.flatten(1).double()
flat = flat[:, flat.mean(0) > 0]  # pixels that are not always zero
centre = flat.mean(0)
T = centre * (1 - centre)
scaled = (flat - centre) / T.sqrt()
eigenvalues, vectors = torch.linalg.eigh(scaled.T @ scaled / len(flat))
threshold = eigenvalues[-1].item()
assert eigenvalues.sum() <= len(T) <= x[0].numel()
print(f"a weak code pays while β is below {threshold:.1f}")

# %% [markdown]
# So in the models of {numref}`fig-kl-clouds`, the code may survive at $\beta = 2$, but not at 5 and more. We test the threshold in the loss
# itself, with the best $w$ and a $\beta$ 10% below and above it. Two codes, $\mu \pm \sigma$, represent $q$, because they have the right
# mean and mean square:


# %% tags=["hide-input"]
def change(beta, size=0.1):
    """Of the loss, when the best weak code is introduced."""
    w = size * vectors[:, -1] / T.sqrt()
    a, v = (flat - centre) @ w, (T * w**2).sum()
    mu, variance = a / (beta + v), beta / (beta + v)
    gain = -objective.bernoulli_log_prob(
        flat, centre.logit().expand_as(flat)
    )
    for sign in (-1, 1):
        code = mu + sign * variance.sqrt()
        logits = centre.logit() + code[:, None] * w
        gain = gain + objective.bernoulli_log_prob(flat, logits) / 2
    kl = objective.kl_divergence(mu[:, None], variance.log())
    return (beta * kl - gain).mean().item()


assert change(0.9 * threshold) < 0 < change(1.1 * threshold)
assert 2 < threshold < 5

# %% [markdown]
# (kl-noise-of-the-bound)=
# ## The variance of the bound: what the closed form does not buy
#
# Computing the KL exactly removes its noise. Does it remove noise from the bound? Kingma and Welling expect that it typically does
# {cite}`kingma2022auto`. We compare, from the same sample $z$,
#
# $$
# \mathcal{L}_{\text{closed}} = \log p(x \mid z) - \mathrm{KL}(q \,\|\, p), \qquad
# \mathcal{L}_{\text{sampled}} = \log p(x \mid z) - \log \frac{q(z)}{p(z)} .
# $$ (eq-kl-two-estimators)
#
# Both have the bound as their mean. But in the sampled one, the noise of the two parts can cancel. If $q(z)$ were the posterior
# $p(z \mid x) = p(x \mid z)\, p(z) / p(x)$, then $p(x \mid z)\, p(z) / q(z)$ would be $p(x)$ for all $z$, and
# $\mathcal{L}_{\text{sampled}}$ would have zero noise {cite}`roeder2017sticking`. The table shows standard deviations in nats, before and
# after training, from 50 samples for each test image:


# %% tags=["hide-input"]
def estimated(model, repetitions=50):
    """Both estimates and the log ratio, (3, repetitions, images); the noise that the latter must have."""
    random = torch.Generator().manual_seed(1)
    estimates = torch.empty(3, repetitions, len(test))
    means, log_variances = model.encode(test)
    exact = objective.kl_divergence(means, log_variances)
    for each in estimates.unbind(1):
        z = objective.reparameterize(means, log_variances, random)
        logits = model.decoder.logits(z)
        log_prob = objective.bernoulli_log_prob(test, logits)
        prior = objective.gaussian_log_prob(z, z * 0, z * 0)
        ratio = objective.gaussian_log_prob(z, means, log_variances) - prior
        each.copy_(torch.stack([log_prob - exact, log_prob - ratio, ratio]))
    V = log_variances.exp() * means**2 + log_variances.expm1() ** 2 / 2
    return estimates, V.sum(1).mean().sqrt().item()


torch.manual_seed(0)
model = live.small_vae()
adam = torch.optim.Adam(model.parameters(), live.LEARNING_RATE)
table = []
for name, updates in (("before training", 0), ("after", 700)):
    for _ in trange(updates, desc="training", leave=False):
        batch = torch.randperm(len(x))[: live.BATCH_SIZE]
        adam.zero_grad()
        objective.BetaELBO()(model(x[batch]), 1).mean().backward()
        adam.step()
    with torch.inference_mode():
        estimates, expected = estimated(model)
    noise = estimates.var(1).mean(1).sqrt()  # root mean square over images
    gap = (estimates[0] - estimates[1]).mean(0)
    assert abs(gap.mean()) < 5 * gap.std() / math.sqrt(len(gap))
    assert abs(noise[2] / expected - 1) < 0.1
    table.append([name, *noise.tolist(), expected])
assert table[0][1] < table[0][2] and table[1][2] < table[1][1]
headers = ["", "closed", "sampled", "log ratio alone", "its closed form"]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".2f"))

# %% [markdown]
# The last two columns agree: {eq}`eq-kl-variance`, summed over the dimensions, predicts the noise that the closed form saves. But the
# closed form doesn't always reduce the noise of the bound. Before training, the decoder ignores the codes, and the sampled ratio only
# adds noise. After training, the closed estimate keeps all the noise of the decoder, while the sampled one cancels part of it.
#
# So choose the closed form because it's exact and simple, and because it makes the KL a number that you can monitor. Don't expect less
# noise in the bound.
