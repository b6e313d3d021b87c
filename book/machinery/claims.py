"""The claims of the paper and of this book, and the conditions in `claims.yml` for each verdict.

A page judges a claim in one of its last cells, whose output stores the measurements. The ledger collects the claims
from the stored pages.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from math import hypot, inf, isfinite, sqrt
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
import yaml
from scipy.stats import t
from tabulate import tabulate

from vaelib.runs import Run, plus_minus
from vaelib.runs import load as load_run

from . import notebooks

MIME = "application/vnd.vaelib.claim+json"
CLAIMS = Path(__file__).with_name("claims.yml")
RECORDS = Path(__file__).parents[1] / "records"


@cache
def rules() -> dict[str, dict]:
    """Read `claims.yml`: the wording, page and conditions of each claim.

    A condition that is `fresh` has the words and the bound of `rules.yml`, and is decided by `book.experiments.verdicts`.

    Raises
    ------
    ValueError
        If a claim lacks conditions, or a condition doesn't have exactly one bound, a finite number.
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
    """Read `rules.yml`: the conditions of the next verdicts, written before any training for them."""
    return yaml.safe_load(Path(__file__).with_name("rules.yml").read_bytes())


def digest(written: Mapping[str, dict]) -> str:
    """Hash the conditions' names, measures, bounds, data and seeds (16 hex digits), but not their prose."""
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
    """Return the numbers of the paper's claims, "C", or of the claims beyond the paper, "B"."""
    return [claim for claim in rules() if claim.startswith(letter)]


@dataclass(frozen=True)
class Judgement:
    """The measurements for a claim, and the verdict.

    Parameters
    ----------
    claim : such as "C7"
    data : the data measured, in words
    values : for each condition of the claim, one value, or one per seed or split
    runs : the names of the runs with these values, and fingerprints of their evaluations
    errors : for each condition that was decided on fresh seeds, the standard deviation of its mean over resamples of
        images, draws and classifiers
    """

    claim: str
    data: str
    values: dict[str, list[float]]
    runs: dict[str, str]
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def rule(self) -> dict:
        """The claim's entry in `claims.yml`."""
        return rules()[self.claim]

    def interval(self, key: str) -> tuple[float, float]:
        """Compute the 95% interval of a condition's mean by Student's t over seeds or splits.

        A single value has the interval from -inf to inf. Equal values count as one value if nothing was resampled,
        because their measure is coarse, such as a share of seven. Where `claims.yml` calls a condition exact, its one
        value is exact, or the end of an interval.
        """
        values, error = self.values[key], self.errors.get(key)
        if len({*values}) == 1 and error is None:
            return (values[0], values[0]) if self.rule["conditions"][key].get("exact") else (-inf, inf)
        half = hypot(t.ppf(0.975, len(values) - 1) * stdev(values) / sqrt(len(values)), 1.96 * (error or 0))
        return mean(values) - half, mean(values) + half

    def redrawn(self, draws: int = 10_000) -> np.ndarray:
        """Tell for each condition with an interval, and each draw of its mean, whether it is met, (conditions, draws).

        A mean is drawn from the distribution behind its interval: Student's t for seeds, and the normal distribution
        for resamples.
        """
        generator, met = np.random.default_rng(0), []
        for key, condition in self.rule["conditions"].items():
            means = np.full(draws, mean(values := self.values[key]))
            if len({*values}) > 1:
                means += stdev(values) / sqrt(len(values)) * generator.standard_t(len(values) - 1, draws)
            means += self.errors.get(key, 0) * generator.standard_normal(draws)
            if all(map(isfinite, self.interval(key))):
                met.append(means > condition["above"] if "above" in condition else means < condition["below"])
        return np.array(met)

    @property
    def met(self) -> dict[str, bool | None]:
        """For each condition, True if its interval meets the bound, False if it misses it, None if it contains it."""
        found: dict[str, bool | None] = {}
        for key, condition in self.rule["conditions"].items():
            (low, high), bound = self.interval(key), condition.get("above")
            if bound is None:
                low, high, bound = -high, -low, -condition["below"]
            found[key] = None if low <= bound < high else low > bound
        return found

    @property
    def verdict(self) -> str:
        """The verdict by the conditions. It is "not decided" if less than 95% of the redrawn means give it again."""
        return self.by_conditions if self.stability >= 0.95 else "not decided"

    @property
    def by_conditions(self) -> str:
        """Return "holds" if all conditions are met, and "does not hold" if all are missed.

        It is "holds in part" if some are met and some missed, and otherwise "not decided".
        """
        found = set(self.met.values())
        if {True, False} <= found:
            return "holds in part"
        if found == {True}:
            return "holds"
        return "does not hold" if found == {False} else "not decided"

    @property
    def stability(self) -> float:
        """The share of redrawn means that give the verdict by the conditions, 0 if they decide nothing."""
        every, some = self.redrawn().all(0), self.redrawn().any(0)
        same = {"holds": every, "does not hold": ~some, "holds in part": some & ~every, "not decided": np.zeros(1)}
        return same[self.by_conditions].mean().item()

    @property
    def exploratory(self) -> bool:
        """Whether it rests on seeds that we had looked at when we wrote `rules.yml`."""
        return self.claim in next_rules()["claims"] and not self.errors

    @property
    def words(self) -> str:
        """The verdict, or "can't hold" if it is not decided on fresh seeds, but a condition is missed."""
        cannot_hold = self.verdict == "not decided" and not self.exploratory and False in self.met.values()
        return "can't hold" if cannot_hold else self.verdict

    @property
    def label(self) -> str:
        """The verdict in `words`, and whether it is exploratory."""
        return f"{self.words}, exploratory" if self.exploratory else self.words

    def shown(self, key: str) -> str:
        """Format a condition's value as `claims.yml` specifies. Several values give mean ± standard deviation."""
        return plus_minus(self.values[key], self.rule["conditions"][key]["format"])

    @property
    def summary(self) -> str:
        """All measurements in one line."""
        return self.rule["summary"].format(**{key: self.shown(key) for key in self.values})

    def table(self) -> str:
        """Return a Markdown table of the conditions, the measurements, and whether each condition is met."""
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
        text = f"**{self.claim} {self.label}.** {self.rule['claim']} ({self.data}.)\n\n{self.table()}"
        return {"text/markdown": text, "text/plain": f"{self.claim} {self.verdict}: {self.summary}", MIME: asdict(self)}


def judge(
    claim: str, data: str, runs: Iterable[Run] = (), errors: dict | None = None, **values: float | Sequence[float]
) -> Judgement:
    """Apply a claim's conditions.

    Parameters
    ----------
    claim : such as "C7"
    data : the data measured, in words
    runs : the runs with these values
    errors : of fresh seeds, see `Judgement`
    values : for each condition of the claim, one value, or one per seed or split

    Raises
    ------
    ValueError
        If the claim is unknown, the values don't match its conditions, or a value isn't finite.
    """
    if claim not in rules():
        raise ValueError(f"unknown claim {claim!r}; known: {', '.join(rules())}")
    asked = rules()[claim]["conditions"]
    if values.keys() != asked.keys():
        raise ValueError(f"{claim} asks for {', '.join(asked)}, not {', '.join(values) or 'nothing'}")
    several = {key: torch.as_tensor(value, dtype=torch.float64).reshape(-1).tolist() for key, value in values.items()}
    for key, each in several.items():
        if not all(map(isfinite, each)):
            raise ValueError(f"{claim} cannot be judged by {key} = {each}: values must be finite")
    return Judgement(claim, data, several, {run.folder.name: fingerprint(run) for run in runs}, errors or {})


def published(claim: str, records: Path = RECORDS) -> Judgement:
    """Read a verdict on fresh seeds from `records/verdicts`, written by `book.experiments.verdicts`.

    Raises ValueError if its rules weren't the present ones.
    """
    path = records / "verdicts" / f"{claim}.json"
    stored = json.loads(path.read_bytes())
    if stored.pop("rules") != digest(next_rules()):
        raise ValueError(f"{path} was measured under other rules than rules.yml; measure it again")
    return Judgement(**stored)


def judgement(claim: str, book: Path) -> Judgement:
    """Judge a claim by the measurements that its page in the book stores, and by the present rules.

    Raises
    ------
    ValueError
        If the claim's page doesn't judge it, or its measurements don't match the rules.
    FileNotFoundError
        If one of its runs doesn't have a record.
    """
    stored = _stored(claim, book)
    folder = book / "records" / ("fresh" if stored.get("errors") else "beyond" if claim in numbered("B") else "paper")
    records = [load_run(folder / name, builder=None) for name in stored["runs"]]
    found = judge(claim, stored["data"], records, stored.get("errors"), **stored["values"])
    if found.runs != stored["runs"]:
        raise ValueError(f"{_page(claim, book)} judges {claim} by runs that differ from their records; execute it")
    return found


def runs_beyond(book: Path) -> list[str]:
    """Return the names of all runs that exploratory claims beyond the paper rest on. Raises like `judgement`."""
    stored = [_stored(claim, book) for claim in numbered("B")]
    return sorted({name for each in stored if not each.get("errors") for name in each["runs"]})


def _page(claim: str, book: Path) -> Path:
    return book / f"{rules()[claim]['page']}.ipynb"


def _stored(claim: str, book: Path) -> dict:
    page = _page(claim, book)
    for output in (each for cell in notebooks.read(page).cells for each in cell.get("outputs", [])):
        stored = output.get("data", {}).get(MIME)
        if stored and stored["claim"] == claim:
            return stored
    raise ValueError(f"{page} does not judge {claim}; execute it")


def fingerprint(run: Run) -> str:
    """Hash a run's evaluation. A repeated run on another machine gives another hash."""
    return hashlib.sha256(json.dumps(run.evaluation, sort_keys=True).encode()).hexdigest()[:16]
