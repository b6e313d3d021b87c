"""Decide claims with models trained from fresh seeds: `python -m book.experiments.verdicts C4 C7`.

The rules are in rules.yml. For each claim, the command trains the missing models, and resumes interrupted runs. It then
measures each condition for each seed. It writes the verdict to book/records/verdicts/C4.json, and the runs' records to
book/records/fresh. If the runs take longer than one machine is yours, `C6:10` measures one seed and keeps the result in
book/records/unfinished, where a later `C6` finds it.

Each measure is computed once from all images, draws and classifiers, and again from 1,000 resamples of them. It is a
tensor of shape (R,), R = 1 + RESAMPLES. Its first value counts each item once.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor

from book.machinery import claims
from vaelib import TrainConfig, attributes, data, evaluation, features, files, models, runs, storage
from vaelib.objective import MeanELBO, reparameterize
from vaelib.seeding import seeded

from . import collapse, gradients, likelihoods, long_runs, priors, scoring

RECORDS = Path(__file__).parents[1] / "records"
RESAMPLES = 1000
MOST = 2000  # number of images, and of draws, in a kernel distance
WALKED = 100  # random directions
# The resampled items, and the seeds of their resamples
IMAGES, DRAWS, CLASSIFIERS, TRAINING, FAR = 0, 1, 2, 4, 5  # 3 drew directions
EPOCHS = {"mnist": 10, "celeba": 30}
LIGHT = ("right half less left half", "lower half less upper half")
APPEARANCE = ("Pale_Skin", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Eyeglasses", "Wearing_Hat")

dataset = cache(data.load)


@dataclass(frozen=True)
class Trained:
    """Call it to get a model trained with this seed. It remembers the runs' fingerprints."""

    seed: int
    used: dict[str, str]

    def __call__(self, name: str, latent_dim: int, epochs: int = 0, **functions: Any) -> models.VAE:
        return self.run(name, latent_dim, epochs, **functions).model()

    def run(self, name: str, latent_dim: int, epochs: int = 0, **functions: Any) -> runs.Run:
        """Train a model, write its run's record, and return the run."""
        config = TrainConfig(latent_dim, epochs or EPOCHS[name], self.seed)
        tags = {"rules": claims.digest(claims.next_rules())}
        return self.keep(runs.train(dataset(name), config, checkpoint_seconds=60, tags=tags, **functions))

    def keep(self, run: runs.Run) -> runs.Run:
        """Write a run's record, and return the run."""
        files.write(RECORDS / "fresh" / f"{run.folder.name}.json", run.dumps())
        self.used[run.folder.name] = claims.fingerprint(run)
        return run


@cache
def counts(kind: int, items: int) -> Tensor:
    """Count how often each resample contains each item, (R, items)."""
    picks = torch.randint(items, (RESAMPLES, items), generator=torch.Generator().manual_seed(kind))
    drawn = torch.zeros(RESAMPLES, items).scatter_add_(1, picks, torch.ones(RESAMPLES, items))
    return torch.cat([torch.ones(1, items), drawn])


def mean(values: Tensor, kind: int) -> Tensor:
    """Compute the mean over items, (R,) or (R, M), of values (N,) or (N, M)."""
    return counts(kind, len(values)) @ values.float() / len(values)


def median(values: Tensor, kind: int) -> Tensor:
    """Compute the median over items, (R,), of values (N,)."""
    ordered, order = values.sort()
    up_to = counts(kind, len(values))[:, order].cumsum(1)
    return ordered[(up_to >= len(values) / 2).float().argmax(1)]


def over_classifiers(values: Tensor) -> Tensor:
    """Compute the mean over C classifiers, (R,) or (R, M), of values (R, C) or (R, C, M)."""
    classifiers = values.shape[1]
    return torch.einsum("rc,rc...->r...", counts(CLASSIFIERS, classifiers), values) / classifiers


def variance(images: Tensor, kind: int) -> Tensor:
    """Compute the variance of images, summed over pixels, (R,)."""
    pixels = images.flatten(1)
    return mean(pixels.square().sum(1), kind) - mean(pixels, kind).square().sum(1)


def area(scores: Tensor, present: Tensor) -> Tensor:
    """Compute the area under the ROC curve, (R,), of images' scores (N,)."""
    weights = counts(IMAGES, len(scores))
    yes, no = scores[present, None], scores[None, ~present]
    wins = (weights[:, present] @ ((yes > no).float() + (yes == no).float() / 2) * weights[:, ~present]).sum(1)
    return wins / (weights[:, present].sum(1) * weights[:, ~present].sum(1))


def areas(scores: Tensor, present: Tensor) -> Tensor:
    """Compute the mean area under the ROC curve of C classifiers, (R,), from their scores (N, C)."""
    return over_classifiers(torch.stack([area(each, present) for each in scores.T], 1))


def logits(name: str, images: Tensor) -> Tensor:
    """Compute the classifiers' logits for images, (N, C, A)."""
    return scoring.logits(features.load(dataset(name)), images)


def kernel(x: Tensor, y: Tensor, kinds: tuple[int, int]) -> Tensor:
    """Compute the mean kernel of pairs of features (N, F) and (M, F), (R,), without pairs of an image and itself."""
    values = (x @ y.T / x.shape[1] + 1).pow(3)
    first, second = counts(kinds[0], len(x)), counts(kinds[1], len(y))
    pairs = torch.full((len(first),), float(len(x) * len(y)))
    if kinds[0] == kinds[1]:
        values.fill_diagonal_(0)
        pairs -= first.square().sum(1)
    return ((first @ values) * second).sum(1) / pairs


@cache
def real(name: str) -> list[tuple[Tensor, Tensor]]:
    """Compute the features of test images, and the mean kernel of their pairs, for each classifier."""
    images = dataset(name).test.images[:MOST]
    found = [features.extract(each, images) for each in features.load(dataset(name))]
    return [(each, kernel(each, each, (IMAGES, IMAGES))) for each in found]


def kernel_distance(name: str, samples: Tensor) -> Tensor:
    """Compute the kernel distance of samples from test images, (R,). See `features.kernel_distance`."""
    distances = []
    for network, (tests, within) in zip(features.load(dataset(name)), real(name), strict=True):
        found = features.extract(network, samples[:MOST])
        between = kernel(tests, found, (IMAGES, DRAWS))
        distances.append(within + kernel(found, found, (DRAWS, DRAWS)) - 2 * between)
    return over_classifiers(torch.stack(distances, 1))


def passes(name: str, samples: Tensor) -> Tensor:
    """Tell which samples are closer to some test image than its nearest neighbour, in C classifiers' features, (N, C)."""
    tests = torch.stack([each for each, _ in real(name)])
    return scoring.passes(tests, scoring.extract(features.load(dataset(name)), samples))


@torch.no_grad()
def decode(model: models.VAE, codes: Tensor) -> Tensor:
    """Decode codes into mean images."""
    return model.decode(codes)


def copies(model: models.VAE, images: Tensor) -> Tensor:
    """Reconstruct images, each from a code sampled from its posterior."""
    return decode(model, reparameterize(*evaluation.encode(model, images), torch.Generator().manual_seed(0)))


def explained(model: models.VAE, name: str) -> Tensor:
    """Compute the share of the test images' variance that reconstructions explain, (R,)."""
    originals, average = (data.to_float(each.images) for each in (dataset(name).test, dataset(name).train))
    about = (originals - average.mean(0)).square().flatten(1).sum(1)
    left = (originals - copies(model, dataset(name).test.images)).square().flatten(1).sum(1)
    return 1 - mean(left, IMAGES) / mean(about, IMAGES)


def recognised(model: models.VAE) -> Tensor:
    """Compute the share of test digits that classifiers recognise when decoded from their mean codes, (R,)."""
    test = dataset("mnist").test
    digits = logits("mnist", decode(model, evaluation.encode(model, test.images)[0])).argmax(2)
    return over_classifiers(mean(digits == test.labels[:, None], IMAGES))


def sure(samples: Tensor) -> Tensor:
    """Compute the share of samples with a digit to which a classifier gives a probability above 0.9, (R,)."""
    return over_classifiers(mean(logits("mnist", samples).softmax(2).amax(2) > 0.9, DRAWS))


def waves(images: Tensor) -> Tensor:
    """Compute Fourier coefficients of images (N, C, H, W) for waves shorter than 8 pixels, (N, M), in a Hann window."""
    height, width = images.shape[2:]
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width))
    return torch.fft.fft2(images * window)[..., frequency > 1 / 8].flatten(1)


def spectra(copies: Tensor, originals: Tensor, average: Tensor) -> Tensor:
    """Compute what N pairs of images (N, C, H, W) share of short waves' power, and both powers, (N, 3)."""
    first, second = waves(originals - average), waves(copies - average)
    return torch.stack([(first * second.conj()).real, first.abs().square(), second.abs().square()], dim=1).sum(2)


def late(values: list[Tensor]) -> Tensor:
    """Compute the share of the gain from the first K to the best that follows the second K, (R,)."""
    best = max(values, key=lambda each: each[0])
    return (best - values[1]) / (best - values[0])


def elbos(model: models.VAE, split: str = "test") -> Tensor:
    """Compute the ELBO of each digit of a split, (N,), nats."""
    reconstruction, kl = evaluation.elbo(model, dataset("mnist").splits()[split].images)
    return reconstruction - kl


def properties(images: Tensor) -> dict[str, Tensor]:
    """Compute properties of faces (N, 3, 64, 48), each a tensor (N,)."""
    grey = images.mean(1)
    face, upper = grey[:, 16:48, 12:36].mean((1, 2)), grey[:, :16]
    corners = torch.cat([upper[:, :, :6], upper[:, :, -6:]], 2).mean((1, 2))
    return {
        "brightness": grey.mean((1, 2)),
        "contrast": grey.flatten(1).std(1),
        "right half less left half": grey[:, :, 24:].mean((1, 2)) - grey[:, :, :24].mean((1, 2)),
        "lower half less upper half": grey[:, 32:].mean((1, 2)) - grey[:, :32].mean((1, 2)),
        "face (middle) brightness": face,
        "background (upper corners) brightness": corners,
        "background less face": corners - face,
        "red less blue": (images[:, 0] - images[:, 2]).mean((1, 2)),
    }


def sharpness(images: Tensor) -> Tensor:
    """Compute the standard deviation of the Laplacian of images (N, 1, H, W), (R,)."""
    values = likelihoods.laplacian(images)
    return (mean(values.square().mean(1), IMAGES) - mean(values.mean(1), IMAGES).square()).sqrt()


def likelihood(kind: str, model: models.VAE, name: str = "mnist") -> dict[str, Tensor]:
    """Measure a model of `likelihoods` on all test images, and samples with drawn pixels and without, (R,) each."""
    images = dataset(name).test.images
    reconstruction, kl = evaluation.elbo(model, images)
    averages, drawn = likelihoods.sample(model, MOST)
    found = {
        "kl": mean(kl, IMAGES),
        "sharpness": sharpness(copies(model, images)) / sharpness(data.to_float(images)),
        "distance": kernel_distance(name, drawn),
        "distance_of_means": kernel_distance(name, averages),
    }
    if kind in likelihoods.WITH_BITS:
        found["bits"] = mean(likelihoods.bits(kind, reconstruction - kl, images[0].numel()), IMAGES)
    return found


def rank_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Compute Spearman's rank correlation of different values (R, M), (R,)."""
    ranks = torch.stack([x, y]).argsort(2).argsort(2).double()
    first, second = ranks - ranks.mean(2, keepdim=True)
    return (first * second).sum(1) / first.square().sum(1)


def agreement(trained: Trained, kinds: Iterable[str], keys: tuple[str, str]) -> dict[str, Tensor]:
    """Compute the rank correlation of two measures over likelihoods, and add all measures to the runs' records."""
    rows = []
    for kind in kinds:
        run = likelihoods.train(kind, trained.seed, dataset("mnist"))
        found = likelihood(kind, run.model())
        values = {key: value[0].item() for key, value in found.items()} | likelihoods.sigma(run.model())
        trained.keep(replace(run, evaluation=run.evaluation | values))
        rows.append(torch.stack([found[key] for key in keys]))
    return {"agree": rank_correlation(*torch.stack(rows, 2))}


def c1(trained: Trained) -> dict[str, Tensor]:
    many: dict[str, Any] = {"objective": MeanELBO(25)}
    one, several, early = (trained("mnist", 2, **each) for each in ({}, many, many | {"epochs": 1}))
    by_codes, whole = gradients.codes_and_all(one, dataset("mnist").train.images, trained.seed)
    return {
        "gain": mean(elbos(several) - elbos(one), IMAGES),
        "ahead": mean(elbos(one) - elbos(early), IMAGES),  # one epoch of 25 codes decodes more than ten epochs of one
        "share": mean(by_codes, DRAWS) / mean(whole, DRAWS),
    }


def c3(trained: Trained) -> dict[str, Tensor]:
    images, weights = dataset("mnist").test.images, counts(DRAWS, gradients.DRAWS_EACH)
    stages = [trained("mnist", 2, epochs=epochs) for epochs in (1, 10)]
    ratios = [gradients.ratios(model, images, weights, trained.seed) for model in stages]
    return {"z": torch.full((1 + RESAMPLES,), gradients.largest_z(trained.seed)), "naive": torch.cat(ratios, 1).amin(1)}


def c4(trained: Trained) -> dict[str, Tensor]:
    one, two = (trained("mnist", K) for K in (1, 2))
    samples = [model.sample(len(dataset("mnist").test), seed=0) for model in (one, two)]
    grey, less = (mean((each * (1 - each)).flatten(1).mean(1), DRAWS) for each in samples)
    return {"recognised": recognised(one), "sure": sure(samples[0]), "grey": less / grey}


def c5(trained: Trained) -> dict[str, Tensor]:
    test, rows = dataset("mnist").test, []
    for model in (trained("mnist", K) for K in (1, 2, 4, 8, 16, 64)):
        reconstruction, kl = evaluation.elbo(model, test.images)
        samples = model.sample(len(test), seed=0)
        row = {"nats": mean(reconstruction - kl, IMAGES), "recognised": recognised(model), "sure": sure(samples)}
        rows.append(row | {"distance": -kernel_distance("mnist", samples)})
    return {key: late([row[key] for row in rows]) for key in rows[0]}


def c6(trained: Trained) -> dict[str, Tensor]:
    gaps, tests, lost = {}, {}, {}
    for K in (1, 2, 4, 8, 16, 64):
        run = trained.run("mnist", K, epochs=100)
        each = elbos(run.model())
        tests[K] = mean(each, IMAGES)
        gaps[K] = mean(elbos(run.model(), "train"), TRAINING) - tests[K]
        course = [line["test_elbo"] for line in run.metrics]
        lost[K] = max(course) - course[-1]
    behind = torch.stack([*tests.values()]).amax(0) - tests[64]
    overfitted = [lost[K] for K in lost if gaps[K][0] > 1]
    return {"gap": gaps[64] - gaps[2], "behind": behind, "lost": torch.full_like(behind, max(overfitted))}


def c7(trained: Trained) -> dict[str, Tensor]:
    photos = dataset("celeba")
    originals, average = data.to_float(photos.test.images), data.to_float(photos.train.images).mean(0)
    decoded = copies(trained("celeba", 64), photos.test.images)
    before, after = logits("celeba", originals), logits("celeba", decoded)
    kept = []
    for column in map(photos.column, APPEARANCE):
        present = photos.test.labels[:, column]
        kept.append((areas(after[..., column], present) - 0.5) / (areas(before[..., column], present) - 0.5))
    shared, *powers = mean(spectra(decoded, originals, average), IMAGES).T
    return {"kept": torch.stack(kept).mean(0), "fine": shared.square() / (powers[0] * powers[1])}


def c8(trained: Trained) -> dict[str, Tensor]:
    photos = dataset("celeba")
    tests = data.to_float(photos.test.images)
    samples = trained("celeba", 64).sample(len(tests), seed=0)
    average = data.to_float(photos.train.images).mean(0).expand(tests.shape)
    return {
        "variance": variance(samples, DRAWS) / variance(tests, IMAGES),
        "distance": kernel_distance("celeba", samples) / kernel_distance("celeba", average),
    }


def c9(trained: Trained) -> dict[str, Tensor]:
    photos, model = dataset("celeba"), trained("celeba", 2)
    means, log_variances = evaluation.encode(model, photos.train.images)
    codes = reparameterize(means, log_variances, torch.Generator().manual_seed(0))
    draws = torch.randn(len(photos.test), 2, generator=torch.Generator().manual_seed(1))
    samples = decode(model, codes.mean(0) + draws @ torch.linalg.cholesky(codes.T.cov()).T)
    tests = data.to_float(photos.test.images)
    seen, unseen = (properties(data.to_float(each.images)) for each in (photos.train, photos.test))
    held_out, predicted = evaluation.encode(model, photos.test.images)[0].numpy(), {}
    for name, values in seen.items():
        guess = torch.from_numpy(LinearRegression().fit(means.numpy(), values.numpy()).predict(held_out))
        spread = mean(unseen[name].square(), IMAGES) - mean(unseen[name], IMAGES).square()
        predicted[name] = 1 - mean((unseen[name] - guess).square(), IMAGES) / spread
    best = partial(max, key=lambda name: predicted[name][0])
    return {
        "variance": variance(samples, DRAWS) / variance(tests, IMAGES),
        "light": predicted[best(LIGHT)],
        "ahead": predicted[LIGHT[0]] - predicted[best(predicted.keys() - {LIGHT[0]})],
    }


def c10(trained: Trained) -> dict[str, Tensor]:
    photos, distances, draws = dataset("celeba"), {}, torch.Generator().manual_seed(0)
    for K in (2, 8, 16, 32, 64, 96):
        distances[K] = kernel_distance("celeba", trained("celeba", K).sample(len(photos.test), seed=0))
    best = partial(min, key=lambda K: distances[K][0])
    middle, model = distances[best((32, 64))], trained("celeba", 96)
    encoded = reparameterize(*evaluation.encode(model, photos.train.images), draws)
    codes = torch.randn(5 * len(photos.test), 96, generator=draws)
    order = torch.cdist(codes, encoded).amin(1).argsort()
    fifth = len(codes) // 5
    near, far = (passes("celeba", decode(model, codes[each])).float() for each in (order[:fifth], order[-fifth:]))
    return {
        "worse": distances[96] / middle,
        "best": distances[best((2, 8, 16, 96))] - middle,
        "dead": over_classifiers(mean(far, FAR)) / over_classifiers(mean(near, DRAWS)),
    }


def c11(trained: Trained) -> dict[str, Tensor]:
    photos, model = dataset("celeba"), trained("celeba", 64)
    codes, unseen = (evaluation.encode(model, each.images)[0] for each in (photos.train, photos.test))
    fitted = attributes.fit(codes, photos.train.labels, photos.names)
    pixels, labels = logits("celeba", photos.test.images), photos.test.labels
    shares, points = [], {}
    for column, name in enumerate(photos.names):
        score, present = fitted[name].score(unseen), labels[:, column]
        shares.append((area(score, present) - 0.5) / (areas(pixels[..., column], present) - 0.5))
        if name in ("Smiling", "Male"):
            share = mean(present, IMAGES)
            points[name.lower()] = mean((score > 0) == present, IMAGES) - torch.maximum(share, 1 - share)
    return {"separable": torch.stack(shares).median(0).values} | points | walks(model, fitted["Smiling"], unseen[:40])


def walks(model: models.VAE, smiling: attributes.Attribute, starts: Tensor) -> dict[str, Tensor]:
    """Compute the change of the classifiers' smile score along the authors' direction and random directions.

    Resamples of a share of 1 would not vary. The share of directions is therefore drawn from the posterior of a uniform
    prior.
    """
    column = dataset("celeba").column("Smiling")

    def scores(direction: Tensor, steps: Tensor) -> Tensor:  # the mean over walks and classifiers, (R, steps)
        images = attributes.traverse(model, starts, direction, steps)
        seen = logits("celeba", images.flatten(0, 1))[..., column].unflatten(0, images.shape[:2]).mT  # (N, C, T)
        return over_classifiers(mean(seen.flatten(1), DRAWS).unflatten(1, seen.shape[1:]))

    along = scores(smiling.standardised_direction, torch.linspace(-4, 4, 11))
    random = torch.randn(WALKED, model.latent_dim, generator=torch.Generator().manual_seed(0))
    ends = [scores(each / each.norm(), torch.tensor([-4.0, 4.0])) for each in random]
    less = torch.stack([(each[:, 1] - each[:, 0]).abs() < along[:, -1] - along[:, 0] for each in ends], 1)
    beaten = less.float().mean(1)  # (R,)
    with seeded(0):
        drawn = torch.distributions.Beta(1 + WALKED * beaten, 1 + WALKED * (1 - beaten)).sample()
    beaten[1:] = drawn[1:]
    return {"rises": (along.diff(dim=1) > 0).float().mean(1), "beaten": beaten}


def c12(trained: Trained) -> dict[str, Tensor]:
    faces, digits = (explained(trained(name, 64), name) for name in ("celeba", "mnist"))
    return {"explained": faces, "degraded": faces - digits}


def b1(trained: Trained) -> dict[str, Tensor]:
    def log_prob(name: str) -> Tensor:
        run, estimates = long_runs.published(name, trained.seed, dataset("mnist"))
        trained.used[run.folder.name] = claims.fingerprint(run)
        return estimates

    return {
        "weighted": mean(log_prob("iwae5") - log_prob("vae"), IMAGES),
        "averaged": mean(log_prob("iwae5-short") - log_prob("mean5-short"), IMAGES),
    }


def b2(trained: Trained) -> dict[str, Tensor]:
    return agreement(trained, likelihoods.WITH_BITS, ("bits", "distance"))


def b3(trained: Trained) -> dict[str, Tensor]:
    return agreement(trained, likelihoods.BUILDERS, ("kl", "sharpness"))


def b4(trained: Trained) -> dict[str, Tensor]:
    digits, log_prob = collapse.fewer(dataset("mnist")), {}
    for name, way in collapse.WAYS.items():
        run = collapse.train(way, trained.seed, digits)
        log_prob[name], run = collapse.score(run, digits.test.images)
        trained.keep(run)
    if trained.seed == claims.next_rules()["seeds"]["beyond"][0]:
        for way in collapse.CURVE.values():
            trained.keep(collapse.train(way, trained.seed, digits))
        plain = collapse.WAYS["plain"]
        model = collapse.train(plain, trained.seed, digits).model()
        storage.save(model.half(), collapse.WEIGHTS, plain.functions(digits)["builder"])

    def gain(name: str, over: str = "plain") -> Tensor:
        return mean(log_prob[name] - log_prob[over], IMAGES)

    return {
        "annealing": gain("annealing"),
        "free_bits": gain("free bits"),
        "level": gain("two levels", over="wider decoder"),
    }


def repaired(run: runs.Run, own: runs.Run, name: str) -> dict[str, Tensor]:
    """Measure what priors do for a model, and for the model with a VampPrior of its own, (R,) each."""
    images, model, vamp = dataset(name), run.model(), own.model()
    q, count = priors.posterior(model, images.train.images), min(MOST, len(images.test))
    found, codes = {}, {}
    for source, drawn in priors.sources(model, q).items():
        with seeded(1):
            codes[source] = drawn(count)
        found[source] = kernel_distance(name, decode(model, codes[source]))
    with seeded(1):
        tests = priors.codes_of(priors.posterior(model, images.test.images), count)
        own_codes = priors.codes_of(priors.posterior(vamp, images.train.images), count)
    found["VampPrior"] = kernel_distance(name, vamp.sample(count, seed=1))
    found["codes of training images, its own"] = kernel_distance(name, decode(vamp, own_codes))
    of_prior, of_tests = (priors.nearest(each, q.mean) for each in (codes["mixture"], tests))
    return found | {"away": median(of_prior, DRAWS) / median(of_tests, IMAGES)}


def b6(trained: Trained) -> dict[str, Tensor]:
    shares: dict[str, list[Tensor]] = {"afterwards": [], "along": [], "away": []}
    for title, (name, K, builder, with_vamp) in priors.MODELS.items():
        run, own = (trained.run(name, K, builder=each) for each in (builder, with_vamp))
        found = repaired(run, own, name)
        trained.keep(replace(own, evaluation=own.evaluation | {key: each[0].item() for key, each in found.items()}))
        if title in priors.JUDGED:
            shares["afterwards"].append(1 - found["mixture"] / found["N(0, I)"])
            shares["along"].append(1 - found["VampPrior"] / found["N(0, I)"])
            shares["away"].append(found["away"])
    return {key: torch.stack(each).amin(0) for key, each in shares.items()}


MEASURES = {f.__name__.upper(): f for f in (c1, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, b1, b2, b3, b4, b6)}


def measure(claim: str, seed: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Train a seed's models and measure a claim, or read what an earlier call kept: the measures, and fingerprints."""
    path = RECORDS / "unfinished" / f"{claim}-s{seed}-{claims.digest(claims.next_rules())}.json"
    if not path.exists():
        used: dict[str, str] = {}
        found = MEASURES[claim](Trained(seed, used))
        path.parent.mkdir(exist_ok=True)
        files.write(path, json.dumps([{key: each.tolist() for key, each in found.items()}, used]))
    values, fingerprints = json.loads(path.read_bytes())
    return values, fingerprints


def decide(claim: str) -> claims.Judgement:
    """Measure a claim for each of its seeds, see `measure`."""
    rules = claims.next_rules()
    on = rules["claims"][claim]["data"]
    seeds = rules["seeds"]["beyond" if claim.startswith("B") else "mnist" if on.startswith("MNIST") else "faces"]
    found, values, errors = [], {}, {}
    used: dict[str, str] = {}
    for seed in seeds[: 3 if "three of the seeds" in on else None]:
        measures, fingerprints = measure(claim, seed)
        found.append(measures)
        used |= fingerprints
    for key in found[0]:
        by_seed = torch.tensor([each[key] for each in found])  # (seeds, R)
        values[key] = by_seed[:, 0].tolist()
        errors[key] = by_seed.mean(0)[1:].std().item()
    return claims.Judgement(claim, on, values, used, errors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m book.experiments.verdicts", description=__doc__)
    parser.add_argument("claim", nargs="*", default=[*MEASURES], help="C4, or one of its seeds, C4:10; by default all")
    for claim, _, seed in (each.partition(":") for each in parser.parse_args().claim):
        if seed:
            measure(claim, int(seed))
            continue
        decided = decide(claim)
        written = {"rules": claims.digest(claims.next_rules())} | asdict(decided)
        files.write(RECORDS / "verdicts" / f"{claim}.json", json.dumps(written, indent=1) + "\n")
        for kept in (RECORDS / "unfinished").glob(f"{claim}-s*"):
            kept.unlink()
        print(f"{claim} {decided.verdict}: {decided.summary}", flush=True)
