"""A Sphinx extension, the directive `{ledger}`: the verdict on each claim, from what the stored pages measured.

With a claim's number, such as C7, it shows that claim's conditions, else a table of the paper's claims; with `plain`, one
for newcomers, without numbers; with `beyond`, one of the claims beyond the paper; with `changes`, one of all verdicts
before and after there was a "not decided". A claim that no page judges, or that
rests on runs which have no record, or another one, ends the build.
"""

from collections import Counter
from functools import partial
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from tabulate import tabulate

from . import claims

BOOK = Path(__file__).parents[1]
markdown_table = partial(tabulate, tablefmt="github", disable_numparse=True)


class Ledger(SphinxDirective):
    """The directive itself; see the module's first lines."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        asked = self.arguments[0] if self.arguments else "all"
        letters = {"all": "C", "plain": "C", "beyond": "B", "changes": "CB"}.get(asked, "")
        try:
            numbers = [each for letter in letters for each in claims.numbered(letter)] or [asked]
            judgements = [claims.judgement(each, BOOK) for each in numbers]
        except (ValueError, FileNotFoundError) as error:
            raise ExtensionError(f"the ledger of claims, in {self.get_location()}: {error}") from error
        for each in judgements:  # another judgement there, another ledger here
            self.env.note_dependency(str(BOOK / f"{each.rule['page']}.ipynb"))
        shows = {"all": _table, "beyond": _table, "plain": _plain, "changes": _changes}.get(asked, _detail)
        parent = nodes.Element()
        lines = StringList(shows(judgements).splitlines(), source="ledger")
        self.state.nested_parse(lines, self.content_offset, parent)
        return parent.children


def _link(judgement: claims.Judgement, words: str) -> str:
    return f"{{doc}}`{words} </book/{judgement.rule['page']}>`"


def _verdict(judgement: claims.Judgement) -> str:
    return f"**{judgement.verdict}**{', exploratory' if judgement.exploratory else ''}"


def _table(judgements: list[claims.Judgement]) -> str:
    rows = [(_link(each, each.claim), each.rule["claim"], _verdict(each), each.summary) for each in judgements]
    count = Counter(each.verdict for each in judgements)
    verdicts = ", ".join(f"{count[name]} {plural}" for name, plural in claims.VERDICTS.items())
    table = markdown_table(rows, ["", "claim", "verdict", "we measured"])
    return f"**Of these {len(judgements)} claims, {verdicts}.**\n\n{table}"


def _changes(judgements: list[claims.Judgement]) -> str:
    rows = [(_link(each, each.claim), each.rule["before"], _verdict(each), each.rule["why"]) for each in judgements]
    return markdown_table(rows, ["", "before", "now", "why"])


def _plain(judgements: list[claims.Judgement]) -> str:
    rows = [(_link(each, each.rule["plain"]), _verdict(each)) for each in judgements]
    return markdown_table(rows, ["the paper says", "our verdict"])


def _detail(judgements: list[claims.Judgement]) -> str:
    (each,) = judgements
    trainings = f"; {len(each.runs)} published runs" if len(each.runs) > 1 else ""
    return (
        f"**{each.rule['claim']}** The verdict: **{each.verdict}**. Measured on {each.data}{trainings}; from "
        f"{{doc}}`/book/{each.rule['page']}`, see {{numref}}`{each.rule['figure']}`.\n\n{each.table()}"
    )


def setup(app) -> dict:
    app.add_directive("ledger", Ledger)
    return {"parallel_read_safe": True}
