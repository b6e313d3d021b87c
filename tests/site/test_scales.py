"""The live figures, in a browser: pixels are proportional to nats, what is cut shows it, and moving about decodes."""

import pytest
import torch
from browsing import PHONE, as_number, button, drag, number, pixels, press, settle, slide

TERMS = "reconstruction", "kl", "sum"
BEFORE = "() => document.getElementById('bound').compareDocumentPosition(document.querySelector('article div.math'))"
TICKS = """(all) => all.map((it) => {
  const { x, width } = it.getBoundingClientRect();
  return [Number(it.textContent), x + width / 2];
})"""


@pytest.fixture
def visit(opened):
    """Open a chapter as one finds it."""

    def visit(name, **options):
        page = opened(name, **options)
        page.mouse.move(2, 2)
        page.reload()
        settle(page)
        return page

    return visit


def ends(page, place):
    """Where a bar begins and ends, in pixels from the left of the window, once the page is settled."""
    box = page.locator(place).bounding_box()
    return box["x"], box["x"] + box["width"]


def length(page, place):
    start, end = ends(page, place)
    return end - start


def middle(page, place):
    return sum(ends(page, place)) / 2


def numbers(page, prefix, *names):
    settle(page)
    return {name: as_number(page.locator(f"#{prefix}-{name}").text_content()) for name in names}


def leave_q(page, *point):
    drag(page, "#vae-q", point)
    page.mouse.move(2, 2)


@pytest.mark.parametrize("options", [{}, PHONE], ids=["wide", "phone"])
def test_the_bill_keeps_its_scale_while_an_image_is_on(visit, options):
    page = visit("idea/vae", **options)
    track, full = length(page, ".vae-track >> nth=0"), page.locator(".vae-ticks").get_attribute("data-top")
    per_nat = track / float(full)
    for width, place in ((-3, None), (0, None), (3, None), (0, (0.3, 0.8)), (1, (0.35, 0.55))):
        slide(page, "#vae-width", width)
        if place:
            leave_q(page, *place)
        bill = numbers(page, "vae", *TERMS)
        factor = float(page.locator("#vae-factor").text_content().removeprefix("shown × "))
        for name, times in (("reconstruction", 1), ("kl", factor), ("sum", 1)):
            expected = times * bill[name] * per_nat
            assert expected < track
            tolerance = 1 + times * 0.05 * per_nat  # a pixel, and what the number is rounded by
            assert length(page, f".vae-bar-{name}") == pytest.approx(expected, abs=tolerance), name
        tip = ends(page, ".vae-tip")
        assert tip == pytest.approx((tip[1] - per_nat * bill["kl"], ends(page, ".vae-bar-sum")[1]), abs=1)
        if width == -3:  # a narrower q copies better and costs more than the encoder's, whose marks stay
            bars = [ends(page, f".vae-bar-{name}")[1] for name in ("reconstruction", "kl")]
            marks = [middle(page, f".vae-mark >> nth={row}") for row in (0, 1)]
            assert bars[0] < marks[0] and bars[1] > marks[1] + 20
    assert page.locator(".vae-ticks").get_attribute("data-top") == full


def test_a_bar_beyond_the_scale_is_torn_off(visit):
    page = visit("idea/vae")
    button(page, "A 1,").click()
    leave_q(page, 0.2, 0.3)
    assert number(page, "#vae-reconstruction") > float(page.locator(".vae-ticks").get_attribute("data-top"))
    for name in ("reconstruction", "sum"):
        assert "vae-over" in page.locator(f".vae-bar-{name}").get_attribute("class")
        assert page.locator(f".vae-bar-{name}").evaluate("(it) => getComputedStyle(it).clipPath").startswith("polygon")
    button(page, "Back to the encoder’s q").click()
    settle(page)
    assert page.locator("#vae .vae-over").count() == 0


@pytest.mark.parametrize("chapter", ["idea/vae", "idea/kl"])
def test_beta_moves_reconstruction_and_kl_against_each_other_on_one_scale(visit, chapter):
    page = visit(chapter)
    track = length(page, "#clouds .idea-track >> nth=0")
    models = page.evaluate("() => live.betas.models.map(({ beta, reconstruction, kl }) => [beta, reconstruction, kl])")
    scales, ended, pictures = [], [], []
    for step, (beta, *terms) in enumerate(models):
        slide(page, "#clouds-beta", step)
        nats = numbers(page, "clouds", *TERMS)
        assert [*nats.values()] == pytest.approx([*terms, sum(terms)], abs=0.0051)
        assert number(page, "#clouds-beta-value") == pytest.approx(beta, abs=0.0051)
        pictures.append(pixels(page, "#clouds-plane"))
        lengths = {name: length(page, f"#clouds-{name}-bar") for name in nats}
        assert max(lengths.values()) < track
        scales += [lengths[name] / nats[name] for name in nats if nats[name] > 0.5]
        ended.append((lengths["reconstruction"], lengths["kl"]))
    assert max(scales) == pytest.approx(min(scales), rel=0.02)
    assert len(pictures) == 7 and not any(map(torch.equal, pictures, pictures[1:]))
    reconstruction, kl = torch.tensor([row for row, (beta, *_) in zip(ended, models, strict=True) if beta <= 5]).T
    assert (reconstruction.diff() > 0).all() and (kl.diff() < 0).all()
    slide(page, "#clouds-beta", 2)
    settle(page)
    for name in TERMS:  # the marks are where β = 1 ends
        assert middle(page, f"#clouds-{name}-mark") == pytest.approx(ends(page, f"#clouds-{name}-bar")[1], abs=1)


@pytest.mark.parametrize("options", [{}, PHONE], ids=["wide", "phone"])
def test_twice_the_nats_are_twice_the_area(visit, options):
    page = visit("idea/kl", **options)
    size = "(it) => [it.clientWidth, it.clientHeight - 28]"  # of the plot
    width, height = page.locator("#price-area").evaluate(size)
    zero, per_nat = round(10 + height * 2.9 / 3.2) + 1, []
    for mean, sigma in ((1, 0.5), (2, 1), (0, 0.1), (3, 2), (-2, 0.3)):
        slide(page, "#price-mean", mean)
        slide(page, "#price-sigma", torch.tensor(sigma).log().item())
        nats = number(page, "#price-sum")
        red, _, blue, alpha = pixels(page, "#price-area")[:-17].unbind(2)  # without the numbers below
        shaded = (alpha > 25) & (alpha < 179)  # the areas let through what is behind them
        above = shaded & (blue > red + 102)
        below = (shaded & ~above)[zero:]
        per_nat.append((above.sum() - below.sum()).item() / nats)
    per_nat = torch.tensor(per_nat)
    assert per_nat.std() / per_nat.mean() < 0.03, per_nat
    assert per_nat.mean().item() == pytest.approx(width / 8 * height / 3.2, rel=0.03)  # as the square says


def test_bars_of_the_bound_stand_before_the_first_formula_show_their_break_and_share_the_ticks_scale(visit):
    page = visit("idea/elbo")
    assert page.evaluate(BEFORE) & 4  # the formula follows
    for name, broken in (("reconstruction", 1), ("kl", 0), ("gap", 0), ("truth", 1)):
        row = page.locator(f".idea-track:has(#bound-{name}-bar)")
        assert row.locator(".idea-stub").count() == broken
        assert row.bounding_box()["x"] + 20 < page.locator(f"#bound-{name}-bar").bounding_box()["x"]
    stub = page.locator(".idea-stub").first
    assert stub.evaluate("(it) => getComputedStyle(it, '::after').transform") != "none"
    for digit in ("0", "2", "7"):
        button(page, f"A {digit},").click()
        settle(page)
        (low, left), *_, (high, right) = page.locator("#bound-ticks span").evaluate_all(TICKS)
        per_nat, truth = (right - left) / (high - low), ends(page, "#bound-truth-bar")[1]
        assert truth == pytest.approx(left + per_nat * (number(page, "#bound-truth") - low), abs=1)
        encoders = number(page, "#bound-mean-value")
        span, seen = page.locator("#bound-mean").evaluate("(it) => [Number(it.min), Number(it.max)]"), 0
        for mean in (encoders, sum(span) / 2, encoders * 0.8 + sum(span) * 0.1):
            slide(page, "#bound-mean", mean)
            nats = numbers(page, "bound", "reconstruction", "kl", "gap", "truth")
            if page.locator("#bound .idea-over").count():
                continue
            seen += 1
            assert ends(page, "#bound-truth-bar")[1] == truth
            moved = ends(page, "#bound-reconstruction-bar")[1] - truth
            assert moved == pytest.approx(per_nat * (nats["reconstruction"] - nats["truth"]), abs=1.5)
            for name in ("kl", "gap"):
                assert length(page, f"#bound-{name}-bar") == pytest.approx(per_nat * nats[name], abs=1.5)
        assert seen > 1
    slide(page, "#bound-mean", span[0])
    settle(page)
    for name in ("reconstruction", "kl", "gap"):
        assert page.locator(f"#bound-{name}-bar.idea-over").count() == 1
        assert length(page, f"#bound-{name}-bar") >= 7  # a bar that begins beyond the scale leaves its torn end


def test_passing_over_the_plane_decodes_and_leaving_it_takes_that_back_and_arrow_keys_move_q_meanwhile(visit):
    page = visit("idea/vae")
    before, bill = pixels(page, "#vae-copy"), number(page, "#vae-sum")
    far = {"x": 90, "y": 250}
    page.locator("#vae-q").hover(position=far)
    assert (pixels(page, "#vae-copy") - before).abs().max() > 127
    assert number(page, "#vae-sum") > bill + 20
    assert "follows the mouse" in page.locator("#vae-caption").text_content()
    page.mouse.move(2, 2)
    assert (pixels(page, "#vae-copy") == before).all()
    assert button(page, "Back to the encoder’s q").is_disabled()
    page.locator("#vae-q").hover(position=far)
    followed = pixels(page, "#vae-copy")
    press(page, "#vae-q", "Shift+ArrowRight")
    assert (pixels(page, "#vae-copy") - followed).abs().max() > 25


def test_there_is_one_drawing_at_a_time_and_its_next_stroke_begins_where_the_reader_sees_the_last(visit):
    page = visit("idea/vae")
    button(page, "clear").click()
    # A short line in a corner, which the encoder sees large, in the middle
    drag(page, "#vae-pad", (0.1, 0.1), (0.15, 0.3), release=False)
    assert pixels(page, "#vae-pad")[..., 3].min() == 255  # hides the image that is made of it
    page.mouse.up()
    page.wait_for_timeout(1000)
    assert pixels(page, "#vae-pad").max() == 0
    image = pixels(page, "#vae-x")
    press(page, "#vae-pad", "ArrowUp")  # by the keyboard, the pen is shown, and no stroke
    pen = pixels(page, "#vae-pad")[..., 3] > 0
    assert 0 < pen.sum() < 0.003 * pen.numel()
    assert (pixels(page, "#vae-x") == image).all()
    drag(page, "#vae-pad", (0.5, 0.5))  # a dot on the line changes nothing but this dot
    assert (pixels(page, "#vae-x") - image)[..., 0].abs().double().mean() < 5
