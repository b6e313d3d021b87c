"""The chapter "What is a VAE?": its picture, used in a browser, against PyTorch; and its still twin."""

import json
import re
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from vaelib import objective, storage

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "_build" / "html" / "book" / "idea" / "vae.html"
CONTENT = json.loads((ROOT / "book" / "live" / "mnist.json").read_text())
CSS = (ROOT / "book" / "_static" / "book.css").read_text()
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
LOOK = """(cases) => {
  const { encode } = vae.encoder(live["mnist-k2-encoder"]);
  const decoder = vae.decoder(live["mnist-k2"]);
  return JSON.stringify(cases.map(([image, epsilon]) => {
    const look = vae.look(decoder, image, encode(image), epsilon);
    return { ...look, copy: [...look.logits.map(vae.sigmoid)], logits: undefined };
  }));
}"""


@pytest.fixture
def visit(visit):
    """Open the chapter."""
    return partial(visit, "idea/vae")


@pytest.fixture(scope="module")
def model():
    return storage.from_pretrained("mnist-k2").double()


def encode(model, x):
    """As `model.encode` does, but in double precision."""
    features = model.encoder.features(x)
    return model.encoder.mean(features), model.encoder.log_variance(features)


def image(page, name):
    """The grey values of a canvas, from 0 to 1, once the page has answered what was done to it."""
    page.evaluate(TWO_FRAMES)
    pixels = page.locator(f"#vae-{name}").evaluate(
        "(it) => JSON.stringify([...it.getContext('2d').getImageData(0, 0, it.width, it.height).data])"
    )
    return torch.tensor(json.loads(pixels)).view(-1, 4)[:, 0].view(28, 28) / 255


def shown(page):
    """The numbers on the page: those on the wires, and those of the bill."""
    page.evaluate(TWO_FRAMES)
    read = "(all) => all.map((it) => [it.dataset.value || it.id, it.textContent])"
    pairs = page.locator("#vae [data-value], #vae-reconstruction, #vae-kl, #vae-sum").evaluate_all(read)
    return {name: float(text.removesuffix(" nats").replace("−", "-")) for name, text in pairs}


def bar(page, name):
    """Where a bar begins and ends, in nats."""
    track = page.locator(".vae-track").first.bounding_box()
    box = page.locator(f".vae-bar-{name}").bounding_box()
    per_nat = track["width"] / float(page.locator(".vae-ticks").get_attribute("data-top"))
    return (box["x"] - track["x"]) / per_nat, (box["x"] + box["width"] - track["x"]) / per_nat


def stroke(page, *points):
    box = page.locator("#vae-pad").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def close(found, expected):
    """Whether all numbers of a vector agree to a ten-thousandth of its length."""
    found, expected = (torch.as_tensor(each, dtype=torch.float64).flatten() for each in (found, expected))
    return (found - expected).norm() < 1e-4 * expected.norm()


def test_every_number_is_pytorchs(visit, model):
    generator = torch.manual_seed(0)
    images = [torch.tensor(each["pixels"]) / 255 for each in CONTENT["digits"]]
    images += [torch.zeros(784), torch.ones(784), torch.rand(784, generator=generator)]
    cases = [(x, torch.randn(2, generator=generator)) for x in images for _ in range(3)]
    answers = json.loads(visit().evaluate(LOOK, [[x.tolist(), epsilon.tolist()] for x, epsilon in cases]))
    for (x, epsilon), found in zip(cases, answers, strict=True):
        x = x.double().view(1, 1, 28, 28)
        with torch.inference_mode():
            mean, log_variance = encode(model, x)
            z = mean + torch.exp(log_variance / 2) * epsilon
            logits = model.decoder.logits(z)
            log_prob, kl = objective.elbo(x, logits, mean, log_variance)
        assert close(found["mean"], mean)
        assert close(found["logVariance"], log_variance)
        assert close(found["sigma"], torch.exp(log_variance / 2))
        assert close(found["z"], z)
        assert close(found["copy"], torch.sigmoid(logits))
        assert close(found["reconstruction"], -log_prob)
        assert close(found["kl"], kl)


def test_the_pages_lines_of_pytorch_compute_what_the_page_shows(visit, model):
    page = visit()
    page.locator("#vae summary").first.click()
    lines = page.locator(".vae-code li").all_text_contents()
    numbers, x = shown(page), image(page, "x").double().view(1, 1, 28, 28)
    epsilon = torch.tensor([numbers["epsilon0"], numbers["epsilon1"]], dtype=torch.float64)

    class torch_with_this_noise:
        exp, sigmoid, randn = torch.exp, torch.sigmoid, lambda count: epsilon[:count]

    names = {
        "torch": torch_with_this_noise,
        "binary_cross_entropy": binary_cross_entropy,
        "encoder": lambda x: encode(model, x),
        "decoder": model.decoder.logits,
        "x": x,
    }
    with torch.inference_mode():
        exec("\n".join(lines), names)
    wires = {"mean": "mu", "logVariance": "log_var", "sigma": "sigma", "epsilon": "eps", "z": "z"}
    for name, variable in wires.items():
        for k in range(2):
            assert numbers[f"{name}{k}"] == pytest.approx(names[variable].flatten()[k].item(), abs=2e-3)
    bill = [numbers[f"vae-{name}"] for name in ("reconstruction", "kl", "sum")]
    names["sum"] = -names["elbo"]
    assert bill == pytest.approx([names[name].item() for name in ("reconstruction", "kl", "sum")], abs=0.3)
    assert (image(page, "copy") - names["x_hat"].view(28, 28)).abs().max() < 0.02  # ε is shown to three digits


def test_the_bars_are_as_long_as_the_bill_says(visit):
    page = visit()
    for name in ("0", "1", "4"):
        page.get_by_role("button", name=f"A {name},").click()
        numbers = shown(page)
        assert numbers["vae-sum"] == pytest.approx(numbers["vae-reconstruction"] + numbers["vae-kl"], abs=0.11)
        assert bar(page, "reconstruction") == pytest.approx((0, numbers["vae-reconstruction"]), abs=0.5)
        assert bar(page, "kl") == pytest.approx((numbers["vae-reconstruction"], numbers["vae-sum"]), abs=0.5)
        assert bar(page, "sum") == pytest.approx((0, numbers["vae-sum"]), abs=0.5)


@pytest.mark.parametrize("scale", [0.1, 0.4, 0.9])
def test_a_drawing_is_scaled_and_centred_as_mnists_digits_are(visit, scale):
    page = visit()
    for points in ([(0.1, 0.1), (0.8, 0.1), (0.3, 0.9)], [(0.5, 0), (0.5, 1)], [(0, 0.9), (0.9, 1)]):
        page.get_by_role("button", name="clear").click()
        stroke(page, *[(0.05 + scale * x, 0.05 + scale * y) for x, y in points])
        drawn = image(page, "x")
        rows, columns = ((drawn > 0.02).any(axis).nonzero().flatten() for axis in (1, 0))
        extent = max(rows[-1] - rows[0], columns[-1] - columns[0]).item() + 1
        assert 19 <= extent <= 22  # a line's rim may share its pixel
        middle = (drawn.sum(1) @ torch.arange(28.0), drawn.sum(0) @ torch.arange(28.0))
        assert [each.item() / drawn.sum().item() for each in middle] == pytest.approx([14, 14], abs=0.5)


def test_the_digits_to_choose_from_are_centred_so_too():
    for digit in CONTENT["digits"]:
        pixels = torch.tensor(digit["pixels"], dtype=torch.float64).view(28, 28)
        middle = (pixels.sum(1) @ torch.arange(28.0).double(), pixels.sum(0) @ torch.arange(28.0).double())
        assert [each.item() / pixels.sum().item() for each in middle] == pytest.approx([14, 14], abs=0.5)


def test_a_stroke_moves_everything_within_50_ms(visit):
    page = visit()
    before, copy = shown(page), image(page, "copy")
    stroke(page, (0.2, 0.2), (0.8, 0.2), (0.4, 0.9))
    after = shown(page)
    assert all(before[name] != after[name] for name in before if "epsilon" not in name)
    assert (image(page, "copy") - copy).abs().max() > 0.5
    took = page.locator("#vae-pad").evaluate(
        """(pad) => {
          const box = pad.getBoundingClientRect();
          const at = (type, x) => pad.dispatchEvent(new PointerEvent(type, {
            pointerId: 1, button: 0, clientX: box.x + x * box.width, clientY: box.y + x * box.height, bubbles: true }));
          pad.setPointerCapture = () => {};
          pad.hasPointerCapture = () => true;
          at("pointerdown", 0.1);
          const steps = Array.from({ length: 20 }, (_, i) => () => new Promise((done) => {
            const started = performance.now();
            at("pointermove", 0.12 + 0.03 * i);
            requestAnimationFrame(() => setTimeout(() => done(performance.now() - started)));
          }));
          return steps.reduce(async (all, step) => [...await all, await step()], []);
        }"""
    )
    assert sorted(took)[len(took) // 2] < 50


def test_noise_moves_z_and_the_copy_but_not_q(visit):
    page = visit()
    before = shown(page)
    draws = []
    for _ in range(5):  # one may leave a number as it was: they are shown with one decimal
        page.get_by_role("button", name="Draw ε again").click()
        draws.append(after := shown(page))
    for name in before:
        moves = name[:-1] in ("epsilon", "z") or name in ("vae-reconstruction", "vae-sum")
        assert any(draw[name] != before[name] for draw in draws) == moves, name
    for k in range(2):
        z = after[f"mean{k}"] + after[f"sigma{k}"] * after[f"epsilon{k}"]
        assert after[f"z{k}"] == pytest.approx(z, abs=3e-3)


def test_the_reader_can_take_the_encoders_place_and_give_it_back(visit):
    page = visit()
    back = page.get_by_role("button", name="Back to the encoder’s q")
    assert back.is_disabled()
    before = shown(page)
    box = page.locator("#vae-q").bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.625 * box["height"])
    page.mouse.up()
    moved = shown(page)
    assert (moved["mean0"], moved["mean1"]) == pytest.approx((1.8, -0.9), abs=0.03)
    assert moved["sigma0"] == before["sigma0"]
    page.locator("#vae-width").focus()
    page.keyboard.press("End")
    wide = shown(page)
    assert [wide[f"sigma{k}"] / before[f"sigma{k}"] for k in range(2)] == pytest.approx([32, 32], rel=0.03)
    mean, sigma = (torch.tensor([wide[f"{name}{k}"] for k in range(2)]) for name in ("mean", "sigma"))
    assert wide["vae-kl"] == pytest.approx(objective.kl_divergence(mean, 2 * sigma.log()).item(), abs=0.06)
    assert page.locator(".vae-mark").is_visible()
    assert "This q is yours" in page.locator("#vae-caption").inner_text()
    back.click()
    assert shown(page) == before
    assert not page.locator(".vae-mark").is_visible()


def test_the_keyboard_moves_q_and_draws(visit):
    page = visit()
    before = shown(page)
    page.locator("#vae-q").focus()
    for key in ("ArrowRight", "ArrowUp", "Shift+ArrowRight"):
        page.keyboard.press(key)
    moved = shown(page)
    assert moved["mean0"] == pytest.approx(before["mean0"] + 1.1, abs=2e-3)
    assert moved["mean1"] == pytest.approx(before["mean1"] + 0.1, abs=2e-3)
    page.get_by_role("button", name="clear").click()
    assert image(page, "x").sum() == 0
    assert page.locator("#vae-hint").is_visible()
    page.locator("#vae-pad").focus()
    for key in ("ArrowUp", "Space", "ArrowDown", "Shift+ArrowDown"):
        page.keyboard.press(key)
    drawn = image(page, "x")
    assert drawn.sum() > 20
    assert (drawn.sum(0) > 0.02).sum() <= 5 < (drawn.sum(1) > 0.02).sum()  # an upright line
    assert page.evaluate("scrollY") == 0


def test_a_finger_draws_and_drags_on_a_phone(visit):
    page = visit(**PHONE)
    before = shown(page)
    page.locator("#vae-pad").tap(position={"x": 40, "y": 40})
    dot = image(page, "x")
    assert 0 < dot.sum() < 20
    page.locator("#vae-q").tap(position={"x": 20, "y": 20})
    after = shown(page)
    assert after["mean0"] < -2 and after["mean1"] > 2
    assert after["mean0"] != before["mean0"]
    page.locator("#vae summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for part in (".vae-flow", ".vae-bill", ".vae-inside"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360


def test_pointing_at_a_wire_lights_its_variable_and_the_other_way_round(visit):
    page = visit()
    page.locator("#vae summary").first.click()
    lit = ".vae-inside .vae-lit"
    assert page.locator(lit).count() == 0
    page.locator("svg [data-part=sigma] [data-value=sigma0]").hover()
    assert set(page.locator(f".vae-code span{lit.removeprefix('.vae-inside ')}").all_text_contents()) == {"sigma"}
    page.locator(".vae-code li").nth(2).hover(position={"x": 150, "y": 8})
    assert page.locator("svg .vae-lit").evaluate_all("(all) => all.map((it) => it.dataset.part)") == ["eps"]
    page.locator(".vae-code li").nth(6).focus()
    assert "vae-lit" in page.locator(".vae-bar-kl").get_attribute("class")
    page.mouse.move(5, 5)
    assert page.locator("#vae .vae-lit").count() == 0
    colours = "(all) => all.map((it) => [it.textContent, getComputedStyle(it).color])"
    page_code, chapter_code = (
        dict(page.locator(where).evaluate_all(colours)) for where in (".vae-code span", "article .highlight .n")
    )
    for name in ("mu", "log_var", "sigma", "eps", "z", "encoder", "decoder"):
        assert page_code[name] == chapter_code[name], name
    assert len({page_code[name] for name in ("mu", "sigma", "eps", "z", "encoder", "decoder")}) == 6


def test_the_picture_is_drawn_soon_and_is_light(visit):
    drawn = []
    for _ in range(3):  # on a machine that may be busy otherwise
        page = visit()
        assert image(page, "copy").sum() > 10
        drawn.append(page.evaluate("performance.now()"))
    assert min(drawn) < 2000, "ms since the page was asked for"
    own = {path.name: path.stat().st_size for path in (ROOT / "_build" / "html" / "_static" / "live").iterdir()}
    loaded = set(re.findall(r"live/([\w-]+\.(?:js|css))", PAGE.read_text()))
    assert {"mnist-k2.js", "mnist-k2-encoder.js", "vae.js", "vae.css"} <= loaded
    assert sum(own[name] for name in loaded) + PAGE.stat().st_size < 4e6, "bytes, without the theme's own files"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(visit, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(color_scheme=scheme)
    page.locator("#vae summary").first.click()
    results = Axe().run(page, context="article", options={"preload": False})  # or it fetches what file:// forbids
    assert results.violations_count == 0, results.generate_report()


def test_without_scripts_and_on_paper_the_still_picture_stands_there(visit):
    still, page = visit(java_script_enabled=False), visit()
    page.wait_for_selector("#vae")
    assert not page.locator(".live-still").is_visible()
    page.emulate_media(media="print")
    for each in (still, page):
        assert each.locator(".live-still img").is_visible()
        assert not each.locator("#vae").is_visible()


def test_the_parts_colours_are_far_apart_for_every_eye_and_legible():
    """In CIELAB, as seen with three, and with each two, kinds of cones (Machado, Oliveira & Fernandes 2009)."""
    machado = torch.tensor(
        [
            [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
            [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
        ]
    )
    to_xyz = torch.tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    white = torch.tensor([0.95047, 1, 1.08883])

    def linear(colour):
        value = torch.tensor([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return torch.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)

    def lab(seen):
        xyz = to_xyz @ seen.clamp(0, 1) / white
        x, y, z = torch.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116)
        return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    found = re.findall(r"--vae-(\w+): (#\w{6})", CSS)
    assert [name for name, _ in found] == 2 * ["encoder", "decoder", "mu", "sigma", "epsilon", "z"]
    # Code has the least contrast: the theme's surfaces
    for colours, background in ((found[:6], "#f3f4f5"), (found[6:], "#29313d")):
        for _, colour in colours:
            low, high = sorted((to_xyz[1] @ linear(each)).item() for each in (colour, background))
            assert (high + 0.05) / (low + 0.05) > 4.5, colour
        for (one, first), (other, second) in combinations(colours, 2):
            for eye in machado:
                assert (lab(eye @ linear(first)) - lab(eye @ linear(second))).norm() > 20, (one, other)
