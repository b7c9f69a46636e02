"""The study of many models of one request: from nothing, again, exported, in both modes of BatchNorm; refusals."""

import contextlib
import csv
import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import arrays, errors, settings, store
from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.base import Context
from jaxunlearn.analyses.epsilon.analysis import PUBLISHED
from jaxunlearn.models import build
from jaxunlearn.runs import experiments, splits
from jaxunlearn.runs.drivers import array_input, reading
from jaxunlearn.runs.execution import members, recording
from jaxunlearn.store import chunks
from launch import _entry
from launch import study as verb

EPSILON = ANALYSES["epsilon"]
QUIET = Context(lambda line: None, lambda *step: None, lambda name, facts, compute: compute())
MODELS = 5
COMMON = ("--config=configs/forget_precision.py:smoke", f"--config.split.forget.repeats={MODELS}",
          "--config.epsilon.bn_batch=20", "--config.epsilon.bootstrap=5")  # fmt: skip


def launched(workdir, *arguments, methods="finetune,poison", model="batch_norm_net:build"):
    """(exit code, stdout, stderr) of the study."""
    argv = ["launch", *COMMON, f"--workdir={workdir}", f"--config.unlearn.methods={methods}",
            f"--config.model.name={model}", *arguments]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = _entry.main(verb.command, verb.__doc__, argv)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder of the study with two approaches, and what it printed."""
    workdir = tmp_path_factory.mktemp("study")
    code, out, err = launched(workdir)
    assert code == 0, err
    return workdir, out


def chosen(**forget):
    config = settings.defaults("forget_precision")
    config.split.forget.update({"repeats": MODELS, **forget})
    return settings.resolve(config)


def test_every_approach_stands_in_the_table_with_its_models(finished):
    workdir, out = finished
    record = json.loads((workdir / "epsilon.json").read_text())
    assert set(record) == {"running", "batch"}
    for mode in record.values():
        assert set(mode["approaches"]) == {"baseline", "finetune", "poison"}
        assert mode["approaches"]["finetune"]["models"] == [MODELS, MODELS]
        assert mode["approaches"]["baseline"]["models"] == [MODELS // 2, MODELS // 2]
        assert 0 <= mode["approaches"]["finetune"]["accuracies"]["test"][0] <= 1
    with open(workdir / "report" / "tables" / "epsilon_costs.csv") as file:
        cost = {line["approach"]: line for line in csv.DictReader(file)}
    # One of two epochs, and the rows from which batch norm takes its statistics anew.
    assert 50 < float(cost["finetune"]["share (%)"]) < 70 and cost["retraining"]["retain-epochs"] == "2.0"
    assert float(cost["poison"]["retain-epochs"]) < 0.2
    assert "Both modes of BatchNorm" in out and "--data=.../epsilon/batch" in out
    assert (workdir / "report" / "epsilon.html").stat().st_size > 10_000


def test_models_of_one_request_differ_by_their_draws(finished):
    workdir, _ = finished
    forget = store.files.read_npz(workdir / "split.npz")["forget"]
    assert len(forget) == MODELS and (forget == forget[0]).all()
    for role in ("retrained", "unlearned:finetune", "unlearned:poison"):
        logits = np.load(workdir / "logits" / f"{role}.npy")
        distances = [np.abs(logits[i] - logits[j]).max() for i in range(MODELS) for j in range(i)]
        assert min(distances) > 1e-4, role


def test_exported_logits_are_those_of_the_run_and_give_the_same_numbers(finished):
    workdir, _ = finished
    rows = np.load(workdir / "logits" / "rows.npy")
    split = store.files.read_npz(workdir / "split.npz")
    forgotten = np.flatnonzero(split["forget"][0])
    np.testing.assert_array_equal(np.load(workdir / "epsilon.npz")["rows"], split["rows"][forgotten])
    record = json.loads((workdir / "epsilon.json").read_text())
    for mode in ("running", "batch"):
        named, _ = array_input.read(workdir / "epsilon" / mode, EPSILON)
        quick = settings.resolve({"epsilon": {"bootstrap": 0}})
        epsilon_inputs = EPSILON.from_arrays(arrays.read(named, EPSILON.fields, EPSILON.expected), quick)
        group = epsilon_inputs.modes["running"]
        unlearned = group.approaches["finetune"]
        assert len(group.labels) == 50
        np.testing.assert_array_equal(group.names["rows"], split["rows"][forgotten])
        if mode == "running":
            stored = np.load(workdir / "logits" / "unlearned:finetune.npy")[:, np.searchsorted(rows, forgotten)]
            np.testing.assert_array_equal(unlearned, stored.swapaxes(0, 1))
        result = EPSILON.analyse(epsilon_inputs, quick, QUIET).modes["running"]
        for name, approach in result.approaches.items():
            # JSON knows no infinity; `float` reads the word for it.
            assert float(record[mode]["approaches"][name]["median"]) == pytest.approx(approach.summary.median), name
        # Accuracies are of the run's own logits in use: in that mode they agree, sample by sample.
        if mode == "running":
            np.testing.assert_allclose(
                group.accuracies["finetune"]["forget"], result.approaches["finetune"].own_accuracy
            )
    both = [np.load(workdir / "epsilon" / mode / "logits_retain.npy") for mode in ("running", "batch")]
    np.testing.assert_array_equal(both[0][:, 0], both[1][:, 0])
    assert np.abs(both[0] - both[1]).max() > 0.01


def test_training_mode_normalises_by_batches_of_forgotten_rows_in_order(finished):
    """Against flax itself: 50 rows in batches of 20, 20 and 10, running statistics neither used nor moved."""
    workdir, _ = finished
    config = settings.defaults("forget_precision")
    config.model.name = "batch_norm_net:build"
    experiment = experiments.prepare(settings.resolve(config))
    forgotten = np.flatnonzero(store.files.read_npz(workdir / "split.npz")["forget"][0])
    stored = np.load(workdir / "logits" / f"retrained.{recording.training_mode(20)}.npy")
    assert stored.shape == (MODELS, 50, 10)
    about = json.loads((workdir / "logits" / "index.json").read_text())[f"retrained.{recording.training_mode(20)}.npy"]
    rows = np.load(workdir / "logits" / about["file_rows"])
    np.testing.assert_array_equal(rows, np.asarray(experiment.dataset.ids)[forgotten])
    network = build(experiment.settings.model, 10)
    inputs = experiments.build_network(experiment.settings, experiment.dataset, "native").prepare(
        jnp.asarray(experiment.dataset.inputs[forgotten]), None, False
    )
    fingerprint = json.loads((workdir / "populations" / "retrained" / "stage.json").read_text())["fingerprint"]
    chunk = chunks.finished(workdir / "populations" / "retrained", fingerprint)[0][0]

    variables = members.load_chunk(experiment, chunk)["variables"]
    for member in (0, MODELS - 1):
        member_variables = {name: _taken(tree, member) for name, tree in variables.items()}
        expected = [
            network.apply(member_variables, part, train=True) for part in (inputs[:20], inputs[20:40], inputs[40:])
        ]
        np.testing.assert_allclose(stored[member], np.concatenate(expected), atol=2e-4)


def _taken(tree, member):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[member]), tree)


def test_a_second_run_trains_nothing_and_exports_what_it_was_asked_for(finished):
    workdir, first = finished
    code, out, err = launched(workdir)
    assert code == 0 and "unlearning by" not in err and "training" not in err, err
    assert out.split("Both modes")[0].split("note")[0] == first.split("Both modes")[0].split("note")[0]
    code, out, err = launched(workdir, methods="finetune")
    # The export holds what was asked for, not what an earlier run left.
    assert code == 0 and [path.name for path in (workdir / "epsilon" / "running").glob("*/")] == ["finetune"], err


def test_diverged_approaches_are_left_out_and_ensembles_have_joint_answers_in_one_mode(tmp_path):
    options = "--config.unlearn.options=poison.lr=1e30,sisa.shards=2,sisa.epochs=1"
    code, out, err = launched(tmp_path, options, methods="poison,sisa")
    assert code == 0, err
    assert "note: poison: 5 of 5 models diverged and are left out" in out
    assert "sisa is an ensemble: not recorded in training mode" in err and "Both modes" not in out
    record = json.loads((tmp_path / "epsilon.json").read_text())
    assert set(record) == {"running"} and set(record["running"]["approaches"]) == {"baseline", "sisa"}
    assert [path.name for path in (tmp_path / "epsilon").iterdir()] == ["running"]


def test_a_network_without_batch_norm_has_one_mode_and_crossed_originals_are_an_approach(tmp_path):
    crossed = "--config.targets.originals=crossed"
    code, out, err = launched(tmp_path, crossed, methods="finetune", model="logistic")
    assert code == 0, err
    assert "Both modes" not in out and f"{MODELS} originals and ONE forget set" in out
    record = json.loads((tmp_path / "epsilon.json").read_text())
    assert set(record["running"]["approaches"]) == {"baseline", "original", "finetune"}
    assert record["running"]["order"] == ["finetune"] and "The original model was not measured" not in out
    assert np.load(tmp_path / "logits" / "original.npy").shape[0] == MODELS
    assert [path.name for path in (tmp_path / "epsilon").iterdir()] == ["running"]


def planned(run_settings):
    experiment = experiments.prepare(run_settings)
    return reading.planned_run(experiment, splits.draw(experiment))


def test_repeated_sets_are_no_units_of_other_experiments():
    run = planned(chosen())
    with pytest.raises(errors.ConfigError, match="repeats every forget set"):
        ANALYSES["audit"].check_run(run)


@pytest.mark.parametrize(
    ("forget", "message"),
    [
        ({"repeats": 1}, "split.forget.repeats = 1"),
        ({"count": 2}, "needs one forget set, but there are 2"),
        ({"kind": "classes", "classes": (0, 1)}, "needs one forget set, but there are 2"),
    ],
)
def test_studies_of_nothing_are_refused_before_any_training(forget, message):
    with pytest.raises(errors.ConfigError, match=message):
        EPSILON.check_run(planned(EPSILON.narrow(chosen(**forget))))


def test_all_stands_for_the_approaches_of_the_paper():
    assert EPSILON.narrow(chosen()).unlearn.methods == PUBLISHED
    planned = launched(Path("unused"), "--dry_run", methods="all")[1]
    assert all(f"unlearned:{name}" in planned for name in PUBLISHED) and "unlearned:scrub" not in planned
    assert not Path("unused").exists()
