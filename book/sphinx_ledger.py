"""A Sphinx extension, the directive `{ledger}`: the verdict on each claim, from what the stored pages measured.

With a claim's number, such as C7, it shows that claim's conditions, else a table of all claims. A claim that no page
judges, or that rests on runs which have no record, or another one, ends the build.
"""

from collections import Counter
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from tabulate import tabulate

from vaelib import files, runs
from vaelib.book import claims

BOOK = Path(__file__).parent


def judgement(claim: str, book: Path = BOOK) -> claims.Judgement:
    """What the claim's page measured, judged by the rules as they are now.

    Raises
    ------
    ValueError
        If there is no such claim, or the page does not judge it, or measured something else than the rules ask for.
    FileNotFoundError
        If a run that it rests on has no record.
    """
    if claim not in claims.rules():
        raise ValueError(
            f"there is no claim {claim!r}; known: {', '.join(claims.rules())}"
        )
    notebook = book / f"{claims.rules()[claim]['page']}.ipynb"
    for output in (
        each
        for cell in files.read_notebook(notebook).cells
        for each in cell.get("outputs", [])
    ):
        stored = output.get("data", {}).get(claims.MIME)
        if stored and stored["claim"] == claim:
            break
    else:
        raise ValueError(f"{notebook} does not judge {claim}; execute it")
    records = [
        runs.load(book / "records" / "paper" / name)
        for name in stored["runs"]
    ]
    found = claims.judge(claim, stored["data"], records, **stored["values"])
    if found.runs != stored["runs"]:
        raise ValueError(
            f"{notebook} judges {claim} by other runs than those of the records; execute it again"
        )
    return found


class Ledger(SphinxDirective):
    """The directive itself; see the module's first lines."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        known = (
            [self.arguments[0]] if self.arguments else list(claims.rules())
        )
        try:
            judgements = [judgement(claim) for claim in known]
        except (ValueError, FileNotFoundError) as error:
            raise ExtensionError(
                f"the ledger of claims, in {self.get_location()}: {error}"
            ) from error
        for claim in known:  # another judgement there, another ledger here
            page = BOOK / f"{claims.rules()[claim]['page']}.ipynb"
            self.env.note_dependency(str(page))
        text = (
            _detail(judgements[0]) if self.arguments else _table(judgements)
        )
        parent = nodes.Element()
        self.state.nested_parse(
            StringList(text.splitlines(), source="ledger"),
            self.content_offset,
            parent,
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
    table = tabulate(
        rows,
        ["", "claim", "verdict", "we measured"],
        tablefmt="github",
        disable_numparse=True,
    )
    return f"**Of these {len(judgements)} claims, {verdicts}.**\n\n{table}"


def _detail(each: claims.Judgement) -> str:
    rule = claims.rules()[each.claim]
    trainings = (
        f"; {len(each.runs)} published runs" if len(each.runs) > 1 else ""
    )
    return (
        f"**{rule['claim']}** The verdict: **{each.verdict}**{', narrowly' if each.narrow else ''}. Measured on {each.data}{trainings}; from "
        f"{{doc}}`/book/{rule['page']}`, see {{numref}}`{rule['figure']}`.\n\n{each.table()}"
    )


def setup(app) -> dict:
    app.add_directive("ledger", Ledger)
    return {"parallel_read_safe": True}
