"""What the tests of pages do on a page, as a reader does."""

import base64
import io
import json
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


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


def as_number(text):
    return float(text.removesuffix(" nats").replace("−", "-").replace(",", ""))


def number(page, place):
    settle(page)
    return as_number(page.locator(place).text_content())


def pixels(page, canvas):
    """What a canvas shows: (height, width, 4), from 0 to 255."""
    settle(page)
    content = base64.b64decode(page.locator(canvas).evaluate("(it) => it.toDataURL().split(',')[1]"))
    return torch.tensor(np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))).long()


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
