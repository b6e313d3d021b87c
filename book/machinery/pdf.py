"""Print the built book from the idea to the verdict as _build/book.pdf: `make pdf`."""

import io
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright
from pypdf import PdfWriter

from .__main__ import chapters

ROAD = ("book/idea", "book/mnist", "book/celeba", "book/verdict")
HTML, TARGET = Path("_build/html"), Path("_build/book.pdf")
# One file can't link to other pages, or open folded parts
FLATTEN = """() => {
    for (const each of document.querySelectorAll("a.internal:not([href^='#'])")) each.removeAttribute("href");
    for (const each of document.querySelectorAll("main details:not(.toggle-details)")) each.open = true;
}"""


def find_browser() -> str | None:
    """Return the path of an installed Chromium, preferably without windows, which opens pages in half the time."""
    names = "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"
    return next(filter(None, map(shutil.which, names)), None)


if __name__ == "__main__":
    browser = find_browser() or sys.exit("no browser found; install chromium-headless-shell (Debian) or chromium")
    names = [Path("book/intro"), *(each for each in chapters() if each.parent.as_posix() in ROAD)]
    road = [HTML / f"{name}.html" for name in names]
    written = PdfWriter()
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=browser).new_page()
        for path in road:
            page.goto(path.absolute().as_uri())
            page.evaluate("window.MathJax?.startup.promise")
            page.evaluate(FLATTEN)
            title = page.locator("h1").first.text_content() or path.stem
            written.append(io.BytesIO(page.pdf(format="A4", scale=0.8)), outline_item=title.rstrip("#"))
    written.write(TARGET)
    print(f"{TARGET}: {len(road)} chapters, {len(written.pages)} pages")
