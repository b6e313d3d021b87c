"""What is published: the stored notebooks, the records, the README, and the pages that `make book` built."""

import re
from pathlib import Path

import nbformat
import pytest

from vaelib import profiles, runs

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
HTML = ROOT / "_build" / "html"
NOTEBOOKS = sorted([*BOOK.glob("mnist/*.ipynb"), *BOOK.glob("runs/paper/*.ipynb")])
PLAN = profiles.load("paper", "mnist")
FINGERPRINT = "97ee8cdd93d91db9"  # of the four official files


def _outputs(path):
    return [output for cell in nbformat.read(path, 4).cells if cell.cell_type == "code" for output in cell.outputs]


def _short_runs(K):
    names = [runs.name("mnist", settings) for settings in PLAN.settings(PLAN.short) if settings.latent_dim == K]
    return [runs.load(BOOK / "records" / "paper" / name) for name in names]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_of_the_paper_profile_and_of_no_particular_machine(path):
    outputs = _outputs(path)
    assert outputs, "not executed"
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    text = "\n".join(
        str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", "")) for output in outputs
    )
    assert "digits: " not in text
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)


def test_every_published_run_has_a_record_on_all_of_mnist():
    for schedule in (PLAN.short, PLAN.long):
        for settings in PLAN.settings(schedule):
            run = runs.load(BOOK / "records" / "paper" / runs.name("mnist", settings))
            assert run.settings == settings
            assert run.config["data"] == {"name": "mnist", "fingerprint": FINGERPRINT, "image_shape": [1, 28, 28]}
            assert len(run.metrics) == settings.epochs


@pytest.mark.parametrize("K", PLAN.latent_dims)
def test_the_dimensions_page_and_the_readme_show_what_the_records_hold(K):
    glued = {}
    for output in _outputs(BOOK / "mnist" / "dimensions.ipynb"):
        if key := output.get("metadata", {}).get("scrapbook", {}).get("name"):
            glued[key.removeprefix("application/papermill.record/")] = output.data
    elbo, deviation = runs.spread(_short_runs(K), "test_elbo")
    shown = next(data for key, data in glued.items() if key == f"negative_elbo_{K}")
    assert -elbo == pytest.approx(float(next(iter(shown.values()))))
    log_prob, units = (runs.spread(_short_runs(K), key)[0] for key in ("log_prob", "active_units"))
    long_settings = next(each for each in PLAN.settings(PLAN.long) if each.latent_dim == K)
    long = runs.load(BOOK / "records" / "paper" / runs.name("mnist", long_settings)).evaluation["test_elbo"]
    row = f"| {K} | {-elbo:.1f} ± {deviation:.1f} | {-log_prob:.1f} | {units:.1f} | {-long:.1f} |"
    assert row in (ROOT / "README.md").read_text()


def _pages():
    pages = sorted((HTML / "book").rglob("*.html"))
    assert pages, "there is no built book: run `make book` first"
    return pages


def test_the_built_book_has_every_page():
    names = {str(path.relative_to(HTML / "book")) for path in _pages()}
    expected = {"intro.html", "mnist/train.html", "mnist/dimensions.html", "mnist/latent_plane.html"}
    expected |= {f"runs/{part}/mnist-train-k{K}.html" for part in ("paper", "quick") for K in PLAN.latent_dims}
    assert expected <= names


def test_built_pages_load_nothing_from_other_hosts_and_miss_nothing_of_their_own():
    for page in _pages():
        html = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*?\ssrc="([^"]+)"', html)
        loaded += re.findall(r'<link[^>]*?rel="(?:stylesheet|preload|icon|shortcut icon)"[^>]*?href="([^"]+)"', html)
        for source in loaded:
            assert not re.match(r"(https?:)?//", source), f"{page.name} loads {source}"
            if not source.startswith("data:"):
                assert (page.parent / source.partition("?")[0]).exists(), f"{page.name} misses {source}"


def test_built_pages_have_a_local_mathjax_and_alternative_texts():
    train = (HTML / "book" / "mnist" / "train.html").read_text()
    assert re.search(r'src="[^"]*_static[^"]*mathjax[^"]*"', train, re.IGNORECASE)
    for page in _pages():
        for image in re.findall(r"<img[^>]*>", page.read_text()):
            assert re.search(r'alt="[^"]+"', image), f"{page.name}: {image[:200]}"
