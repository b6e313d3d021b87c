"""The pictures to play with in the chapters on the ideas: against PyTorch, and in use; and their still twins."""

import json
import math
import re
from functools import partial
from types import SimpleNamespace

import nbformat
import pytest
import torch
from browsing import PHONE, as_number, button, drag, number, pixels, press, settle, timed
from conftest import BOOK
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy, softplus

from book.machinery import live
from vaelib import objective, storage
from vaelib.data import digits

PRIOR = Normal(torch.zeros((), dtype=torch.float64), 1)
FUNCTIONS = {"square": torch.square, "sine": lambda z: torch.sin(5 * z)}
WIRES = {"mean": "mu", "logVariance": "log_var", "sigma": "sigma", "epsilon": "eps", "z": "z"}
NAMES = WIRES | {"copy": "x_hat", "reconstruction": "reconstruction", "kl": "kl"}
CONTENT = json.loads((BOOK / "live" / "mnist.json").read_text())
LOOK = """(cases) => {
  const [encoder, decoder] = [vae.encoder(live["mnist-k2-encoder"]), vae.decoder(live["mnist-k2"])];
  return JSON.stringify(cases.map(([image, epsilon]) => {
    const look = vae.look(decoder, image, encoder.encode(image), epsilon);
    return { ...look, copy: [...look.logits.map(vae.sigmoid)], logits: undefined };
  }));
}"""


@pytest.fixture
def page(opened):
    """The chapter, with its 6 chosen and its middle shown."""
    page = opened("idea/vae", has_touch=True, reduced_motion="reduce")  # no smooth scrolling, which takes its time
    button(page, "A 6,").click()
    page.locator("#vae details").first.evaluate("(it) => { it.open = true; }")
    return page


@pytest.fixture(scope="module")
def model():
    return storage.from_pretrained("mnist-k2").double()


def encode(model, x):
    """As `model.encode` does, but in double precision."""
    features = model.encoder.features(x)
    return model.encoder.mean(features), model.encoder.log_variance(features)


def image(page, name):
    """The grey values of a canvas, from 0 to 1."""
    return pixels(page, f"#vae-{name}")[:, :, 0] / 255


def shown(page):
    """The numbers on the page: those on the wires, and those of the bill."""
    settle(page)
    read = "(all) => all.map((it) => [it.dataset.value || it.id, it.textContent])"
    pairs = page.locator("#vae [data-value], #vae-reconstruction, #vae-kl, #vae-sum").evaluate_all(read)
    return {name: as_number(text) for name, text in pairs}


def test_every_number_is_what_the_pages_lines_of_pytorch_compute(page, model):
    lines = "\n".join(page.locator(".vae-code li").all_text_contents())

    def compute(x, epsilon):
        """The lines' variables, by the page's names for them."""
        torch_ = SimpleNamespace(exp=torch.exp, sigmoid=torch.sigmoid, randn=lambda count: epsilon[:count])
        names = {"torch": torch_, "binary_cross_entropy": binary_cross_entropy, "x": x.double().view(1, 1, 28, 28)}
        names |= {"encoder": partial(encode, model), "decoder": model.decoder.logits}
        with torch.inference_mode():
            exec(lines, names)
        assert names["elbo"] == -(names["reconstruction"] + names["kl"])
        return {name: names[variable].flatten() for name, variable in NAMES.items()}

    generator = torch.manual_seed(0)
    images = [torch.tensor(each["pixels"]) / 255 for each in CONTENT["digits"]]
    images += [torch.zeros(784), torch.ones(784), torch.rand(784, generator=generator)]
    cases = [(x, torch.randn(2, generator=generator)) for x in images for _ in range(3)]
    answers = json.loads(page.evaluate(LOOK, [[x.tolist(), epsilon.tolist()] for x, epsilon in cases]))
    for (x, epsilon), found in zip(cases, answers, strict=True):
        for name, expected in compute(x, epsilon.double()).items():
            off = torch.tensor(found[name]).double().flatten() - expected
            assert off.norm() < 1e-4 * expected.norm(), name

    numbers = shown(page)
    expected = compute(image(page, "x"), torch.tensor([numbers["epsilon0"], numbers["epsilon1"]]).double())
    assert (image(page, "copy").flatten() - expected["copy"]).abs().max() < 0.02  # ε is shown to three digits
    for name in WIRES:
        assert [numbers[f"{name}{k}"] for k in range(2)] == pytest.approx(expected[name].tolist(), abs=2e-3)
    for name in ("reconstruction", "kl"):
        assert numbers[f"vae-{name}"] == pytest.approx(expected[name].item(), abs=0.3)


def test_a_drawing_is_scaled_and_centred_as_mnists_digits_are(page):
    strokes = [(0.1, 0.1), (0.8, 0.1), (0.3, 0.9)], [(0.5, 0), (0.5, 1)], [(0, 0.9), (0.9, 1)]
    for scale, points in zip((0.1, 0.4, 0.9), strokes, strict=True):
        button(page, "clear").click()
        drag(page, "#vae-pad", *[(0.05 + scale * x, 0.05 + scale * y) for x, y in points])
        drawn = image(page, "x")
        rows, columns = ((drawn > 0.02).any(axis).nonzero().flatten() for axis in (1, 0))
        extent = max(rows[-1] - rows[0], columns[-1] - columns[0]).item() + 1
        assert 19 <= extent <= 22  # a line's rim may share its pixel
        middle = (drawn.sum(1) @ torch.arange(28.0), drawn.sum(0) @ torch.arange(28.0))
        assert [each.item() / drawn.sum().item() for each in middle] == pytest.approx([14, 14], abs=0.5)


def test_a_stroke_moves_everything_and_keeps_the_page_busy_for_a_tenth_of_a_second_at_most(page):
    before, copy = shown(page), image(page, "copy")
    with timed(page) as seconds:
        drag(page, "#vae-pad", (0.2, 0.2), (0.8, 0.2), (0.4, 0.9))
        after = shown(page)
    assert max(seconds) < 0.1
    assert all(before[name] != after[name] for name in before if "epsilon" not in name)
    assert (image(page, "copy") - copy).abs().max() > 0.5


def test_noise_moves_z_and_the_copy_but_not_q(page):
    before = shown(page)
    moved = set()
    for _ in range(5):  # one may leave a number as it was: they are shown with one decimal
        button(page, "Draw ε again").click()
        after = shown(page)
        moved |= {name for name in before if after[name] != before[name]}
        for k in range(2):
            z = after[f"mean{k}"] + after[f"sigma{k}"] * after[f"epsilon{k}"]
            assert after[f"z{k}"] == pytest.approx(z, abs=3e-3)
    assert moved == {"epsilon0", "epsilon1", "z0", "z1", "vae-reconstruction", "vae-sum"}


def test_the_reader_can_take_the_encoders_place_and_give_it_back(page):
    back, mark = button(page, "Back to the encoder’s q"), page.locator(".vae-mark >> nth=2")
    before = shown(page)
    assert back.is_disabled()
    drag(page, "#vae-q", (0.3, 0.3), (0.75, 0.625))
    moved = shown(page)
    assert (moved["mean0"], moved["mean1"]) == pytest.approx((1.8, -0.9), abs=0.03)
    assert moved["sigma0"] == before["sigma0"]
    press(page, "#vae-width", "End")
    wide = shown(page)
    assert [wide[f"sigma{k}"] / before[f"sigma{k}"] for k in range(2)] == pytest.approx([32, 32], rel=0.03)
    mean, sigma = (torch.tensor([wide[f"{name}{k}"] for k in range(2)]) for name in ("mean", "sigma"))
    assert wide["vae-kl"] == pytest.approx(objective.kl_divergence(mean, 2 * sigma.log()).item(), abs=0.06)
    assert mark.is_visible() and "This q is yours" in page.locator("#vae-caption").inner_text()
    back.click()
    assert shown(page) == before
    assert not mark.is_visible()


def test_keys_move_q_and_draw_and_so_does_a_finger(page):
    before = shown(page)
    page.locator("#vae-q").focus()  # which may scroll
    height = page.evaluate("scrollY")
    press(page, "#vae-q", "ArrowRight", "ArrowUp", "Shift+ArrowRight")
    moved = [shown(page)[name] - before[name] for name in ("mean0", "mean1")]
    assert moved == pytest.approx([1.1, 0.1], abs=4e-3)
    assert page.evaluate("scrollY") == height
    copy = image(page, "copy")
    page.locator("#vae-q").tap(position={"x": 60, "y": 250})
    assert (image(page, "copy") - copy).abs().max() > 0.5
    hint, caption = page.locator("#vae-hint"), page.locator("#vae-caption")
    assert not hint.is_visible()
    button(page, "clear").click()
    assert image(page, "x").sum() == 0
    assert hint.is_visible() and hint.text_content() == "Draw something"
    assert "nats. Draw something." in caption.text_content()
    page.locator("#vae-pad").tap(position={"x": 40, "y": 40})
    assert 0 < image(page, "x").sum() < 20  # a finger's dot
    assert not hint.is_visible()
    button(page, "clear").click()
    press(page, "#vae-pad", "ArrowUp", "Space", "ArrowDown", "Shift+ArrowDown")
    drawn = image(page, "x")
    assert drawn.sum() > 20
    assert (drawn.sum(0) > 0.02).sum() <= 5 < (drawn.sum(1) > 0.02).sum()  # an upright line


def test_pointing_at_a_wire_lights_its_variable_and_the_other_way_round(page):
    page.locator("svg [data-part=sigma] [data-value=sigma0]").hover()
    assert set(page.locator(".vae-code span.vae-lit").all_text_contents()) == {"sigma"}
    page.locator(".vae-code li").nth(2).hover(position={"x": 150, "y": 8})
    assert page.locator("svg .vae-lit").evaluate_all("(all) => all.map((it) => it.dataset.part)") == ["eps"]
    page.locator(".vae-code li").nth(6).focus()
    assert "vae-lit" in page.locator(".vae-bar-kl").get_attribute("class")
    page.mouse.move(5, 5)
    assert page.locator("#vae .vae-lit").count() == 0
    colours = "(all) => all.map((it) => [it.textContent, getComputedStyle(it).color])"
    here, chapter = (
        dict(page.locator(f"{each}").evaluate_all(colours)) for each in (".vae-code span", ".highlight .n")
    )
    for name in (*WIRES.values(), "encoder", "decoder"):
        assert here[name] == chapter[name], name


def test_the_parts_colours_are_far_apart_for_every_eye():
    """As seen with three, and with each two, kinds of cones (Machado, Oliveira & Fernandes 2009)."""
    eyes = torch.tensor(
        [
            [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
            [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
        ]
    )
    found = re.findall(r"--vae-(\w+): #(\w{6})", (BOOK / "_static" / "book.css").read_text())
    assert [name for name, _ in found] == 2 * ["encoder", "decoder", "mu", "sigma", "epsilon", "z"]
    for theme in (found[:6], found[6:]):
        values = torch.tensor([list(bytes.fromhex(colour)) for _, colour in theme]) / 255
        linear = torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        seen = (linear @ eyes.mT).clamp(0, 1) ** (1 / 2.4)
        assert (torch.cdist(seen, seen) + torch.eye(6)).min() > 0.1


@pytest.fixture
def chapter(opened):
    return lambda name: opened(f"idea/{name}", **PHONE)


def test_on_a_phone_the_whole_machine_is_on_one_screen_and_the_plane_leaves_the_thumb_a_margin(opened):
    page = opened("idea/vae", viewport={"width": 390, "height": 844}, has_touch=True)
    page.locator("#vae").evaluate("(it) => it.scrollIntoView({ behavior: 'instant' })")
    image, plane, pay = (page.locator(place).bounding_box() for place in ("#vae-x", "#vae-q", ".vae-pay"))
    assert image["y"] > 0
    assert plane["x"] > 44
    assert plane["y"] + plane["height"] < pay["y"]
    assert pay["y"] + pay["height"] <= 844


def log_likelihood(model, x, z):
    """log p(x | z) of each image and code: (images, codes)."""
    with torch.inference_mode():
        logits = torch.cat([model.decoder.logits(part[:, None]).flatten(1) for part in z.split(2000)])
    return x @ logits.T - softplus(logits).sum(1)


def test_the_bounds_terms_are_pytorchs(chapter):
    model, page = storage.from_pretrained("mnist-k1").double(), chapter("elbo")
    images = json.loads(page.evaluate("() => JSON.stringify(live.posteriors)"))
    x = torch.tensor([image["pixels"] for image in images], dtype=torch.float64) / 255
    everywhere = torch.arange(-6, 6, 0.0008, dtype=torch.float64)
    joint = log_likelihood(model, x, everywhere) + PRIOR.log_prob(everywhere)
    log_probs = (torch.logsumexp(joint, 1) + math.log(0.0008)).tolist()
    assert [image["logProb"] for image in images] == pytest.approx(log_probs, abs=1e-3)  # the density has kinks
    for i in range(0, len(images), 4):
        image, log_prob = images[i], log_probs[i]
        wide = {"mean": image["low"], "sigma": (image["high"] - image["low"]) / 10}
        narrow = {"mean": image["high"], "sigma": 2 * image["step"]}
        for each in (image["encoder"], image["posterior"], narrow, wide):
            mean, sigma = each["mean"], each["sigma"]
            q = Normal(torch.tensor(mean, dtype=torch.float64), sigma)
            z = torch.linspace(mean - 8 * sigma, mean + 8 * sigma, 1601, dtype=torch.float64)
            likelihood = log_likelihood(model, x[i], z)
            reconstruction = -(q.log_prob(z).exp() * likelihood).sum().item() * sigma / 100
            kl = kl_divergence(q, PRIOR).item()
            found = page.evaluate("([i, q]) => bound.terms(live.posteriors[i], q)", [i, each])
            assert found["reconstruction"] == pytest.approx(reconstruction, abs=2e-3)
            assert found["kl"] == pytest.approx(kl, abs=1e-5)
            assert found["gap"] == pytest.approx(reconstruction + kl + log_prob, abs=3e-3)


def test_q_is_dragged_over_the_posterior_and_log_p_stays(chapter):
    page = chapter("elbo")

    def gap():
        """That of the q on the page; what it costs, less that, is -log p."""
        reconstruction, kl, gap = (number(page, f"#bound-{name}") for name in ("reconstruction", "kl", "gap"))
        assert reconstruction + kl - gap == pytest.approx(truth, abs=0.02)
        return gap

    button(page, "A 2").click()
    truth = number(page, "#bound-truth")
    before = gap()
    drag(page, "#bound-plot", (0.5, 0.5), (0.3, 0.6))
    assert gap() > before + 1
    button(page, "mean and width of the posterior").click()
    best = gap()
    assert best < min(before, 0.1)
    for slider in ("mean", "sigma"):
        press(page, f"#bound-{slider}", "End")
        assert gap() > best
    button(page, "the encoder’s q").click()
    assert gap() == before


def test_the_price_is_the_divergence_and_its_area(chapter):
    page = chapter("kl")
    canvas = page.locator("#price-plot").bounding_box()
    page.locator("#price-plot").tap(position={"x": canvas["width"] / 2, "y": canvas["height"] / 2})
    assert number(page, "#price-mean-value") == pytest.approx(0, abs=0.03)
    press(page, "#price-mean", "End")
    press(page, "#price-sigma", "End")
    shown = [number(page, f"#price-{name}") for name in ("place", "width", "sum")]
    assert shown == pytest.approx([4.5, 1.5 - math.log(2), 6 - math.log(2)], abs=2e-3)
    for mean, sigma in ((0, 1), (1, 0.5), (-3, 0.1), (2, 2)):
        kl = kl_divergence(Normal(torch.tensor(mean).double(), sigma), PRIOR).item()
        parts, areas = page.evaluate("(q) => [price.parts(q), price.areas(q)]", {"mean": mean, "sigma": sigma})
        assert parts["place"] + parts["width"] == pytest.approx(kl, abs=1e-12)
        assert areas["above"] - areas["below"] == pytest.approx(kl, abs=1e-3)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("mean", "sigma", "epsilon"), [(1.0, 0.6, 0.8), (-0.5, 1.5, -2.0)])
def test_slopes_past_the_noise_are_autograds(chapter, name, mean, sigma, epsilon):
    leaves = torch.tensor([mean, sigma, mean + sigma * epsilon], requires_grad=True)  # a shift of z beside both ways
    z = leaves[0] + leaves[1] * epsilon + (leaves[2] - leaves[2].detach())
    FUNCTIONS[name](z).backward()
    ask = "([f, mean, sigma, e]) => noise.slopes(noise.FUNCTIONS[f], { mean, sigma }, e)"
    found = chapter("reparameterization").evaluate(ask, [name, mean, sigma, epsilon])
    assert [found["mean"], found["sigma"], found["z"]] == pytest.approx(leaves.grad.tolist(), rel=1e-4)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 1.0), (1.0, 0.6)])
def test_both_clouds_are_around_the_true_slope_and_as_wide_as_they_must_be(chapter, name, mean, sigma):
    """Moments of single estimates by sums over a grid; a cloud of S draws each is narrower by the root of S."""
    epsilon = torch.linspace(-10, 10, 20001, dtype=torch.float64)
    weights = torch.softmax(-(epsilon**2) / 2, 0)
    z = (mean + sigma * epsilon).requires_grad_()
    values = FUNCTIONS[name](z)
    (slope,) = torch.autograd.grad(values.sum(), z)
    ask = """([way, name, q]) => {
      const f = noise.FUNCTIONS[name];
      return [f.gradient(q), noise.estimates(noise[way], f, q, 16, 4000)];
    }"""
    for way, single in (("path", slope), ("score", values.detach() * epsilon / sigma)):
        expected = (weights * single).sum().item()
        deviation = (weights * (single - expected) ** 2).sum().sqrt().item() / 4
        q = {"mean": mean, "sigma": sigma}
        truth, estimates = chapter("reparameterization").evaluate(ask, [way, name, q])
        assert truth == pytest.approx(expected, abs=1e-6)
        found = torch.tensor(estimates, dtype=torch.float64)
        assert found.mean().item() == pytest.approx(expected, abs=4 * deviation / math.sqrt(4000))
        assert found.std().item() == pytest.approx(deviation, rel=0.1)


def test_the_slope_is_blocked_at_a_draw_and_flows_past_the_noise(chapter):
    page = chapter("reparameterization")

    def shown(*names):
        return [number(page, f"#noise-{name}") for name in names]

    slope, spreads = shown("mean-slope"), ("path-spread", "score-spread")
    assert slope == shown("z-slope") != [0]
    button(page, "z drawn from q").click()
    settle(page)
    assert page.locator("#noise-mean-slope, #noise-sigma-slope").all_text_contents() == ["none", "none"]
    assert page.locator(".noise-stop").is_visible() and not page.locator(".noise-past").is_visible()
    button(page, "z = μ + σε").click()
    drag(page, "#noise-prior", (0.5, 0.8), (0.25, 0.8))
    assert shown("epsilon-value", "z-value") == pytest.approx([-2.25, 1 - 0.6 * 2.25], abs=0.03)
    wide = shown(*spreads)
    press(page, "#noise-samples", "End")
    assert [a / b for a, b in zip(wide, shown(*spreads), strict=True)] == pytest.approx([16, 16], rel=0.2)  # 256 draws
    assert wide[0] < wide[1]
    button(page, "f = sin 5z").click()
    assert shown("path-spread") > shown("score-spread")  # the path can lose


CELLS = nbformat.read(BOOK / "idea" / "kl.ipynb", 4).cells
OUTPUTS = [output.get("data", {}) for cell in CELLS for output in cell.get("outputs", [])]
(PUBLISHED,) = (json.loads(data[live.CLOUDS]) for data in OUTPUTS if live.CLOUDS in data)


def as_codes(model):
    """Means and standard deviations of each q: (N, 4)."""
    return torch.tensor(model["codes"]).view(-1, 4) / 1000


@pytest.mark.parametrize("found", PUBLISHED["models"][::6], ids=lambda found: found["beta"])
def test_the_clouds_are_those_of_a_model_trained_with_its_beta(found):
    """Trained here once more, as the chapter does. Another processor rounds otherwise, so not all must be equal."""
    (source,) = (cell.source for cell in CELLS if "def train(" in cell.source)
    chapter = {"torch": torch, "live": live, "objective": objective, "small": digits.small}
    exec(source.partition("trained =")[0], chapter)
    model = chapter["train"](found["beta"])
    (source,) = (cell.source for cell in CELLS if "def summed_up(" in cell.source)
    exec(source.partition("content =")[0], chapter)
    again = chapter["summed_up"](found["beta"], model)
    assert PUBLISHED["labels"] == chapter["answered"].tolist()
    off = (as_codes(found) - as_codes(again)).abs()
    assert off.median() < 0.03 and off.mean() < 0.1
    for name, tolerance in (("kl", 0.1), ("information", 0.1), ("reconstruction", 0.2)):
        assert found[name] == pytest.approx(again[name], abs=tolerance)


def test_information_is_none_of_equal_clouds_and_all_of_those_apart():
    same, apart = torch.zeros(8, 2), 10 * torch.cartesian_prod(torch.arange(4.0), torch.arange(2.0))
    assert live.information(same, torch.ones(8, 2)) == pytest.approx(0, abs=1e-6)
    assert live.information(apart, torch.full((8, 2), 0.5)) == pytest.approx(math.log(8), abs=1e-6)


def test_q_is_drawn_where_the_model_puts_it(chapter):
    page = chapter("kl")
    assert json.loads(page.evaluate("() => JSON.stringify(live.betas)")) == PUBLISHED
    found = page.evaluate("() => clouds.codes(clouds.models[2])")
    drawn = torch.tensor([[each[key] for key in ("x", "y", "width", "height")] for each in found])
    torch.testing.assert_close(drawn, as_codes(PUBLISHED["models"][2]))
    assert [each["label"] for each in found] == PUBLISHED["labels"]
    rows = page.evaluate("() => [...clouds.rows(clouds.models[6]).pixels]")
    copies = torch.tensor(rows).view(2, 8, 10, 8)[1].permute(1, 0, 2)  # all are the average digit
    assert (copies - copies[0]).abs().max() <= 1 / 16
