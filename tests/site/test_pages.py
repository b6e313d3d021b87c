"""Every page of the book that `make book` built, in a browser, opened from disk and without a network."""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import PHONE, button
from conftest import PAGES, ROOT

from book.machinery import sphinx_notebooks as extension

HTML = PAGES.parent
ALL = sorted(str(path.relative_to(HTML)) for path in [*PAGES.rglob("*.html"), HTML / "search.html"] if path.exists())
pytestmark = pytest.mark.skipif(not ALL, reason="there is no built book; `make book` builds one")
SOURCE = {name: (HTML / name).read_text() for name in ALL}
PLAYED = [name for name in ALL if 'class="live' in SOURCE[name]]  # where something is to be played with
# Of the pages that differ in K alone, a browser opens one
OPENED = sorted({re.sub(r"-k\d+[\w-]*", "", name): name for name in reversed(ALL)}.values())
# Axe is slow: of the pages that were made of one notebook it sees one, the chapter; and in the dark one of each folder,
# and those where something is to be played with
MADE_OF = re.compile(r"runs/\w+/(\w+)-([a-z_]+)(-k\d+[\w-]*)?\.html$")
JUDGED = sorted({MADE_OF.sub(r"\1/\2.html", name): name for name in reversed(ALL)}.values())
IN_THE_DARK = {*PLAYED, *{Path(name).parent: name for name in JUDGED}.values()}
DESK = {"width": 1200, "height": 900}

# What no keyboard can scroll
UNTOUCHABLE = """() => [...document.querySelectorAll("main *")]
    .filter((it) => it.clientWidth && it.scrollWidth > it.clientWidth)
    .filter((it) => /auto|scroll/.test(getComputedStyle(it).overflowX))
    .filter((it) => it.tabIndex < 0 && !it.querySelector("a, button, [tabindex='0']"))
    .map((it) => it.outerHTML.slice(0, 200))"""
READ = """() => {
    for (const each of document.querySelectorAll("details")) each.open = true;
    const text = document.querySelector("main").cloneNode(true);
    text.querySelectorAll("pre, code, script, style, mjx-container").forEach((each) => each.remove());
    return {
        width: document.documentElement.scrollWidth,
        way: ["left-prev", "right-next"].map((each) => document.querySelector(`a.${each}`)?.href),
        tex: text.textContent.match(/\\\\[([]|[$][$]|\\\\[a-zA-Z]+\\{/g) ?? [],
        faulty: document.querySelectorAll("article .math:not(:has(mjx-container)), mjx-merror").length,
        broken: [...document.images].filter((it) => !it.naturalWidth).map((it) => it.src),
        nameless: [...document.images].filter((it) => !it.closest("a.logo") && !it.alt.trim()).map((it) => it.src),
    };
}"""
# Whether one sees what is to be played with, and the pictures that stand for it: [[true], [false]] if all of one alone
SEEN = """() => [".live", ".live-still img"].map((kind) =>
    [...new Set([...document.querySelectorAll(kind)].map((it) => it.checkVisibility()))])"""
# Axe takes its time over every token of code and every sign of a formula; the first of each kind says as much
THIN_OUT = """() => {
    const seen = new Set();
    for (const token of document.querySelectorAll(":is(pre, .sig, code) span[class]"))
        seen.has(token.className) ? token.replaceWith(...token.childNodes) : seen.add(token.className);
    for (const formula of [...document.querySelectorAll("mjx-container")].slice(5)) formula.textContent = "x";
}"""
# And over the contrast of every text: here, too, the first of the same colours, size and weight
MARK = """() => {
    const seen = new Set();
    for (const it of document.querySelectorAll("body *")) {
        delete it.dataset.contrast;
        if (![...it.childNodes].some((each) => each.nodeType === 3 && each.data.trim())) continue;
        const style = getComputedStyle(it), kind = [style.color, style.fontSize, style.fontWeight];
        for (let each = it; each; each = each.parentElement) {
            const { backgroundColor, backgroundImage, opacity } = getComputedStyle(each);
            const ground = backgroundColor + backgroundImage + opacity;
            if (ground !== "rgba(0, 0, 0, 0)none1") kind.push(ground);
        }
        if (!seen.has(kind.join())) it.dataset.contrast = "";
        seen.add(kind.join());
    }
}"""
# Colours on their way from one scheme to the other have no contrast to be judged
STILL = """async () => {
    const frame = () => new Promise(requestAnimationFrame);
    await frame();
    do await frame();
    while (document.getAnimations().some((it) => it instanceof CSSTransition));
}"""
# The theme lets what can be scrolled be focused, 300 ms after the last change of size
FOCUSABLE = """() => new Promise((done) => {
    window.dispatchEvent(new Event("resize"));
    setTimeout(done, 301);
})"""
AXE = {"preload": False, "resultTypes": ["violations"]}  # preloading fetches, which file:// forbids
LEVELS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "rules": {"color-contrast": {"enabled": False}}}


@pytest.fixture(scope="module")
def page(opened):
    return opened("intro", reduced_motion="reduce")


@pytest.fixture(scope="module")
def visit(page):
    """Look at a page once, for all tests: what it says of itself, and what is inaccessible."""

    def look(name):
        page.set_viewport_size(PHONE["viewport"])
        motion = "no-preference" if name == "book/intro.html" else "reduce"  # its toy is for those who want it to move
        page.emulate_media(color_scheme="light", reduced_motion=motion)
        page.goto((HTML / name).as_uri())
        page.evaluate("window.MathJax?.startup.promise")
        found = page.evaluate(READ) | {"untouchable": page.evaluate(UNTOUCHABLE), "played": page.evaluate(SEEN)}
        page.emulate_media(media="print")
        found["printed"] = page.evaluate(SEEN)
        page.emulate_media(media="null")
        if name in JUDGED:
            page.set_viewport_size(DESK)
            page.evaluate(THIN_OUT)
            page.evaluate(FOCUSABLE)
            found["inaccessible"] = axe(**LEVELS) + contrast()
        if name in IN_THE_DARK:
            page.emulate_media(color_scheme="dark")
            found["inaccessible"] += contrast()  # nothing else changes
        return found

    def contrast():
        page.evaluate(STILL)
        page.evaluate(MARK)
        return axe("[data-contrast]", runOnly=["color-contrast"])

    def axe(context=None, **options):
        violations = Axe().run(page, context, AXE | options).response["violations"]
        return [(each["id"], node["target"], node["failureSummary"]) for each in violations for node in each["nodes"]]

    return cache(look)


@pytest.mark.parametrize("name", OPENED)
def test_a_page_is_whole(visit, name):
    found = visit(name)
    assert (found["tex"], found["faulty"]) == ([], 0)
    assert (found["broken"], found["nameless"]) == ([], [])
    assert found["width"] <= PHONE["viewport"]["width"]
    assert found["untouchable"] == []  # no keyboard could scroll it


@pytest.mark.parametrize("name", JUDGED)
def test_a_page_is_accessible(visit, name):
    assert visit(name)["inaccessible"] == []


@pytest.mark.parametrize("name", PLAYED)
def test_without_scripts_and_on_paper_a_picture_stands_there(visit, opened, name):
    found = visit(name)
    assert found["played"] == [[True], [False]]
    still = opened(name.removeprefix("book/").removesuffix(".html"), java_script_enabled=False)
    assert found["printed"] == still.evaluate(SEEN) == [[False], [True]]


@pytest.mark.parametrize("name", ALL)
def test_links_and_pictures_are_there_and_in_tables_numbers_have_a_true_minus_and_names_no_underscores(name):
    for link in re.findall(r'<(?:a\s[^>]*?href|img\s[^>]*?src)="(?!\w+:)([^"#?]+)', SOURCE[name]):
        assert (HTML / name).parent.joinpath(unquote(link)).exists(), link
    assert re.findall(r"<td[^>]*>(?:<p>)?(?:-\d|[A-Z][a-z]+_[A-Z])", SOURCE[name]) == []


def test_the_book_has_every_page_of_its_table_of_contents_each_with_a_title_of_its_own():
    files = re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text())
    assert len(set(files)) > 40
    assert {f"{file}.html" for file in files} <= set(ALL)
    assert len({re.search("<title>.*?</title>", each, re.DOTALL)[0] for each in SOURCE.values()}) == len(ALL)


def test_previous_and_next_lead_through_all_chapters_and_past_the_pages_of_single_runs(visit):
    way, page = [], (PAGES / "intro.html").as_uri()
    while page:
        before, after = visit(page.removeprefix(HTML.as_uri() + "/"))["way"]
        assert before == (way[-1] if way else None)
        way.append(page)
        page = after
    assert sorted(way) == [(HTML / name).as_uri() for name in ALL if re.match("book/(?!runs/)", name)]


@pytest.mark.parametrize("name", [each for each in ALL if re.match(r"book/(idea|mnist|celeba|runs/\w+)/", each)])
def test_a_notebooks_page_names_the_notebook_and_how_long_it_takes(name):
    line = re.search(r'<p class="notebook">.*?</p>', SOURCE[name], re.DOTALL)[0]
    assert (ROOT / re.search(r"book/[\w/]+\.ipynb", line)[0]).exists()
    assert "Time on one CPU core" in line


def test_a_notebook_is_saved_from_its_page_on_disk_without_outputs(page):
    for name in ("idea/vae", "runs/paper/mnist-train-k2"):
        page.goto((PAGES / f"{name}.html").as_uri())
        with page.expect_download() as saved:
            button(page, "Download this page's notebook").click()
        original = nbformat.read(ROOT / extension.notebook(f"book/{name}"), 4)
        assert saved.value.suggested_filename == Path(extension.notebook(f"book/{name}")).name
        found = nbformat.read(saved.value.path(), 4)
        assert [cell.source for cell in found.cells] == [cell.source for cell in original.cells]
        assert not any(cell.get("outputs") for cell in found.cells)


def test_no_page_names_a_service_before_the_repository_has_an_address():
    assert [name for name in ALL if re.search(r"mybinder|colab\.|git clone -q", SOURCE[name])] == []


def test_plots_change_their_colours_in_the_dark_and_of_photographs_only_the_ground():
    plots = {name: re.findall(r'<figure class="[^"]*plot[^"]*" id="([\w-]+)"', SOURCE[name]) for name in ALL}
    assert {"fig-over-dimensions", "fig-long-training"} <= {*plots["book/mnist/dimensions.html"]}
    assert plots["book/celeba/samples.html"] == plots["book/intro.html"] == []
    assert SOURCE["book/celeba/samples.html"].count('<span class="ground"') == 2


def test_the_side_bar_unfolds_only_the_part_where_one_is(page):
    page.goto((PAGES / "celeba" / "train.html").as_uri())
    parts = page.locator(".bd-toc-item > details")
    assert parts.count() > 5
    assert page.locator(".bd-toc-item > details[open] > summary").all_inner_texts() == ["Faces"]


def test_the_search_finds_chapters_first_from_disk_and(page):
    for words in ("posterior", "KL", "ELBO"):
        page.goto((HTML / "search.html").as_uri() + f"?q={words}")
        page.wait_for_selector("#search-results .search-summary:has-text('finished')")
        # A function of the package, which a search finds by its name, has its kind beside it instead of an excerpt
        links = "#search-results li:not(:has(> span)) > a"
        found = page.eval_on_selector_all(links, "all => all.map((it) => it.pathname + it.hash)")
        excerpts = page.eval_on_selector_all("#search-results p.context", "all => all.map((each) => each.textContent)")
        assert len(excerpts) == len(found) and all(len(each) > 50 for each in excerpts)
        # Places within a page that its index alone knows come last of all, in Sphinx's own order
        whole = [link for link in found if "#" not in link]
        order = [1 + ("/runs/quick" in path) if "/runs/" in path else 0 for path in whole]
        assert order == sorted(order) and order[0] == 0


def test_the_report_prints_on_three_pages(page):
    page.goto((PAGES / "verdict" / "report.html").as_uri())
    printed = page.pdf(format="A4", margin=dict.fromkeys(("top", "right", "bottom", "left"), "15mm"))
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 3


def test_the_site_is_small_and_so_is_each_page_with_its_scripts():
    assert sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file()) < 32e6
    for name in PLAYED:
        scripts = [HTML / "_static" / each for each in re.findall(r"live/[\w-]+\.js", SOURCE[name])]
        assert 0 < sum(path.stat().st_size for path in scripts) < 4e6, name
