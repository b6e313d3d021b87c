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
# # The algorithm by hand
#
# **What does a VAE do, step by step, when it learns?** It repeats seven steps {cite}`kingma2022auto`, and each takes a line or two of
# torch. In thirty epochs, they bring the loss of test digits from 544.9 to 285.2 nats ({numref}`fig-alg-learned`).
#
# Each formula stands above its code. {ref}`Twenty lines <vae-lines>` put all of it into one function. {doc}`../appendix/algorithm`
# checks the steps, and shows that the book's package, `vaelib`, trains the same model to the last bit.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import Linear, ReLU, Sequential
from torch.nn.functional import softplus
from torch.testing import assert_close
from torchvision.utils import make_grid

from vaelib import data, plots

plt.rcParams.update(plots.STYLE)
digits = data.load("digits")
x = data.to_float(digits.train.images).flatten(1)  # (1497, 784)
x_test = data.to_float(digits.test.images).flatten(1)  # (300, 784)

# %% [markdown]
# The data are the small digits that come with scikit-learn {cite}`alpaydin1998optical`, enlarged to 28 × 28 pixels. The encoder
# (weights $\phi$) and the decoder (weights $\theta$) are two networks with random weights. The encoder ends in two layers, the
# heads.

# %%
torch.manual_seed(0)
encoder = Sequential(Linear(784, 512), ReLU(), Linear(512, 512), ReLU())
mean, log_variance = Linear(512, 2), Linear(512, 2)  # the heads
decoder = Sequential(
    Linear(2, 512), ReLU(), Linear(512, 512), ReLU(), Linear(512, 784)
)

# %% [markdown]
# ## Seven steps
#
# The bound $\mathcal{L}(x_i)$ is image $i$'s ELBO. We maximise its mean over all $N$ images
# ({doc}`elbo` explains why).
#
# **1. Draw a batch.** Take $B$ of the images at random. Their mean bound estimates the mean over all images:
#
# $$
# \frac1N \sum_{i=1}^{N} \mathcal{L}(x_i)
#   \approx \frac1B \sum_{i \in \text{batch}} \mathcal{L}(x_i) .
# $$ (eq-alg-batch)

# %%
batch = x[torch.randperm(len(x))[:128]]  # (128, 784)

# %% [markdown]
# **2. Encode.** For each image $x$ of the batch, the encoder computes $K$ means $\mu_k$ and $K$ log-variances
# $\ell_k = \log \sigma_k^2$, here with $K = 2$. They define its $q$, a Gaussian with independent coordinates.


# %%
def encode(x):
    features = encoder(x)
    return mean(features), log_variance(features)  # (B, K) each


# %% [markdown]
# **3. Draw a code.** Draw $\varepsilon \sim \mathcal{N}(0, I)$, then scale and shift each coordinate. This is the
# *reparameterization trick* ({doc}`reparameterization`): the gradient can pass through $\mu$ and $\ell$.
#
# $$
# z = \mu + e^{\ell / 2} \odot \varepsilon
# $$ (eq-alg-code)


# %%
def draw(mu, ell):
    return mu + torch.exp(ell / 2) * torch.randn_like(mu)  # (B, K)


# %% [markdown]
# **4. Decode.** The decoder computes a number $a_j$ for each of the $D$ pixels, its *logit*. The pixel is white with probability
# $\pi_j = 1 / (1 + e^{-a_j})$, so $\log \pi_j = a_j - \log(1 + e^{a_j})$ and $\log (1 - \pi_j) = -\log(1 + e^{a_j})$. Given the
# code, the pixels are independent:
#
# $$
# \log p(x \mid z) = \sum_{j=1}^{D} \left[ x_j a_j - \log(1 + e^{a_j}) \right] .
# $$ (eq-alg-logits)


# %%
def log_prob(x, z):
    a = decoder(z)
    return (x * a - softplus(a)).sum(1)  # (B,)


# %% [markdown]
# **5. Price the code.** The divergence of $q$ from the prior has a closed form in the encoder's outputs ({doc}`kl`):
#
# $$
# \mathrm{KL} = \frac12 \sum_{k=1}^{K}
#   \left[ \mu_k^2 + e^{\ell_k} - 1 - \ell_k \right] .
# $$ (eq-alg-kl)


# %%
def divergence(mu, ell):
    return (mu**2 + ell.exp() - 1 - ell).sum(1) / 2  # (B,)


# %% [markdown]
# **6. Add up.** The loss is minus the bound. We sum it over pixels and latent dimensions, and average it over the batch:
#
# $$
# \text{loss} = \frac1B \sum_{i \in \text{batch}}
#   \left[ \mathrm{KL}_i -\log p(x_i \mid z_i) \right] .
# $$ (eq-alg-loss)


# %%
def loss(x):
    mu, ell = encode(x)
    return (divergence(mu, ell) - log_prob(x, draw(mu, ell))).mean()


# %% tags=["remove-cell"]
with torch.no_grad():
    mu, ell = encode(batch)
    z, q = draw(mu, ell), Normal(mu, torch.exp(ell / 2))
    pixels = Bernoulli(logits=decoder(z), validate_args=False)
    assert_close(log_prob(batch, z), pixels.log_prob(batch).sum(1))
    prior = kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    assert_close(divergence(mu, ell), prior, rtol=1e-4, atol=1e-5)

# %% [markdown]
# **7. Step downhill.** Compute the gradient $g$ of the loss with respect to all weights $w = (\theta, \phi)$, and step against it.
# Adam {cite}`kingma2015adam` keeps two running means, of the gradient and of its square. Both start at zero. Step number $t$ is
#
# $$
# \begin{aligned}
# m &\leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad
# v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2, \\
# w &\leftarrow w - \eta \,
#   \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon},
# \end{aligned}
# $$ (eq-alg-adam)
#
# separately for each weight, with the learning rate $\eta = 0.001$, $\beta_1 = 0.9$, $\beta_2 = 0.999$ and $\epsilon = 10^{-8}$
# (not the noise $\varepsilon$). Dividing by $1 - \beta^t$ corrects for the start at zero.

# %%
networks = encoder, mean, log_variance, decoder
weights = [weight for each in networks for weight in each.parameters()]
adam = torch.optim.Adam(weights, lr=0.001)


def step(batch):
    adam.zero_grad()
    loss(batch).backward()
    adam.step()


# %% [markdown]
# ```{admonition} As first published :class: margin Kingma and Welling use batches of 100 images. They leave the optimizer open,
# and use Adagrad themselves. The paper {cite}`astorga2025recreating` uses 128 images, Adam with $\eta = 0.001$, and these two
# networks.
# ```
#
# ## What it learns
#
# An *epoch* shuffles the images and splits them into batches, so that each image is used once. After each epoch we look at
# the 300 test images, which the model never trains on.


# %% tags=["hide-input"]
def look():
    """Return the loss of the test images, their means, and five copies."""
    with torch.no_grad():
        mu, _ = encode(x_test)
        copies = torch.sigmoid(decoder(mu[:5]))
        return loss(x_test).item(), mu, copies


# %%
seen = [look()]
for _ in range(30):
    for batch in x[torch.randperm(len(x))].split(128):
        step(batch)
    seen.append(look())
print(f"test loss {seen[0][0]:.1f} at first, {seen[-1][0]:.1f} at last")

# %% mystnb={"figure": {"caption": "What the model learned, after 0, 1, 5 and 30 epochs. Top: the loss of the test images. Middle: the means of their q, coloured by digit, over the circles of the prior. The labels were not used in training. Bottom: five test images, and below each its copy.", "name": "fig-alg-learned"}, "image": {"alt": "A curve falls steeply and then slowly. Below it, four latent planes: at first all dots are in one heap, at last the ten digits have regions of their own. Under each plane, the copies of five digits turn from grey noise into legible digits."}} tags=["hide-input"]
shown = 0, 1, 5, 30
rows = ["plane", "copies"]
figure, axes = plt.subplot_mosaic(
    [["loss"] * 4, *([f"{row} {at}" for at in shown] for row in rows)],
    figsize=(plots.WIDTH, 4.3),
    height_ratios=(2, 3, 1.2),
)
curve = axes["loss"]
curve.plot([value for value, *_ in seen], color="0.3")
curve.set(xlabel="epoch", ylabel="nats per image", ylim=(240, 600))
for at in shown:
    value, mu, copies = seen[at]
    curve.plot(at, value, "o", color="0.3")
    above = {"xytext": (3, 4), "textcoords": "offset points"}
    curve.annotate(f"{value:.0f}", (at, value), **above)
    plane, pairs = axes[f"plane {at}"], axes[f"copies {at}"]
    plane.scatter(*mu.T, s=3, c=digits.test.labels, cmap="tab10")
    for radius in (1, 2, 3):
        circle = plt.Circle((0, 0), radius, fill=False, color="0.7")
        plane.add_patch(circle)
    limits = {"xlim": (-3.6, 3.8), "ylim": (-3.6, 3.8), "aspect": "equal"}
    plane.set(title=f"epoch {at}", **limits)
    plane.set_axis_off()
    both = torch.cat([x_test[:5], copies]).view(10, 1, 28, 28)
    pairs.imshow(make_grid(both, 5, 1, pad_value=1)[0], cmap="gray")
    pairs.set_axis_off()
for label in range(10):
    middle = mu[digits.test.labels == label].mean(0)
    plane.text(*middle.tolist(), label, weight="bold", ha="center")
assert seen[-1][0] < 0.6 * seen[0][0]
plt.close(figure)
figure

# %% [markdown]
# First the decoder learns the mean of all images, which takes one epoch. By epoch 5, the means $\mu$ have left their heap, but only
# along a line: the model uses one of its two dimensions. After that it uses both. At the end, most digits have a region of their
# own, and their copies are legible. {doc}`../live/training` shows such a run as it happens, and there you can change it.
#
# ## Exercises
#
# 1. *Without noise.* Make `draw` return `mu`, and train again. Which of the two terms does the model get rid of, and why is the loss
#    no longer a bound? ({doc}`../appendix/algorithm` has the solution, and three more exercises.)
# 2. *Another $K$.* Use eight numbers instead of two. How far does the loss of the test images fall, and how legible are the copies?
