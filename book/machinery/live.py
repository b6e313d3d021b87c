"""What the book's interactive pages need beside the decoders: codes of test images, directions, and still pictures."""

import base64
import copy
import io
import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from vaelib import attributes, decoders, encoders, evaluation, objective, plots, priors
from vaelib.data import Dataset
from vaelib.data.digits import small as small_digits
from vaelib.models import VAE

PLANE_STEP, LAB_IMAGES = 4, 12  # every fourth digit; a dozen faces
CHOICE = (3, 2, 1, 6, 50, 0)  # test images to start from: of MNIST a 0, 1, 2, a 4 that two numbers cannot hold, 6, 7
SMALL, HIDDEN, BATCH_SIZE, LEARNING_RATE = (1, 8, 8), 128, 64, 0.003  # of the VAE that trains in the page
FRAMES = [0, 20, 40, 60, 70, 80, 90, 100, 120, 160, 200, 300, 500, 1000, 3000]  # updates so far
COLOURS = {"encoder": "#1430e4", "mu": "#06756f"}  # as the book's light theme has them
CLOUDS = "application/vnd.vaelib.clouds"  # JSON of `clouds`, in the output of the notebook that trains them
RARE = 10  # an attribute that fewer images have, or lack, is left out


def plane(dataset: Dataset, models: Sequence[VAE]) -> tuple[dict, Figure]:
    """For models of one and of two latent dimensions: labels and codes of every fourth test image; both maps decoded.

    Returns
    -------
    dict with `labels`, a class number for each image; `codes`, from each K to posterior means (N x K); and `digits`, a
        few test images to choose from: number, label and pixels (0 to 255, row by row) of each
    figure : the line from -2.5 to 2.5, and the plane from -2.5 to 2.5 along both dimensions
    """
    images, labels = dataset.test.images[::PLANE_STEP], dataset.test.labels[::PLANE_STEP]
    codes = {str(model.latent_dim): _rounded(evaluation.encode(model, images)[0], 3) for model in models}
    digits = [
        {"number": i, "label": dataset.test.labels[i].item(), "pixels": dataset.test.images[i].flatten().tolist()}
        for i in CHOICE
    ]
    line, square = models
    steps, reading = torch.linspace(-2.5, 2.5, 16), torch.linspace(-2.5, 2.5, 256)
    with torch.inference_mode():
        panels = {
            "one number, row by row": line.decode(reading.unsqueeze(1)),
            "two numbers, rightwards and upwards": square.decode(torch.cartesian_prod(-steps, steps).flip(1)),
        }
    content = {"labels": labels.tolist(), "codes": codes, "digits": digits}
    return content, plots.panels(panels, columns=16, panels_in_row=2)


def lab(dataset: Dataset, models: Sequence[VAE]) -> tuple[dict, Figure]:
    """For one model: a direction for each attribute, those that the codes hold best first; codes of a dozen images.

    Returns
    -------
    dict with `attributes`, a list of name, accuracy, majority (see `attributes.Attribute`), `spread` (the standard
        deviation of the test images' codes along the direction) and direction (K); `images`, the numbers of evenly
        spaced test images; and `codes`, their posterior means
    figure : walks from the code zero along the directions of the five attributes that are held best
    """
    (model,) = models
    means, labels = evaluation.encode(model, dataset.test.images)[0], dataset.test.labels
    usable = (torch.minimum(labels.sum(0), (~labels).sum(0)) >= RARE).nonzero().flatten()
    found = attributes.fit(means, labels[:, usable], [dataset.names[i] for i in usable.tolist()]).values()
    ranked = sorted(found, key=lambda each: each.majority - each.accuracy.mean().item())
    table = [
        {
            "name": each.name,
            "accuracy": round(each.accuracy.mean().item(), 4),
            "majority": round(each.majority, 4),
            "spread": round((means @ each.direction).std().item(), 3),
            "direction": _rounded(each.direction, 4),
        }
        for each in ranked
    ]
    chosen = list(range(0, len(means), max(1, len(means) // LAB_IMAGES)))[:LAB_IMAGES]
    steps, zero = torch.linspace(-4, 4, 11), torch.zeros(1, model.latent_dim)
    walks = {
        each.name.replace("_", " "): attributes.traverse(model, zero, each.direction, steps * row["spread"])[0]
        for each, row in zip(ranked[:5], table, strict=False)
    }
    return {"attributes": table, "images": chosen, "codes": _rounded(means[chosen], 3)}, plots.rows(walks)


def drawing(model: VAE, x: Tensor, epsilon: Tensor, content: Mapping, colours: Mapping[str, str]) -> str:
    """A VAE of two latent dimensions at work on one image, as an SVG picture: what the page shows where scripts run.

    Parameters
    ----------
    model : VAE with K = 2
    x : Tensor of shape (1, 28, 28), values in [0, 1]
    epsilon : Tensor of shape (2,), the noise of which z is made
    content : what `plane` returns: codes of test images, and their labels
    colours : of encoder, decoder, mu, sigma, epsilon and z
    """
    with torch.inference_mode():
        mean, log_variance = model.encode(x[None])
        sigma = torch.exp(log_variance / 2)
        z = mean + sigma * epsilon
        logits = model.decoder.logits(z)
    log_prob, kl = (each.item() for each in objective.elbo(x[None], logits, mean, log_variance))
    per_nat = 330 / (40 * math.ceil((kl - log_prob) / 40))  # units of the bars' length
    unit, limit = 190 / 3.6, 3.6  # the plane is 380 wide

    def at(code: Sequence[float]) -> tuple[float, float]:
        return 191 + unit * code[0], 431 - unit * code[1]

    def image(pixels: Tensor, left: int, top: int) -> str:
        to_pil_image(pixels).save(png := io.BytesIO(), "png")
        data = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
        return f'<image x="{left}" y="{top}" width="150" height="150" image-rendering="pixelated" href="{data}"/>'

    def box(part: str, name: str, numbers: Tensor, left: int, top: int, beside: tuple[int, int] = (44, -10)) -> str:
        first, second = (f"{number:.3f}".replace("-", "−") for number in numbers.flatten().tolist())
        return (
            f'<rect x="{left}" y="{top}" width="88" height="52" rx="5" stroke="{colours[part]}"/>'
            f'<text x="{left + beside[0]}" y="{top + beside[1]}" class="b" fill="{colours[part]}">{name}</text>'
            f'<text x="{left + 44}" y="{top + 22}">{first}</text><text x="{left + 44}" y="{top + 45}">{second}</text>'
        )

    def bar(row: int, name: str, start: float, nats: float, fill: str) -> str:
        top, left, width = 644 + 32 * row, 160 + per_nat * start, per_nat * nats
        return (
            f'<text x="0" y="{top + 18}" class="l">{name}</text>'
            f'<text x="618" y="{top + 18}" class="r">{nats:.1f} nats</text>'
            f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="24" style="fill:{fill}"/>'
        )

    clouds, names, named = "", "", []
    codes, labels = torch.tensor(content["codes"]["2"]), torch.tensor(content["labels"])
    for label in range(10):
        mine = codes[labels == label]
        dots = "".join("M{:.0f} {:.0f}h0".format(*at(code)) for code in mine.tolist() if max(map(abs, code)) < limit)
        clouds += f'<path d="{dots}" stroke="{to_hex(f"C{label}")}"/>'
        left, top = at(mine.median(0).values.tolist())
        while any(math.dist((left, top), each) < 16 for each in named):
            top -= 4  # or one name would cover another
        named.append((left, top))
        names += f'<text x="{left:.0f}" y="{top + 7:.0f}" class="o">{label}</text>'
    rings = "".join(f'<circle cx="191" cy="431" r="{unit * radius:.1f}"/>' for radius in (1, 2, 3))
    (left, top), (a, b) = at(mean[0].tolist()), sigma[0].tolist()
    zoom = next((each for each in (50, 20, 10, 5) if 2 * unit * each * max(a, b) < 60), 2)  # of the lens
    lens = (72 if left > 191 else 310, 312 if top > 431 else 550)
    far = (lens[0] + unit * zoom * a * epsilon[0].item(), lens[1] - unit * zoom * b * epsilon[1].item())
    ellipses = "".join(
        f'<ellipse cx="{lens[0]}" cy="{lens[1]}" rx="{unit * zoom * a * each:.1f}" ry="{unit * zoom * b * each:.1f}"/>'
        for each in (1, 2)
    )
    sigma_colour, epsilon_colour, ink = (f'stroke="{colours[part]}"' for part in ("sigma", "epsilon", "z"))
    return f'''<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 0 624 742" font-family="sans-serif" font-size="20">
<style>
  path, rect, circle, ellipse {{ fill: none; stroke-width: 2; }}
  .c path {{ stroke-width: 3; stroke-linecap: round; opacity: 0.5; }}
  text {{ text-anchor: middle; }} .b {{ font-weight: bold; }} .l {{ text-anchor: start; }} .r {{ text-anchor: end; }}
  .o {{ font-weight: bold; paint-order: stroke; stroke: white; stroke-width: 4; }}
  .p {{ fill: #666; font-weight: normal; font-size: 16px; }}
  .w {{ fill: white; font-weight: bold; font-size: 17px; }}
</style>
<rect x="-2" width="624" height="742" style="fill:white"/>
<text x="75" y="36">image x</text>{image(x, 0, 46)}
<path d="M156 32L222 58V184L156 210Z" style="fill:{colours["encoder"]}"/>
<text transform="translate(195 121) rotate(-90)" class="w">encoder</text>
<path d="M222 84H240M328 84H446" stroke="{colours["mu"]}"/>{box("mu", "μ", mean, 240, 58)}
<path d="M222 168H240M328 168H446" {sigma_colour} stroke-dasharray="6 4"/>{box("sigma", "σ", sigma, 240, 142)}
<path d="M460 228V182" {epsilon_colour} stroke-dasharray="2 4"/>{box("epsilon", "ε", epsilon, 416, 228, (-16, 32))}
<g {ink}><path d="M460 154V98M474 84H504M550 110V296" style="stroke-width:4"/>
<circle cx="460" cy="84" r="14"/><circle cx="460" cy="168" r="14"/></g>
<text x="460" y="91">+</text><text x="460" y="175">×</text>{box("z", "z", z, 504, 58)}
<path d="M520 296H580L618 346H470Z" style="fill:{colours["decoder"]}"/><text x="545" y="329" class="w">decoder</text>
{image(torch.sigmoid(logits)[0], 470, 352)}<text x="545" y="526">copy x̂</text>
<g class="c">{clouds}</g>
<rect x="1" y="241" width="380" height="380" rx="6" stroke="#888"/><g stroke="#888" opacity="0.6">{rings}</g>{names}
<text x="191" y="{437 - 3 * unit:.0f}" class="o p">prior</text>
<text x="12" y="265" class="l" font-size="17">latent plane</text>
<path d="M{left:.0f} {top:.0f}L{lens[0]} {lens[1]}" stroke="#888"/>
<circle cx="{left:.0f}" cy="{top:.0f}" r="4" {sigma_colour}/>
<circle cx="{lens[0]}" cy="{lens[1]}" r="66" stroke="#666" style="fill:white"/>
<g {sigma_colour} stroke-dasharray="6 4">{ellipses}</g>
<path d="M{lens[0]} {lens[1]}L{far[0]:.1f} {far[1]:.1f}" {epsilon_colour} stroke-dasharray="2 3"/>
<path d="M{lens[0] - 7} {lens[1]}h14m-7 -7v14" stroke="{colours["mu"]}"/>
<circle cx="{far[0]:.1f}" cy="{far[1]:.1f}" r="5" style="fill:{colours["z"]}"/>
<text x="{lens[0]}" y="{lens[1] + 60}" font-size="16">× {zoom}</text>
<path d="M160 640V740" stroke="#666"/>{bar(0, "reconstruction", 0, -log_prob, colours["decoder"])}
{bar(1, "KL", -log_prob, kl, colours["encoder"])}
{bar(2, "sum = −ELBO", 0, kl - log_prob, "#48566b")}
</svg>'''


def exact_posteriors(model: VAE, content: Mapping) -> list[dict]:
    """The exact posterior of some test images, for a VAE of one latent dimension: what `bound.js` is given.

    Parameters
    ----------
    model : VAE with K = 1
    content : what `plane` returns, of which the `digits` are taken

    Returns
    -------
    list of dict, one an image: number, label, pixels; `logProb`, log p(x) in nats, an integral over codes from -6 to 6;
        mean and sigma of the `posterior`, and of the `encoder`'s q; `low` and `high`, between which both lie; and
        `logLikelihood`, log p(x | z) at codes from `start` on in steps of `step`, twice as far around the mean
    """
    model = copy.deepcopy(model).double()
    everywhere, found = torch.linspace(-6, 6, 12001, dtype=torch.float64), []
    for digit in content["digits"]:
        x = torch.tensor(digit["pixels"], dtype=torch.float64).view(1, *model.image_shape) / 255
        joint = _log_likelihood(model, x, everywhere) - everywhere**2 / 2 - math.log(2 * math.pi) / 2
        log_prob = torch.logsumexp(joint, 0).item() + math.log(0.001)
        weights = torch.softmax(joint, 0)
        mean = (weights * everywhere).sum().item()
        sigma = (weights * (everywhere - mean) ** 2).sum().sqrt().item()
        with torch.inference_mode():
            encoder_mean, log_variance = (each.item() for each in model.encode(x))
        encoder_sigma = math.exp(log_variance / 2)
        half = max(6 * sigma, abs(encoder_mean - mean) + 5 * encoder_sigma)
        codes = torch.linspace(mean - 2 * half, mean + 2 * half, 801, dtype=torch.float64)
        found.append(
            digit
            | {
                "logProb": log_prob,
                "posterior": {"mean": mean, "sigma": sigma},
                "encoder": {"mean": encoder_mean, "sigma": encoder_sigma},
                "low": mean - half,
                "high": mean + half,
                "start": codes[0].item(),
                "step": half / 200,
                "logLikelihood": _rounded(_log_likelihood(model, x, codes), 4),
            }
        )
    return found


def stills(images: Sequence[Mapping]) -> dict[str, Figure]:
    """What stands for `bound`, `price` and `noise` without scripts; `images` is what `exact_posteriors` returns."""
    drawn = {}
    image = images[0]
    mean, sigma = image["encoder"]["mean"], image["encoder"]["sigma"]
    codes = image["start"] + image["step"] * torch.arange(len(image["logLikelihood"]), dtype=torch.float64)
    posterior = torch.exp(torch.tensor(image["logLikelihood"]) + _normal(codes, 0, 1).log() - image["logProb"])
    drawn["bound"], axes = plots.densities(1)
    axes[0].fill_between(codes, posterior, color="0.75", label="p(z | x), exact")
    axes[0].plot(codes, _normal(codes, mean, sigma), color=COLOURS["encoder"], label="the encoder's q")
    axes[0].set(xlim=(image["low"], image["high"]), ylim=(0, None), xlabel="z")
    axes[0].legend()

    z = torch.linspace(-4.5, 4.5, 901, dtype=torch.float64)
    prior, q = _normal(z, 0, 1), _normal(z, 1, 0.5)
    cost = q * (q / prior).log()
    drawn["price"], axes = plots.densities(2)
    axes[0].plot(z, prior, "--", color="0.5", label="the prior")
    axes[0].plot(z, q, color=COLOURS["encoder"], label="q")
    axes[1].fill_between(z, cost.clamp(min=0), color=COLOURS["encoder"], alpha=0.6, label="q log (q / prior)")
    axes[1].fill_between(z, cost.clamp(max=0), color="0.5")
    for each in axes:
        each.set(xlabel="z")
        each.legend()

    generator = torch.Generator().manual_seed(0)
    epsilon = torch.randn(400, generator=generator, dtype=torch.float64)
    heights = 0.6 * torch.rand(400, generator=generator)
    values = 1 + 0.6 * epsilon
    drawn["noise"], axes = plots.densities(1)
    for height, estimates, name in (
        (1, 2 * values, "by the path through z"),
        (0, values**2 * epsilon / 0.6, "by the score of q"),
    ):
        axes[0].plot(estimates, height + heights, ".", ms=3, alpha=0.6, label=name)
    axes[0].axvline(2, color=COLOURS["mu"], label="the true slope")
    axes[0].set(yticks=[], xlabel="estimates of the slope of E[z²] in μ, from one draw each")
    axes[0].legend()
    return drawn


def _normal(z: Tensor, mean: float, sigma: float) -> Tensor:
    return torch.exp(-0.5 * ((z - mean) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))


@torch.inference_mode()
def _log_likelihood(model: VAE, x: Tensor, codes: Tensor) -> Tensor:
    """log p(x | z) of one image for each of many one-dimensional codes."""
    parts = (model.decoder.logits(batch[:, None]) for batch in codes.split(1000))
    return torch.cat([objective.bernoulli_log_prob(x.expand_as(each), each) for each in parts])


def small_vae() -> VAE:
    """The VAE that trains in the page: 64 - 128 - 2 - 128 - 64, for scikit-learn's digits; its weights are random."""
    pixels = SMALL[1] * SMALL[2]
    features = nn.Sequential(nn.Flatten(), nn.Linear(pixels, HIDDEN), nn.ReLU())
    output = nn.Sequential(nn.Linear(2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, pixels), nn.Unflatten(1, SMALL))
    return VAE(encoders.Gaussian(features, HIDDEN, 2), decoders.Bernoulli(output), priors.Standard(2), SMALL)


def training(frames: Sequence[int]) -> list[Figure]:
    """The page's training, done by PyTorch: a picture after each of so many updates, in rising order."""
    pixels, labels, test = small_digits()
    images, drawn = pixels[~test] / 16, []
    torch.manual_seed(0)
    model = small_vae()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    for update in range(frames[-1] + 1):
        if update in frames:
            drawn.append(_training_frame(model, pixels[test] / 16, labels[test], update))
        reconstruction, kl = model.elbo(images[torch.randperm(len(images))[:BATCH_SIZE]])
        optimizer.zero_grad()
        (kl - reconstruction).mean().backward()
        optimizer.step()
    return drawn


@torch.no_grad()
def _training_frame(model: VAE, images: Tensor, labels: Tensor, update: int) -> Figure:
    """Codes of the images, drawn as their labels, beside the decoded plane."""
    reconstruction, kl = (terms.mean().item() for terms in model.elbo(images))
    places = (torch.arange(12) + 0.5) * (8 / 12) - 4  # of the decoded images, from -4 to 4
    decoded = model.decode(torch.cartesian_prod(-places, places).flip(1))
    prices = f"reconstruction {-reconstruction:.1f} + KL {kl:.1f} = {kl - reconstruction:.1f} nats"
    return plots.plane(model.encode(images)[0], labels, decoded, 4, f"after {update:,} updates: {prices}")


@torch.no_grad()
def clouds(models: Mapping[float, VAE], images: Tensor, labels: Tensor, draws: int = 20) -> dict:
    """What models of two latent dimensions, each trained with a β of its own, make of the same images.

    Parameters
    ----------
    models : from each β to its model
    images, labels : of shape (N, 1, 8, 8), values in [0, 1], and (N,); both terms are averaged over N and the draws

    Returns
    -------
    dict with `labels`; `digits`, the first image of each label, as text (see `shades`); and `models`, for each its
        `beta`, its `reconstruction` and `kl`, the `information` in the latter, `codes`, means and standard deviations
        of each image's q in thousandths (N x 4, flat), and `copies`, those digits decoded from their means, as text
    """
    chosen = torch.stack([(labels == label).nonzero()[0, 0] for label in labels.unique()])
    found = []
    for beta, model in models.items():
        torch.manual_seed(0)
        reconstruction, kl = model.elbo(images.repeat(draws, 1, 1, 1))
        mean, log_variance = model.encode(images)
        sigma = torch.exp(log_variance / 2)
        found.append(
            {
                "beta": beta,
                "reconstruction": round(-reconstruction.mean().item(), 3),
                "kl": round(kl.mean().item(), 3),
                "information": round(information(mean, sigma), 3),
                "codes": (1000 * torch.cat([mean, sigma], 1)).round().int().flatten().tolist(),
                "copies": shades(model.decode(mean[chosen])),
            }
        )
    return {"labels": labels.tolist(), "digits": shades(images[chosen]), "models": found}


def information(mean: Tensor, sigma: Tensor, step: float = 0.02) -> float:
    """Mutual information of image and code, in nats: the aggregated posterior's entropy, less the mean one of the q's.

    Parameters
    ----------
    mean, sigma : of N Gaussians in the plane, each (N, 2)
    step : of the grid that the first entropy is computed on; no sigma may be smaller
    """
    mean, sigma = mean.double(), sigma.double()
    low, high = (mean - 6 * sigma).min().item(), (mean + 6 * sigma).max().item()
    axis = torch.arange(low, high, step, dtype=torch.float64)
    x, y = torch.distributions.Normal(mean, sigma).log_prob(axis[:, None, None]).exp().unbind(-1)  # each (n, N)
    aggregated = x @ y.T / len(mean)
    entropy = (torch.log(sigma) + 0.5 * math.log(2 * math.pi * math.e)).sum(1).mean()
    return (torch.special.entr(aggregated).sum() * step**2 - entropy).item()


def shades(images: Tensor) -> str:
    """Images in [0, 1] as text: a digit of base 17 for each pixel, image by image, row by row."""
    return "".join("0123456789abcdefg"[value] for value in (16 * images).round().int().flatten().tolist())


def _rounded(numbers: Tensor, digits: int) -> list:
    """As nested lists; rounded in double precision, in which the decimals print as short as they are."""
    return numbers.double().round(decimals=digits).tolist()
