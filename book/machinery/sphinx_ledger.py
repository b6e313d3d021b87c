"""A Sphinx extension, the directive `{ledger}`: the verdict on each claim, from what the stored pages measured.

With a claim's number, such as C7, it shows that claim's conditions, else a table of the paper's claims; with `plain`, one
for newcomers, without numbers; with `beyond`, one of the claims beyond the paper. A claim that no page judges, or that
rests on runs which have no record, or another one, ends the build.
"""

from collections import Counter
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from tabulate import tabulate

from . import claims

BOOK = Path(__file__).parents[1]


class Ledger(SphinxDirective):
    """The directive itself; see the module's first lines."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        asked = self.arguments[0] if self.arguments else "all"
        letter = {"all": "C", "plain": "C", "beyond": "B"}.get(asked)
        known = claims.numbered(letter) if letter else [asked]
        try:
            judgements = [claims.judgement(claim, BOOK) for claim in known]
        except (ValueError, FileNotFoundError) as error:
            raise ExtensionError(f"the ledger of claims, in {self.get_location()}: {error}") from error
        for claim in known:  # another judgement there, another ledger here
            page = BOOK / f"{claims.rules()[claim]['page']}.ipynb"
            self.env.note_dependency(str(page))
        shows = {"all": _table, "beyond": _table, "plain": _plain}.get(asked, _detail)
        parent = nodes.Element()
        self.state.nested_parse(
            StringList(shows(judgements).splitlines(), source="ledger"), self.content_offset, parent
        )
        return parent.children


def _table(judgements: list[claims.Judgement]) -> str:
    rows = []
    for each in judgements:
        rule = claims.rules()[each.claim]
        rows.append(
            (
                f"{{doc}}`{each.claim} </book/{rule['page']}>`",
                rule["claim"],
                f"**{each.verdict}**{', narrowly' if each.narrow else ''}",
                each.summary,
            )
        )
    count = Counter(each.verdict for each in judgements)
    verdicts = f"{count['holds']} hold, {count['holds in part']} hold in part, {count['does not hold']} do not hold"
    table = tabulate(rows, ["", "claim", "verdict", "we measured"], tablefmt="github", disable_numparse=True)
    return f"**Of these {len(judgements)} claims, {verdicts}.**\n\n{table}"


def _plain(judgements: list[claims.Judgement]) -> str:
    rows = [
        (
            f"{{doc}}`{claims.rules()[each.claim]['plain']} </book/{claims.rules()[each.claim]['page']}>`",
            f"**{each.verdict}**",
        )
        for each in judgements
    ]
    return tabulate(rows, ["the paper says", "our verdict"], tablefmt="github", disable_numparse=True)


def _detail(judgements: list[claims.Judgement]) -> str:
    (each,) = judgements
    rule = claims.rules()[each.claim]
    trainings = f"; {len(each.runs)} published runs" if len(each.runs) > 1 else ""
    return (
        f"**{rule['claim']}** The verdict: **{each.verdict}**{', narrowly' if each.narrow else ''}. Measured on {each.data}{trainings}; from "
        f"{{doc}}`/book/{rule['page']}`, see {{numref}}`{rule['figure']}`.\n\n{each.table()}"
    )


def setup(app) -> dict:
    app.add_directive("ledger", Ledger)
    return {"parallel_read_safe": True}
