"""The paper's claims, and a few beyond it, and what we ask of each before we say that it holds: `claims.yml`, applied.

A page judges a claim in one of its last cells, whose output carries the measurements; the ledger of all claims
collects them from the stored pages.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from math import hypot, inf, isfinite, sqrt
from pathlib import Path
from statistics import mean, stdev

import torch
import yaml
from scipy.stats import t
from tabulate import tabulate

from vaelib import files
from vaelib.runs import Run, plus_minus
from vaelib.runs import load as load_run

MIME = "application/vnd.vaelib.claim+json"
VERDICTS = {  # and how the ledger counts them
    "holds": "hold",
    "holds in part": "hold in part",
    "does not hold": "do not hold",
    "not decided": "are not decided",
}
CLAIMS = Path(__file__).with_name("claims.yml")
RECORDS = Path(__file__).parents[1] / "records"


@cache
def rules() -> dict[str, dict]:
    """`claims.yml`: for each claim its words, where it is judged, and its conditions.

    A condition that is `fresh` has the words and the bound of `rules.yml`, and is decided by `book.machinery.verdicts`.

    Raises
    ------
    ValueError
        If a claim has no condition, or a condition has not one bound, which is a finite number.
    """
    written = yaml.safe_load(CLAIMS.read_bytes())
    for claim, rule in written.items():
        if not rule["conditions"]:
            raise ValueError(f"{CLAIMS}: {claim} needs at least one condition")
        for key, condition in rule["conditions"].items():
            if condition.get("fresh"):
                written_before = next_rules()["claims"][claim]["conditions"][key]
                condition |= {"says": written_before["measure"], **written_before}
            bounds = [condition[way] for way in ("above", "below") if way in condition]
            if len(bounds) != 1 or not isinstance(bounds[0], int | float) or not isfinite(bounds[0]):
                raise ValueError(f"{CLAIMS}: {claim}.{key} needs above or below, one finite number, not {bounds}")
    return written


@cache
def next_rules() -> dict[str, dict]:
    """`rules.yml`: how the next verdicts are decided, written before anything is trained for them."""
    return yaml.safe_load(Path(__file__).with_name("rules.yml").read_bytes())


def digest(written: Mapping[str, dict]) -> str:
    """16 hexadecimal digits that change with a condition's name, measure, bound, data or seeds, but not with prose."""
    kept = {
        claim: {
            key: {part: rule[part] for part in rule if part in ("measure", "above", "below")}
            for key, rule in each["conditions"].items()
        }
        | {"data": each["data"]}
        for claim, each in written["claims"].items()
    }
    content = json.dumps([kept, written["seeds"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def numbered(letter: str) -> list[str]:
    """The paper's claims, "C", or those of what this book does beyond the paper, "B"."""
    return [claim for claim in rules() if claim.startswith(letter)]


@dataclass(frozen=True)
class Judgement:
    """What was measured of a claim, and what that makes of it.

    Parameters
    ----------
    claim : such as "C7"
    data : what it was measured on, in words
    values : for each condition of the claim a value, or one for each seed or part
    runs : the names of the runs that bear the values out, with fingerprints of their evaluations
    errors : for a condition that was decided on fresh seeds the standard deviation of its mean over resamples of
        images, draws and classifiers
    """

    claim: str
    data: str
    values: dict[str, list[float]]
    runs: dict[str, str]
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def rule(self) -> dict:
        """What `claims.yml` says of the claim."""
        return rules()[self.claim]

    def interval(self, key: str) -> tuple[float, float]:
        """The 95% interval of a condition's mean, by Student's t over seeds or parts: from -inf to inf of one value.

        Equal values count as one if nothing was resampled: they are of a coarse measure, such as a share of seven. A
        condition that `claims.yml` calls exact has one value, which is exact, or already the end of an interval.
        """
        values, error = self.values[key], self.errors.get(key)
        if len({*values}) == 1 and error is None:
            return (values[0], values[0]) if self.rule["conditions"][key].get("exact") else (-inf, inf)
        by_seed = t.ppf(0.975, len(values) - 1) * stdev(values) / sqrt(len(values))
        half = hypot(by_seed, 1.96 * (error or 0))
        return mean(values) - half, mean(values) + half

    @property
    def met(self) -> dict[str, bool | None]:
        """Whether each condition's interval is within its bound, or beyond it; None if the bound is in the interval."""
        found: dict[str, bool | None] = {}
        for key, condition in self.rule["conditions"].items():
            (low, high), bound = self.interval(key), condition.get("above")
            if bound is None:
                low, high, bound = -high, -low, -condition["below"]
            found[key] = None if low <= bound < high else low > bound
        return found

    @property
    def verdict(self) -> str:
        """ "holds" if all conditions are met, "does not hold" if all are missed, "holds in part" if some are met and
        some missed, else "not decided".
        """
        found = set(self.met.values())
        if {True, False} <= found:
            return "holds in part"
        if found == {True}:
            return "holds"
        return "does not hold" if found == {False} else "not decided"

    @property
    def exploratory(self) -> bool:
        """Whether it rests on seeds that we had looked at when we wrote `rules.yml`."""
        return self.claim in next_rules()["claims"] and not self.errors

    def shown(self, key: str) -> str:
        """A condition's value in the form that `claims.yml` gives: mean ± standard deviation if there are several."""
        return plus_minus(self.values[key], self.rule["conditions"][key]["format"])

    @property
    def summary(self) -> str:
        """All that was measured, in a line."""
        return self.rule["summary"].format(**{key: self.shown(key) for key in self.values})

    def table(self) -> str:
        """The conditions, what was measured, and whether it is so: a table in Markdown."""
        rows = []
        for key, condition in self.rule["conditions"].items():
            way = "above" if "above" in condition else "below"
            bound = format(condition[way], condition.get("bound_format", condition["format"]))
            ends = [format(end, condition["format"]) for end in self.interval(key) if isfinite(end)]
            between = "one value" if not ends else "exact" if condition.get("exact") else " to ".join(ends)
            met = {True: "yes", False: "no", None: "undecided"}[self.met[key]]
            rows.append((condition["says"], f"{way} {bound}", self.shown(key), between, met))
        headers = ["condition", "asked", "measured", "95% interval", "met"]
        return tabulate(rows, headers, tablefmt="github", disable_numparse=True)

    def _repr_mimebundle_(self, **_) -> dict:
        seeds = "exploratory" if self.exploratory else "decided on fresh seeds" if self.errors else "exact"
        text = f"**{self.claim} {self.verdict}** ({seeds})**.** {self.rule['claim']} ({self.data}.)\n\n{self.table()}"
        return {"text/markdown": text, "text/plain": f"{self.claim} {self.verdict}: {self.summary}", MIME: asdict(self)}


def judge(
    claim: str, data: str, runs: Iterable[Run] = (), errors: dict | None = None, **values: float | Sequence[float]
) -> Judgement:
    """Apply a claim's conditions.

    Parameters
    ----------
    claim : such as "C7"
    data : what it was measured on, in words
    runs : those that the values come from
    errors : of fresh seeds, see `Judgement`
    values : for each condition of the claim several, one for each seed or part, or a single one

    Raises
    ------
    ValueError
        If there is no such claim, or the values are not those that its conditions ask for, or not finite.
    """
    asked = _rule(claim)["conditions"]
    if values.keys() != asked.keys():
        raise ValueError(f"{claim} asks for {', '.join(asked)}, not {', '.join(values) or 'nothing'}")
    several = {key: torch.as_tensor(value, dtype=torch.float64).reshape(-1).tolist() for key, value in values.items()}
    for key, each in several.items():
        if not all(map(isfinite, each)):
            raise ValueError(f"{claim} cannot be judged by {key} = {each}: values must be finite")
    return Judgement(claim, data, several, {run.folder.name: fingerprint(run) for run in runs}, errors or {})


def published(claim: str, records: Path = RECORDS) -> Judgement:
    """The verdict of fresh seeds, from `records/verdicts`; see `book.machinery.verdicts`.

    Raises ValueError if it was measured under other rules.
    """
    path = records / "verdicts" / f"{claim}.json"
    stored = json.loads(path.read_bytes())
    if stored.pop("rules") != digest(next_rules()):
        raise ValueError(f"{path} was measured under other rules than those of rules.yml; measure it again")
    return Judgement(**stored)


def judgement(claim: str, book: Path) -> Judgement:
    """What the claim's page in the book measured, judged by the rules as they are now.

    Raises
    ------
    ValueError
        If there is no such claim, or the page does not judge it, or measured something else than the rules ask for.
    FileNotFoundError
        If a run that it rests on has no record.
    """
    stored = _stored(claim, book)
    folder = book / "records" / ("fresh" if stored.get("errors") else "beyond" if claim in numbered("B") else "paper")
    records = [load_run(folder / name, builder=None) for name in stored["runs"]]
    found = judge(claim, stored["data"], records, stored.get("errors"), **stored["values"])
    if found.runs != stored["runs"]:
        raise ValueError(
            f"{_page(claim, book)} judges {claim} by other runs than those of the records; execute it again"
        )
    return found


def runs_beyond(book: Path) -> list[str]:
    """The names of the runs by which the book's pages judge the claims beyond the paper; raises as `judgement`."""
    return sorted({name for claim in numbered("B") for name in _stored(claim, book)["runs"]})


def _page(claim: str, book: Path) -> Path:
    return book / f"{_rule(claim)['page']}.ipynb"


def _stored(claim: str, book: Path) -> dict:
    page = _page(claim, book)
    for output in (each for cell in files.read_notebook(page).cells for each in cell.get("outputs", [])):
        stored = output.get("data", {}).get(MIME)
        if stored and stored["claim"] == claim:
            return stored
    raise ValueError(f"{page} does not judge {claim}; execute it")


def fingerprint(run: Run) -> str:
    """A hash of a run's evaluation, which another training of the same settings elsewhere will not have."""
    return hashlib.sha256(json.dumps(run.evaluation, sort_keys=True).encode()).hexdigest()[:16]


def _rule(claim: str) -> dict:
    if claim not in rules():
        raise ValueError(f"unknown claim {claim!r}; known: {', '.join(rules())}")
    return rules()[claim]
