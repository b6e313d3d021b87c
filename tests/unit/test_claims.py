import json
import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from book.machinery import claims
from vaelib import runs

BOOK = Path(__file__).parents[2] / "book"
RECORD = BOOK / "records" / "paper" / "mnist-k2-e10-s0"
MET = {"kept": 1.0, "mostly_kept": 1.0, "fine": 0.2}


def test_every_claim_has_its_words_its_page_and_bounds():
    for claim, rule in claims.rules().items():
        assert rule.keys() == {"claim", "plain", "page", "figure", "summary", "conditions"}
        assert (BOOK / f"{rule['page']}.ipynb").exists(), claim
        for condition in rule["conditions"].values():
            assert len({"above", "below"} & condition.keys()) == 1


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (MET, "holds"),
        (MET | {"kept": 0.86}, "holds in part"),
        ({"kept": 0.1, "mostly_kept": 0.1, "fine": 0.9}, "does not hold"),
        (MET | {"kept": [0.98, 1.0, 1.02]}, "holds"),  # the mean decides
        (MET | {"fine": 0.5}, "holds in part"),  # bounds are open
    ],
)
def test_all_conditions_hold_some_hold_in_part_none_does_not(values, verdict):
    assert claims.judge("C7", "test data", **values).verdict == verdict


def test_the_value_is_a_mean_with_its_spread_in_the_form_of_the_rules():
    judged = claims.judge("C7", "test data", **MET | {"fine": [0.2, 0.3, 0.4]})
    assert judged.shown("fine") == "30% ± 10%"
    assert judged.shown("kept") == "100%"
    assert "30% ± 10%" in judged.table() and "30% ± 10%" in judged.summary


def test_a_mean_within_its_spread_of_the_bound_is_said_to_be_narrow():
    close, clear = ([0.4, 0.55, 0.52], [0.2, 0.21])
    rows = [claims.judge("C7", "test data", **MET | {"fine": fine}).table().splitlines()[-1] for fine in (close, clear)]
    assert "yes, narrowly" in rows[0] and "narrowly" not in rows[1]


def test_a_verdict_is_narrow_if_a_narrow_condition_decides_it():
    close = {"fine": [0.4, 0.55, 0.52]}
    assert claims.judge("C7", "test data", **MET | close).narrow  # else it would hold in part
    assert not claims.judge("C7", "test data", **MET).narrow
    assert not claims.judge("C7", "test data", **MET | close | {"kept": 0.8}).narrow  # in part anyway


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"C7 cannot be judged by fine = \[nan\]"):
        claims.judge("C7", "test data", **MET | {"fine": math.nan})


def test_values_may_be_tensors_of_no_or_one_dimension():
    judged = claims.judge("C7", "test data", kept=torch.tensor([1.0, 0.5]), mostly_kept=torch.tensor(1.0), fine=0.1)
    assert judged.values == {"kept": [1.0, 0.5], "mostly_kept": [1.0], "fine": [pytest.approx(0.1)]}


def test_an_unknown_claim_and_other_values_than_asked_are_refused():
    with pytest.raises(ValueError, match=r"unknown claim 'C99'; known: C1, "):
        claims.judge("C99", "test data")
    with pytest.raises(ValueError, match=r"C7 asks for kept, mostly_kept, fine, not kept"):
        claims.judge("C7", "test data", kept=1)


def test_the_output_of_a_cell_carries_what_the_ledger_needs():
    run = runs.load(RECORD)
    bundle = claims.judge("C7", "test data", [run], **MET)._repr_mimebundle_()
    stored = json.loads(json.dumps(bundle[claims.MIME]))
    assert stored["claim"] == "C7" and stored["values"]["fine"] == [0.2]
    assert stored["runs"] == {RECORD.name: claims.fingerprint(run)}
    assert "C7 holds" in bundle["text/markdown"]


def test_another_training_of_the_same_settings_has_another_fingerprint():
    run = runs.load(RECORD)
    before = claims.fingerprint(run)
    run.evaluation["test_elbo"] += 1e-9
    assert claims.fingerprint(run) != before


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
