"""The front page: its VAE learns by itself, can be played with, and comes to rest. A minute of it passes in no time."""

import re

import pytest
from browsing import button, drag, press

SEEN = """() => [".live", ".live-still", ".toy-ask"].map((each) => document.querySelector(each).checkVisibility())"""
ASKED = """() => {
  const [real, asked] = [requestAnimationFrame, []];
  requestAnimationFrame = (draw) => asked.push(0) && real(draw);
  window.asked = asked;
}"""
INK = """(it) => [...it.getContext("2d").getImageData(0, 0, it.width, it.height).data].filter((_, i) => i % 4 === 0)"""
LIT = """() => Array.from(document.querySelectorAll(".toy-lit"), (it) => it.dataset.part)"""


@pytest.fixture(scope="module")
def toy(opened):
    """The page by its address's end; its clock goes only when a test lets it."""

    def toy(state=""):
        page = opened("intro", state)
        page.clock.install(time=0)
        page.reload()
        page.clock.pause_at(1000)
        return page

    return toy


def text(page, name):
    page.clock.run_for(50)
    return page.locator(f"#toy-{name}").text_content()


def sorted_(page):
    return int(text(page, "sorted").removesuffix("%"))


def test_a_grey_heap_separates_by_itself_and_comes_to_rest(toy):
    page = toy()
    page.clock.run_for(300)
    assert text(page, "word") == "learning"
    assert sorted_(page) < 20
    while text(page, "word") == "learning":
        page.clock.run_for(200)
    assert sorted_(page) > 45
    page.clock.run_for(12_000)
    assert "Settled after 720 steps" in text(page, "message")
    assert sorted_(page) > 55
    assert text(page, "word") == "balanced"
    page.clock.run_for(1000)
    page.evaluate(ASKED)
    page.clock.run_for(1000)
    assert page.evaluate("asked.length + document.getAnimations().length") == 0
    page.locator("#toy-speed").select_option("parts")
    assert text(page, "run") == "Pause"
    page.locator("#toy-speed").select_option("fast")  # the address keeps it for the next page
    page.clock.run_for(1000)


def test_on_a_slow_machine_a_frame_takes_all_the_steps_that_are_due(toy):
    page = toy()
    page.clock.run_for(300)
    before = int(text(page, "updates"))
    for _ in range(5):
        page.clock.fast_forward(150)
    assert int(text(page, "updates")) - before > 30


def test_what_one_draws_finds_its_place(toy):
    page = toy()
    page.clock.run_for(6000)
    circle = [(0.5, 0.15), (0.3, 0.3), (0.25, 0.5), (0.3, 0.7), (0.5, 0.85), (0.7, 0.7), (0.75, 0.5), (0.7, 0.3)]
    drag(page, "#toy-pad", *circle, circle[0])
    page.clock.run_for(1000)
    assert re.search("ten neighbours, ([6-9]|10) are 0s", text(page, "message"))
    copy, code = page.locator("#toy-copy").evaluate(INK), text(page, "code")
    assert text(page, "x-name") == "your digit"
    page.locator("#toy-plane").hover(position={"x": 30, "y": 200})
    assert text(page, "code") != code
    assert page.locator("#toy-copy").evaluate(INK) != copy
    button(page, "clear").click()
    press(page, "#toy-pad", "Shift+ArrowUp", " ", *["Shift+ArrowDown"] * 3, " ")
    page.clock.run_for(1000)
    assert re.search("ten neighbours, .* are 1s", text(page, "message"))
    press(page, "#toy-plane", "ArrowRight")
    assert text(page, "copy-name") == "what belongs there"
    button(page, "A 6").click()
    assert text(page, "copy-name") == "its copy"


def test_the_price_decides_what_a_code_says(toy):
    page = toy()
    page.clock.run_for(3000)
    for key, word in [("End", "collapsed"), ("Home", "memorised")]:
        press(page, "#toy-beta", key)
        page.clock.run_for(5000)
        assert text(page, "word") == word
    assert page.url.endswith("#beta=0&seed=5&speed=fast")
    button(page, "New start").click()
    button(page, "Pause").click()
    assert page.url.endswith("#beta=0&seed=6&speed=fast&paused=1")


def test_the_address_holds_the_state_and_a_step_goes_part_by_part(toy):
    page = toy("#beta=2&seed=7&speed=slow&paused=1")
    page.clock.run_for(1000)
    assert [text(page, "updates"), text(page, "beta-value"), text(page, "run")] == ["0", "2", "Go on"]
    assert page.locator("#toy-speed").input_value() == "slow"
    button(page, "One step").click()
    lit = []
    for _ in range(60):
        page.clock.run_for(50)
        lit += [each for each in page.evaluate(LIT) if each not in lit]
    assert lit == ["0", "1", "2", "3", "4", "5"]  # in the seventh part, that of learning, both networks are lit again
    assert text(page, "updates") == "1"
    button(page, "Go on").click()
    page.clock.run_for(1000)
    assert 4 < int(text(page, "updates")) < 9


def test_with_less_motion_a_still_picture_stands_there_until_one_asks_for_the_other(opened):
    page = opened("intro", reduced_motion="reduce")
    assert page.evaluate(SEEN) == [False, True, True]
    button(page, "Play with it").click()
    assert page.evaluate(SEEN) == [True, False, False]
