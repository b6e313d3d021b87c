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
#

# %% [markdown]
# # What is a VAE?
#
# **A VAE (variational autoencoder) is two networks that train together.** The *encoder* turns
# an image into a few numbers, blurred by noise. The *decoder* draws the image again from
# them. Once trained, it draws new images from random numbers.
#
# ```{raw} html
# :file: ../live/vae.html
# ```

# %% mystnb={"figure": {"caption": "A variational autoencoder at work on a test image, with the numbers of one draw of \u03b5. Where scripts run, this picture is alive: the image can be drawn, q dragged, \u03b5 drawn again.", "classes": "live-still", "name": "fig-vae"}, "image": {"alt": "An image of a 6 goes into the encoder, which answers with two means and two standard deviations; these and noise make z, a point in the latent plane; the decoder turns it into a copy of the 6. Below, bars for reconstruction, KL and their sum."}} tags=["remove-input"]
import inspect
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from tabulate import tabulate
from torch.nn import Linear, ReLU, Sequential
from torch.nn.functional import binary_cross_entropy
from torch.optim import Adam
from torchvision.utils import make_grid

from vaelib import data, objective, plots, storage

plt.rcParams.update(plots.STYLE)
published = json.loads(Path("../live/mnist.json").read_bytes())
chosen = torch.tensor([each["pixels"] for each in published["digits"]])
chosen = chosen.view(-1, 1, 28, 28) / 255  # the six to choose from
style = Path("../_static/book.css").read_text("utf-8")
# The light colours, which come first
colours = dict(re.findall(r"--vae-(\w+): (#\w+)", style)[:6])
model = storage.from_pretrained("mnist-k2")
x, epsilon = chosen[4], torch.tensor([1.1, -0.7])
with torch.inference_mode():
    mean, log_variance = model.encode(x[None])
    sigma = torch.exp(log_variance / 2)
    z = mean + sigma * epsilon
    logits = model.decoder.logits(z)
    terms = objective.elbo(x[None], logits, mean, log_variance)
log_prob, kl = (each.item() for each in terms)

figure = plt.figure(figsize=(6.4, 6.2))
axes = figure.subplot_mosaic(
    [["image x", "plane"], ["copy x̂", "plane"], ["bill", "bill"]],
    width_ratios=(1, 2),
    height_ratios=(2, 2, 1),
)
copy = torch.sigmoid(logits)[0]
for name, image in (("image x", x), ("copy x̂", copy)):
    axes[name].imshow(image[0], cmap="gray", vmin=0, vmax=1)
    axes[name].set(title=name, xticks=[], yticks=[])

plane = axes["plane"]
codes = torch.tensor(published["codes"]["2"])
labels = torch.tensor(published["labels"])
for label in range(10):
    mine = codes[labels == label]
    plane.plot(*mine.T, ".", color=f"C{label}", alpha=0.4, ms=3)
    plane.text(*mine.median(0).values.tolist(), label, weight="bold")
plane.plot(*z[0], "o", color=colours["z"], ms=8)
plane.set(xlim=(-4, 4), ylim=(-4, 5.8), aspect="equal")
parts = {
    "mu": f"μ = {mean[0, 0]:.3f}, {mean[0, 1]:.3f}",
    "sigma": f"σ = {sigma[0, 0]:.3f}, {sigma[0, 1]:.3f}",
    "epsilon": f"ε = {epsilon[0]:.3f}, {epsilon[1]:.3f}",
    "z": f"z = μ + σ·ε = {z[0, 0]:.3f}, {z[0, 1]:.3f}",
}
for row, (part, words) in enumerate(parts.items()):
    words = words.replace("-", "−")
    plane.text(-3.8, 5.3 - 0.4 * row, words, color=colours[part])
plane.set_title("latent plane")

bars = axes["bill"].barh(
    ["reconstruction", "KL", "sum = −ELBO"],
    [-log_prob, kl, kl - log_prob],
    left=[0, -log_prob, 0],
    color=[colours["decoder"], colours["encoder"], "0.4"],
)
axes["bill"].bar_label(bars, fmt="%.1f nats", padding=3)
axes["bill"].margins(x=0.2)
axes["bill"].invert_yaxis()
axes["bill"].set_xticks([])
plt.show()

# %% [markdown]
# ## From left to right
#
# An {term}`autoencoder` copies its input through a bottleneck. Here an image of 784 pixels
# has to pass through **two numbers**, which works only if the model learns what images have
# in common. It learned from MNIST's 60,000 training images without their labels. We coloured
# the dots afterwards.
#
# **The <span class="vae-encoder">encoder</span>** turns the image $x$ into a place in the
# plane: a mean <span class="vae-mu">μ</span> (two numbers) and a standard deviation
# <span class="vae-sigma">σ</span> (two more). That isn't a point but a small cloud, a
# normal distribution called $q$. The rings are one and two σ away from its centre. They
# are tiny, hence the lens.
#
# **The {term}`latent space`** is the space of all {term}`codes <code>` $z$, here a plane.
# (Latent means hidden: images come without codes.) Each dot is the centre of $q$ for one
# test image, which the model never trained on. Similar images are close to each other.
#
# **<span class="vae-epsilon">ε</span>** is random noise: two numbers that choose a code
# from the cloud, <span class="vae-z">z</span> = <span class="vae-mu">μ</span> +
# <span class="vae-sigma">σ</span> · <span class="vae-epsilon">ε</span>. All randomness is
# in ε, which doesn't depend on the network. Training can therefore compute how a little
# more of μ or of σ would have changed the copy. *Press the button:* z jumps, and the copy
# hardly changes. The decoder can't know where in the cloud z will fall, so it learns
# nearly the same output for the whole cloud. Codes that are close therefore come to mean
# nearly the same. Because it uses a cloud instead of a point, this autoencoder is called
# *variational*.
#
# **The <span class="vae-decoder">decoder</span>** receives only z. For each pixel, it
# outputs the probability that the pixel is white, which is the grey of the copy
# $\hat x$. *Move over the plane:* it decodes every code, even where there was never an image.
#
# **The {term}`prior`** is the cloud that all codes together should form: a normal
# distribution around the middle of the plane, with a standard deviation of one. The grey
# circles are one, two and three standard deviations away from the middle.
#
# *Draw a 3, a letter, a face.* Your drawing is scaled into a box of 20 by 20 pixels and
# centred by its mass, as MNIST's digits were. The model has learned only digits, and
# copies any drawing as if it were one. With two numbers, it often confuses similar
# digits: choose the 4, and its copy is a 9.
#
# ## The loss
#
# A VAE minimises the sum of the first two bars. Both are measured in {term}`nats <nat>`, the unit
# of surprise: if you gave probability $p$ to what then happens, you pay $-\log p$ nats.
# The KL is small, so the live picture magnifies its bar. The hatched tip of the third bar
# shows it to scale.
#
# - **{term}`Reconstruction <reconstruction>`** is the decoder's surprise at $x$, which is
#   $-\log p(x \mid z)$. A white pixel costs 0.1 nats if the decoder gave white a
#   probability of 90%, and 3 nats if it gave 5%. The bar is the sum over all pixels.
# - **{term}`KL`** is the price of the code: how far $q$ is from the prior. A $q$ equal to
#   the prior is free, but carries no information about $x$. A narrower $q$, or one further
#   out, gives the decoder more information and costs more. Each image pays for its own
#   cloud. In the end, the clouds together roughly cover the prior, so most codes drawn from
#   the prior fall where some image is.
#
# The two pull in opposite directions. The table compares the encoder's $q$ with three
# others for the six images. Its values are means over images and 1,000 draws of ε.

# %% tags=["remove-input"]
torch.manual_seed(0)
with torch.inference_mode():
    mu, log_var = model.encode(chosen)
    others = {
        "the encoder's": (mu, 1.0),
        "8 times narrower": (mu, 1 / 8),
        "8 times wider": (mu, 8.0),
        "the prior itself": (0 * mu, torch.exp(-log_var / 2)),
    }
    rows = []
    for name, (mean, times) in others.items():
        sigma = times * torch.exp(log_var / 2)
        z = mean + sigma * torch.randn(1000, 6, 2)
        x = chosen.expand(1000, 6, 1, 28, 28).flatten(0, 1)
        log_prob = objective.bernoulli_log_prob(
            x, model.decoder.logits(z.flatten(0, 1))
        )
        kl = objective.kl_divergence(mean, 2 * sigma.log()).mean().item()
        rows.append(
            (name, -log_prob.mean().item(), kl, kl - log_prob.mean().item())
        )
costs = {name: total for name, _, _, total in rows}
assert min(costs, key=costs.get) == "the encoder's"
assert rows[1][1] < rows[0][1] < min(row[1] for row in rows[2:])
assert rows[1][2] > rows[0][2] > max(row[2] for row in rows[2:])
Markdown(
    tabulate(
        rows, ["q", "reconstruction", "KL", "sum"], "pipe", floatfmt=".1f"
    )
)

# %% mystnb={"figure": {"caption": "The encoder's q, of width 1, has nearly the smallest sum. The curves show how the loss of the six images changes if all q are up to 8 times narrower or 4 times wider (means over the same 200 draws of \u03b5). Reconstruction and sum rise beyond the plot.", "name": "fig-vae-tug"}, "image": {"alt": "Three curves over the width of q. Reconstruction rises with it, more and more steeply, KL falls, and their sum is lowest near the encoder's width."}} tags=["remove-input"]
times = 2 ** torch.linspace(-3, 2, 21)
with torch.inference_mode():
    eps, x = torch.randn(200, 6, 2), chosen.expand(200, 6, 1, 28, 28)
    change = []
    for each in (torch.ones(1), *times):
        sigma = each * torch.exp(log_var / 2)
        logits = model.decoder.logits((mu + sigma * eps).flatten(0, 1))
        log_prob = objective.bernoulli_log_prob(x.flatten(0, 1), logits)
        kl = objective.kl_divergence(mu, 2 * sigma.log()).mean()
        change.append(torch.stack([-log_prob.mean(), kl]))
change = torch.stack(change[1:]) - change[0]
figure, axes = plt.subplots(figsize=(5.4, 1.5))
for name, part, style, curve in (
    ("reconstruction", "decoder", "-", change[:, 0]),
    ("KL", "encoder", "--", change[:, 1]),
    ("sum", None, "-", change.sum(1)),
):
    colour = colours.get(part, "0.3")
    axes.plot(times, curve, style, color=colour, label=name)
best = change.sum(1).argmin()
assert 0.5 < times[best] < 2 and change[0, 1] > 0 > change[0, 0]
axes.plot(times[best], change.sum(1)[best], "o", color="0.3")
axes.set(xscale="log", ylim=(-4, 8), ylabel="nats more")
axes.set_xlabel("width of q, in multiples of the encoder's")
axes.set_xticks(
    [1 / 8, 1 / 4, 1 / 2, 1, 2, 4], ["⅛", "¼", "½", "1", "2", "4"]
)
axes.minorticks_off()
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.close(figure)
figure

# %% [markdown]
# A narrower $q$ makes better copies, but its KL rises by more than the reconstruction
# falls. A wider $q$ is cheap, but no longer shows which digit it was. The encoder finds a
# compromise. *Try to beat it in the picture:* for one ε you may succeed, but on average
# it's hard.
#
# **Training** changes the weights of encoder and decoder until the sum, over all training
# images, is as small as possible. Minus the sum is called **{term}`ELBO`**, evidence lower
# bound. Averaged over ε, it's below $\log p(x)$, where $p(x)$ is the probability that the
# model's next new image is exactly this one ({doc}`elbo`).
#
# Training can also minimise reconstruction + β · KL. The slider (which needs scripts) shows
# seven small models with different β, on digits of 8 × 8 pixels. {doc}`kl` trains them. If β
# is small, the KL is cheap, so codes are precise and copies finer. If β is large, the KL is
# expensive, so every $q$ becomes the prior, and all copies are the same. The KL has two
# parts: *information*, how well codes distinguish images, and *misfit*, how far all codes
# together are from the prior.
#
# ```{raw} html
# :file: ../live/clouds.html
# ```
#
# (vae-lines)=
# ## Twenty lines
#
# Here is a whole VAE. In seconds, it learns scikit-learn's small digits
# {cite}`alpaydin1998optical`, enlarged to 28 × 28 pixels. Setting `copy=0` or `price=0`
# removes one bar from the loss. The encoder outputs log σ² because it may be any number,
# whereas σ must be positive.


# %%
def train(x, copy=1, price=1, epochs=30):
    encoder = Sequential(Linear(784, 256), ReLU(), Linear(256, 4))
    decoder = Sequential(Linear(2, 256), ReLU(), Linear(256, 784))
    adam = Adam([*encoder.parameters(), *decoder.parameters()], lr=0.002)

    def bill(x):
        mu, log_var = encoder(x).chunk(2, dim=1)
        sigma = torch.exp(log_var / 2)
        eps = torch.randn_like(sigma)
        z = mu + sigma * eps
        x_hat = torch.sigmoid(decoder(z))
        reconstruction = binary_cross_entropy(x_hat, x, reduction="sum")
        kl = (mu**2 + sigma**2 - 1 - log_var).sum() / 2
        return reconstruction / len(x), kl / len(x)

    for _ in range(epochs):
        for batch in x[torch.randperm(len(x))].split(100):
            reconstruction, kl = bill(batch)
            adam.zero_grad()
            (copy * reconstruction + price * kl).backward()
            adam.step()
    return encoder, decoder, bill


# %% mystnb={"figure": {"caption": "Only with both bars do random codes become digits of many kinds. Above: reconstruction + KL per test image, after training with these lines. Top: the centres of the test images' q, over the circles of the prior. Bottom: sixteen codes from the prior, decoded.", "name": "fig-vae-prices"}, "image": {"alt": "Three latent planes, and three grids of decoded images. With both bars the codes fill the prior; without KL they are scattered far beyond it; without reconstruction all are in the middle, and the decoded images are noise."}} tags=["remove-input"]
lines = inspect.getsource(train).splitlines()
assert sum(bool(line.strip()) for line in lines) == 20
digits = data.load("digits")
x, test = (
    data.to_float(each.images).flatten(1)
    for each in (digits.train, digits.test)
)
torch.manual_seed(3)
z = torch.randn(16, 2)
costs, sigmas = [], []
figure, axes = plt.subplots(
    2, 3, figsize=(7, 2.8), height_ratios=(3.2, 1.2)
)
switches = {
    "both bars": (1, 1),
    "no KL": (1, 0),
    "no reconstruction": (0, 1),
}
for (name, (copy, price)), column in zip(
    switches.items(), axes.T, strict=True
):
    torch.manual_seed(0)
    encoder, decoder, bill = train(x, copy, price)
    with torch.inference_mode():
        costs.append([each.item() for each in bill(test)])
        mu, log_var = encoder(test).chunk(2, dim=1)
        sigmas.append(torch.exp(log_var / 2).median().item())
        samples = make_grid(
            torch.sigmoid(decoder(z)).view(16, 1, 28, 28), 8, 1
        )
    column[0].scatter(*mu.T, s=4, c=digits.test.labels, cmap="tab10")
    for radius in (1, 2, 3):
        circle = plt.Circle((0, 0), radius, fill=False, color="0.6")
        column[0].add_patch(circle)
    title = "{}:\n{:.0f} + {:.0f} nats".format(name, *costs[-1])
    column[0].set(
        title=title, xlim=(-8, 9), ylim=(-5.5, 9.5), aspect="equal"
    )
    column[1].imshow(samples[0], cmap="gray")
    column[0].set_axis_off()
    column[1].set_axis_off()
assert sum(costs[0]) < min(sum(costs[1]), sum(costs[2]))
assert costs[1][1] > 3 * costs[0][1]
assert costs[1][0] > 0.97 * costs[0][0]
assert sigmas[1] < sigmas[0] / 10 and costs[2][1] < 0.01
plt.close(figure)
figure

# %% [markdown]
# (The sums are larger than above because the model is small and has few images.)
#
# Without KL, nothing holds the clouds. They shrink nearly to points (the plots show only their
# centres) and drift to places where the prior's density is small. The copies of test images
# don't improve, and samples from the prior, in the bottom row, show few kinds of digits.
# Without reconstruction, every $q$ is the prior. The decoder learns nothing, so it draws noise.
#
# ## New digits
#
# A trained VAE makes new images: draw a code from the prior and decode it.
# {doc}`../mnist/dimensions` has models with more numbers.

# %% mystnb={"figure": {"caption": "Forty codes from the prior, decoded by the model of the picture. Most are legible digits.", "name": "fig-vae-samples"}, "image": {"alt": "Two rows of twenty handwritten digits, most of them legible, some between two digits."}}
torch.manual_seed(0)
plots.panels({"": model.sample(40)}, columns=20, panels_in_row=1)

# %% [markdown]
# ## Where to go
#
# {doc}`../live/plane` shows more of this plane, and {doc}`../live/faces` faces of 64 numbers.
# {doc}`algorithm` trains the paper's VAE step by step. {doc}`elbo` derives the bound, {doc}`kl`
# explains the cost of a code, and {doc}`reparameterization` why ε is drawn outside of the
# network. {doc}`../verdict/claims` checks claims about VAEs. The {doc}`../glossary` explains terms.
#
# ```{admonition} What the picture computes
# :class: note dropdown
#
# The weights come from `vaelib.storage.from_pretrained("mnist-k2")`, trained for ten
# epochs, in half precision. The images are from the test set of MNIST, by Yann LeCun and
# Corinna Cortes, under Creative Commons Attribution-ShareAlike 3.0. The networks are plain
# JavaScript without libraries, {download}`decoder.js <../live/decoder.js>` and
# {download}`encoder.js <../live/encoder.js>`. A test,
# {download}`test_vae_page.py <../../tests/site/test_vae_page.py>`, runs the page's lines of
# PyTorch: no number may differ by a ten-thousandth. The page sends nothing. Pixels are
# grey, and the bars score them as probabilities, like the paper. Even a
# perfect copy would therefore cost something.
# ```
