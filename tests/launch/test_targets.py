"""The audited side as a user runs it: what is trained on what, resumed, grown, started from another run, refused."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxunlearn import errors, population, progress, settings, store
from jaxunlearn.runs import experiments, roles, splits
from jaxunlearn.runs.drivers import reading
from jaxunlearn.runs.execution import members, recording, scratch
from jaxunlearn.runs.roles import audited_models, shadow
from jaxunlearn.runs.verbs import targets
from launch import _entry
from launch import shadows as shadows_verb
from launch import targets as verb

CONFIG = "--config=configs/digits.py:smoke"
# Two shadows of 2 epochs; 12 epochs for the audited side, snapshots after epochs 1, 3, 5, 7 of nominally 8.
GIVEN = {
    "model.name": "batch_norm_net:build",
    "shadows.count": 2,
    "train.epochs": 2,
    "split.forget.count": 2,
    "targets.originals": "shared",
    "targets.epochs": 12,
    "targets.reference": 2,
    "targets.snapshots": 2,
    "targets.snapshot_epochs": 8,
    "targets.breaks": 3,
}
NAMES = audited_models.NAMES


def arguments(**changed):
    """Command-line settings; `__` stands for a dot."""
    options = GIVEN | {name.replace("__", "."): value for name, value in changed.items()}
    return [CONFIG, *(f"--config.{name}={value}" for name, value in options.items())]


def launch(*argv, workdir):
    return _entry.main(verb.command, verb.__doc__, ["launch.targets", *argv, f"--workdir={workdir}"])


def make_experiment(**changed):
    config = settings.to_dict(settings.Settings())
    options = {"split.shadow": 800, "train.learning_rate": 0.05, "train.batch": 64} | GIVEN
    for name, value in (options | {name.replace("__", "."): value for name, value in changed.items()}).items():
        *groups, leaf = name.split(".")
        group = config
        for group_name in groups:
            group = group[group_name]
        group[leaf] = value
    return experiments.prepare(settings.resolve(config))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run nobody disturbs: (its folder, what a kill after the fourth checkpoint of the snapshots would leave)."""
    workdir, left = (tmp_path_factory.mktemp(name) / "run" for name in ("finished_run", "killed"))
    inner, calls = store.chunks.save_partial, []

    def watched(folder, *args, **kwargs):
        if folder.name != "snapshots":
            return  # they finish before anything is copied
        inner(folder, *args, **kwargs)
        calls.append(folder.name)
        if len(calls) == 4:
            shutil.copytree(workdir, left)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store.chunks, "save_partial", watched)
        assert launch(*arguments(engine__checkpoint_seconds=0), workdir=workdir) == 0
    return workdir, left


@pytest.fixture(scope="module")
def finished_run(run):
    return run[0]


@pytest.fixture(scope="module")
def experiment():
    return make_experiment()


@pytest.fixture
def again(finished_run, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(finished_run, tmp_path / "copy")


def values(workdir, name):
    return np.load(Path(workdir) / "logits" / f"{name}.npy")


def test_a_run_prints_its_roles_and_leaves_what_it_says(finished_run, capsys):
    before = {name: values(finished_run, name) for name in NAMES}
    assert launch(*arguments(), workdir=finished_run) == 0
    printed = capsys.readouterr()
    for name in NAMES:
        assert re.search(rf"^{name} +\d", printed.out, re.M)
        assert (
            f"{name}: {len(before[name]) // (4 if name == 'snapshots' else 1)} of" in printed.err
        )  # nothing is redone
        np.testing.assert_array_equal(values(finished_run, name), before[name])
    assert "training" not in printed.err
    assert "original minus retrained" in printed.out and "targets.json" in printed.out
    assert set(json.loads((finished_run / "targets.json").read_text())["roles"]) == set(NAMES)


def test_every_role_trains_on_its_own_rows(finished_run, experiment):
    split = np.load(finished_run / "split.npz")
    everything = len(experiment.dataset.labels)

    def mask(name):
        return np.isin(np.arange(everything), split[name])

    expected = {
        "original": mask("target")[None],
        "retrained": np.stack([mask("target") & ~sets for sets in split["forget"]]),
        "population_in": mask("population")[None],
        "shadow_origin": mask("shadow")[None],
        "snapshots": np.stack([mask("target")] * 2),
    }
    with store.open_run(str(finished_run)) as run:
        logits = {name: reading.role_logits(run, experiment, name) for name in (*NAMES, "shadow")}
    for name, member in expected.items():
        np.testing.assert_array_equal(logits[name].member, member[:, logits[name].rows])
        assert logits[name].member.sum() == member.sum()  # no row is trained on that is not recorded
    recorded = logits["retrained"]
    assert not (recorded.member & split["forget"][:, recorded.rows]).any()
    half = logits["reference"].member
    assert (half.sum(1) == mask("target").sum() // 2).all() and (half[0] != half[1]).any()
    assert not (half & ~mask("target")[logits["reference"].rows]).any()
    assert not (logits["shadow"].member & mask("target")[logits["shadow"].rows]).any()
    snapshots = logits["snapshots"]
    assert snapshots.snapshots == (1, 3, 5, 7) and snapshots.values.shape == (8, len(snapshots.rows), 10)
    assert set(snapshots.rows) == set(split["target"]) | set(split["population"])
    about = json.loads((finished_run / "logits" / "index.json").read_text())["snapshots.npy"]
    assert about["snapshots"] == [1, 3, 5, 7] and about["axes"][0] == "models x snapshots"
    np.testing.assert_array_equal(np.load(finished_run / "logits" / about["rows"]), snapshots.rows)
    np.testing.assert_array_equal(np.load(finished_run / "logits" / about["trained"]), snapshots.member)
    for name in NAMES[:-1]:
        assert logits[name].values.shape == (len(logits[name].member), everything, 10)
        assert isinstance(logits[name].values, np.memmap) and not logits[name].values.flags.writeable


def test_the_table_holds_the_accuracies_of_the_logits_and_shows_the_effect_of_forgetting(finished_run, experiment):
    facts = json.loads((finished_run / "targets.json").read_text())["roles"]
    split = np.load(finished_run / "split.npz")
    with store.open_run(str(finished_run)) as run:
        for name in NAMES:
            logits = reading.role_logits(run, experiment, name)
            each = max(len(logits.snapshots), 1)
            held_out = np.isin(logits.rows, [*split["test"], *split["population"]])
            for i, member in enumerate(logits.member):
                right = logits.values[i * each + each - 1].argmax(-1) == logits.labels
                assert facts[name]["train_accuracy"][i] == pytest.approx(right[member].mean())
                assert facts[name]["held_out_accuracy"][i] == pytest.approx(right[held_out & ~member].mean())
                for r, sets in enumerate(split["forget"]):
                    assert facts[name]["forget_accuracy"][i][r] == pytest.approx(right[sets[logits.rows]].mean())
    original, retrained = (np.asarray(facts[name]["forget_accuracy"]) for name in ("original", "retrained"))
    assert original.min() > 0.97
    assert np.diagonal(retrained).mean() <= original.mean()
    # A model on 180 population rows, 12 epochs, knows them and not the target rows as well.
    assert facts["population_in"]["train_accuracy"][0] > facts["population_in"]["held_out_accuracy"][0]


def test_a_retrained_model_is_the_one_that_its_rows_alone_would_give(finished_run, experiment):
    with store.open_run(str(finished_run)) as run:
        spec = roles.claim(run, audited_models.describe(experiment, splits.obtain(run, experiment), "retrained"))
    job = scratch.make_job(spec, np.asarray([1]))
    mapping = experiments.member_mapping(spec.experiment, 1)
    for latest in population.train(job, experiments.device_dataset(experiment), 12, mapping):
        carry = population.host(latest)
    kept = population.kept_variables(carry)
    inputs = experiments.device_dataset(experiment).inputs
    alone = np.concatenate(
        [block for _, block in population.predict(experiment.task, kept, inputs, spec.rows, mapping)], axis=1
    )
    np.testing.assert_allclose(values(finished_run, "retrained")[1], alone[0], atol=2e-3)


def test_a_line_of_the_snapshots_is_one_member_after_one_epoch(finished_run, experiment):
    spec = audited_models.describe(experiment, splits.draw(experiment), "snapshots")
    recorded = values(finished_run, "snapshots")
    folder = finished_run / "populations" / "snapshots"
    fingerprint = json.loads((folder / "stage.json").read_text())["fingerprint"]
    inputs = experiment.dataset.inputs[spec.rows]
    for index, epoch in enumerate((1, 3, 5, 7)):
        (chunk,) = store.chunks.finished(folder / f"snapshot_{epoch:05d}", fingerprint)[0]
        variables = members.load_chunk(spec.experiment, chunk)["variables"]
        for member in range(2):
            member_variables = jax.tree.map(lambda leaf, member=member: leaf[member], variables)
            expected = experiment.task.predict(member_variables, inputs)
            np.testing.assert_allclose(recorded[member * 4 + index], expected, atol=1e-4)


def test_a_killed_run_ends_with_the_numbers_of_an_uninterrupted_one(run, capsys):
    finished_run, left = run
    assert not (left / "logits" / "snapshots.npy").exists()
    assert launch(*arguments(engine__checkpoint_seconds=0), workdir=left) == 0
    printed = capsys.readouterr().err
    assert "2 members continue after epoch 4" in printed and "retrained: 2 of 2 members are finished" in printed
    for name in ("retrained", "snapshots"):
        np.testing.assert_array_equal(values(left, name), values(finished_run, name))


def test_a_damaged_snapshot_is_trained_again(finished_run, again, capsys):
    damaged_file = next((again / "populations" / "snapshots" / "snapshot_00003").glob("chunk_*")) / "manifest.json"
    damaged_file.unlink()
    (again / "logits" / "snapshots.npy").unlink()
    assert launch(*arguments(), workdir=again) == 0
    assert "training snapshots" in capsys.readouterr().err
    np.testing.assert_array_equal(values(again, "snapshots"), values(finished_run, "snapshots"))


def test_one_original_grows_to_one_per_forget_set(finished_run, again, capsys, experiment):
    assert launch(*arguments(targets__originals="per_set", targets__views=1), workdir=again) == 0
    assert "original: 1 of 2 members are finished already" in capsys.readouterr().err
    grown = values(again, "original")
    np.testing.assert_array_equal(grown[0], values(finished_run, "original")[0])
    assert np.abs(grown[1] - grown[0]).max() > 0.1  # the same rows, other random numbers
    for name in audited_models.PER_SET:  # without augmentation an augmented view is the clean one
        view = np.load(again / "logits" / f"{name}.augmented_0.npy")
        np.testing.assert_allclose(view, values(again, name), atol=1e-5)
    wide = make_experiment(targets__originals="per_set", targets__views=1)
    with store.open_run(str(again)) as run:
        assert reading.role_logits(run, wide, "original", "augmented_0").values.shape == grown.shape
        assert reading.role_logits(run, experiment, "original").values.shape == (1, *grown.shape[1:])


def test_more_forget_sets_reuse_the_retrained_models_that_are_there(finished_run, again, experiment, capsys):
    with store.open_run(str(again), ("retrained",)) as run:
        split = splits.obtain(run, experiment)
        for sets in (1, 2):
            spec = audited_models.describe(experiment, split.replace(forget=split.forget[:sets]), "retrained")
            trained = targets.produce(run, progress.Reporter(), roles.claim(run, spec), split)
            assert (trained.members, trained.training_cost.members) == (sets, 1)
    assert "1 of 2 members are finished already" in capsys.readouterr().err
    np.testing.assert_allclose(values(again, "retrained"), values(finished_run, "retrained"), atol=2e-3)


def test_all_roles_see_the_same_augmented_pictures(again, experiment, monkeypatch):
    calls = []
    inner = population.predict

    def spy(task, variables, inputs, rows, mapping, *, view_key):
        calls.append((jax.random.key_data(view_key).tolist(), rows.tolist()))
        return inner(task, variables, inputs, rows, mapping, view_key=view_key)

    monkeypatch.setattr(population, "predict", spy)
    with store.open_run(str(again)) as run:
        split = splits.obtain(run, experiment)
        shadows = roles.claim(run, shadow.describe(experiment, split))
        targeted = (
            roles.claim(run, audited_models.describe(experiment, split, name)) for name in audited_models.PER_SET
        )
        for spec in (shadows, *targeted):
            recording.record(run, progress.Reporter(), spec, "augmented_0")
        recording.record(run, progress.Reporter(), shadows, "augmented_1")
    assert calls[0] == calls[1] == calls[2]
    assert calls[3][0] != calls[0][0]


def test_one_role_is_deleted_and_trained_alone(again, capsys):
    kept = values(again, "shadow_origin").copy()
    assert launch(*arguments(), "--overwrite=population_in,reference", workdir=again) == 0
    trained = re.findall(r"training (\w+):", capsys.readouterr().err)
    assert set(trained) == {"population_in", "reference"}
    with store.open_run(str(again), ("shadows",)):
        pass
    np.testing.assert_array_equal(values(again, "shadow_origin"), kept)  # not mistaken for the shadows' own


def test_a_setting_of_one_role_leaves_the_others_alone(again, capsys):
    assert launch(*arguments(targets__reference_ratio=0.25), workdir=again) == 2
    printed = capsys.readouterr().err
    assert "ratio: stored 0.5, now 0.25" in printed and "--overwrite=reference" in printed
    assert launch(*arguments(targets__reference_ratio=0.25), "--overwrite=reference", workdir=again) == 0
    assert set(re.findall(r"training (\w+):", capsys.readouterr().err)) == {"reference"}


QUIET = {"targets__population_in": False, "targets__shadow_origin": False, "targets__reference": 0}


def test_snapshots_start_from_the_shadows_weights(tmp_path):
    still = {"model__name": "logistic", "train__learning_rate": 0.0, "targets__snapshot_epochs": 1, "train__epochs": 1}
    flags = arguments(**QUIET, **still, targets__epochs=1)
    assert launch(*flags, workdir=tmp_path) == 0
    with store.open_run(str(tmp_path)) as run:
        experiment = make_experiment(**QUIET, **still, targets__epochs=1)
        shadow, logits = (reading.role_logits(run, experiment, name) for name in ("shadow", "snapshots"))
        assert logits.snapshots == (1,)
        same = np.isin(shadow.rows, logits.rows)
        np.testing.assert_allclose(logits.values, shadow.values[:, same], atol=1e-5)
        assert np.abs(logits.values[0] - logits.values[1]).max() > 0.1
        assert np.abs(values(tmp_path, "original")[0] - shadow.values[0]).max() > 0.1  # a fresh start of its own
        with pytest.raises(errors.StoreError, match=r"request no reference models.*targets.reference.*launch.targets"):
            reading.role_logits(run, experiment, "reference")


def test_originals_and_retrains_go_on_from_another_run(finished_run, tmp_path):
    # At rate 0 only BatchNorm's running statistics move, towards those of the new target rows.
    flags = arguments(**QUIET, targets__snapshots=0, targets__start=finished_run, targets__epochs=1,
                      train__learning_rate=0.0, seed=7, split__forget__count=1)  # fmt: skip
    assert launch(*flags, workdir=tmp_path) == 0
    experiment = make_experiment(**QUIET, targets__snapshots=0)
    for name in audited_models.PER_SET:
        weights = []
        for folder in (finished_run, tmp_path):
            stage = json.loads((folder / "populations" / name / "stage.json").read_text())
            path = folder / "populations" / name
            weights.append(members.load(experiment, path, stage["fingerprint"], np.asarray([0])))
        jax.tree.map(np.testing.assert_array_equal, weights[0]["params"], weights[1]["params"])
        means = [np.asarray(jax.tree.leaves(variables_of_run["batch_stats"])[0]) for variables_of_run in weights]
        assert 0 < np.abs(means[0] - means[1]).max() < np.abs(means[0]).max()
    assert (
        "start.fingerprint" in json.loads((tmp_path / "populations" / "original" / "stage.json").read_text())["facts"]
    )


def test_a_diverged_model_is_flagged_and_has_no_accuracy(tmp_path, capsys):
    flags = arguments(**QUIET, targets__snapshots=0, model__name="logistic", train__learning_rate=1e38,
                      targets__epochs=2, train__epochs=1)  # fmt: skip
    assert launch(*flags, workdir=tmp_path) == 0
    printed = capsys.readouterr()
    assert re.search(r"diverged, frozen: original member 0 at step \d", printed.out)
    assert "original: member 0 diverged" in printed.err
    role_facts = json.loads((tmp_path / "targets.json").read_text())["roles"]["original"]
    assert list(role_facts["diverged"]) == ["0"] and role_facts["train_accuracy"] == [None]


def test_a_dry_run_plans_every_role_and_does_nothing(tmp_path, capsys):
    assert launch(*arguments(), "--dry_run", workdir=tmp_path / "run") == 0
    printed = capsys.readouterr().out
    # 637 target rows, batches of 64: 10 steps of 12 epochs for the original, 587 rows for each of two retrains.
    assert re.search(r"original +1 member\(s\) of 12 epochs, 120 model-steps", printed)
    assert re.search(r"retrained +2 member\(s\) of 12 epochs, 240 model-steps", printed)
    assert re.search(r"snapshots +2 member\(s\) of 7 epochs, 140 model-steps", printed)
    assert "MiB" in printed and "logits/shadow_origin.npy" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"targets__snapshots": 3}, r"targets.snapshots = 3 training runs start .* shadows.count = 2. Lower"),
        ({"targets__reference_ratio": 0.01, "split__target": 60}, "targets.reference_ratio = 0.01 of 60 target rows"),
        ({"targets__start": "/nowhere"}, r"targets.start = '/nowhere': .*stage.json does not exist.*launch.targets"),
        ({"targets__start": "{there}", "model__name": "mlp"}, "model.name = 'batch_norm_net:build', but .* 'mlp'"),
        ({"targets__start": "{there}", "split__forget__count": 3}, r"2 finished retrained model\(s\), but 3 are"),
        ({"targets__originals": "many"}, "unknown targets.originals 'many'"),
        ({"split__shadow": 5000}, "split.shadow = 5000"),
    ],
)
def test_a_mistake_is_one_message_before_any_work(changed, message, finished_run, tmp_path, capsys):
    changed = {name: str(value).format(there=finished_run) for name, value in changed.items()}
    assert launch(*arguments(**changed), workdir=tmp_path / "run") == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed, re.S) and "Traceback" not in printed
    assert not (tmp_path / "run").exists()


def test_another_shape_or_number_of_classes_cannot_be_trained_on(finished_run, tmp_path):
    experiment = make_experiment(targets__start=str(finished_run))
    split = splits.draw(experiment)
    for dataset, word in (
        (experiment.dataset.replace(num_classes=11), "classes = 10, but this run has 11"),
        (experiment.dataset.replace(inputs=np.zeros((len(experiment.dataset.labels), 8, 8, 3), np.uint8)), "shape ="),
    ):
        with pytest.raises(errors.ConfigError, match=word):
            audited_models.describe(experiment._replace(dataset=dataset), split, "original")


def test_logits_that_are_not_there_name_the_command(again, experiment, tmp_path):
    with store.open_run(str(again)) as run:
        with pytest.raises(errors.ConfigError, match="unknown role 'retraned'. Did you mean 'retrained'"):
            reading.role_logits(run, experiment, "retraned")
        with pytest.raises(errors.StoreError, match=r"reference_ratio|ratio: stored 0.5, now 0.3"):
            reading.role_logits(run, make_experiment(targets__reference_ratio=0.3), "reference")
        with pytest.raises(errors.StoreError, match=r"2 of 3 lines.*launch.targets"):
            reading.role_logits(run, make_experiment(targets__reference=3), "reference")
        with pytest.raises(errors.StoreError, match="augmented_0.npy is missing.*launch.targets"):
            reading.role_logits(run, experiment, "original", "augmented_0")
        (again / "logits" / "retrained.json").unlink()
        with pytest.raises(errors.StoreError, match="retrained.npy is missing.*launch.targets"):
            reading.role_logits(run, experiment, "retrained")
    with store.open_run(str(tmp_path / "empty")) as run:
        with pytest.raises(errors.StoreError, match=r"split.json is missing.*launch.shadows"):
            reading.role_logits(run, experiment, "shadow")
        assert not (tmp_path / "empty" / "split.npz").exists()


def test_a_run_without_audited_side_still_gives_its_shadows(tmp_path, experiment):
    flags = arguments(model__name="logistic", train__epochs=1)
    assert _entry.main(shadows_verb.command, "", ["x", *flags, f"--workdir={tmp_path}"]) == 0
    flags = make_experiment(model__name="logistic", train__epochs=1)
    with store.open_run(str(tmp_path)) as run:
        assert reading.role_logits(run, flags, "shadow").values.shape[0] == 2
        with pytest.raises(errors.StoreError, match=r"original/stage.json is missing.*launch.targets"):
            reading.role_logits(run, flags, "original")
