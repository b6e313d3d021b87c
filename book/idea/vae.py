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
from IPython.display import SVG, Markdown
from tabulate import tabulate
from torch.nn import Linear, ReLU, Sequential
from torch.nn.functional import binary_cross_entropy
from torch.optim import Adam
from torchvision.utils import make_grid

from book.machinery import live
from vaelib import data, objective, plots, storage

published = json.loads(Path("../live/mnist.json").read_bytes())
chosen = torch.tensor([each["pixels"] for each in published["digits"]])
chosen = chosen.view(-1, 1, 28, 28) / 255  # the six to choose from
style = Path("../_static/book.css").read_text(
    "utf-8"
)  # defines the colours, the light ones first
colours = dict(re.findall(r"--vae-(\w+): (#\w+)", style)[:6])
model = storage.from_pretrained("mnist-k2")
SVG(
    live.drawing(
        model, chosen[4], torch.tensor([1.1, -0.7]), published, colours
    )
)

# %% [markdown]
# ## From left to right
#
# An {term}`autoencoder` copies its input through a bottleneck. This one has to copy
# an image of 784 pixels through **two numbers**, which it can only do by finding
# out what images have in common. It has seen the 60,000 training images of
# MNIST, and nobody told it what a 6 is: the colours of the dots are ours.
#
# **The <span class="vae-encoder">encoder</span>** looks at the image $x$ and
# says where in the plane it belongs: at <span class="vae-mu">μ</span> (two
# numbers), give or take <span class="vae-sigma">σ</span> (two more). That is
# not a point but a small cloud, a normal distribution called $q$. The rings are
# one and two σ away from its centre. They are tiny, hence the lens.
#
# **The {term}`latent space`** is the space of all {term}`codes <code>` $z$,
# here a plane. (Latent means hidden: no image comes with a code written on it.)
# Every dot is the centre of $q$ for a test image, which the model never trained
# on. Like images lie near each other.
#
# **<span class="vae-epsilon">ε</span>** is pure chance, two random numbers that
# choose a code from the cloud: <span class="vae-z">z</span> =
# <span class="vae-mu">μ</span> + <span class="vae-sigma">σ</span> ·
# <span class="vae-epsilon">ε</span>. All chance is in ε, which the network has no
# part in: so training can tell how a little more of μ or of σ would have
# changed the copy. *Press the button:* z jumps, and the copy
# hardly changes. The decoder cannot know where in the cloud z will
# fall, so it has learned to answer to all of the cloud alike, and codes that are near
# each other come to mean nearly the same. The cloud in place of a point is what
# makes an autoencoder a *variational* one, a VAE.
#
# **The <span class="vae-decoder">decoder</span>** sees z and nothing else. For
# each pixel it says how probable it is that the pixel is white; this is the grey
# of the copy $\hat x$. *Drag the rings:* it has an answer to every code, also
# where no image ever was.
#
# **The {term}`prior`** is the cloud that all codes together should form: a
# normal distribution around the middle of the plane, with a standard deviation
# of one. The grey circles are one, two and three of these away.
#
# *Draw a 3, a letter, a face.* What you draw is scaled into a box of 20 by 20
# pixels and centred by its mass, as MNIST's digits were. The model knows digits
# only, and copies whatever it gets as if it were one. With two numbers it often
# takes a digit for its neighbour: the 4 above comes back as a 9.
#
# ## The bill
#
# The two bars are what a VAE is about. Both are measured in
# {term}`nats <nat>`, the unit of surprise: who gave a probability of $p$ to
# what then happened pays $-\log p$ nats.
#
# - **{term}`Reconstruction <reconstruction>`** is the decoder's surprise at $x$. For a white pixel that
#   it called white with 90% it pays 0.1 nats, for one that it called white with
#   5% it pays 3; the bar is the sum over all pixels. In formulas it is
#   $-\log p(x \mid z)$.
# - **{term}`KL`** is the price of the code: how far $q$ is from the prior. A $q$ equal
#   to the prior is free, but says nothing about $x$; the narrower it is, and
#   the further out, the more it tells the decoder, and the more it costs. Each image
#   pays for its own cloud; in the end the clouds lie side by side about where the prior is,
#   so that most codes drawn from it fall where some image is.
#
# The two pull against each other. Here are the six images with the encoder's
# $q$, and with some others: means over the images, and over 1,000 draws of ε
# for each.

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

# %% mystnb={"figure": {"caption": "What the bill of the six images becomes if all their q are made narrower or wider than the encoder's: means over 200 draws of \u03b5, the same for each width.", "name": "fig-vae-tug"}, "image": {"alt": "Three curves over the width of q. Reconstruction rises with it, more and more steeply, KL falls, and their sum is lowest near the encoder's width."}} tags=["remove-input"]
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
with plt.rc_context(plots.STYLE):
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
axes.set_xlabel("width of q, in the encoder's")
axes.set_xticks(
    [1 / 8, 1 / 4, 1 / 2, 1, 2, 4], ["⅛", "¼", "½", "1", "2", "4"]
)
axes.minorticks_off()
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.close(figure)
figure

# %% [markdown]
# A narrower $q$ makes better copies, but costs more than it saves; a wider one
# is cheap, but no longer says which digit it was. The encoder looks for the
# compromise. *Try to beat it in the picture:* for one ε you may; on average it
# is hard.
#
# **Training** is nothing else: it changes the weights of encoder and decoder
# until the sum, over all training images, is as small as can be. Minus the sum is
# called **{term}`ELBO`**, evidence lower bound, since on average over ε it is below
# $\log p(x)$, the logarithm of the probability that a code from the prior, decoded, gives
# this very image ({doc}`elbo`).
#
# ## Twenty lines
#
# Here is a whole VAE, training included. It learns scikit-learn's small digits
# {cite}`alpaydin1998optical`, enlarged to 28 × 28 pixels, in seconds; `copy=0` or `price=0` hides a bar from it. Its encoder
# gives log σ², which may be any number, where σ must be positive.


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


# %% mystnb={"figure": {"caption": "Three trainings by these lines, and what a test image then costs (reconstruction + KL). Top: the centres of the test images' q, over the circles of the prior. Bottom: sixteen codes from the prior, decoded.", "name": "fig-vae-prices"}, "image": {"alt": "Three latent planes, and three grids of decoded images. With both bars the codes fill the prior; without KL they are scattered far beyond it; without reconstruction all are in the middle, and the decoded images are noise."}} tags=["remove-input"]
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
with plt.rc_context(plots.STYLE):
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
# (A small model and few images: hence larger sums than above.) Without KL nothing holds the clouds: they shrink nearly to points (of the plots one
# sees only their centres) and drift apart, to where the prior has no codes. These images
# are new to it, and it copies them no better; and what is drawn from the prior, in the bottom row,
# shows few kinds of digits.
# Without reconstruction every $q$ is the prior: free, and worth nothing.
#
# ## Digits that nobody wrote
#
# A trained VAE makes new images: draw a code from the prior, decode it. Here is
# the picture's model; with more than two numbers, {doc}`../mnist/dimensions`.

# %% mystnb={"figure": {"caption": "Forty codes from the prior, decoded by the model of the picture.", "name": "fig-vae-samples"}, "image": {"alt": "Two rows of twenty handwritten digits, most of them legible, some between two digits."}}
torch.manual_seed(0)
plots.panels({"": model.sample(40)}, columns=20, panels_in_row=1)

# %% [markdown]
# ## Where to go
#
# - **Ten minutes:** {doc}`../live/plane` walks through this plane, with more to
#   try; {doc}`../live/faces` does it with faces and 64 numbers.
# - **An evening:** {doc}`algorithm` trains the paper's VAE step by step;
#   {doc}`elbo` says where the bound comes from, {doc}`kl` what a code costs,
#   {doc}`reparameterization` why ε is drawn outside of the network.
# - **What is true of it:** {doc}`../verdict/claims` weighs what was claimed of
#   such models, with the experiments that decide.
# - **Words** that you miss are in the {doc}`../glossary`.
#
# ```{admonition} What the picture computes
# :class: note dropdown
#
# The weights are those of `vaelib.storage.from_pretrained("mnist-k2")`, trained for
# ten epochs, in half precision; the images are from the test set of MNIST, which is
# Yann LeCun's and Corinna Cortes', under Creative Commons
# Attribution-ShareAlike 3.0. The networks are plain JavaScript without
# libraries, {download}`decoder.js <../live/decoder.js>` and
# {download}`encoder.js <../live/encoder.js>`. A test,
# {download}`test_vae_page.py <../../tests/site/test_vae_page.py>`, opens this page
# in a browser, and compares every number with PyTorch's: none may differ by
# a ten-thousandth. It also runs the page's lines of PyTorch. Nothing is sent
# anywhere: the page works without a network. Pixels are grey, and the bars
# charge them as probabilities, as the paper does: even a perfect copy would cost
# something.
# ```
