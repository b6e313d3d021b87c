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
# # What the samples are worth
#
# **Are the digits that a VAE invents any better with more than two latent
# dimensions?** The paper looks at them, and sees hardly any gain. A bound in nats
# cannot settle it: it judges how well *given* images are described, not what is invented.
# So this page asks a judge, a small convolutional classifier that has only seen
# real digits, what it makes of the invented ones: whether it is sure of what they
# show, whether they show all ten digits, and how far they lie from real ones in
# the judge's own features.

# %% tags=["parameters"]
import os

# "paper": MNIST; "quick": the digits that come with scikit-learn
profile = os.environ.get("VAELIB_PROFILE", "paper")
data_folder = None  # default: VAELIB_DATA, else ~/.cache/vaelib
runs_folder = None  # default: VAELIB_RUNS, else this project's `runs`

# %%
import torch
from IPython.display import Markdown
from tabulate import tabulate

from vaelib import claims, data, features, figures, profiles, runs

plan = profiles.load(profile, "mnist")
digits = data.load(plan.dataset, data_folder)
count, test_count = len(digits.train), len(digits.test)
print(f"{digits.name}: {count:,} training and {test_count:,} test images")

# %%
trained = runs.train_all(digits, plan.settings(plan.short), runs_folder)
print(f"{plan.short.epochs} epochs, seeds {plan.short.seeds}")

# %% [markdown]
# ## The judge
#
# It learns from the training images alone. How far it can be trusted is how often
# it is right on the test images.

# %%
judge = features.train(digits, runs_folder)


def opinion(images):
    """The probabilities of the ten digits, (N, 10)."""
    with torch.inference_mode():
        parts = [judge(part).softmax(1) for part in images.split(1000)]
    return torch.cat(parts)


tests = data.to_float(digits.test.images)
right = (opinion(tests).argmax(1) == digits.test.labels).float().mean()
print(f"right on {right:.1%} of the test images")

# %% [markdown]
# ## What it says
#
# As many samples from the prior as there are test images, from each training:
#
# - **sure**: the share of samples to one of whose digits the judge gives a probability of
#   more than 0.9;
# - **variety**: the number of digits that are invented, weighing their shares: $e^H$ with
#   the entropy $H$ of the judge's probabilities, averaged over the samples (10 if all
#   are equally common, 1 if all samples show the same);
# - **distance**: the Fréchet distance between the judge's features of samples and of test
#   images. Its scale is that of this judge's features; it is not the FID of
#   other papers. The distance of real training images shows how low it can get.
#
# Then the same of *reconstructions* of the test images, from their posterior means, with
# one more: **read right**, the share in which the judge finds the digit that the original
# shows. The difference between the distances of samples and of reconstructions is the
# prior's fault, the rest the decoder's. (Mean ± standard deviation over the seeds.)

# %%
real = features.extract(judge, tests)


def judged(images):
    """Sure, variety and distance."""
    chances = opinion(images)
    sure = (chances.max(1).values > 0.9).float().mean().item()
    kinds = torch.distributions.Categorical(chances.mean(0)).entropy().exp()
    found = features.extract(judge, images)
    return sure, kinds.item(), features.frechet_distance(real, found)


def copied(model):
    with torch.inference_mode():
        parts = [
            model.decode(model.encode(x)[0]) for x in tests.split(1000)
        ]
    return torch.cat(parts)


# %%
samples, copies, read = {}, {}, {}
for K, each in trained.items():
    models = [run.model() for run in each]
    invented = [
        model.sample(test_count, torch.manual_seed(0)) for model in models
    ]
    samples[K] = torch.tensor([judged(images) for images in invented])
    images = [copied(model) for model in models]
    copies[K] = torch.tensor([judged(each) for each in images])
    found = torch.stack([opinion(each).argmax(1) for each in images])
    read[K] = (found == digits.test.labels).float().mean(1)

# %%
some = data.to_float(digits.train.images[:test_count])
best = judged(some)


def shown(values, form):
    return f"{values.mean():{form}} ± {values.std():{form}}"


table = []
for K, each in samples.items():
    forms = zip(each.T, (".1%", ".1f", ".2f"), strict=True)
    row = [K, *(shown(*pair) for pair in forms)]
    table.append(
        [*row, shown(copies[K][:, 2], ".2f"), shown(read[K], ".1%")]
    )
table.append(
    [
        "real",
        f"{best[0]:.1%}",
        f"{best[1]:.1f}",
        f"{best[2]:.2f}",
        "",
        f"{right:.1%}",
    ]
)
headers = ["K", "sure", "variety", "distance"]
headers += ["distance of reconstructions", "read right in them"]
Markdown(tabulate(table, headers, tablefmt="github", disable_numparse=True))

# %% mystnb={"figure": {"caption": "What the judge says of prior samples against the number of latent dimensions, and of reconstructions on the right; a point is a seed, the line joins the means.", "name": "fig-mnist-samples-worth"}, "image": {"alt": "Three plots against the number of latent dimensions: how many samples the judge is sure of, the Fréchet distance of samples, and the share of reconstructions that are read right."}}
values = {
    "sure": [each[:, 0].tolist() for each in samples.values()],
    "distance of samples": [
        each[:, 2].tolist() for each in samples.values()
    ],
    "reconstructions read right": [each.tolist() for each in read.values()],
}
figures.over_dimensions(list(trained), values)

# %% [markdown]
# ## What that says of the paper's claim
#
# *Hardly noticeable* shall mean: the step from two dimensions to the best K is less
# than half of the step from one to two. It is asked of the ELBO, of the
# reconstructions that are read right, and of the samples' distance, each with its
# own best K (by the mean over seeds), seed by seed.


# %%
def step(values):
    """Of each seed: the gain from K = 2 to the best K over that from 1 to 2."""
    best = max(values, key=lambda K: values[K].mean().item())
    return (values[best] - values[2]) / (values[2] - values[1])


elbo = {
    K: torch.tensor([run.evaluation["test_elbo"] for run in each])
    for K, each in trained.items()
}
nearness = {K: -each[:, 2] for K, each in samples.items()}
claims.judge(
    "C5",
    f"{digits.name}, {count:,} + {test_count:,} images",
    [run for each in trained.values() for run in each],
    nats=step(elbo),
    recognised=step(read),
    distance=step(nearness),
)
