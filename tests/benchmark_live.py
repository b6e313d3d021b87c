"""How many images a second the interactive pages decode, in a browser: `python tests/benchmark_live.py`."""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright
from tabulate import tabulate

PAGES = Path(__file__).parents[1] / "_build" / "html" / "book" / "live"
MODELS = {"mnist-k1": "plane", "mnist-k2": "plane", "celeba-k64": "faces"}
MEASURE = """(name) => {
  const started = performance.now();
  const { decode, latentDim } = vae.decoder(live[name]);
  const loaded = performance.now();
  const code = () => Array.from({ length: latentDim }, () => 4 * Math.random() - 2);
  let count = 0;
  let warm;
  for (; performance.now() < loaded + 4000; count++) {
    if (!warm && performance.now() > loaded + 1000) [warm, count] = [performance.now(), 0];
    decode(code());
  }
  return [loaded - started, (1000 * count) / (performance.now() - warm)];
}"""

with sync_playwright() as playwright:
    path = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    browser = playwright.chromium.launch(executable_path=path)
    rows = []
    for name, page in MODELS.items():
        tab = browser.new_page()
        tab.goto((PAGES / f"{page}.html").as_uri())
        rows.append((name, *tab.evaluate(MEASURE, name)))
    browser.close()
print(tabulate(rows, ["decoder", "ms to read", "images/s"], floatfmt=("", ".0f", ".0f")))
