"""What several test files share: a data set small enough to train on in a fraction of a second, and such a training."""

import shutil
from pathlib import Path

import psutil
import pytest

from vaelib import TrainConfig, data, runs
from vaelib.data import Dataset, Split

PAGES = Path(__file__).parents[1] / "_build" / "html" / "book"


def is_alive(number: int) -> bool:
    """Whether there is a process of that number that has not ended."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture(scope="session")
def tiny(digits):
    """Every fourth pixel of a few digits: 200 training and 40 test images of 1 x 7 x 7."""
    train, test = (
        Split(split.images[:count, :, ::4, ::4].contiguous(), split.labels[:count])
        for split, count in ((digits.train, 200), (digits.test, 40))
    )
    return Dataset("tiny", train, test, digits.names)


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    """A complete run, trained without interruption: 3 epochs of 7 steps, the last of them of 8 images."""
    settings = TrainConfig(latent_dim=2, epochs=3, batch_size=32)
    return runs.train(tiny, settings, tmp_path_factory.mktemp("runs"), "cpu")


@pytest.fixture(scope="session")
def browser():
    """A Chromium of the system's, without a window; the one that has none to hide opens a page in half the time."""
    from playwright.sync_api import sync_playwright

    names = "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("there is no browser for the pages; Debian has chromium-headless-shell, others chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open a built page by its name; in the end nothing may have been complained of, or asked of another host."""
    contexts, trouble = [], []

    def visit(name, fragment="", **options):
        contexts.append(browser.new_context(**options))
        contexts[-1].set_default_timeout(120_000)  # of a machine that is busy otherwise
        # The same draws in every run: two rounded numbers of a page must not agree by chance
        contexts[-1].add_init_script(
            "let drawn = 1; Math.random = () => (drawn = (drawn * 16807) % 2147483647) / 2147483647"
        )
        page = contexts[-1].new_page()
        page.on("console", lambda message: message.type == "error" and trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda it: it.url.startswith(("file:", "data:")) or trouble.append(it.url))
        page.goto((PAGES / f"{name}.html").as_uri() + fragment)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert trouble == []
