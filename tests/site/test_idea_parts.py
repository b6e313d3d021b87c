"""What is dragged in the chapters on the ideas, each on a page of its own: beside PyTorch, and in use."""

import json
import math
from pathlib import Path

import nbformat
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from book.machinery import live
from vaelib import objective, storage
from vaelib.data import digits

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "_build" / "html" / "_static"
PARTS = {
    "bound": ["page", "bell", "posteriors", "bound"],
    "price": ["page", "bell", "price"],
    "noise": ["page", "bell", "noise"],
    "clouds": ["page", "bell", "betas", "clouds"],
}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture
def part(visit, tmp_path):
    """Open a page with one part, the book's styles, and the scripts as they were built."""

    def part(name, **options):
        styles = [STATIC / "styles" / "pydata-sphinx-theme.css", STATIC / "book.css"]
        styles += [STATIC / "live" / f"{style}.css" for style in ("live", "bell", "clouds")]
        links = "".join(f'<link rel="stylesheet" href="{style.as_uri()}">' for style in styles)
        scripts = "".join(
            f'<script src="{(STATIC / "live" / f"{each}.js").as_uri()}"></script>' for each in PARTS[name]
        )
        theme = options.get("color_scheme", "light")
        (tmp_path / "part.html").write_text(
            f'<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8"><title>A part</title>'
            f'<meta name="viewport" content="width=device-width">{links}<article class="bd-content">'
            f"{(ROOT / 'book' / 'live' / f'{name}.html').read_text()}</article>{scripts}</html>"
        )
        return visit(str(tmp_path / "part"), **options)

    return part


def number(page, name):
    page.evaluate(TWO_FRAMES)
    return float(page.locator(f"#{name}").text_content().replace("−", "-"))


def press(page, slider, *keys):
    page.locator(f"#{slider}").focus()
    for key in keys:
        page.keyboard.press(key)


def drag(page, canvas, start, end):
    """Press at one place of a canvas, and release at another; both as fractions of its width and height."""
    box = page.locator(f"#{canvas}").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1])
    page.mouse.up()


def log_likelihood(model, x, z):
    with torch.inference_mode():
        logits = torch.cat([model.decoder.logits(part[:, None]).flatten(1) for part in z.split(2000)])
    return objective.bernoulli_log_prob(x.expand_as(logits), logits)


def test_the_bounds_terms_are_pytorchs(part):
    model = storage.from_pretrained("mnist-k1").double()
    page = part("bound")
    images = json.loads(page.evaluate("() => JSON.stringify(live.posteriors)"))
    assert len(images) == 6
    prior = Normal(torch.zeros((), dtype=torch.float64), 1)
    for number, image in enumerate(images):
        x = torch.tensor(image["pixels"], dtype=torch.float64)[None] / 255
        everywhere = torch.arange(-6, 6, 0.0008, dtype=torch.float64)
        joint = log_likelihood(model, x, everywhere) + prior.log_prob(everywhere)
        log_prob = torch.logsumexp(joint, 0).item() + math.log(0.0008)
        assert image["logProb"] == pytest.approx(log_prob, abs=1e-3)  # the density has kinks
        for mean, sigma in (
            (image["encoder"]["mean"], image["encoder"]["sigma"]),
            (image["posterior"]["mean"], image["posterior"]["sigma"]),
            (image["low"], (image["high"] - image["low"]) / 10),
            (image["high"], 2 * image["step"]),
        ):
            q = Normal(torch.tensor(mean, dtype=torch.float64), sigma)
            z = torch.linspace(mean - 8 * sigma, mean + 8 * sigma, 1601, dtype=torch.float64)
            reconstruction = -(q.log_prob(z).exp() * log_likelihood(model, x, z)).sum().item() * sigma / 100
            kl = kl_divergence(q, prior).item()
            ask = "([i, q]) => bound.terms(live.posteriors[i], q)"
            found = page.evaluate(ask, [number, {"mean": mean, "sigma": sigma}])
            assert found["reconstruction"] == pytest.approx(reconstruction, abs=2e-3)
            assert found["kl"] == pytest.approx(kl, abs=1e-5)
            assert found["gap"] == pytest.approx(reconstruction + kl + log_prob, abs=3e-3)


def test_q_is_dragged_over_the_posterior_and_log_p_stays(part):
    page = part("bound")
    page.get_by_role("button", name="A 2").click()
    before = {name: number(page, f"bound-{name}") for name in ("reconstruction", "kl", "gap", "truth")}
    drag(page, "bound-plot", (0.5, 0.5), (0.3, 0.6))
    after = {name: number(page, f"bound-{name}") for name in before}
    assert after["truth"] == before["truth"]
    assert after["gap"] > before["gap"] + 1
    for each in (before, after):
        assert each["reconstruction"] + each["kl"] - each["gap"] == pytest.approx(each["truth"], abs=0.02)
    page.get_by_role("button", name="mean and width of the posterior").click()
    best = number(page, "bound-gap")
    assert best < min(before["gap"], 0.1)
    press(page, "bound-mean", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight")
    press(page, "bound-sigma", "Home")
    assert number(page, "bound-gap") > best
    page.get_by_role("button", name="the encoder’s q").click()
    assert number(page, "bound-gap") == before["gap"]


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 1.0), (1.0, 0.5), (-3.0, 0.1), (2.0, 2.0)])
def test_the_price_is_the_divergence_and_its_area(part, mean, sigma):
    q = {"mean": mean, "sigma": sigma}
    expected = kl_divergence(Normal(torch.tensor(mean).double(), sigma), Normal(torch.zeros(()).double(), 1)).item()
    parts, areas = part("price").evaluate("(q) => [price.parts(q), price.areas(q)]", q)
    assert parts["place"] + parts["width"] == pytest.approx(expected, abs=1e-12)
    assert areas["above"] - areas["below"] == pytest.approx(expected, abs=1e-3)


def test_the_priced_gaussian_follows_finger_and_keys(part):
    page = part("price", **PHONE)
    canvas = page.locator("#price-plot").bounding_box()
    page.locator("#price-plot").tap(position={"x": canvas["width"] / 2, "y": canvas["height"] / 2})
    assert number(page, "price-mean-value") == pytest.approx(0, abs=0.03)
    assert number(page, "price-place") == pytest.approx(0, abs=0.001)
    press(page, "price-mean", "End")
    assert number(page, "price-place") == 4.5
    press(page, "price-sigma", "End")
    assert number(page, "price-width") == pytest.approx(1.5 - math.log(2), abs=0.001)
    assert number(page, "price-sum") == pytest.approx(6 - math.log(2), abs=0.002)


FUNCTIONS = {"square": torch.square, "sine": lambda z: torch.sin(5 * z)}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("mean", "sigma", "epsilon"), [(1.0, 0.6, 0.8), (-0.5, 1.5, -2.0)])
def test_slopes_past_the_noise_are_autograds(part, name, mean, sigma, epsilon):
    leaves = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (mean, sigma)]
    z = leaves[0] + leaves[1] * epsilon
    z.retain_grad()
    FUNCTIONS[name](z).backward()
    page = part("noise")
    found = page.evaluate(
        "([f, q, e]) => noise.slopes(noise.FUNCTIONS[f], q, e)", [name, {"mean": mean, "sigma": sigma}, epsilon]
    )
    assert [found["mean"], found["sigma"], found["z"]] == pytest.approx([each.grad.item() for each in (*leaves, z)])


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 1.0), (1.0, 0.6)])
def test_both_clouds_are_around_the_true_slope_and_as_wide_as_they_must_be(part, name, mean, sigma):
    """Moments of single estimates by sums over a grid; a cloud of S draws each is narrower by the root of S."""
    epsilon = torch.linspace(-10, 10, 20001, dtype=torch.float64)
    weights = torch.softmax(-(epsilon**2) / 2, 0)
    z = (mean + sigma * epsilon).requires_grad_()
    values = FUNCTIONS[name](z)
    (slope,) = torch.autograd.grad(values.sum(), z)
    page = part("noise")
    ask = """([way, name, q]) => {
      const f = noise.FUNCTIONS[name];
      return [f.gradient(q), noise.estimates(noise[way], f, q, 16, 4000)];
    }"""
    for way, single in (("path", slope), ("score", values.detach() * epsilon / sigma)):
        expected = (weights * single).sum().item()
        deviation = (weights * (single - expected) ** 2).sum().sqrt().item() / 4
        truth, found = page.evaluate(ask, [way, name, {"mean": mean, "sigma": sigma}])
        assert truth == pytest.approx(expected, abs=1e-6)
        found = torch.tensor(found, dtype=torch.float64)
        assert found.mean().item() == pytest.approx(expected, abs=4 * deviation / math.sqrt(4000))
        assert found.std().item() == pytest.approx(deviation, rel=0.1)


def test_the_slope_is_blocked_at_a_draw_and_flows_past_the_noise(part):
    page = part("noise")
    assert number(page, "noise-mean-slope") == number(page, "noise-z-slope") != 0
    page.get_by_role("button", name="z drawn from q").click()
    page.evaluate(TWO_FRAMES)
    assert [page.locator(f"#noise-{name}-slope").text_content() for name in ("mean", "sigma")] == ["none", "none"]
    assert page.locator(".noise-stop").is_visible() and not page.locator(".noise-past").is_visible()
    page.get_by_role("button", name="z = μ + σε").click()
    z = number(page, "noise-z-value")
    drag(page, "noise-prior", (0.5, 0.8), (0.25, 0.8))
    assert number(page, "noise-epsilon-value") == pytest.approx(-2.25, abs=0.03)
    assert number(page, "noise-z-value") == pytest.approx(1 - 0.6 * 2.25, abs=0.02) != z
    wide = [number(page, f"noise-{way}-spread") for way in ("path", "score")]
    press(page, "noise-samples", "End")
    assert number(page, "noise-samples-value") == 256
    narrow = [number(page, f"noise-{way}-spread") for way in ("path", "score")]
    assert [a / b for a, b in zip(wide, narrow, strict=True)] == pytest.approx([16, 16], rel=0.2)
    assert wide[0] < wide[1]
    page.get_by_role("button", name="f = sin 5z").click()
    assert number(page, "noise-path-spread") > number(page, "noise-score-spread")  # the path can lose


@pytest.fixture(scope="module")
def published():
    """What the chapter's notebook holds of the models with different β."""
    cells = nbformat.read(ROOT / "book" / "idea" / "kl.ipynb", 4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    (data,) = (output.data[live.CLOUDS] for output in outputs if live.CLOUDS in output.get("data", {}))
    assert len(data) < 60_000
    (still,) = (cell for cell in cells if "live-still" in str(cell.metadata.get("mystnb")))
    assert "image/png" in still.outputs[0].data  # for those without scripts
    return json.loads(data)


@pytest.mark.parametrize("beta", [0.1, 1, 64])
def test_the_clouds_are_those_of_a_model_trained_with_its_beta(published, beta):
    """Trained here once more, as the chapter says. Another processor rounds otherwise, so not all must be equal."""
    pixels, labels, held_out = digits.small()
    x, test = pixels[~held_out] / 16, pixels[held_out] / 16
    torch.manual_seed(0)
    model = live.small_vae()
    optimizer = torch.optim.Adam(model.parameters(), live.LEARNING_RATE)
    for _ in range(700):
        reconstruction, kl = model.elbo(x[torch.randperm(len(x))[: live.BATCH_SIZE]])
        optimizer.zero_grad()
        (beta * kl - reconstruction).mean().backward()
        optimizer.step()
    (found,) = (each for each in published["models"] if each["beta"] == beta)
    assert published["labels"] == labels[held_out].tolist()
    with torch.inference_mode():
        mean, log_variance = model.encode(test)
        reconstruction, kl = model.elbo(test.repeat(10, 1, 1, 1))
    codes = torch.tensor(found["codes"]).view(-1, 4) / 1000
    off = (codes - torch.cat([mean, torch.exp(log_variance / 2)], 1)).abs()
    assert off.median() < 0.03 and off.mean() < 0.1
    assert found["kl"] == pytest.approx(kl.mean().item(), abs=0.1)
    assert found["reconstruction"] == pytest.approx(-reconstruction.mean().item(), abs=0.2)


def test_the_kl_is_that_of_the_clouds_and_information_is_a_part_of_it(published):
    for each in published["models"]:
        codes = torch.tensor(each["codes"]).view(-1, 4) / 1000
        kl = objective.kl_divergence(codes[:, :2], 2 * codes[:, 2:].log()).mean().item()
        assert each["kl"] == pytest.approx(kl, abs=0.01)
        assert -0.001 <= each["information"] <= min(each["kl"] + 0.002, math.log(len(codes)))


def test_information_is_none_of_equal_clouds_and_all_of_those_apart():
    same, apart = torch.zeros(8, 2), 10 * torch.cartesian_prod(torch.arange(4.0), torch.arange(2.0))
    assert live.information(same, torch.ones(8, 2)) == pytest.approx(0, abs=1e-6)
    assert live.information(apart, torch.full((8, 2), 0.5)) == pytest.approx(math.log(8), abs=1e-6)


def test_the_slider_goes_through_the_models_and_shows_their_numbers(part, published):
    page = part("clouds", **PHONE)
    assert json.loads(page.evaluate("() => JSON.stringify(live.betas)")) == published
    assert number(page, "clouds-beta-value") == 1
    press(page, "clouds-beta", "Home")
    pictures = set()
    for each in published["models"]:
        assert number(page, "clouds-beta-value") == each["beta"]
        for name in ("reconstruction", "kl"):
            assert number(page, f"clouds-{name}") == pytest.approx(each[name], abs=0.0051)
        assert number(page, "clouds-sum") == pytest.approx(each["reconstruction"] + each["kl"], abs=0.0051)
        pictures.add(page.evaluate("() => document.getElementById('clouds-plane').toDataURL()"))
        press(page, "clouds-beta", "ArrowRight")
    assert len(pictures) == len(published["models"]) == 7
    assert "a mean over pixels" in page.locator("#clouds-name").text_content()
    page.locator("#clouds-beta").tap(position={"x": 8, "y": 12})
    assert number(page, "clouds-beta-value") == published["models"][0]["beta"]


def test_q_is_drawn_where_the_model_puts_it(part, published):
    page = part("clouds")
    found = page.evaluate("() => clouds.codes(clouds.models[2])")
    codes = torch.tensor(published["models"][2]["codes"]).view(-1, 4) / 1000
    drawn = torch.tensor([[each[key] for key in ("x", "y", "width", "height")] for each in found])
    torch.testing.assert_close(drawn, codes)
    assert [each["label"] for each in found] == published["labels"]
    rows = page.evaluate("() => [...clouds.rows(clouds.models[6]).pixels]")
    copies = torch.tensor(rows).view(2, 8, 10, 8)[1].permute(1, 0, 2)  # all are the average digit
    assert (copies - copies[0]).abs().max() <= 1 / 16


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_parts_are_accessible_and_fit_a_phone(part, name, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = part(name, color_scheme=scheme, **PHONE)
    page.wait_for_selector(".live")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    results = Axe().run(page, context="article", options={"preload": False})
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("name", PARTS)
def test_each_part_is_short(name):
    assert len((ROOT / "book" / "live" / f"{name}.js").read_text().splitlines()) < 150
