"""Arguments of the analyses in memory: who is meant by `forgotten`, which settings count, and words of Python."""

import numpy as np
import pytest

from jaxunlearn import analyses, errors, records
from tests.launch.test_audit_evidence import simulated

WORLD = simulated(person=None)
FEW = {"scores": ("confidence",)}
EVIDENCE = {name: array for name, array in WORLD.items() if name != "forgotten"}
LOSSES = {"nll_target": np.linspace(0.2, 3, 40)}


def test_rows_of_texts_are_requested_by_mask_or_position():
    mask = np.arange(40) % 3 == 0
    by_mask, by_zeros, by_position = (
        analyses.audit_texts(LOSSES, forgotten, scores=("lm_loss",), draws=0)
        for forgotten in (mask, mask.astype(float).tolist(), np.flatnonzero(mask))
    )
    assert str(by_mask) == str(by_position) == str(by_zeros)


@pytest.mark.parametrize(("evidence", "forgotten", "message"), [
    (EVIDENCE, [100, 479], "contains row 479; rows are 0 to 259. It takes positions in the evidence"),
    (EVIDENCE, [-1], "contains row -1; rows are 0 to 259"),
    (EVIDENCE, [0.5], "must be whole row numbers or a mask"),
    (EVIDENCE, np.ones(9, bool), r"a mask must be \[N\] with N = 260 rows, not \(9,\)"),
    (EVIDENCE | {"ids": np.arange(260) + 100}, [100, 101], "positions in the evidence, and `ids` of other rows"),
    ({"mask": np.ones((3, 2), bool)}, [7], "rows are 0 to 2"),
])  # fmt: skip
def test_requests_that_name_no_row_for_certain_are_refused(evidence, forgotten, message):
    call = analyses.audit_texts if "mask" in evidence else analyses.audit
    with pytest.raises(errors.UserError, match=message):
        call(evidence, forgotten)


def test_positions_that_are_no_ids_or_ids_of_the_same_rows_are_positions():
    for ids in (np.arange(260), np.arange(260) + 1000, np.arange(260).astype(str)):
        report = analyses.audit(EVIDENCE | {"ids": ids}, np.arange(60), **FEW)
        assert [row.sample for row in report.rows] == ids[:60].tolist()


@pytest.mark.parametrize(("choices", "message"), [
    ({"levle": 0.1}, "unknown argument 'levle'"), ({"level": 0.1}, "level is now called fdr"),
    ({"fdr": 2.0}, "^fdr = 2.0: must be between"), ({"decision": "loss", **FEW}, "^decision = 'loss' is not among"),
    ({"unlearned": ("unlearned:ssd",)}, "unlearned changes nothing here: it is of run folders"),
    ({"shadow_runs": ("x",)}, "shadow_runs changes nothing here"),
    ({"counts": (1, 2)}, "counts changes nothing here: give protocol='shadow_sweep'"),
    ({"sweep_e1": 0.1, "protocol": "shadow_sweep"}, "give protocol='sensitivity'"),
    ({"min_k": 10.0}, "min_k changes nothing here: it is of texts"),
    ({"compat": "nearly"}, "'nearly'"),
])  # fmt: skip
def test_arguments_that_are_unknown_or_change_nothing_are_refused(choices, message):
    with pytest.raises(errors.ConfigError, match=message):
        analyses.audit(WORLD, **choices)


@pytest.mark.parametrize(("call", "choices", "message"), [
    (analyses.measure_leaks, {"sets": 3}, "sets changes nothing here: it is of run folders"),
    (analyses.reminisce, {"trials": 3}, "trials changes nothing here"),
    (analyses.reminisce, {"compat": "faithful"}, "compat='faithful' changes nothing here"),
    (analyses.measure_epsilon, {"bn_batch": 3}, "bn_batch changes nothing here"),
    (analyses.evaluate, {"metric": "svc"}, "unknown argument 'metric'. Did you mean 'metrics'"),
    (analyses.measure_leaks, {"attack": "threshold"}, "^feature = 'sorted_diff' .*Give feature=l2_distance"),
    (analyses.audit_texts, {"probabilities": True}, "probabilities=True is of outputs over classes"),
])  # fmt: skip
def test_the_other_analyses_refuse_them_too(call, choices, message):
    with pytest.raises(errors.ConfigError, match=message):
        call({"labels": np.zeros(3, int)}, **choices)


def test_what_is_read_by_a_protocol_or_by_texts_is_accepted_there():
    swept = analyses.audit(WORLD, protocol="shadow_sweep", counts=(1, 2), **FEW)
    assert [section.name for section in swept.sections if section.name == "shadow_sweep"]
    assert swept.verdict == "NO VERDICT" and swept.requests == ()
    analyses.audit_texts(LOSSES, [1], scores=("lm_loss",), draws=0)


def test_a_plan_says_what_would_help_and_judges_nothing():
    report = analyses.audit({name: EVIDENCE[name] for name in ("labels", "unlearned")}, [1], plan_shadows=True)
    assert report.verdict == "NO VERDICT" and report.answer == "Nothing was judged."
    assert "0: at least 2 for verdicts on rows, 10 for the request as a whole" in str(report)


def test_messages_and_reports_name_arguments_instead_of_flags():
    softmax = np.full((260, 3), 1 / 3, np.float32)
    with pytest.raises(errors.DataError, match="Pass probabilities=True to"):
        analyses.audit(EVIDENCE | {"original": softmax}, [1])
    report = analyses.audit({name: EVIDENCE[name] for name in ("labels", "unlearned", "original")}, [1], **FEW)
    assert "plan_shadows=True" in report.answer and "--" not in report.answer
    assert "plan_shadows=True" in report.request.why
    with pytest.raises(errors.DataError) as raised:
        analyses.audit({"labels": np.zeros(3, int)})
    assert "README" not in str(raised.value) and ".npz" not in str(raised.value)
    with pytest.raises(errors.DataError) as raised:
        analyses.audit(EVIDENCE | {"original": np.zeros((260, 3), int)}, [1])
    assert "bfloat16" not in str(raised.value)


def test_several_models_are_audited_by_themselves():
    several = np.stack([WORLD["unlearned"]] * 3)
    with pytest.raises(errors.ShapeError, match=r"shape \(3, 260, 3\), but an audit is of one model .*audit each"):
        analyses.audit(EVIDENCE | {"unlearned": several}, [1])


def test_the_answer_begins_with_the_headline():
    copies = {name: WORLD[name][[0, 0, 1, 2, 3]] for name in ("shadows", "population_shadows")}
    report = analyses.audit(records.Evidence(**WORLD | copies), **FEW)
    assert report.answer.startswith(report.in_short) and "Before anything else" in dict(report.summary)
