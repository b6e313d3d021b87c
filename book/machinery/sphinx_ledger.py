"""A Sphinx extension with the directive `{ledger}`, which shows verdicts from measurements in the stored pages.

Each of the paper's claims is a row: its sign, its words for newcomers, its number, its conditions on a scale, and its
verdict. The row unfolds to the conditions. The text in the directive follows the count of verdicts, and explains the
rows. `beyond` shows the claims beyond the paper. `plain` shows a table of the paper's claims without numbers. The build
fails if a page doesn't judge its claim, or a run lacks its record or has another one.
"""

from collections import Counter
from html import escape
from math import copysign, isfinite, sqrt
from pathlib import Path
from statistics import mean

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from tabulate import tabulate

from . import claims

BOOK = Path(__file__).parents[1]
SIGNS = {  # of a verdict's words, and its class in book.css
    "holds": ("✓", "met"),
    "holds in part": ("◐", "part"),
    "does not hold": ("✗", "missed"),
    "can't hold": ("✗", "missed"),
    "not decided": ("?", "open"),
}
LETTERS = {"paper": "C", "plain": "C", "beyond": "B"}
SCALE = '<p class="scale" aria-hidden="true"><span>← misses</span><span>meets →</span></p>'


class Ledger(SphinxDirective):
    """The directive `{ledger}`, described above."""

    optional_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        asked = self.arguments[0] if self.arguments else "paper"
        try:
            found = [claims.judgement(each, BOOK) for each in claims.numbered(LETTERS[asked])]
        except (ValueError, FileNotFoundError) as error:
            raise ExtensionError(f"ledger of claims in {self.get_location()}: {error}") from error
        for each in found:  # rebuild this page if a judgement changes
            self.env.note_dependency(str(BOOK / f"{each.rule['page']}.ipynb"))
        if asked == "plain":
            return self._parsed(_plain(found))
        rows = [node for each in found for node in (_raw(_row(each)), *self._parsed(_detail(each)), _raw("</details>"))]
        head = self._parsed("\n".join([_count(found), "", *self.content]))
        return [*head, _raw(f'<div class="claims full-width">{SCALE}'), *rows, _raw("</div>")]

    def _parsed(self, markdown: str) -> list[nodes.Node]:
        parent = nodes.Element()
        self.state.nested_parse(StringList(markdown.splitlines(), source="ledger"), self.content_offset, parent)
        return parent.children


def _raw(html: str) -> nodes.Node:
    return nodes.raw("", html, format="html")


def _link(judgement: claims.Judgement, words: str) -> str:
    return f"{{doc}}`{words} </book/{judgement.rule['page']}>`"


def _count(judgements: list[claims.Judgement]) -> str:
    count = Counter(each.words for each in judgements)
    verdicts = ", ".join(f"“{name}” for {count[name]}" for name in SIGNS)
    return f"**Our verdicts on {len(judgements)} claims: {verdicts}.**"


def _place(value: float, bound: float, way: int) -> float:
    """Where a value is on a scale from 0 to 100: 50 is the bound, and further to the right meets the condition more."""
    apart = value - bound
    return 50 + 48 * way * copysign(sqrt(abs(apart) / (abs(value) + abs(bound) or 1)), apart)


def _row(judgement: claims.Judgement) -> str:
    marks = ""
    places: list[float] = []
    for key, condition in judgement.rule["conditions"].items():
        way, bound = (1, condition["above"]) if "above" in condition else (-1, condition["below"])
        low, high = (_place(end, bound, way) if isfinite(end) else 0 for end in judgement.interval(key))
        x = _place(mean(judgement.values[key]), bound, way)
        near = sum(abs(x - other) < 6 for other in places)
        y = 8 + (-1) ** near * 3 * ((near + 1) // 2)  # or a dot hides another one: up and down in turn
        places.append(x)
        shade = {True: "met", False: "missed", None: "open"}[judgement.met[key]]
        marks += f'<g class="{shade}"><path d="M{low:.0f} {y}H{high:.0f}"/><circle cx="{x:.0f}" cy="{y}" r="3"/></g>'
    mark, shade = SIGNS[judgement.words]
    return (
        f'<details class="claim {shade}" id="{judgement.claim.lower()}"><summary><b aria-hidden="true">{mark}</b>'
        f"<span>{escape(judgement.rule['plain'])} <small>{judgement.claim}</small></span>"
        f'<svg viewBox="0 0 100 16" aria-hidden="true"><path d="M0 8H100M50 0V16"/>{marks}</svg>'
        f"<strong>{judgement.label.replace(', exploratory', ' <small>exploratory</small>')}</strong></summary>"
    )


def _plain(judgements: list[claims.Judgement]) -> str:
    rows = [(_link(each, each.rule["plain"]), f"**{each.label}**") for each in judgements]
    return tabulate(rows, ["the paper says", "our verdict"], tablefmt="github")


def _detail(judgement: claims.Judgement) -> str:
    rule = judgement.rule
    runs = f" on {len(judgement.runs)} published runs" if len(judgement.runs) > 1 else ""
    missed = list(judgement.met.values()).count(False)
    share = judgement.errors and judgement.stability
    again = f" Of 10,000 draws of all means, {share:.1%} give this verdict." if share else ""
    return (
        f"{judgement.claim}: *{rule['claim']}* {missed} of {len(judgement.met)} conditions missed. {rule['why']}{again}"
        f"\n\n{judgement.table()}\n\nMeasured in {{doc}}`/book/{rule['page']}`{runs}: {judgement.data}. "
        f"See {{numref}}`{rule['figure']}`. Our earlier rules, without a “not decided”, gave *{rule['before']}*."
    )


def setup(app) -> dict:
    app.add_directive("ledger", Ledger)
    return {"parallel_read_safe": True}
