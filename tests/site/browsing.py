"""How the tests of pages open a page, once for each module, and do there what a reader does."""

import json
from contextlib import contextmanager

import pytest
import torch
from conftest import PAGES

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
# The same draws in every run: two rounded numbers of a page must not agree by chance
DRAWS = "let drawn = 1; Math.random = () => (drawn = (drawn * 16807) % 2147483647) / 2147483647"
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
# Long lists of numbers travel as text, which is much faster
PIXELS = """(it) => JSON.stringify(
  [it.height, it.width, [...it.getContext("2d").getImageData(0, 0, it.width, it.height).data]])"""


@pytest.fixture(scope="module")
def opened(browser):
    """Get a built page by its name, without a network, and as the module's last test left it.

    In the end no page may have complained, missed anything, or asked another host.
    """
    pages, trouble = {}, []

    def opened(name, fragment="", **options):
        key = name, fragment, repr(options)
        if key not in pages:
            context = browser.new_context(offline=True, **options)
            context.set_default_timeout(120_000)  # of a machine that is busy otherwise
            context.add_init_script(DRAWS)
            page = pages[key] = context.new_page()
            page.on("console", lambda it: it.type == "error" and trouble.append(f"{page.url}: {it.text}"))
            page.on("pageerror", lambda error: trouble.append(f"{page.url}: {error}"))
            if options.get("java_script_enabled", True):  # else scripts that are preloaded are refused
                page.on("requestfailed", lambda it: trouble.append(f"{page.url} misses {it.url}"))
            page.on("request", lambda it: it.url.startswith(("file:", "data:")) or trouble.append(f"asked: {it.url}"))
            page.goto((PAGES / f"{name}.html").as_uri() + fragment)
        return pages[key]

    yield opened
    for page in pages.values():
        page.context.close()
    assert trouble == [], "\n".join(trouble)


@contextmanager
def timed(page):
    """Measure for how many seconds each task kept the page's thread busy, whatever else the machine does."""
    browser, seconds = page.context.browser, []
    browser.start_tracing(page=page, categories=["toplevel", "disabled-by-default-devtools.timeline"])
    yield seconds
    events = json.loads(browser.stop_tracing())["traceEvents"]
    (thread,) = {(each["pid"], each["tid"]) for each in events if each["args"].get("name") == "CrRendererMain"}
    tasks = [each for each in events if each["name"] == "RunTask" and (each["pid"], each["tid"]) == thread]
    seconds += [each["tdur"] / 1e6 for each in tasks if "tdur" in each]


def settle(page):
    """Wait until the page has answered what was done to it."""
    page.evaluate(TWO_FRAMES)


def number(page, place):
    settle(page)
    return float(page.locator(place).text_content().removesuffix(" nats").replace("−", "-").replace(",", ""))


def pixels(page, canvas):
    """What a canvas shows: (height, width, 4), from 0 to 255."""
    settle(page)
    height, width, values = json.loads(page.locator(canvas).evaluate(PIXELS))
    return torch.tensor(values).view(height, width, 4)


def button(page, name):
    return page.get_by_role("button", name=name)


def press(page, place, *keys):
    page.locator(place).focus()
    for key in keys:
        page.keyboard.press(key)


def slide(page, place, value):
    page.locator(place).evaluate("(it, value) => { it.value = value; it.dispatchEvent(new Event('input')); }", value)


def drag(page, place, *points, release=True):
    """Press at the first point, and release at the last one; all are fractions of a width and a height."""
    page.locator(place).evaluate("(it) => it.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = page.locator(place).bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for x, y in places[1:]:
        page.mouse.move(x, y, steps=8)
    if release:
        page.mouse.up()
