"""The paper's claims, and a few beyond it, and what we ask of each before we say that it holds: `claims.yml`, applied.

A page judges a claim in one of its last cells, whose output carries the measurements; the ledger of all claims
collects them from the stored pages.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from statistics import mean, stdev

import torch
import yaml
from tabulate import tabulate

from vaelib import files
from vaelib.runs import Run, plus_minus
from vaelib.runs import load as load_run

MIME = "application/vnd.vaelib.claim+json"
CLAIMS = Path(__file__).with_name("claims.yml")


@cache
def rules() -> dict[str, dict]:
    """`claims.yml`: for each claim its words, where it is judged, and its conditions.

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
    """

    claim: str
    data: str
    values: dict[str, list[float]]
    runs: dict[str, str]

    @property
    def rule(self) -> dict:
        """What `claims.yml` says of the claim."""
        return rules()[self.claim]

    @property
    def passed(self) -> dict[str, bool]:
        """Whether the mean of each condition's values is within its bound."""
        found = {}
        for key, condition in self.rule["conditions"].items():
            value = mean(self.values[key])
            found[key] = value > condition["above"] if "above" in condition else value < condition["below"]
        return found

    @property
    def verdict(self) -> str:
        """ "holds" if all conditions do, "holds in part" if some do, else "does not hold"."""
        return _verdict(self.passed)

    @property
    def narrow(self) -> bool:
        """Whether a single condition that is met, or missed, narrowly decides the verdict."""
        turned = (self.passed | {key: not met} for key, met in self.passed.items() if self._narrowly(key))
        return any(_verdict(each) != self.verdict for each in turned)

    def shown(self, key: str) -> str:
        """A condition's value in the form that `claims.yml` gives: mean ± standard deviation if there are several."""
        return plus_minus(self.values[key], self.rule["conditions"][key]["format"])

    def _narrowly(self, key: str) -> bool:
        """Whether the mean is nearer to the bound than the values are to each other."""
        condition, values = self.rule["conditions"][key], self.values[key]
        bound = condition.get("above", condition.get("below"))
        return len(values) > 1 and abs(mean(values) - bound) < stdev(values)

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
            met = f"{'yes' if self.passed[key] else 'no'}{', narrowly' if self._narrowly(key) else ''}"
            rows.append((condition["says"], f"{way} {bound}", self.shown(key), met))
        return tabulate(rows, ["condition", "asked", "measured", "met"], tablefmt="github", disable_numparse=True)

    def _repr_mimebundle_(self, **_) -> dict:
        words, narrowly = self.rule["claim"], ", narrowly" if self.narrow else ""
        text = f"**{self.claim} {self.verdict}{narrowly}.** {words} ({self.data}.)\n\n{self.table()}"
        return {"text/markdown": text, "text/plain": f"{self.claim} {self.verdict}: {self.summary}", MIME: asdict(self)}


def judge(claim: str, data: str, runs: Iterable[Run] = (), **values: float | Sequence[float]) -> Judgement:
    """Apply a claim's conditions.

    Parameters
    ----------
    claim : such as "C7"
    data : what it was measured on, in words
    runs : those that the values come from
    values : one for each condition of the claim; or several, a value for each seed or part, and their mean decides

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
    return Judgement(claim, data, several, {run.folder.name: fingerprint(run) for run in runs})


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
    folder = book / "records" / ("beyond" if claim in numbered("B") else "paper")
    records = [load_run(folder / name, builder=None) for name in stored["runs"]]
    found = judge(claim, stored["data"], records, **stored["values"])
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


def _verdict(passed: Mapping[str, bool]) -> str:
    return "holds" if all(passed.values()) else "holds in part" if any(passed.values()) else "does not hold"
