"""Claims: what is asked of each, and the verdict that measurements make."""

import json
import math
from copy import deepcopy

import pytest
import scipy.stats
import torch
import yaml
from conftest import BOOK

from book.machinery import claims
from vaelib import runs

RECORD = BOOK / "records" / "paper" / "mnist-k2-e10-s0"
MET, MISSED, OPEN = [0.20, 0.21, 0.22], [0.80, 0.81, 0.82], [0.2, 0.5, 0.9]  # where less than 0.5 is asked
VALUES = {"kept": [0.995, 0.996, 0.997], "fine": MET}


def judge(**values):
    return claims.judge("C7", "test data", **VALUES | values)


def test_every_claim_has_its_words_and_its_page():
    for claim, rule in claims.rules().items():
        assert rule.keys() == {"claim", "plain", "page", "figure", "before", "why", "summary", "conditions"}
        assert (BOOK / f"{rule['page']}.ipynb").exists(), claim


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ({}, "C1 needs at least one condition"),
        ({"gain": {"above": 0.1, "below": 0.2}}, r"C1.gain needs .* not \[0.1, 0.2\]"),
        ({"gain": {"above": math.nan}}, r"C1.gain needs .* not \[nan\]"),
        ({"gain": {"above": "0.1"}}, r"C1.gain needs .* not \['0.1'\]"),
        ({"gain": {}}, r"C1.gain needs .* not \[\]"),
    ],
)
def test_a_mistake_in_the_claims_is_told_by_file_claim_and_condition(tmp_path, monkeypatch, conditions, told):
    monkeypatch.setattr(claims, "CLAIMS", tmp_path / "claims.yml")
    claims.CLAIMS.write_text(yaml.safe_dump({"C1": {"conditions": conditions}}))
    with pytest.raises(ValueError, match=rf"claims\.yml: {told}"):
        claims.rules.__wrapped__()


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({}, "holds"),
        ({"fine": MISSED}, "holds in part"),
        ({"kept": MET, "fine": MISSED}, "does not hold"),
        ({"fine": OPEN}, "not decided"),
        ({"kept": MET, "fine": OPEN}, "can't hold"),
        ({"kept": MET, "fine": MET}, "holds in part"),
        ({"fine": 0.2}, "not decided"),  # one value has no interval
        ({"fine": [0.2, 0.2, 0.2]}, "not decided"),  # nor have equal ones
    ],
)
def test_a_claim_holds_if_all_conditions_are_met_and_is_not_decided_unless_one_is_missed(values, verdict):
    assert judge(**values, errors={"kept": 0.0}).label == verdict
    earlier = "not decided" if verdict == "can't hold" else verdict  # because new seeds may find otherwise
    assert judge(**values).label == f"{earlier}, exploratory"


def test_a_verdict_is_not_decided_if_redrawn_means_often_give_another_one():
    closely, clearly = [0.297, 0.307, 0.317], [0.1, 0.101, 0.102]  # closely: 2.4% of the means are above the bound
    values = dict.fromkeys(("nats", "recognised", "sure", "distance"), closely)
    judged = claims.judge("C5", "test data", **values)
    assert {*judged.met.values()} == {True} and judged.by_conditions == "holds" and judged.verdict == "not decided"
    assert judged.stability == pytest.approx(0.976**4, abs=0.01)
    assert (
        claims.judge("C5", "test data", **values | dict.fromkeys(("nats", "sure", "distance"), clearly)).verdict
        == "holds"
    )


@pytest.mark.parametrize("values", [[1.0, 2.0], [0.3, 0.1, 0.4, 0.1, 0.5]])
def test_the_interval_is_students(values):
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert judge(fine=values).interval("fine") == pytest.approx((expected.low, expected.high))


def test_an_exact_value_is_its_own_interval():
    judged = claims.judge("C2", "test data", quadrature=1e-9, relative=1e-13, worst=0.5)
    assert judged.interval("worst") == (0.5, 0.5)
    assert judged.met == {"quadrature": False, "relative": True, "worst": True}
    assert judged.table().count("| exact ") == 3


def test_the_value_is_a_mean_with_its_spread_in_the_form_of_the_rules():
    judged = judge(fine=[0.2, 0.3, 0.4])
    assert judged.shown("fine") == "30.0% ± 10.0%"
    assert "30.0% ± 10.0%" in judged.table() and "30.0% ± 10.0%" in judged.summary
    assert "5.2% to 54.8%" in judged.table() and "| undecided |" in judged.table()


def test_values_may_be_tensors_of_no_or_one_dimension():
    judged = judge(kept=torch.tensor([1.0, 0.5]), fine=torch.tensor(0.25))
    assert judged.values == {"kept": [1.0, 0.5], "fine": [0.25]}


@pytest.mark.parametrize(
    ("claim", "values", "told"),
    [
        ("C7", VALUES | {"fine": math.nan}, r"C7 cannot be judged by fine = \[nan\]"),
        ("C99", {}, "unknown claim 'C99'; known: C1, "),
        ("C7", {"kept": 1}, "C7 asks for kept, fine, not kept"),
    ],
)
def test_what_cannot_be_judged_is_refused(claim, values, told):
    with pytest.raises(ValueError, match=told):
        claims.judge(claim, "test data", **values)


def test_the_output_of_a_cell_carries_what_the_ledger_needs():
    run = runs.load(RECORD)
    bundle = claims.judge("C7", "test data", [run], **VALUES)._repr_mimebundle_()
    stored = json.loads(json.dumps(bundle[claims.MIME]))
    assert stored["claim"] == "C7" and stored["values"]["fine"] == MET
    assert stored["runs"] == {RECORD.name: claims.fingerprint(run)}
    assert "C7 holds" in bundle["text/markdown"]
    run.evaluation["test_elbo"] += 1e-9  # as another training of the same settings would
    assert claims.fingerprint(run) != stored["runs"][RECORD.name]


def test_the_next_rules_can_be_met_and_missed():
    written = claims.next_rules()
    for claim, each in written["claims"].items():
        assert each["says"] and each["data"] and each["conditions"], claim
        for rule in each["conditions"].values():
            assert rule.keys() in ({"measure", "above"}, {"measure", "below"}), claim
            assert math.isfinite(rule.get("above", rule.get("below")))
    measures = [rule["measure"] for each in written["claims"].values() for rule in each["conditions"].values()]
    for seeds in written["seeds"].values():
        assert seeds and min(seeds) >= 10  # none that an earlier run has used
    assert len(measures) > 40


def test_the_digest_of_the_rules_changes_with_what_decides_and_not_with_prose():
    written = claims.next_rules()
    before = claims.digest(written)
    prose, bound, seeds = (deepcopy(written) for _ in range(3))
    prose["claims"]["C1"]["says"] = prose["procedure"]["met"] = "other words"
    bound["claims"]["C1"]["conditions"]["gain"]["below"] = 2
    seeds["seeds"]["mnist"] = [10, 11]
    assert claims.digest(prose) == before
    assert len({before, claims.digest(bound), claims.digest(seeds)}) == 3


@pytest.mark.parametrize("path", sorted((BOOK / "records" / "fresh").glob("burda-*.json")), ids=lambda path: path.stem)
def test_a_run_was_trained_under_the_rules_that_judge_it(path):
    assert runs.load(path, builder=None).record["tags"]["rules"] == claims.digest(claims.next_rules())


def test_an_interval_of_fresh_seeds_has_both_spreads_and_the_verdict_is_not_exploratory():
    values, errors = [0.2, 0.3, 0.4], {"kept": 0.01, "fine": 0.02}
    judged = claims.judge("C7", "test data", errors=errors, kept=[0.9, 0.9], fine=values)
    low, high = judge(fine=values).interval("fine")
    assert judged.interval("fine") == pytest.approx(
        [0.3 - math.hypot(0.3 - low, 0.0392), 0.3 + math.hypot(high - 0.3, 0.0392)]
    )
    assert judged.interval("kept") == pytest.approx([0.9 - 0.0196, 0.9 + 0.0196])  # equal values have an interval now
    assert judge().exploratory and not judged.exploratory
