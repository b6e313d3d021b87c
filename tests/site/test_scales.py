"""The live figures, in a browser: pixels are proportional to nats, what is cut shows it, and moving about decodes."""

import base64
import io

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def number(page, name):
    page.evaluate(TWO_FRAMES)
    return float(page.locator(f"#{name}").text_content().removesuffix(" nats").replace("−", "-"))


def ends(page, selector):
    """Where a bar begins and ends, in pixels from the left of the window."""
    page.evaluate(TWO_FRAMES)
    box = page.locator(selector).bounding_box()
    return box["x"], box["x"] + box["width"]


def length(page, selector):
    start, end = ends(page, selector)
    return end - start


def put(page, slider, value):
    page.locator(f"#{slider}").evaluate(
        "(it, value) => { it.value = value; it.dispatchEvent(new Event('input')); }", value
    )


def at(page, canvas, x, y):
    """A place of a canvas in the window; x and y are fractions of its width and height."""
    box = page.locator(f"#{canvas}").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def leave_q(page, x, y):
    page.mouse.move(*at(page, "vae-q", x, y))
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(2, 2)


def pixels(page, canvas):
    """A canvas as (4, height, width), values from 0 to 1."""
    page.evaluate(TWO_FRAMES)
    url = page.locator(f"#{canvas}").evaluate("(it) => it.toDataURL()")
    return pil_to_tensor(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))) / 255


@pytest.mark.parametrize("options", [{}, PHONE], ids=["wide", "phone"])
def test_the_bill_keeps_its_scale_while_an_image_is_on(visit, options):
    page = visit("idea/vae", **options)
    track = length(page, ".vae-track >> nth=0")
    scales = set()
    for width, place in ((0, None), (-3, None), (3, None), (0, (0.3, 0.8)), (1, (0.35, 0.55))):
        put(page, "vae-width", width)
        if place:
            leave_q(page, *place)
        full = float(page.locator(".vae-ticks").get_attribute("data-top"))
        scales.add(full)
        shown = page.locator("#vae-factor").text_content()
        factor = float(shown.removeprefix("shown × "))
        for name, times in (("reconstruction", 1), ("kl", factor), ("sum", 1)):
            expected = times * number(page, f"vae-{name}") * track / full
            assert expected < track
            tolerance = 1 + times * 0.05 * track / full  # a pixel, and what the number is rounded by
            assert length(page, f".vae-bar-{name}") == pytest.approx(expected, abs=tolerance), name
    assert len(scales) == 1


def test_the_tip_of_the_sum_is_the_kl_to_scale(visit):
    page = visit("idea/vae")
    per_nat = length(page, ".vae-track >> nth=0") / float(page.locator(".vae-ticks").get_attribute("data-top"))
    assert length(page, ".vae-tip") == pytest.approx(per_nat * number(page, "vae-kl"), abs=1)
    assert ends(page, ".vae-tip")[1] == pytest.approx(ends(page, ".vae-bar-sum")[1], abs=1)


def test_a_narrower_q_copies_better_and_costs_more_and_the_marks_show_both(visit):
    page = visit("idea/vae")
    put(page, "vae-width", -3)
    page.evaluate(TWO_FRAMES)
    bars = [ends(page, f".vae-bar-{name}")[1] for name in ("reconstruction", "kl")]
    marks = [sum(ends(page, f".vae-mark >> nth={row}")) / 2 for row in (0, 1)]
    assert bars[0] < marks[0] and bars[1] > marks[1] + 20


def test_a_bar_beyond_the_scale_is_torn_off(visit):
    page = visit("idea/vae")
    page.get_by_role("button", name="A 1,").click()
    leave_q(page, 0.2, 0.3)
    full = float(page.locator(".vae-ticks").get_attribute("data-top"))
    assert number(page, "vae-reconstruction") > full
    for name in ("reconstruction", "sum"):
        assert "vae-over" in page.locator(f".vae-bar-{name}").get_attribute("class")
        assert page.locator(f".vae-bar-{name}").evaluate("(it) => getComputedStyle(it).clipPath").startswith("polygon")
    page.get_by_role("button", name="Back to the encoder’s q").click()
    page.evaluate(TWO_FRAMES)
    assert page.locator("#vae .vae-over").count() == 0


@pytest.mark.parametrize("chapter", ["idea/vae", "idea/kl"])
def test_beta_moves_reconstruction_and_kl_against_each_other_on_one_scale(visit, chapter):
    page = visit(chapter)
    track = length(page, "#clouds .idea-track >> nth=0")
    models = page.evaluate("() => live.betas.models.map(({ beta, reconstruction, kl }) => [beta, reconstruction, kl])")
    scales, ended = [], []
    for step in range(len(models)):
        put(page, "clouds-beta", step)
        nats = {name: number(page, f"clouds-{name}") for name in ("reconstruction", "kl", "sum")}
        lengths = {name: length(page, f"#clouds-{name}-bar") for name in nats}
        assert max(lengths.values()) < track
        scales += [lengths[name] / nats[name] for name in nats if nats[name] > 0.5]
        ended.append((lengths["reconstruction"], lengths["kl"]))
    assert max(scales) == pytest.approx(min(scales), rel=0.02)
    dear = [row for row, (beta, *_) in zip(ended, models, strict=True) if beta <= 5]
    reconstruction, kl = torch.tensor(dear).T
    assert (reconstruction.diff() > 0).all() and (kl.diff() < 0).all()
    put(page, "clouds-beta", 2)
    for name in ("reconstruction", "kl", "sum"):  # the marks are where β = 1 ends
        assert sum(ends(page, f"#clouds-{name}-mark")) / 2 == pytest.approx(ends(page, f"#clouds-{name}-bar")[1], abs=1)


@pytest.mark.parametrize("options", [{}, PHONE], ids=["wide", "phone"])
def test_twice_the_nats_are_twice_the_area(visit, options):
    page = visit("idea/kl", **options)
    width, height = page.locator("#price-area").evaluate(
        "(it) => [it.clientWidth, it.clientHeight - 28]"
    )  # of the plot
    zero, per_nat = round(10 + height * 2.9 / 3.2) + 1, []
    for mean, sigma in ((1, 0.5), (1.414, 1), (2, 1), (0, 0.1), (3, 0.1), (3, 2), (0, 2), (-2, 0.3)):
        put(page, "price-mean", mean)
        put(page, "price-sigma", torch.tensor(sigma).log().item())
        nats = number(page, "price-sum")
        red, _, blue, alpha = pixels(page, "price-area")[:, :-17]  # without the numbers below
        shaded = (alpha > 0.1) & (alpha < 0.7)  # the areas let through what is behind them
        above = shaded & (blue > red + 0.4)
        below = (shaded & ~above)[zero:]
        per_nat.append((above.sum() - below.sum()).item() / nats)
    per_nat = torch.tensor(per_nat)
    assert per_nat.std() / per_nat.mean() < 0.03, per_nat
    assert per_nat.mean().item() == pytest.approx(width / 8 * height / 3.2, rel=0.03)  # as the square says


def test_bars_of_the_bound_show_their_break_and_share_a_scale(visit):
    page = visit("idea/elbo")
    for name, broken in (("reconstruction", 1), ("kl", 0), ("gap", 0), ("truth", 1)):
        row = page.locator(f".idea-track:has(#bound-{name}-bar)")
        assert row.locator(".idea-stub").count() == broken
        assert row.bounding_box()["x"] + 20 < page.locator(f"#bound-{name}-bar").bounding_box()["x"]
    stub = page.locator(".idea-stub").first
    assert stub.evaluate("(it) => getComputedStyle(it, '::after').transform") != "none"
    for digit in ("0", "2", "7"):
        page.get_by_role("button", name=f"A {digit},").click()
        scales, truth = [], ends(page, "#bound-truth-bar")[1]
        encoders = number(page, "bound-mean-value")
        span = page.locator("#bound-mean").evaluate("(it) => [Number(it.min), Number(it.max)]")
        for mean in (encoders, sum(span) / 2, encoders * 0.8 + sum(span) * 0.1):
            put(page, "bound-mean", mean)
            nats = {name: number(page, f"bound-{name}") for name in ("reconstruction", "kl", "gap", "truth")}
            if page.locator("#bound .idea-over").count():
                continue
            assert ends(page, "#bound-truth-bar")[1] == truth
            scales.append(length(page, "#bound-kl-bar") / nats["kl"])
            moved = ends(page, "#bound-reconstruction-bar")[1] - truth
            assert moved == pytest.approx(scales[0] * (nats["reconstruction"] - nats["truth"]), abs=1.5)
            assert length(page, "#bound-gap-bar") == pytest.approx(scales[0] * nats["gap"], abs=1.5)
        assert len(scales) > 1 and max(scales) == pytest.approx(min(scales), rel=0.02)
    put(page, "bound-mean", span[0])
    page.evaluate(TWO_FRAMES)
    for name in ("reconstruction", "kl", "gap"):
        assert page.locator(f"#bound-{name}-bar.idea-over").count() == 1
        assert length(page, f"#bound-{name}-bar") >= 7  # a bar that begins beyond the scale leaves its torn end


def test_ticks_of_the_bound_stand_where_their_nats_are(visit):
    page = visit("idea/elbo")
    ticks = page.locator("#bound-ticks span")
    middle = "({ x, width }) => x + width / 2"
    read = f"(all) => all.map((it) => [Number(it.textContent), ({middle})(it.getBoundingClientRect())])"
    places = ticks.evaluate_all(read)
    (low, left), (high, right) = places[0], places[-1]
    per_nat = (right - left) / (high - low)
    assert ends(page, "#bound-truth-bar")[1] == pytest.approx(
        left + per_nat * (number(page, "bound-truth") - low), abs=1
    )
    assert length(page, "#bound-kl-bar") == pytest.approx(per_nat * number(page, "bound-kl"), abs=1)


def test_the_posterior_can_be_dragged_before_the_first_formula(visit):
    page = visit("idea/elbo")
    before = (
        "() => document.getElementById('bound').compareDocumentPosition(document.querySelector('article div.math'))"
    )
    assert page.evaluate(before) & 4  # the formula follows


def test_passing_over_the_plane_decodes_and_leaving_it_takes_that_back(visit):
    page = visit("idea/vae")
    before, bill = pixels(page, "vae-copy"), number(page, "vae-sum")
    page.mouse.move(*at(page, "vae-q", 0.3, 0.8))
    assert (pixels(page, "vae-copy") - before).abs().max() > 0.5
    assert number(page, "vae-sum") > bill + 20
    assert "follows the mouse" in page.locator("#vae-caption").text_content()
    page.mouse.move(2, 2)
    assert (pixels(page, "vae-copy") == before).all()
    assert page.get_by_role("button", name="Back to the encoder’s q").is_disabled()
    leave_q(page, 0.3, 0.8)
    assert number(page, "vae-sum") > bill + 20


def test_arrow_keys_move_q_though_the_mouse_rests_on_the_plane(visit):
    page = visit("idea/vae")
    page.mouse.move(*at(page, "vae-q", 0.3, 0.8))
    before = pixels(page, "vae-copy")
    page.locator("#vae-q").focus()
    page.keyboard.press("Shift+ArrowRight")
    assert (pixels(page, "vae-copy") - before).abs().max() > 0.1


def test_a_finger_on_the_plane_decodes(visit):
    page = visit("idea/vae", **PHONE)
    before = pixels(page, "vae-copy")
    page.locator("#vae-q").tap(position={"x": 60, "y": 250})
    assert (pixels(page, "vae-copy") - before).abs().max() > 0.5
    assert "This q is yours" in page.locator("#vae-caption").text_content()


def draw(page, *points):
    page.mouse.move(*at(page, "vae-pad", *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*at(page, "vae-pad", *point), steps=6)


def test_there_is_one_drawing_at_a_time(visit):
    page = visit("idea/vae")
    page.get_by_role("button", name="clear").click()
    draw(page, (0.2, 0.2), (0.3, 0.5))
    assert pixels(page, "vae-pad")[3].min() == 1  # hides the image that is made of it
    page.mouse.up()
    page.wait_for_timeout(1000)
    assert pixels(page, "vae-pad").max() == 0
    image = pixels(page, "vae-x")
    page.locator("#vae-pad").focus()  # by the keyboard, the pen is shown, and no stroke
    page.keyboard.press("ArrowUp")
    assert 0 < (pixels(page, "vae-pad")[3] > 0).sum() < 0.003 * pixels(page, "vae-pad")[3].numel()
    assert (pixels(page, "vae-x") == image).all()


def test_the_next_stroke_begins_where_the_reader_sees_the_last(visit):
    page = visit("idea/vae")
    page.get_by_role("button", name="clear").click()
    draw(page, (0.1, 0.1), (0.15, 0.3))  # a short line in a corner, which the encoder sees large, in the middle
    page.mouse.up()
    page.wait_for_timeout(1000)
    seen = pixels(page, "vae-x")[0]
    page.mouse.move(*at(page, "vae-pad", 0.5, 0.5))
    page.mouse.down()  # a dot on it changes nothing but this dot
    page.mouse.up()
    assert (pixels(page, "vae-x")[0] - seen).abs().mean() < 0.02


def test_an_empty_drawing_asks_for_one(visit):
    page = visit("idea/vae")
    assert not page.locator("#vae-hint").is_visible()
    page.get_by_role("button", name="clear").click()
    page.evaluate(TWO_FRAMES)
    assert page.locator("#vae-hint").is_visible()
    assert page.locator("#vae-hint").text_content() == "Draw something"
    assert page.locator("#vae-caption").text_content().split("nats. ")[1].startswith("Draw something.")
    draw(page, (0.2, 0.2), (0.3, 0.5))
    page.mouse.up()
    page.evaluate(TWO_FRAMES)
    assert not page.locator("#vae-hint").is_visible()
