"""Arrays that do not belong together, or are not what they are said to be, get no verdict; honest ones do.

A truth table on networks of the scenario study: every mistake of a user is made with a model that holds the request and
with one that was retrained without it, and none may be assured or accused by it.
"""

import functools

import numpy as np
import pytest

from jaxunlearn import analyses, records
from jaxunlearn.analyses.audit.evidence import unseen
from jaxunlearn.analyses.audit.evidence.unseen import Answered, Rows
from jaxunlearn.analyses.audit.verdicts import first_screen
from tests.scenarios import worlds
from tests.scenarios.worlds import Model

FAMILY = worlds.NET._replace(rows=300, population=300, pool=2500, epochs=40)
N, P, F, S = FAMILY.rows, FAMILY.population, 40, 6
REQUESTED = np.arange(N) < F
POOL = np.arange(N + P, N + P + FAMILY.pool)
ORIGINAL, AGAIN, RETRAINED, SHADOWS = 0, 1, 2, slice(3, 3 + S)
OF_HALVES, OF_RETAINED, OF_POPULATION, OF_ALL = (slice(3 + k * S, 3 + (k + 1) * S) for k in (1, 2, 3, 4))
ROWS = ("original", "unlearned", "shadows", "retrained")  # arrays by row of the evidence


@functools.cache
def world():
    """(logits [M, N + P, C], labels [N + P], which rows each model saw [M, N]) of one world."""
    data = worlds.draw(FAMILY, 1)
    everything, draw = np.arange(N), np.random.default_rng(0)
    from_pool = [draw.choice(POOL, N, replace=False) for _ in range(S)]
    halves = [np.concatenate([draw.choice(everything, N // 2, replace=False), rows[: N // 2]]) for rows in from_pool]
    retained = [np.concatenate([draw.choice(everything[F:], N // 2, replace=False), rows[: N // 2]])
                for rows in from_pool]  # fmt: skip
    population = [np.concatenate([np.arange(N, N + P), rows[: N // 4]]) for rows in from_pool]
    trained_on = [everything, everything, everything[F:], *from_pool, *halves, *retained, *population]
    trained_on += [everything] * S
    models = [Model(0, rows, seed if seed != RETRAINED else 77) for seed, rows in enumerate(trained_on)]
    logits = worlds.outputs(FAMILY, data, models, worlds.fit(FAMILY, data, models), "same")
    saw = np.stack([np.isin(everything, rows) for rows in trained_on])
    return logits, data.labels[0, : N + P], saw


def evidence(unlearned=RETRAINED, shadows=SHADOWS, **changed):
    """Arrays of one audit; `unlearned`: number of a model, or its logits."""
    logits, labels, _ = world()
    answers = logits[unlearned] if isinstance(unlearned, int) else unlearned
    arrays = dict(
        labels=labels[:N], forgotten=REQUESTED, original=logits[ORIGINAL, :N], unlearned=answers[:N],
        shadows=logits[shadows, :N], population_labels=labels[N:], population_original=logits[ORIGINAL, N:],
        population_unlearned=answers[N:], population_shadows=logits[shadows, N:],
    )  # fmt: skip
    return {name: value for name, value in (arrays | changed).items() if value is not None}


def audited(arrays):
    """The summary by question."""
    return dict(analyses.audit(arrays, scores=("confidence",)).summary)


def short(arrays):
    return audited(arrays)[first_screen.SHORT]


def reversed_rows(arrays, *names):
    return arrays | {name: arrays[name][..., ::-1] if name.endswith("labels") else arrays[name][..., ::-1, :]
                     for name in names}  # fmt: skip


TRUTH = [pytest.param(AGAIN, id="holds the request"), pytest.param(RETRAINED, id="retrained")]


def test_honest_arrays_are_judged_and_doubted_by_nothing():
    holds, retrained = (audited(evidence(model)) for model in (AGAIN, RETRAINED))
    assert holds[first_screen.SHORT].startswith("NOT FORGOTTEN.")
    assert retrained[first_screen.SHORT].startswith("FORGOTTEN as a whole")
    assert first_screen.DOUBTS not in holds and first_screen.DOUBTS not in retrained
    assert "300 rows given as unseen" in holds[first_screen.ASKED]


@pytest.mark.parametrize("model", TRUTH)
@pytest.mark.parametrize("names", [
    ("labels",), ("population_labels",), ("original",), ("shadows",), ("population_shadows",),
    ("population_original",), ("retrained",),
], ids=lambda names: names[0])  # fmt: skip
def test_an_array_in_another_order_than_the_others_gets_no_verdict(model, names):
    arrays = evidence(model, retrained=world()[0][RETRAINED, :N])
    summary = audited(reversed_rows(arrays, *names))
    assert summary[first_screen.SHORT] == "NO VERDICT: these arrays do not allow one."
    assert f"`{names[0]}`" in summary[first_screen.DOUBTS] and "order" in summary[first_screen.DOUBTS]
    assert summary[first_screen.REQUEST] == "No verdict is given, for the reason given first."


def test_one_shadow_in_another_order_is_named():
    shadows = world()[0][SHADOWS, :N].copy()
    shadows[3] = shadows[3][np.random.default_rng(0).permutation(N)]
    summary = audited(evidence(shadows=SHADOWS) | {"shadows": shadows})
    assert summary[first_screen.SHORT].startswith("NO VERDICT") and "(model 3)" in summary[first_screen.DOUBTS]


@pytest.mark.parametrize("model", TRUTH)
@pytest.mark.parametrize("names", [("unlearned",), ("population_unlearned",), ("unlearned", "population_unlearned")])
def test_an_unlearned_model_in_another_order_may_be_destroyed_and_is_never_assured(model, names):
    summary = audited(reversed_rows(evidence(model), *names))
    assert summary[first_screen.SHORT].startswith("NO VERDICT")
    assert "was destroyed, or its rows are in another order" in summary[first_screen.DOUBTS]


@pytest.mark.parametrize("how", ["random", "constant", "shuffled"])
def test_a_model_that_answers_at_random_is_never_assured(how):
    draw = np.random.default_rng(0)
    logits = {
        "random": draw.normal(size=(N + P, FAMILY.classes)), "constant": np.zeros((N + P, FAMILY.classes)),
        "shuffled": draw.permutation(world()[0][RETRAINED]),
    }[how].astype(np.float32)  # fmt: skip
    summary = audited(evidence(logits))
    assert summary[first_screen.SHORT].startswith("NO VERDICT") and "destroyed" in summary[first_screen.DOUBTS]


def test_an_unchanged_model_is_reported_whatever_else_is_wrong():
    arrays = evidence(ORIGINAL)
    for wrong in (reversed_rows(arrays, "shadows"), reversed_rows(arrays, "labels"), evidence(ORIGINAL, OF_HALVES)):
        assert short(wrong) == "NOT FORGOTTEN. The model was not changed at all."


@pytest.mark.parametrize("model", TRUTH)
@pytest.mark.parametrize("name", ["original", "unlearned"])
def test_a_copy_of_an_audited_model_among_the_shadows_gets_no_verdict(model, name):
    arrays = evidence(model)
    for prefix in ("", "population_"):
        arrays[f"{prefix}shadows"] = arrays[f"{prefix}shadows"].copy()
        arrays[f"{prefix}shadows"][2] = arrays[f"{prefix}{name}"]
    summary = audited(arrays)
    assert summary[first_screen.SHORT].startswith("NO VERDICT")
    assert f"Shadow model 2 answers like `{name}`" in summary[first_screen.DOUBTS]


@pytest.mark.parametrize("model", TRUTH)
@pytest.mark.parametrize("shadows", [OF_HALVES, OF_ALL], ids=["half of the rows", "all rows"])
def test_shadows_that_saw_the_audited_rows_get_no_verdict_unless_it_is_known_which(model, shadows):
    summary = audited(evidence(model, shadows))
    assert summary[first_screen.SHORT].startswith("NO VERDICT") and "`shadow_saw`" in summary[first_screen.DOUBTS]
    known = audited(evidence(model, shadows, shadow_saw=world()[2][shadows]))
    assert first_screen.DOUBTS not in known
    assert known[first_screen.SHORT].startswith("NO VERDICT") == (shadows is OF_ALL)


@pytest.mark.parametrize("model", TRUTH)
def test_shadows_of_retained_rows_are_no_such_shadows(model):
    summary = audited(evidence(model, OF_RETAINED))
    assert first_screen.DOUBTS not in summary and not summary[first_screen.SHORT].startswith("NO VERDICT")
    claimed = audited(evidence(model, OF_ALL, shadow_saw=np.zeros((S, N), bool)))
    assert "`shadow_saw` says that they were not" in claimed[first_screen.DOUBTS]


@pytest.mark.parametrize("model", TRUTH)
def test_a_population_that_models_were_trained_on_gets_no_verdict(model):
    logits, labels, _ = world()
    summary = audited(evidence(model, OF_POPULATION))
    assert summary[first_screen.SHORT].startswith("NO VERDICT")
    assert "The shadow models answer the population far better" in summary[first_screen.DOUBTS]
    half = np.arange(N) >= N // 2  # the other half of the retained rows is the population
    rest = ~half | REQUESTED
    arrays = evidence(model) | {
        "population_labels": labels[:N][half], "population_original": logits[ORIGINAL, :N][half],
        "population_unlearned": logits[model, :N][half], "population_shadows": logits[SHADOWS, :N][:, half],
    }  # fmt: skip
    assert "150 of 150 rows of the population are audited rows" in audited(arrays)[first_screen.DOUBTS]
    arrays |= {name: arrays[name][..., rest, :] for name in ("original", "unlearned", "shadows")}
    summary = audited(arrays | {"labels": labels[:N][rest], "forgotten": REQUESTED[rest]})
    assert summary[first_screen.SHORT].startswith("NO VERDICT")
    assert "The audited model answers the population as well as the rows" in summary[first_screen.DOUBTS]


def test_rows_given_twice_are_noted_and_cost_no_power():
    for model in (AGAIN, RETRAINED):
        arrays = evidence(model)
        twice = arrays | {name: np.concatenate([arrays[name]] * 2, -2) for name in ("original", "unlearned", "shadows")}
        twice |= {"labels": np.tile(arrays["labels"], 2), "forgotten": np.concatenate([REQUESTED, np.zeros(N, bool)])}
        plain, doubled = audited(arrays), audited(twice)
        assert doubled[first_screen.SHORT] == plain[first_screen.SHORT]
        assert doubled[first_screen.REQUEST] == plain[first_screen.REQUEST]
        assert doubled[first_screen.DOUBTS].startswith("40 of 40 requested rows also stand among the retained rows")


def test_a_row_that_every_shadow_saw_cannot_be_told_and_the_others_are_judged():
    saw = np.zeros((S, N), bool)
    saw[:, 3] = True
    for model, start in ((AGAIN, "NOT FORGOTTEN."), (RETRAINED, "FORGOTTEN as a whole, but for rows that every")):
        report = analyses.audit(evidence(model, shadow_saw=saw), scores=("confidence",))
        summary = dict(report.summary)
        assert summary[first_screen.SHORT].startswith(start)
        assert ", 1 seen by every shadow model" in summary[first_screen.ROWS]
        row = report.listed["verdicts.csv"].rows[3]
        assert row.verdict == "CANNOT TELL" and row.why.startswith("every shadow model saw it")
    saw[:, :38] = True
    assert short(evidence(shadow_saw=saw)).startswith("NO VERDICT")


def test_without_a_request_it_is_said_first_that_all_rows_are_judged():
    for model in (AGAIN, RETRAINED):
        summary = audited(evidence(model, forgotten=None))
        text = summary[first_screen.SHORT]
        assert text.startswith("No request was given (`forgotten`), so all rows are judged at once.")
        assert "FORGOTTEN as a whole" not in text and "The request" not in text
        assert summary[first_screen.ACTION].startswith("Say which of these rows were asked to be forgotten")


@pytest.mark.parametrize(("rows", "population", "shadows"), [(90, 60, 2), (60, 40, 3), (120, 100, 4)])
def test_few_honest_rows_and_shadows_raise_no_doubt(rows, population, shadows):
    arrays = evidence()
    for seed in range(4):
        draw = np.random.default_rng(seed)
        kept = np.concatenate([draw.choice(F, rows // 3, replace=False), F + draw.choice(N - F, rows * 2 // 3, False)])
        others = draw.choice(P, population, replace=False)
        few = {"labels": arrays["labels"][kept], "forgotten": REQUESTED[kept]}
        few |= {"population_labels": arrays["population_labels"][others]}
        for name in ("original", "unlearned", "shadows"):
            values, unseen_values = arrays[name][..., kept, :], arrays[f"population_{name}"][..., others, :]
            is_many = name == "shadows"
            few[name] = values[:shadows] if is_many else values
            few[f"population_{name}"] = unseen_values[:shadows] if is_many else unseen_values
        assert first_screen.DOUBTS not in audited(few)


def test_a_class_asked_to_be_forgotten_is_no_reason_for_doubt():
    labels = world()[1][:N]
    for model in (AGAIN, ORIGINAL):
        noised = world()[0][model] + 1e-2 * np.random.default_rng(0).normal(size=world()[0][0].shape).astype(np.float32)
        assert first_screen.DOUBTS not in audited(evidence(noised, forgotten=labels == 1))


def test_answers_far_below_those_of_unseen_rows_are_not_called_forgotten():
    """Every probability of a requested row times 0.1, and noise elsewhere, hides a model that forgot nothing."""
    logits, labels, _ = world()
    draw = np.random.default_rng(0)
    hidden = logits[AGAIN] + 0.3 * draw.normal(size=logits[AGAIN].shape).astype(np.float32)
    odds = hidden[np.arange(F), labels[:F]] - np.log(
        np.exp(hidden[:F]).sum(1) - np.exp(hidden[np.arange(F), labels[:F]])
    )
    p = 0.1 / (1 + np.exp(-odds))
    hidden[np.arange(F), labels[:F]] += np.log(p) - np.log1p(-p) - odds
    report = analyses.audit(evidence(hidden), scores=("confidence",))
    assert not dict(report.summary)[first_screen.SHORT].startswith("FORGOTTEN")
    assert not any(row.verdict == "FORGOTTEN" for row in report.listed["verdicts.csv"].rows)


def test_rows_of_saturated_models_coincide_without_being_the_same():
    draw = np.random.default_rng(0)
    vote = [Answered(draw.integers(0, 3, 200) * 9.0, draw.integers(0, 3, 100) * 9.0) for _ in range(3)]
    numbers, others = unseen.twins(vote, np.zeros(200, int), np.zeros(100, int))
    assert np.isin(others, numbers).mean() > 0.9 and unseen.share_of_coincidences(others) > 0.9
    smooth = [Answered(draw.normal(size=200), draw.normal(size=100)) for _ in range(3)]
    numbers, others = unseen.twins(smooth, np.zeros(200, int), np.zeros(100, int))
    assert not np.isin(others, numbers).any() and unseen.share_of_coincidences(others) == 0


def test_easy_requests_alone_do_not_look_as_if_shadows_had_seen_them():
    draw = np.random.default_rng(0)
    rows = Rows(np.zeros(300, int), np.zeros(300, int), np.arange(300) < 40)
    shadows = Answered(draw.normal(size=(5, 300)) + 6.0 * rows.requested, draw.normal(size=(5, 300)))
    assert not unseen.exposed(shadows, rows).any()
    saw = Answered(shadows.rows + 6.0 * ~rows.requested, shadows.population)
    assert unseen.exposed(saw, rows).all()
    assert not unseen.exposed(saw, rows, np.ones((5, 300), bool)).any()


def test_the_record_and_the_mapping_are_examined_alike():
    arrays = reversed_rows(evidence(AGAIN), "shadows")
    assert short(records.Evidence(**arrays)) == short(arrays) == "NO VERDICT: these arrays do not allow one."
