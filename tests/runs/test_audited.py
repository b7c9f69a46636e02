"""What the roles of the audited side are, before anything is trained."""

import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxunlearn import errors, keys, progress, settings, store, trees
from jaxunlearn.records import Design
from jaxunlearn.runs import experiments, roles, splits
from jaxunlearn.runs.drivers import plan
from jaxunlearn.runs.execution import members, scratch
from jaxunlearn.runs.roles import audited_models, unlearned_models, variants
from jaxunlearn.runs.verbs import targets
from jaxunlearn.store import chunks


def make_settings(**changed):
    config = settings.to_dict(settings.Settings())
    config["model"]["name"] = "logistic"
    for name, value in changed.items():
        *groups, leaf = name.split("__")
        place = config
        for group in groups:
            place = place[group]
        place[leaf] = value
    return settings.resolve(config)


@pytest.mark.parametrize(
    "epochs, breaks, kept",
    [
        (201, 20, tuple(range(1, 202, 10))),  # published CIFAR-100: 0, 10 .. 200, counted from 0
        (170, 20, tuple(range(1, 162, 8))),  # published CIFAR-10: 0, 8 .. 160
        (71, 20, tuple(range(1, 62, 3))),  # published Purchase: 0, 3 .. 60
        (4, 20, (1, 2, 3, 4)),
        (2, 1, (1, 2)),
        (1, 20, (1,)),
    ],
)
def test_snapshots_are_kept_at_the_published_epochs(epochs, breaks, kept):
    assert audited_models.snapshot_schedule(epochs, breaks) == kept


@given(st.integers(1, 400), st.integers(1, 60))
def test_snapshots_are_equally_spaced_within_the_training(epochs, breaks):
    kept = audited_models.snapshot_schedule(epochs, breaks)
    assert kept[0] == 1 and kept[-1] <= epochs
    assert len(kept) == min(breaks, epochs - 1) + 1
    assert len(set(np.diff(kept))) <= 1
    assert len(kept) == 1 or kept[-1] + kept[1] - kept[0] > epochs - breaks  # no wider step would fit


def test_each_role_has_its_own_epochs_and_the_schedule_of_the_whole_training():
    role_settings = make_settings(train__epochs=20, targets__epochs=30, targets__snapshot_epochs=12, targets__breaks=4)
    role_settings = dataclasses.replace(
        role_settings, train=dataclasses.replace(role_settings.train, snapshots=(5,), keep="best")
    )
    original = audited_models.train_settings(role_settings, "original")
    assert (original.epochs, original.schedule_epochs, original.snapshots, original.keep) == (30, 0, (), "best")
    snapshots = audited_models.train_settings(role_settings, "snapshots")
    assert snapshots.snapshots == (1, 3, 5, 7, 9) and snapshots.epochs == 9
    assert snapshots.schedule_epochs == 12 and snapshots.keep == "last"
    published = dataclasses.replace(role_settings.train, epochs=201, schedule_epochs=200)
    short = dataclasses.replace(role_settings, train=published)
    assert audited_models.train_settings(short, "retrained").schedule_epochs == 200
    assert audited_models.train_settings(short, "snapshots").schedule_epochs == 200
    plain = make_settings(train__epochs=20)
    assert audited_models.train_settings(plain, "population_in").epochs == 20
    assert audited_models.train_settings(plain, "snapshots").epochs == 20


def test_roles_are_asked_for_by_settings():
    assert audited_models.requested_roles(make_settings()) == (
        "original", "retrained", "population_in", "shadow_origin", "snapshots",
    )  # fmt: skip
    few = make_settings(targets__population_in=False, targets__shadow_origin=False, targets__snapshots=0)
    assert audited_models.requested_roles(few) == ("original", "retrained")
    assert "reference" in audited_models.requested_roles(make_settings(targets__reference=4))


@pytest.mark.parametrize("rng", ["numpy", "mt19937"])
def test_every_target_row_is_in_and_out_of_some_reference_model(rng):
    experiment = experiments.prepare(make_settings(targets__reference=16, split__rng=rng))
    split = splits.draw(experiment)
    member = audited_models.describe(experiment, split, "reference").membership
    share = member[:, split.target].mean(0)
    assert member.sum() == member[:, split.target].sum()
    assert share.min() > 0 and share.max() < 1 and share.mean() == pytest.approx(0.5, abs=0.01)
    few = audited_models.draw_reference(experiment, split, np.asarray([3, 9]))
    np.testing.assert_array_equal(few, member[[3, 9]])


def test_the_best_epoch_is_never_chosen_on_rows_that_a_member_trains_on():
    experiment = experiments.prepare(make_settings(targets__reference=2))
    split = splits.draw(experiment)
    for name in audited_models.NAMES:
        target = audited_models.describe(experiment, split, name)
        assert target.held_out.any() and not (target.held_out & target.membership).any()
        assert not target.held_out[split.forget.any(0)].any()  # nor on rows whose forgetting is judged


@pytest.mark.parametrize(
    ("kind", "repeats", "count", "of_members"),
    [
        ("per_set", 1, 10, list(range(10))),
        ("shared", 1, 1, [0] * 10),
        ("per_set", 2, 10, [0, 0, 1, 1, 2, 2]),
        ("shared", 2, 1, [0] * 6),
        ("crossed", 3, 3, [0, 1, 2, 0, 1, 2]),
    ],
)
def test_originals_are_one_per_forget_set_unless_they_are_shared_or_crossed(kind, repeats, count, of_members):
    overrides = {} if kind == "per_set" else {"targets__originals": kind}  # the default
    experiment = experiments.prepare(make_settings(**overrides, split__forget__repeats=repeats))
    split = splits.draw(experiment)
    assert len(audited_models.describe(experiment, split, "original").membership) == count
    assert len(audited_models.describe(experiment, split, "retrained").membership) == len(split.forget) == 10 * repeats
    original_ids = audited_models.original_of(experiment.settings, len(split.forget))
    assert original_ids.tolist()[: len(of_members)] == of_members and original_ids.max() == count - 1


def test_unlearned_models_of_other_originals_are_other_models():
    def described(**changed):
        experiment = experiments.prepare(make_settings(**changed))
        variant = variants.config_of_role(experiment.settings, "unlearned:ssd")
        return unlearned_models.describe(experiment, splits.draw(experiment), variant)

    each, shared = described(), described(targets__originals="shared")
    assert each.fingerprint != shared.fingerprint
    assert each.facts["targets.originals"] == "per_set" and "targets.originals" not in shared.facts
    # One forget set has one original, whatever the setting is called.
    fingerprints = [
        described(targets__originals=kind, split__forget__count=1).fingerprint for kind in ("per_set", "shared")
    ]
    assert fingerprints[0] == fingerprints[1]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_fresh_state_keeps_parameters_and_statistics_and_forgets_the_optimizer(optimizer):
    experiment = experiments.prepare(make_settings(model__name="resnet18", model__width=2, train__optimizer=optimizer))
    shapes = jax.eval_shape(experiment.task.init, keys.root(0))
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: random.normal(size=(3, *leaf.shape)).astype(leaf.dtype),
        {"params": shapes.params, **shapes.model_state},
    )
    state = scratch.fresh_state(experiment, variables)
    jax.tree.map(np.testing.assert_array_equal, state.params, variables["params"])
    jax.tree.map(np.testing.assert_array_equal, state.model_state["batch_stats"], variables["batch_stats"])
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(state.optimizer))
    member_shapes = jax.tree.map(lambda leaf: (leaf.shape[1:], leaf.dtype), state)
    assert member_shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes)
    assert jax.tree.structure(trees.take(state, 0)) == jax.tree.structure(shapes)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"train__epochs": 6}, "6 epoch(s) allow 5 equal steps, not targets.breaks = 20"),
        ({"train__epochs": 41, "shadows__pool": "both"}, "trained on target rows (shadows.pool = 'both')"),
        ({"train__epochs": 41}, ""),
        ({"train__epochs": 6, "shadows__pool": "both", "targets__snapshots": 0}, ""),
    ],
)
def test_surprises_of_snapshots_are_said_once(changed, message):
    out = io.StringIO()
    targets._note_snapshot_limits(progress.Reporter(out=out), make_settings(**changed))
    assert message in out.getvalue() and len(out.getvalue().splitlines()) == (1 if message else 0)


def test_a_shared_original_is_compared_set_by_set_with_its_retrained_models():
    def role(values):
        values = np.asarray(values)
        return targets.RoleSummary(len(values), {}, 1, np.ones(len(values)), np.ones(len(values)), values)

    summary = targets.TargetsSummary(
        {"original": role([[1.0, 0.5]]), "retrained": role([[0.8, 0.1], [0.2, np.nan]]),
         "reference": role([[0.0, 1.0], [np.nan, np.nan], [1.0, 1.0]])}, None, 1.0, Design("shared", 2),
    )  # fmt: skip
    np.testing.assert_array_equal(targets.own_forget_accuracy(summary, "original"), [1.0, 0.5])
    np.testing.assert_array_equal(targets.own_forget_accuracy(summary, "retrained"), [0.8, np.nan])
    np.testing.assert_array_equal(targets.own_forget_accuracy(summary, "reference"), [0.5, 1.0])
    printed = targets.text(summary)
    assert "original minus retrained: 0.2000. ± 95 % interval over 2 forget sets of ONE trained original: " in printed


def test_fewer_members_than_devices_take_longer_per_step_in_the_plan(monkeypatch):
    monkeypatch.setattr(plan, "_measure_rate", lambda spec, make_job: plan._Rate(10.0, 2))
    experiment = experiments.prepare(make_settings(train__epochs=2, targets__originals="shared"))
    planned = {role.name: role for role in plan.make(experiment, audited_models.NAMES).roles}
    retrained, original = planned["retrained"], planned["original"]
    assert retrained.seconds == pytest.approx(retrained.model_steps / 10)
    assert original.seconds == pytest.approx(2 * original.model_steps / 10)  # one of the two devices idles
    assert planned["shadow"].members == 64 and planned["snapshots"].disk_bytes > original.disk_bytes


def test_members_that_are_not_finished_are_missed_by_name(tmp_path):
    experiment = experiments.prepare(make_settings())
    with pytest.raises(errors.StoreError, match="contains no finished member 3; members 3 to 4 are needed"):
        members.load(experiment, tmp_path, "none", np.asarray([3, 4]))


def test_members_are_loaded_in_the_order_asked_for_from_any_chunks(tmp_path):
    experiment = experiments.prepare(make_settings())
    shapes = members.template(experiment, 2, 5)
    for ids in ([0, 1], [2, 3]):
        tree = jax.tree.map(
            lambda leaf, ids=ids: np.stack([np.full(leaf.shape[1:], i, leaf.dtype) for i in ids]), shapes
        )
        store.chunks.save(tmp_path / f"chunk_0000{ids[0]}_0000{ids[1]}", tree, np.asarray(ids), "print", epoch=5)
    loaded = members.load(experiment, tmp_path, "print", np.asarray([3, 0, 3, 2]))
    for leaf in jax.tree.leaves(loaded):
        np.testing.assert_array_equal(leaf.reshape(4, -1)[:, 0], [3, 0, 3, 2])


def test_a_penalty_is_a_fact_only_where_there_is_one():
    """Run folders from before there was train.l1 stay what they are."""
    train = settings.TrainSettings()
    assert "l1" not in roles.recipe_facts(train)
    assert roles.recipe_facts(train).keys() | {"l1"} == settings.to_dict(train).keys()
    assert roles.recipe_facts(dataclasses.replace(train, l1=5e-5))["l1"] == 5e-5
    sparse = experiments.prepare(make_settings(train__l1=5e-5))
    for name in ("original", "retrained"):
        assert audited_models.describe(sparse, splits.draw(sparse), name).facts["train"]["l1"] == 5e-5


def test_members_that_are_always_damaged_when_read_back_end_in_an_error(monkeypatch):
    damaged, trained = Path("populations/original/chunk_00000_00000"), []

    def load(*arguments):
        raise chunks.Damaged(damaged, "is damaged (params)")

    def train_missing(*arguments):
        trained.append(arguments)
        assert len(trained) < 20, "trains without end"

    monkeypatch.setattr(members, "load", load)
    monkeypatch.setattr(members, "discard_damaged", lambda *arguments: None)
    monkeypatch.setattr(scratch, "train_missing", train_missing)
    spec = SimpleNamespace(experiment=None, name="original", fingerprint="f", member_ids=np.arange(1))
    run = SimpleNamespace(path=lambda *names: damaged.parent)
    with pytest.raises(errors.StoreError, match="original: finished models were damaged .* 4 times in a row"):
        scratch.load_variables(run, progress.Reporter(), spec)
    assert len(trained) == 3
