"""Rows of the user's own file, on their way through a run folder."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxunlearn import data, errors, progress, settings, store
from jaxunlearn.data import summary
from jaxunlearn.runs import dataset as looking
from jaxunlearn.runs import splits
from jaxunlearn.runs.drivers import array_input
from jaxunlearn.settings import DataSettings, ForgetSettings, SplitSettings


def asked_of(tmp_path, listed, **content):
    """What splits are drawn for: 60 rows of a file, some of which an index file lists."""
    np.savez(tmp_path / "people.npz", x=np.arange(60.0)[:, None] + 0.5, y=np.arange(60) % 2, **content)
    np.save(tmp_path / "ask.npy", np.array(listed))
    forget = ForgetSettings(kind="index_file", path=str(tmp_path / "ask.npy"))
    run_settings = SimpleNamespace(seed=0, split=SplitSettings(shadow=10, forget=forget))
    loaded = data.load(DataSettings(name="npz", path=str(tmp_path / "people.npz")))
    return SimpleNamespace(settings=run_settings, dataset=loaded, data_fingerprint="the data")


def train_rows(tmp_path, count):
    loaded = asked_of(tmp_path, [0]).dataset
    return sorted(loaded.ids[: loaded.num_train].tolist())[:count]


def test_a_stored_split_names_the_rows_of_the_file_and_belongs_to_one_request(tmp_path):
    forget_rows = train_rows(tmp_path, 3)
    experiment = asked_of(tmp_path, forget_rows, ids=np.arange(60) + 1000)
    with store.open_run(tmp_path / "run", ()) as run:
        splits.obtain(run, experiment)
        stored = np.load(tmp_path / "run" / "split.npz")
        forgotten = stored["forget"][0]
        assert sorted(stored["rows"][forgotten].tolist()) == forget_rows
        assert sorted(stored["ids"][forgotten].tolist()) == [row + 1000 for row in forget_rows]
        again = splits.obtain(run, experiment)
        np.testing.assert_array_equal(again.forget[0], forgotten)
        np.save(tmp_path / "ask.npy", np.array(forget_rows[:2]))
        with pytest.raises(errors.StoreError, match="listed: stored"):
            splits.obtain(run, experiment)


def test_notes_and_who_is_forgotten_are_told_before_any_work(tmp_path, capsys):
    forget_rows = train_rows(tmp_path, 2)
    experiment = asked_of(tmp_path, forget_rows)
    experiment.dataset = experiment.dataset.replace(notes=("4 files are left out",))
    splits.report_notes(progress.Reporter(), experiment)
    output = capsys.readouterr().err
    assert "4 files are left out" in output and "2 row(s), by their number in the data's own file" in output
    assert all(str(row) in output for row in forget_rows)


def test_the_look_at_a_data_set_tells_class_numbers_and_notes(tmp_path):
    loaded = asked_of(tmp_path, [0]).dataset.replace(class_names=("10", "2"), notes=("4 files are left out",))
    shown = looking.text(summary.describe(loaded))
    assert "0 = '10', 1 = '2'" in shown and "4 files are left out" in shown


def test_samples_of_epsilon_hat_keep_their_ids(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"labels": np.arange(4) % 3, **{name: rng.normal(size=(4, 5, 3)) for name in ("retrained", "mine")}}
    np.savez(tmp_path / "a.npz", **arrays, ids=np.array(list("abcd")))
    few = settings.resolve({"epsilon": {"bootstrap": 3, "histograms": 2}})

    def measured(path, out):
        array_input.run("epsilon", str(path), few, str(tmp_path / out), (), False, False)
        return np.load(tmp_path / out / "epsilon.npz")

    assert measured(tmp_path / "a.npz", "out")["ids"].tolist() == list("abcd")
    np.savez(tmp_path / "a.npz", **arrays, ids=np.arange(3))
    with pytest.raises(errors.UserError, match="ids has shape"):
        measured(tmp_path / "a.npz", "none")
    labels = arrays.pop("labels")
    named = {"rows": np.array([9, 5, 6, 7])}
    store.published_layout.write(tmp_path / "d", labels, arrays["retrained"], {"mine": arrays["mine"]}, {}, named)
    assert measured(tmp_path / "d", "folder")["rows"].tolist() == [9, 5, 6, 7]
