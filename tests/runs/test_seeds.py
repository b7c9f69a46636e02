"""--seeds: the command once per seed, finished seeds are kept, numbers over seeds have Student's t interval."""

import csv
import json
import math
from pathlib import Path

import finished
import numpy as np
import pytest
import scipy.stats

from jaxunlearn import settings
from jaxunlearn.runs.drivers import seeds as driver
from launch import audit, epsilon, evaluate, study, unlearn

UNLEARN = [*finished.FLAGS, finished.TWO_EPOCHS, "--methods=finetune,ssd", "--seeds=3,42"]
VALUES = {1: 0.5, 2: 0.7, 5: 0.75}


def fake(folder_of_calls, values=VALUES, fails=()):
    """A command whose numbers are known, and the seeds it was run for."""

    def run(seed, folder):
        folder_of_calls.append(seed)
        if seed in fails:
            raise KeyboardInterrupt
        path = Path(folder) / "report" / "trial_findings.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        value, other = values[seed], None if seed == 2 else "inf"
        path.write_text(json.dumps([
            {"section": "scores", "of": "iam_on", "metric": "AUC", "against": "x", "value": value},
            {"section": "scores", "of": "iam_on", "metric": "AUC", "against": "x", "value": 2 * value},
            {"section": "other", "of": "iam_on", "metric": "AUC", "against": "x", "value": other},
        ]))  # fmt: skip

    return driver.Command("trial", "report/trial_findings.json", run)


def numbers(folder):
    return json.loads((folder / "seeds.json").read_text())["trial"]["findings"]


def test_numbers_over_seeds_are_mean_deviation_and_students_t(tmp_path):
    calls = []
    printed = driver.run(fake(calls), (1, 2, 5), settings.Settings(), str(tmp_path / "run"))
    assert calls == [1, 2, 5]
    first, second, third = numbers(tmp_path / "run")
    values = np.array(list(VALUES.values()))
    half = scipy.stats.t.ppf(0.975, 2) * values.std(ddof=1) / math.sqrt(3)
    assert first["value"] == pytest.approx(values.mean()) and first["std"] == pytest.approx(values.std(ddof=1))
    assert (first["low"], first["high"]) == pytest.approx((values.mean() - half, values.mean() + half))
    assert first["by_seed"] == {"1": 0.5, "2": 0.7, "5": 0.75} and first["n"] == 3
    assert second["value"] == pytest.approx(2 * values.mean()) and second["place"] == 1
    assert third["value"] is None and third["n"] == 0
    assert "0.650 ± .132 [.321, .979]" in printed and "0.500 0.700 0.750" in printed
    assert "Mean over 3 seeds ± their sample deviation" in " ".join(printed.split())
    assert "1 number(s) are missing or not finite for some seeds" in printed
    for name in ("report/seeds.html", "report/seeds.md", "report/seeds_findings.json", "seeds.csv"):
        assert (tmp_path / "run" / name).is_file(), name
    with open(tmp_path / "run" / "seeds.csv") as file:
        row = next(csv.DictReader(file))
    assert row["of"] == "iam_on" and float(row["seed 5"]) == 0.75


def test_finished_seeds_are_not_repeated_and_a_killed_one_is(tmp_path):
    calls = []
    with pytest.raises(KeyboardInterrupt):
        driver.run(fake(calls, fails=(2,)), (1, 2, 5), settings.Settings(), str(tmp_path / "run"))
    assert calls == [1, 2]
    driver.run(fake(calls), (1, 2, 5), settings.Settings(), str(tmp_path / "run"))
    assert calls == [1, 2, 2, 5]
    driver.run(fake(calls), (5, 1), settings.Settings(), str(tmp_path / "run"))
    assert calls == [1, 2, 2, 5] and numbers(tmp_path / "run")[0]["by_seed"] == {"5": 0.75, "1": 0.5}
    driver.run(fake(calls), (2,), settings.Settings(seed=9), str(tmp_path / "run"))
    assert len(calls) == 4, "their own seed is not read"
    assert numbers(tmp_path / "run")[0]["low"] is None and numbers(tmp_path / "run")[0]["std"] is None


@pytest.mark.parametrize("what", ["settings", "overwrite", "data", "report", "own code"])
def test_what_may_have_changed_is_done_again(tmp_path, what):
    (tmp_path / "d.csv").write_text("x,y\n1,0\n")
    run_settings = settings.resolve({"data": {"path": str(tmp_path / "d.csv")}})
    calls = []
    driver.run(fake(calls), (1,), run_settings, str(tmp_path / "run"))
    if what == "settings":
        run_settings = settings.resolve({"data": {"path": str(tmp_path / "d.csv")}, "train": {"epochs": 3}})
    elif what == "data":
        (tmp_path / "d.csv").write_text("x,y\n1,0\n2,1\n")
    elif what == "report":
        (tmp_path / "run" / "seed_1" / "report" / "trial_findings.json").unlink()
    elif what == "own code":
        run_settings = settings.resolve({"model": {"name": "mine:net"}})
        driver.run(fake(calls), (1,), run_settings, str(tmp_path / "run"))
        calls.pop()
    driver.run(fake(calls), (1,), run_settings, str(tmp_path / "run"), is_fresh=what == "overwrite")
    assert calls == [1, 1]


def test_commands_of_one_folder_stand_on_one_page(tmp_path):
    calls = []
    driver.run(fake(calls), (1, 2), settings.Settings(), str(tmp_path / "run"))
    driver.run(fake(calls)._replace(name="again"), (1,), settings.Settings(), str(tmp_path / "run"))
    page = (tmp_path / "run" / "report" / "seeds.md").read_text()
    assert page.index("launch.again, scores") < page.index("launch.trial, scores")
    assert "One seed: no deviation and no interval." in page


@pytest.mark.parametrize("verb", [audit, epsilon, evaluate, study, unlearn])
@pytest.mark.parametrize("flags, message", [
    ("--seeds=1,2,1", "--seeds=1,2,1: seed 1 is given twice"),
    ("--seeds=1,-2", "-2 is not a seed; seeds lie between 0 and 4294967295"),
    ("--seeds=1,x", "expected whole numbers, separated by commas"),
    ("--seeds=1.5", "expected whole numbers"),
    ("--seeds=", "--seeds= names no seed"),
    ("--seeds=1 --config.seed=3", "give --seed or --seeds, not both"),
])  # fmt: skip
def test_seeds_that_make_no_sense_are_refused(verb, flags, message, tmp_path):
    code, _, err = finished.launch(verb, "--config=digits:smoke", *flags.split(), workdir=tmp_path / "run")
    assert code == 2 and message in err, err
    assert not (tmp_path / "run").exists()


def test_arrays_are_of_one_seed(tmp_path):
    code, _, err = finished.launch(audit, "--evidence=a.npz", "--seeds=1,2", workdir=tmp_path / "run")
    assert code == 2 and "--seeds belongs to --config" in err
    code, _, err = finished.launch(audit, "--config=digits", "--seed=1", "--seeds=1,2", workdir=tmp_path / "run")
    assert code == 2 and "give --seed or --seeds, not both" in err


def test_a_dry_run_plans_the_first_seed(tmp_path):
    code, out, err = finished.launch(unlearn, *finished.FLAGS, "--seeds=4,5", "--methods=ssd", "--dry_run",
                                     workdir=tmp_path / "run")  # fmt: skip
    assert code == 0 and "2 seed(s), each as follows" in out and "members" in out, err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """(folder, what was printed) of unlearning with two seeds, the second of which is that of the finished run."""
    folder = tmp_path_factory.mktemp("seeds") / "run"
    code, out, err = finished.launch(unlearn, *UNLEARN, workdir=folder)  # fmt: skip
    assert code == 0, err
    return folder, out, err


def test_a_seed_has_the_numbers_of_a_run_of_its_own(two_seeds):
    folder, out, err = two_seeds
    alone = finished.folder()
    for role in ("original", "unlearned:ssd"):
        np.testing.assert_array_equal(
            np.load(folder / "seed_42" / "logits" / f"{role}.npy"), np.load(alone / "logits" / f"{role}.npy")
        )
        other = np.load(folder / "seed_3" / "logits" / f"{role}.npy")
        assert not np.array_equal(other, np.load(alone / "logits" / f"{role}.npy"))
    assert json.loads((folder / "seed_42" / "run.json").read_text())["settings"]["seed"] == 42
    accuracies = json.loads((alone / "unlearned.json").read_text())["roles"]["unlearned:ssd"]["numbers"]["UA"]
    line = next(line for line in out.splitlines() if "unlearned:ssd" in line and "UA" in line)
    assert line.split()[-1] == f"{np.mean(accuracies):.3f}"
    assert "seed 3 (1 of 2)" in err and "trust" not in out


def test_the_next_call_trains_nothing_and_another_verb_uses_the_models(two_seeds):
    folder, out, _ = two_seeds
    code, again, err = finished.launch(unlearn, *UNLEARN, workdir=folder)  # fmt: skip
    assert code == 0 and err.count("finished in an earlier call") == 2 and "training" not in err
    assert [line for line in again.splitlines() if "unlearned:ssd" in line] == [
        line for line in out.splitlines() if "unlearned:ssd" in line
    ]
    code, out, err = finished.launch(
        audit, *finished.FLAGS, finished.TWO_EPOCHS, "--seeds=3", "--protocol=binui", "--scores=iam_on,confidence",
        "--unlearned=unlearned:ssd", "--config.unlearn.methods=finetune,ssd", workdir=folder)  # fmt: skip
    assert code == 0 and "training shadow:" not in err and "launch.audit, binui unlearned:ssd" in out, err
    assert "One seed: no deviation" in out
    record = json.loads((folder / "seeds.json").read_text())
    assert set(record) == {"unlearn", "audit"} and record["audit"]["seeds"] == [3]
