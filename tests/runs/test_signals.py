"""One pass over a run folder gives what the same logits give when an Evidence is put together by hand."""

import jax
import numpy as np
import pytest

from jaxunlearn import errors, progress, scores, settings, store
from jaxunlearn.analyses.audit import analysis, sections
from jaxunlearn.analyses.audit.evidence import gather
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.audit.scoring import binui, scoreboard, scoreui, sweeps
from jaxunlearn.analyses.audit.verdicts import requests
from jaxunlearn.analyses.base import Context, RoleLogits
from jaxunlearn.metrics.verdict import judge, out_model
from jaxunlearn.records import Design, Evidence
from jaxunlearn.runs import experiments
from jaxunlearn.runs.drivers import delivery, reading
from jaxunlearn.runs.verbs import targets
from jaxunlearn.scores.families import rmia

NAMES = scores.names_of(("all",))

GIVEN = {
    "data.augment": "flip",
    "model.name": "logistic",
    "train.epochs": 3,
    "train.learning_rate": 0.05,
    "shadows.count": 4,
    "shadows.views": 2,
    "split.population": 120,
    "split.forget.count": 2,
    "targets.originals": "per_set",
    "targets.epochs": 6,
    "targets.reference": 14,
    "targets.snapshots": 2,
    "targets.snapshot_epochs": 4,
    "targets.breaks": 2,
    "targets.views": 2,
    "audit.group_size": 3,
    "audit.interpolation_steps": 20,
}
FEW = ("iam_on", "lira_off", "random", "confidence")
QUIET = Context(lambda line: None, lambda *step: None, lambda name, facts, compute: compute())


def make_settings(**changed):
    config = settings.defaults()
    config.update_from_flattened_dict(GIVEN | {name.replace("__", "."): value for name, value in changed.items()})
    return settings.resolve(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run."""
    path = tmp_path_factory.mktemp("signals")
    with store.open_run(str(path)) as run:
        targets.run(run, progress.Reporter(), experiments.prepare(make_settings()))
    return path


def opened(folder, **changed):
    """The signals of the run with some settings of the audit changed."""
    run_settings, reporter = make_settings(**changed), progress.Reporter()
    with store.open_run(str(folder)) as run:
        recorded = reading.recorded_run(
            run, reporter, experiments.prepare(run_settings), analysis.roles(run_settings), None
        )
        return gather.gather(recorded, delivery.context(run, reporter))


@pytest.fixture(scope="module")
def signals(folder):
    return opened(folder)


class Recorded:
    """The files of a run, read with NumPy alone."""

    def __init__(self, folder):
        self.folder, self.split = folder, np.load(folder / "split.npz")
        self.labels = np.asarray(experiments.prepare(make_settings()).dataset.labels, np.int32)
        self.number = len(self.labels)

    def whole(self, name):
        """[M, all rows, C] logits; NaN on rows that are not recorded."""
        rows = np.load(self.folder / "logits" / "rows.npy")
        values = np.load(self.folder / "logits" / f"{name}.npy", mmap_mode="r")
        logits = np.full((len(values), self.number, values.shape[-1]), np.nan, np.float32)
        logits[:, rows] = values
        return logits

    def member(self):
        packed = np.load(self.folder / "populations" / "shadow" / "membership.npz")["packed"]
        return np.unpackbits(packed, axis=1, count=self.number).astype(bool)


@pytest.fixture(scope="module")
def recorded(folder):
    return Recorded(folder)


def by_hand(recorded, number, group):
    """The Evidence of forget set `number` and a group of shadows."""
    target, others = recorded.split["target"], recorded.split["population"]
    shadows, member = recorded.whole("shadow")[group], recorded.member()
    least = member.sum(1).min()
    own_rows = [np.flatnonzero(member[shadow])[:least] for shadow in group]
    pool = np.sort(recorded.split["shadow"])
    left = [np.setdiff1d(pool, np.flatnonzero(member[shadow])) for shadow in group]
    kept = [np.intersect1d(pool, np.flatnonzero(member[shadow])) for shadow in group]
    few = min(map(len, left))
    pairs = np.stack([np.concatenate([gone[:few], there[:few]]) for gone, there in zip(left, kept, strict=True)])
    views = [f"augmented_{view}" for view in range(2)]
    half = reference_member(recorded)
    return Evidence(
        unlearned=recorded.whole("retrained")[number][target],
        labels=recorded.labels[target],
        original=recorded.whole("original")[number][target],
        shadows=shadows[:, target],
        forgotten=recorded.split["forget"][number][target],
        population_original=recorded.whole("original")[number][others],
        population_unlearned=recorded.whole("retrained")[number][others],
        population_in=recorded.whole("population_in")[0][others],
        population_shadows=shadows[:, others],
        population_labels=recorded.labels[others],
        shadow_train_logits=np.stack([shadows[place][rows] for place, rows in enumerate(own_rows)]),
        shadow_train_labels=recorded.labels[np.stack(own_rows)],
        reference=recorded.whole("reference")[:, target],
        reference_member=half,
        posterior_pairs_original=recorded.whole("shadow_origin")[0][pairs],
        posterior_pairs_unlearned=np.stack([shadows[place][rows] for place, rows in enumerate(pairs)]),
        posterior_pairs_forgotten=np.tile(np.repeat([True, False], few), (len(group), 1)),
        original_views=np.stack([recorded.whole(f"original.{view}")[number][target] for view in views]),
        unlearned_views=np.stack([recorded.whole(f"retrained.{view}")[number][target] for view in views]),
        shadows_views=np.stack([recorded.whole(f"shadow.{view}")[group][:, target] for view in views]),
    )


def reference_member(recorded):
    with store.open_run(str(recorded.folder)) as run:
        role_logits = reading.role_logits(run, experiments.prepare(make_settings()), "reference")
    return role_logits.member[:, recorded.split["target"]]


@pytest.mark.parametrize("number, group", [(0, [0, 1, 2]), (1, [3, 1, 2]), (1, [2])])
def test_the_pass_gives_what_an_evidence_put_together_by_hand_gives(signals, recorded, number, group):
    """All that any score reads, so all scores of the table."""
    names, skipped = audit_signals.runnable(signals, NAMES, "retrained")
    assert not skipped and set(names) == set(NAMES)
    role_signals = jax.tree.map(lambda leaf: leaf[number], signals.roles["retrained"])
    selected = scores.select_model(audit_signals.with_shadows(signals, np.asarray(group)), role_signals)
    evidence = by_hand(recorded, number, group)
    scores.check(evidence)
    expected = scores.signals_pass(evidence, signals.options)
    assert jax.tree.structure(selected) == jax.tree.structure(expected)  # nothing is missing on either side
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6), selected, expected)


def test_scores_are_those_of_an_evidence_put_together_by_hand(signals, recorded):
    names = ["iam_off", "rmia_on", "lira", "unleak", "lira_off_views"]
    group = audit_signals.groups(signals, make_settings())[0]
    scored = binui.score_all(signals, names, [group], "retrained")
    result = scores.run(names, by_hand(recorded, 1, group), signals.options)
    for name, values in result.scores.items():
        scale = max(1.0, np.abs(values.values).max())
        np.testing.assert_allclose(scored[name][0, 1] / scale, values.values / scale, atol=1e-6, err_msg=name)


def test_another_group_and_forget_set_are_not_mixed_up(signals, recorded):
    groups = [np.array([0, 1, 2]), np.array([3, 1, 2])]
    scored = binui.score_all(signals, list(FEW), groups, "retrained")
    for place, group in enumerate(groups):
        for number in range(2):
            result = scores.run(FEW, by_hand(recorded, number, group), signals.options)
            for name in FEW:
                np.testing.assert_allclose(scored[name][place, number], result.scores[name].values, atol=1e-6)
    assert np.abs(scored["iam_on"][0] - scored["iam_on"][1]).max() > 1e-3
    np.testing.assert_array_equal(scored["confidence"][0], scored["confidence"][1])


def test_the_original_can_be_audited_as_if_it_were_the_unlearned_model(signals, recorded):
    scores_by_name = binui.score_all(signals, ["confidence", "confidence_diff"], [np.arange(3)], "original")
    logits = recorded.whole("original")[1][recorded.split["target"]].astype(np.float64)
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    expected = (odds / odds.sum(-1, keepdims=True))[np.arange(len(odds)), signals.labels]
    np.testing.assert_allclose(scores_by_name["confidence"][0, 1], expected, atol=1e-5)
    np.testing.assert_allclose(scores_by_name["confidence_diff"], 0.0, atol=1e-6)


def test_rows_labels_and_requests_are_those_of_the_split(signals, recorded):
    rows = recorded.split["target"]
    row_ids = experiments.prepare(make_settings()).dataset.ids[rows]
    np.testing.assert_array_equal(signals.names["rows"], row_ids)
    np.testing.assert_array_equal(signals.display_names, row_ids.astype(str))
    np.testing.assert_array_equal(signals.labels, recorded.labels[rows])
    np.testing.assert_array_equal(signals.forgotten, recorded.split["forget"][:, rows])
    assert (signals.forgotten.sum(1) == 50).all()


def test_a_row_that_a_role_has_not_recorded_stops_the_audit(folder, recorded, monkeypatch):
    """Its neighbour would be read in its place."""
    row, role_logits = int(recorded.split["target"][0]), reading.role_logits

    def without_the_row(run, experiment, name, view):
        role = role_logits(run, experiment, name, view)
        if name != "shadow":
            return role
        keep = role.rows != row
        return role._replace(rows=role.rows[keep], values=role.values[:, keep], member=role.member[:, keep])

    monkeypatch.setattr(reading, "role_logits", without_the_row)
    with pytest.raises(errors.DataError, match=f"1 of .* rows were not recorded, the first is row {row} of"):
        opened(folder)


def test_unleak_learns_from_rows_that_the_shadow_did_not_see(folder, recorded):
    experiment = experiments.prepare(make_settings())
    with store.open_run(str(folder)) as run:
        origin, shadow = (reading.role_logits(run, experiment, name) for name in ("shadow_origin", "shadow"))
    known = gather.known_pairs(origin, shadow, recorded.split["shadow"])
    assert known is not None
    features, forgotten = known
    member = recorded.member()
    unseen = (~member[:, recorded.split["shadow"]]).sum(1)
    assert features.shape == (4, 2 * unseen.min(), 10) and (forgotten.sum(1) == unseen.min()).all()
    # Every unseen row is one shadow's own: the pairs of shadow 0 read exactly its complement.
    gone = np.setdiff1d(recorded.split["shadow"], np.flatnonzero(member[0]))
    poisoned = shadow._replace(values=np.array(shadow.values))
    poisoned.values[0][gone] += np.arange(10, dtype=np.float32)
    changed = gather.known_pairs(origin, poisoned, recorded.split["shadow"])[0]
    differs = np.abs(changed[0] - features[0]).max(-1) > 0
    np.testing.assert_array_equal(differs, forgotten[0])
    whole = shadow._replace(member=np.ones_like(shadow.member))
    assert gather.known_pairs(origin, whole, recorded.split["shadow"]) is None


@pytest.mark.parametrize(("seen", "expected"), [((2, 3, 1), (7, 1)), ((8, 9, 7), (1, 1)), ((3, 3, 3), (7, 3)),
                                                ((2, 0, 1), None)])  # fmt: skip
def test_unleak_pairs_shadows_of_different_sizes(seen, expected):
    rng = np.random.default_rng(0)
    member = np.arange(10) < np.array(seen)[:, None]
    shadow = RoleLogits(rng.normal(size=(3, 10, 5)).astype(np.float32), np.zeros(10, int), np.arange(10), member, {})
    origin = shadow._replace(values=shadow.values[:1])
    known = gather.known_pairs(origin, shadow, np.arange(10))
    if expected is None:
        assert known is None
        return
    features, forgotten = known
    assert features.shape == (3, sum(expected), 5)
    np.testing.assert_array_equal(forgotten, np.repeat([[True, False]] * 3, expected, 1))


def test_scores_without_their_inputs_are_skipped_with_what_they_lack(signals):
    shared = signals.shared._replace(
        reference=None, reference_member=None, population_in=None, views=(), shadow_train=None,
        posterior_pairs_known=None,
    )  # fmt: skip
    roles = {name: cases._replace(posterior_pairs=None, views=()) for name, cases in signals.roles.items()}
    names = ("lira", "rmia_on", "unleak", "lira_on_views", "iam_off", "iam_on")
    names, skipped = audit_signals.runnable(signals._replace(shared=shared, roles=roles), names, "retrained")
    assert names == ["iam_on"]
    assert skipped["lira"] == "needs reference, reference_member"
    assert skipped["rmia_on"] == "needs population_in" and skipped["iam_off"] == "needs shadow_train_logits"
    assert "posterior_pairs_original" in skipped["unleak"] and "unlearned_views" in skipped["lira_on_views"]


@pytest.mark.parametrize(
    "count, size, most, expected",
    [(7, 2, 10, [[0, 1], [2, 3], [4, 5]]), (7, 2, 2, [[0, 1], [2, 3]]), (3, 3, 1, [[0, 1, 2]]), (1, 1, 9, [[0]])],
)
def test_groups_are_disjoint_runs_of_shadows(signals, count, size, most, expected):
    shadows = scores.Signals(*(np.zeros((count, 1)) for _ in scores.Signals._fields))
    some = signals._replace(shared=signals.shared._replace(shadows=shadows))
    groups = audit_signals.groups(some, make_settings(audit__group_size=size, audit__groups=most))
    assert [group.tolist() for group in groups] == expected
    groups = audit_signals.groups(some, make_settings(audit__groups=most), size)
    assert [group.tolist() for group in groups] == expected


def test_a_group_larger_than_the_shadows_is_refused(signals):
    with pytest.raises(errors.ConfigError, match="audit.group_size = 5, but there are 4 shadow models"):
        audit_signals.groups(signals, make_settings(audit__group_size=5))


def test_settings_overrule_the_published_constants(signals):
    plain, published = audit_signals.options_of(make_settings(audit__dataset="cifar10")), scores.published("cifar10")
    assert plain.constants == published and plain.dataset == "cifar10" and plain.interpolation_steps == 20
    assert audit_signals.options_of(make_settings(), "digits").dataset == "digits" == signals.options.dataset
    assert audit_signals.options_of(make_settings(audit__dataset="cifar10"), "digits") == plain
    options = audit_signals.options_of(make_settings(
        audit__dataset="cifar10", audit__e1=0.3, audit__rmia_temperature=3.0, audit__rmia_offline_a=0.25,
        audit__family="norm", audit__std="per_sample", audit__lira_variance="global", audit__rmia_gamma=1.5,
        compat__scores="faithful",
    ))  # fmt: skip
    constants = options.constants
    assert (constants.e1, constants.e2) == (0.3, published.e2)
    assert (constants.offline_e1, constants.offline_e2) == (0.3, published.e2)
    assert (constants.temperature, constants.offline_a) == (3.0, 0.25)
    assert (options.family, options.std, options.variance, options.gamma, options.compat) == (
        "norm", "per_sample", "global", 1.5, "faithful",
    )  # fmt: skip
    assert audit_signals.options_of(make_settings(audit__rmia_offline_a=0.0)).constants.offline_a == 0.0
    assert audit_signals.options_of(make_settings(), offline_a=0.625).constants.offline_a == 0.625
    classes = {"split__forget__kind": "one_class", "split__forget__classes": (1, 2)}
    assert audit_signals.options_of(make_settings(**classes)).forget_type == "class" != plain.forget_type
    with pytest.raises(errors.ConfigError, match="unknown dataset 'cifar'. Did you mean 'cifar10'"):
        audit_signals.options_of(make_settings(audit__dataset="cifar"), "digits")
    with pytest.raises(errors.ConfigError, match="e2"):
        audit_signals.options_of(make_settings(audit__e1=0.1, audit__e2=0.5))


def test_offline_a_is_tuned_on_a_shadow_where_it_is_asked_for(folder, recorded):
    few = {"audit__scores": ("rmia_off",)}
    tuned = opened(folder, audit__rmia_offline_a=-2.0, **few).options
    pool, others = recorded.split["shadow"], recorded.split["population"]
    logits = recorded.whole("shadow")
    offline_a = rmia.tune_offline_a(
        scores.signals_of(logits[:, pool], recorded.labels[pool], tuned).ratio,
        recorded.member()[:, pool],
        scores.signals_of(logits[:, others], recorded.labels[others], tuned).ratio,
        tuned.gamma,
    )
    assert tuned.constants.offline_a == pytest.approx(offline_a)
    assert 0 <= tuned.constants.offline_a <= 1


def test_an_untunable_offline_a_says_what_to_change(folder, monkeypatch):
    monkeypatch.setattr(rmia, "tune_offline_a", lambda *arguments: float("nan"))
    with pytest.raises(errors.ConfigError, match=r"audit.rmia_offline_a = -2 .* lower shadows.ratio"):
        opened(folder, audit__rmia_offline_a=-2.0, audit__scores=("rmia_off",))


def test_the_shadow_sweep_is_the_pooled_auc_of_that_many_shadows(signals, monkeypatch):
    monkeypatch.setattr(sweeps, "CURVES", ("lira_off", "emia_r", "lira"))
    without = signals._replace(shared=signals.shared._replace(reference=None))
    run_settings = make_settings(audit__counts=(1, 2, 4, 8), audit__group_size=1)
    sweep = sweeps.shadow_counts(without, run_settings, "retrained", QUIET)
    assert sweep.values == (1, 2, 4) and sweep.groups == (4, 2, 1)  # 8 are not there
    assert set(sweep.lines) == {"lira_off", "emia_r"}
    scored = binui.score_all(signals, ["lira_off"], audit_signals.groups(signals, run_settings, 2), "retrained")
    board = scoreboard.judge(scoreboard.RoleScores(scored, ~signals.forgotten, {}), run_settings.audit.confidence_level)
    assert sweep.lines["lira_off"][1].value == pytest.approx(board.table["lira_off"]["auc"].value)


def test_a_sweep_leaves_out_the_score_that_is_not_finite_and_says_so(signals, monkeypatch):
    real = scores.compute_models

    def broken(name, *rest):
        if name == "lira_off":
            raise errors.DataError("lira_off is not finite.")
        return real(name, *rest)

    monkeypatch.setattr(scores, "compute_models", broken)
    monkeypatch.setattr(sweeps, "CURVES", ("lira_off", "emia_r"))
    sweep = sweeps.shadow_counts(signals, make_settings(audit__counts=(1, 2)), "retrained", QUIET)
    assert set(sweep.lines) == {"emia_r"} and len(sweep.lines["emia_r"]) == 2
    assert "Left out: lira_off (lira_off is not finite)." in sections.counts(sweep, Design("per_set", 2))[0].text
    monkeypatch.setattr(sweeps, "CURVES", ("lira_off",))
    with pytest.raises(errors.DataError, match="no score could be computed along the sweep: lira_off is not finite."):
        sweeps.shadow_counts(signals, make_settings(audit__counts=(1, 2)), "retrained", QUIET)


def test_sensitivity_keeps_the_levels_and_constants_of_each_line(signals):
    run_settings = make_settings(
        audit__sweep_e1=(0.01,), audit__sweep_e2=(1e-3, 0.05), audit__sweep_interpolation_steps=(2, 20)
    )
    sensitivity = sweeps.sensitivity(signals, run_settings, "retrained", QUIET)
    # e2 = 0.05 is too large for e1 = 0.01.
    assert set(sensitivity.lines) == {"iam_on e1=0.01 e2=0.001", "iam_off e1=0.01 e2=0.001"}
    options = audit_signals.options_of(
        make_settings(audit__e1=0.01, audit__e2=1e-3, audit__interpolation_steps=2), "digits"
    )
    scored = binui.score_all(
        signals._replace(options=options), ["iam_on"], audit_signals.groups(signals, run_settings), "retrained"
    )["iam_on"]  # fmt: skip
    expected = sweeps.auc(scored, ~signals.forgotten, run_settings, "iam_on").value
    assert sensitivity.lines["iam_on e1=0.01 e2=0.001"][0].value == pytest.approx(expected)


def test_snapshots_are_compared_in_the_order_of_their_epochs(folder, signals, recorded):
    run_settings = make_settings(audit__scores=("confidence", "lira_off", "unleak", "lira_off_views"))
    result = scoreui.run(signals, run_settings, QUIET)
    cases, each, _ = signals.snapshots
    assert each == 3 and set(result.table) == {"confidence", "lira_off"} == set(result.curves)
    assert set(result.skipped) == {"unleak", "lira_off_views"}
    np.testing.assert_allclose(result.degrees, [0, 0.5, 1])
    rows = np.sort(np.concatenate([recorded.split["target"], recorded.split["population"]]))
    logits = np.load(folder / "logits" / "snapshots.npy")[:, np.searchsorted(rows, recorded.split["target"])]
    expected = scores.signals_of(logits, signals.labels, signals.options).log_odds
    np.testing.assert_allclose(cases.unlearned.log_odds, expected, atol=1e-5)
    assert result.curves["confidence"].shape == (2, 3)
    assert (np.diff(result.curves["confidence"].mean(0)) > 0).all()  # training raises confidence
    assert result.table["confidence"]["spearman"].value > 0


def test_standard_lira_is_left_out_where_a_row_has_no_in_or_no_out_model(folder, monkeypatch, capsys):
    inner = reading.role_logits

    def poorer(run, experiment, name, *view):
        role_logits = inner(run, experiment, name, *view)
        if name == "reference":
            role_logits.member[:, role_logits.rows == split["target"][5]] = False
        return role_logits

    split = np.load(folder / "split.npz")
    monkeypatch.setattr(reading, "role_logits", poorer)
    signals = opened(folder, audit__scores=("lira", "confidence"))
    assert "score lira is left out: 1 target row(s)" in capsys.readouterr().err
    assert audit_signals.runnable(signals, ("lira",), "retrained")[1] == {"lira": "needs reference, reference_member"}


def test_a_role_that_was_not_recorded_is_named(folder):
    with pytest.raises(errors.ConfigError, match="Did you mean 'retrained'"):
        opened(folder, audit__unlearned=("retrainde",))


@pytest.mark.parametrize("number", [0, 1])
def test_a_verdict_of_the_run_is_that_of_its_logits_put_together_by_hand(signals, recorded, number):
    """All shadows judge, whatever the groups of the scores; each model stands against its own original."""
    evidence = by_hand(recorded, number, [0, 1, 2, 3])

    def odds(name, labels="labels"):
        return out_model.log_odds(getattr(evidence, name), getattr(evidence, labels))

    expected = judge.judge(judge.Answers(
        odds("unlearned"), evidence.forgotten, odds("shadows"), odds("population_unlearned", "population_labels"),
        odds("population_shadows", "population_labels"), odds("original"),
        odds("population_original", "population_labels"),
    ))  # fmt: skip
    decided = requests.judged(signals, "retrained", 0.05, False)
    np.testing.assert_array_equal(decided.requested, signals.forgotten)
    np.testing.assert_array_equal(decided.codes[number][evidence.forgotten], expected.codes)
    assert (decided.codes[number][~evidence.forgotten] == -1).all()
    for name in ("p_high", "p_low", "p_in", "z", "trace"):
        verdict = decided.tested(name)[number]
        np.testing.assert_allclose(verdict[evidence.forgotten], getattr(expected.tests, name), atol=1e-4, err_msg=name)
        assert np.isnan(verdict[~evidence.forgotten]).all()
    assert decided.judgements[number].power_not == expected.power_not
