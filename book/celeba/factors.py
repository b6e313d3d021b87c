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
# # Directions, tested where the truth is known
#
# **Does the direction for smiling move the smile, and nothing else?** No. In our model of faces
# that a program draws, it moves the opening of the mouth (by 1.64 standard deviations) slightly
# more than the smile (by 1.42). Other directions do better: light moves 15.0 times as far as any
# other factor, and glasses move 5.8 times as far.
#
# Photographs can't show this, because their true factors are unknown. Each drawn face is made from
# fifteen independent numbers, the *factors*: the direction of the light, the colour of the hair,
# the smile, and so on. Its attributes, named as in CelebA, record whether a factor is above or
# below some bound. As for photographs, we find directions from the attributes alone. Then we walk
# along them, and compare what moves with what should move.

# %% tags=["parameters", "hide-input"]
import os

# both train on drawn faces, "quick" for a shorter time
profile: str = os.environ.get("VAELIB_PROFILE", "paper")  # or "quick"
latent_dim: int = None  # K; another than the profile's
seed: int = 0  # of weights, order and noise
runs_folder: str = None  # default: VAELIB_RUNS, else this project's `runs`

# %% tags=["hide-cell"]
import torch
from IPython.display import Markdown
from myst_nb import glue
from sklearn.linear_model import RidgeCV
from tabulate import tabulate

from book.machinery import profiles
from vaelib import (
    TrainConfig,
    attributes,
    data,
    evaluation,
    features,
    plots,
    progress,
    train,
)
from vaelib.data import synthetic_faces

plan = profiles.load(profile, "faces")
drawn = data.load(plan.dataset)
if latent_dim is None:
    (latent_dim,) = plan.latent_dims
settings = TrainConfig(latent_dim, plan.short.epochs, seed, plan.batch_size)
run = train(drawn, settings, runs_folder)
model = run.model()
count, test_count = len(drawn.train), len(drawn.test)
print(f"{drawn.name}: {count:,} training and {test_count:,} test images")
print(f"{run.folder.name}: {settings.epochs} epochs")

# %% [markdown]
# ## The faces and their factors
#
# The data set is drawn from two seeds, so we can draw its factors again. The figure shows
# one face, changed in one factor at a time, to both ends of its range.

# %% tags=["hide-input"]
train_images, train_factors = synthetic_faces.generate(count, seed=0)
test_images, test_factors = synthetic_faces.generate(test_count, seed=1)
assert torch.equal(test_images, drawn.test.images)
base = torch.zeros(1, len(synthetic_faces.FACTORS))
changed = base.repeat(2 * len(synthetic_faces.FACTORS), 1)
for i in range(len(synthetic_faces.FACTORS)):
    changed[i, i], changed[len(synthetic_faces.FACTORS) + i, i] = -2, 2
ends = synthetic_faces.render(changed).split(len(synthetic_faces.FACTORS))

# %% mystnb={"figure": {"caption": "One face with one factor at a time at the lower end (top) and at the upper end (bottom) of its range, from left to right: direction and level of the light, skin, colour and length of the hair, bangs, glasses, smile, mouth, masculinity, turn and tilt of the head, hue and level of the background, width of the face.", "name": "fig-factors-ends", "classes": "wide"}, "image": {"alt": "Two rows of fifteen drawn faces that differ in light, skin, hair, glasses, smile, pose and background."}}
plots.rows({"factor at -2": ends[0], "factor at 2": ends[1]})

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Test images, and their reconstructions from the posterior mean.", "name": "fig-factors-copies", "classes": "wide"}, "image": {"alt": "Two rows of fifteen drawn faces: originals above, smoother reconstructions below."}}
codes = evaluation.encode(model, drawn.test.images)[0]


def decode(codes):
    with torch.inference_mode():
        return torch.cat(
            [
                model.decode(part)
                for part in progress.bar(
                    codes.split(500), desc="decoding", delay=2
                )
            ]
        )


plots.rows({"test": test_images[:15], "copies": decode(codes[:15])})

# %% [markdown]
# ## Reading factors off a picture
#
# To find out what moved, we estimate the factors from decoded pictures. We use a ridge
# regression on the features of a classifier, which has learned the attributes of drawn faces.
# Decoded pictures are smoother than drawn ones, so we fit the regression to *reconstructions*
# of training faces, with the factors that these were drawn from. Its R² on reconstructions of
# test faces shows how well it works. It can't estimate what the code has lost, so a low R²
# means that the model hasn't learned the factor. The folded table shows R² for each factor:
# it is highest for glasses (0.97), and lowest for the opening of the mouth (0.38). (You can only see whether a face has glasses,
# so we use that.)


# %% tags=["hide-input"]
def visible(factors):
    """Factors as they can be seen, in units of their standard deviation."""
    seen = factors.clone()
    column = synthetic_faces.FACTORS.index("glasses")
    bound = synthetic_faces.ATTRIBUTES["Eyeglasses"][1]
    seen[:, column] = (factors[:, column] > bound).float()
    return (seen - scale[0]) / scale[1] if scale else seen


scale = None
raw = visible(train_factors)
scale = raw.mean(0), raw.std(0)
truth, test_truth = visible(train_factors), visible(test_factors)

# %% tags=["hide-cell"]
judge = features.load(drawn, runs_folder)[0]
train_codes = evaluation.encode(model, drawn.train.images)[0]
seen = features.extract(judge, decode(train_codes))
reader = RidgeCV([0.1, 1, 10, 100]).fit(seen.numpy(), truth.numpy())


def read(pictures):
    """Factors read off pictures, (N, 15), in standard deviations."""
    found = features.extract(judge, pictures)
    return torch.from_numpy(reader.predict(found.numpy())).float()


unexplained = (read(decode(codes)) - test_truth).square().mean(0)
explained = 1 - unexplained / test_truth.var(0)
table = list(zip(synthetic_faces.FACTORS, explained.tolist(), strict=True))
headers = ["factor", "R² on reconstructions of test faces"]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".2f"))

# %% [markdown]
# ## Walking, and what moves
#
# As before, we find directions from the codes and attributes of the test images. Each
# direction $\Delta$ is a difference of mean codes ({eq}`eq-attributes-means`). We move 300 test
# codes from -2 to 2 along it. The colours show by how many standard deviations each factor
# moves on average.

# %% tags=["hide-input"]
found = attributes.fit(codes, drawn.test.labels, drawn.names)
ends = torch.tensor([-2.0, 2.0])
walked = 300 if "paper" in profile else 100  # test faces


def moved(direction):
    """The mean change of every factor along a walk, (15,)."""
    walks = attributes.traverse(model, codes[:walked], direction, ends)
    return (read(walks[:, 1]) - read(walks[:, 0])).mean(0)


effect = torch.stack(
    [
        moved(each.direction)
        for each in progress.bar(found.values(), desc="walks")
    ]
)

# %% mystnb={"figure": {"caption": "The change of each factor (columns) along the direction of each attribute (rows), in standard deviations of the factor. In most rows, one cell stands out.", "name": "fig-factors-effects"}, "image": {"alt": "A table of colours with fifteen rows and columns; in most rows one cell stands out."}}
label = "change, standard deviations"
plots.matrix(effect, list(found), synthetic_faces.FACTORS, label)

# %% [markdown]
# For each attribute, the folded table shows how far the factor that belongs to it moved. (The
# value is positive if it moved in the attribute's direction.) Then come the factor that leaked
# most, and the ratio of the two. For nine of fourteen attributes, the own factor moves more than
# four times as far as any other.
#
# We also compute the true direction in code space. We draw the same test faces with only
# that factor raised, encode them, and see where the codes go. The table shows the cosine of
# this true direction with $\Delta$ and with the regression's gradient $d$. The last column is
# the regression's accuracy minus the share of the majority class.


# %% tags=["hide-input"]
def true_direction(factor):
    """Where codes go when only this factor is raised from -1 to 1."""
    low = test_factors[:walked].clone()
    high = low.clone()
    low[:, factor], high[:, factor] = -1, 1
    pair = [
        evaluation.encode(model, synthetic_faces.render(each))[0]
        for each in (low, high)
    ]
    way = (pair[1] - pair[0]).mean(0)
    return way / way.norm()


# %% tags=["hide-cell"]
ratios, cosines, table = {}, {}, []
pairs = list(zip(found.items(), effect, strict=True))
for (name, each), change in progress.bar(pairs, desc="true directions"):
    factor, low, high = synthetic_faces.ATTRIBUTES[name]
    column = synthetic_faces.FACTORS.index(factor)
    if low > -2 and high < 2:
        continue  # in the middle of its factor's range: no direction
    sign = 1 if low > -2 else -1
    own = sign * change[column].item()
    leaks = change.abs().index_fill(0, torch.tensor([column]), 0)
    worst = leaks.argmax().item()
    ratios[name] = own / leaks[worst].item()
    way = sign * true_direction(column)
    cosines[name] = [
        (way @ one).item() for one in (each.direction, each.gradient)
    ]
    gain = each.accuracy.mean().item() - each.majority
    row = [name, own, synthetic_faces.FACTORS[worst], leaks[worst].item()]
    table.append([*row, ratios[name], *cosines[name], 100 * gain])
table.sort(key=lambda row: -row[4])
headers = ["attribute", "moved", "leaked most", "by", "ratio"]
headers += ["cosine of the truth with Δ", "with d", "points gained"]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".2f"))

# %% [markdown]
# (Brown hair is missing. It's between black and blond, and a straight line doesn't stop in the
# middle.)
#
# The paper's claims rest on three attributes: smile, light and glasses. Our test, decided
# beforehand, is that their factor must move at least three times as far as any other:

# %%
asked = ["Smiling", "Light_From_Left", "Eyeglasses"]
held = [name for name in asked if ratios[name] >= 3]
for name in asked:
    result = "holds" if name in held else "fails"
    print(f"{name}: ratio {ratios[name]:.1f}, {result}")

# %% [markdown]
# Why does one fail? If two factors change the same few pixels and the model keeps little of
# them, neither the code nor our estimate can separate them. For each attribute that fails, we
# print the R² of its factor and of the factor that leaks. We also print the ratio to the next
# factor.

# %% tags=["hide-input"]
failed = [name for name in asked if name not in held]
print("failed:", *(failed or ["none"]))
for name in failed:
    change = effect[list(found).index(name)].abs()
    own = synthetic_faces.FACTORS.index(synthetic_faces.ATTRIBUTES[name][0])
    others = [
        i for i in change.argsort(descending=True).tolist() if i != own
    ]
    leak = others[0]
    print(
        f"{synthetic_faces.FACTORS[leak]} leaks; R² {explained[own]:.2f} and "
        f"{explained[leak]:.2f}; ratio to the next factor "
        f"{change[own] / change[others[1]]:.1f}"
    )

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The three directions, from -2 to 2, from one test face.", "name": "fig-factors-walks"}, "image": {"alt": "Three strips of eleven drawn faces: the smile grows, the light moves from right to left, glasses appear."}}
steps = torch.linspace(-2, 2, 11)
strips = {
    name: attributes.traverse(
        model, codes[:1], found[name].direction, steps
    )[0]
    for name in asked
}
plots.rows(strips)

# %% [markdown]
# ## The regression's directions
#
# {doc}`/book/celeba/attributes` names three directions: $d$, $w$ and $\Delta$. We repeat the
# test for each. The table shows how far the factor itself moves, and the ratio:

# %% tags=["hide-input"]
table = []
for name in progress.bar(asked, desc="three ways"):
    column, each = (
        synthetic_faces.FACTORS.index(synthetic_faces.ATTRIBUTES[name][0]),
        found[name],
    )
    row = [name]
    for direction in (
        each.gradient,
        each.standardised_direction,
        each.direction,
    ):
        change = moved(direction).abs()
        leaks = change.index_fill(0, torch.tensor([column]), 0)
        row += [
            change[column].item(),
            (change[column] / leaks.max()).item(),
        ]
    table.append(row)
headers = [
    "attribute",
    "moved along d",
    "ratio",
    "along w",
    "ratio",
    "along Δ",
    "ratio",
]
Markdown(tabulate(table, headers, tablefmt="github", floatfmt=".1f"))

# %% tags=["hide-cell"]
measured = ", ".join(
    f"{name.replace('_', ' ').lower()} {ratios[name]:.1f}" for name in asked
)
glue("factors_measured", measured, display=False)
