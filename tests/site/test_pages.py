"""Every page of the book that `make book` built, in a browser, opened from disk and without a network."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

HTML = Path(__file__).parents[2] / "_build" / "html"
PAGES = sorted(
    str(path.relative_to(HTML))
    for path in [*HTML.glob("book/**/*.html"), HTML / "search.html", HTML / "genindex.html"]
    if path.exists()
)
pytestmark = pytest.mark.skipif(not PAGES, reason="there is no built book; `make book` builds one")
# Axe is slow: of the pages that were made of one notebook it sees one, the chapter, and of each folder one in the dark
MADE_OF = re.compile(r"runs/\w+/(\w+)-([a-z_]+)(-k\d+[\w-]*)?\.html$")
JUDGED = sorted({MADE_OF.sub(r"\1/\2.html", name): name for name in reversed(PAGES)}.values())
IN_THE_DARK = {Path(name).parent: name for name in JUDGED}.values()
DESK, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 740}

READ = """() => {
    const text = document.querySelector("main").cloneNode(true);
    text.querySelectorAll("pre, code, script, style, mjx-container").forEach((each) => each.remove());
    return {
        title: document.title,
        width: document.documentElement.scrollWidth,
        untouchable: [...document.querySelectorAll("main *")]
            .filter((it) => it.clientWidth && it.scrollWidth > it.clientWidth)
            .filter((it) => /auto|scroll/.test(getComputedStyle(it).overflowX))
            .filter((it) => it.tabIndex < 0 && !it.querySelector("a, button, [tabindex='0']"))
            .map((it) => it.outerHTML.slice(0, 200)),
        previous: document.querySelector("a.left-prev")?.href,
        next: document.querySelector("a.right-next")?.href,
        tex: text.textContent.match(/\\\\[([]|[$][$]|\\\\[a-zA-Z]+\\{/g) ?? [],
        formulas: document.querySelectorAll("article .math").length,
        rendered: document.querySelectorAll("article .math mjx-container").length,
        faulty: document.querySelectorAll("mjx-merror, [data-mjx-error]").length,
        broken: [...document.images].filter((it) => !it.naturalWidth).map((it) => it.src),
        nameless: [...document.images].filter((it) => !it.closest("a.logo") && !it.alt.trim()).map((it) => it.src),
    };
}"""

# Axe takes its time over every token of code and every sign of a formula; the first of each kind says as much
THIN_OUT = """() => {
    const seen = new Set();
    for (const token of document.querySelectorAll(":is(pre, .sig, code) span[class]")) {
        if (seen.has(token.className)) token.replaceWith(...token.childNodes);
        else seen.add(token.className);
    }
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
AXE = {"preload": False, "resultTypes": ["violations"]}  # preloading fetches, which file:// forbids
LEVELS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "rules": {"color-contrast": {"enabled": False}}}


@pytest.fixture(scope="module")
def page(browser):
    context = browser.new_context(viewport=DESK, reduced_motion="reduce", offline=True)
    context.set_default_timeout(120_000)  # of a machine that is busy otherwise
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def visit(page):
    """Look at a page once, for all tests: what it says of itself, and what was found wrong with it."""
    trouble, visited = [], {}
    page.on("console", lambda message: message.type == "error" and trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("requestfailed", lambda request: trouble.append(f"not loaded: {request.url}"))
    page.on("request", lambda it: it.url.startswith(("file:", "data:")) or trouble.append(f"asked for {it.url}"))

    def look(name):
        trouble.clear()
        page.set_viewport_size(PHONE)
        page.emulate_media(color_scheme="light")
        page.goto((HTML / name).as_uri())
        page.evaluate("window.MathJax?.startup.promise")
        found = page.evaluate(READ)
        if name in JUDGED:
            page.set_viewport_size(DESK)
            page.evaluate(THIN_OUT)
            found["inaccessible"] = axe(**LEVELS) + contrast()
        if name in IN_THE_DARK:
            page.emulate_media(color_scheme="dark")
            found["inaccessible"] += contrast()  # nothing else changes
        return found | {"trouble": list(trouble)}

    def contrast():
        page.evaluate(MARK)
        return axe("[data-contrast]", runOnly=["color-contrast"])

    def axe(context=None, **options):
        violations = Axe().run(page, context, AXE | options).response["violations"]
        return [
            (violation["id"], node["target"], (node["any"] + node["all"] + node["none"])[0]["message"])
            for violation in violations
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]

    def visit(name):
        if name not in visited:
            visited[name] = look(name)
        return visited[name]

    return visit


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole(visit, name):
    found = visit(name)
    assert found["trouble"] == []
    assert (found["tex"], found["faulty"]) == ([], 0)
    assert found["rendered"] == found["formulas"]
    assert (found["broken"], found["nameless"]) == ([], [])
    assert found["width"] <= PHONE["width"]
    assert found["untouchable"] == []  # no keyboard could scroll it


@pytest.mark.parametrize("name", JUDGED)
def test_a_page_is_accessible(visit, name):
    assert visit(name)["inaccessible"] == []


def test_pages_have_titles_of_their_own(visit):
    titles = [visit(name)["title"] for name in PAGES]
    assert len(set(titles)) == len(titles)


def test_previous_and_next_lead_through_all_chapters_and_past_the_pages_of_single_runs(visit):
    way, previous = ["book/intro.html"], None
    while True:
        address = (HTML / way[-1]).as_uri()
        found = visit(way[-1])
        assert found["previous"] == previous
        if not found["next"]:
            break
        way.append(found["next"].removeprefix(HTML.as_uri() + "/"))
        previous = address
    assert sorted(way) == [name for name in PAGES if re.match("book/(?!runs/)", name)]


def test_a_notebooks_page_names_the_notebook_and_how_long_it_takes():
    pages = [name for name in PAGES if re.match(r"book/(idea|mnist|celeba|runs/\w+)/|book/verdict/[sl]", name)]
    for name in pages:
        line = re.search(r'<p class="notebook">.*?</p>', (HTML / name).read_text(), re.DOTALL)
        named = re.search(r"book/[\w/]+\.ipynb", line[0])
        assert (HTML.parents[1] / named[0]).exists()
        assert "Time on one CPU core" in line[0]


def test_the_search_finds_chapters_first_from_disk_and_without_a_complaint(page):
    trouble = []
    page.on("console", lambda message: message.type == "error" and trouble.append(message.text))
    for words in ("posterior", "KL", "ELBO"):
        page.goto((HTML / "search.html").as_uri() + f"?q={words}")
        page.wait_for_selector("#search-results .search-summary:has-text('finished')")
        # A function of the package, which a search finds by its name, has its kind beside it instead of an excerpt
        links = "#search-results li:not(:has(> span)) > a"
        found = page.eval_on_selector_all(links, "links => links.map((each) => each.pathname)")
        excerpts = page.eval_on_selector_all("#search-results p.context", "all => all.map((each) => each.textContent)")
        assert len(excerpts) == len(found) and all(len(each) > 50 for each in excerpts)
        # Places within a page that its index alone knows come last of all, in Sphinx's own order
        whole = page.eval_on_selector_all(links, "all => all.filter((it) => !it.hash).map((it) => it.pathname)")
        order = [1 + ("/runs/quick" in path) if "/runs/" in path else 0 for path in whole]
        assert order == sorted(order) and order[0] == 0
    assert trouble == []


def test_the_report_prints_on_two_pages(page):
    page.goto((HTML / "book" / "verdict" / "report.html").as_uri())
    printed = page.pdf(format="A4", margin=dict.fromkeys(("top", "right", "bottom", "left"), "15mm"))
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 2


def test_the_site_is_small():
    assert sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file()) < 30e6
