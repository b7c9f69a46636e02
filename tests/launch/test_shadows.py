"""The main job as a user runs it: whole runs, killed runs, damaged files, and every mistake with its message."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxunlearn import store
from jaxunlearn.runs.execution import scratch
from jaxunlearn.store import chunks, files
from launch import _entry, shadows

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ["--config=configs/digits.py:smoke", "--config.model.name=logistic", "--config.shadows.count=5",
         "--config.train.epochs=4"]  # fmt: skip
RESUMABLE = [*SMOKE, "--config.engine.checkpoint_seconds=0"]


def launch(*arguments, workdir=None):
    """Runs the launcher in this process: (exit code)."""
    argv = ["launch.shadows", *arguments] + ([f"--workdir={workdir}"] if workdir else [])
    return _entry.main(shadows.command, shadows.__doc__, argv)


def logits(workdir, name="shadow.npy"):
    return np.load(Path(workdir) / "logits" / name)


# Moments at which a process may die: just before the n-th call of a function (whose arguments satisfy a condition).
MOMENTS = {
    "the second epoch is computed, its checkpoint not yet begun": (chunks, "save_partial", 2, ""),
    "the arrays of the second checkpoint are written, its manifest is not": (files, "write_whole", 2, "epoch_"),
    "the finished chunk is whole, but not yet under its name": (os, "replace", 1, "/chunk_00000_00004"),
    "the logits are in the file, their checksums are not": (store.logits, "commit", 1, ""),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run nobody disturbs: (its folder, moment -> what a kill at that moment would leave of it)."""
    workdir = tmp_path_factory.mktemp("finished_run")
    left = {moment: tmp_path_factory.mktemp("killed") / "run" for moment in MOMENTS}

    def watched(module, name, nth, word, copy):
        inner, calls = getattr(module, name), []

        def call(*args, **kwargs):
            if word in " ".join(str(argument) for argument in args[:2] if isinstance(argument, str | os.PathLike)):
                calls.append(1)
                if len(calls) == nth:
                    shutil.copytree(workdir, copy)
            return inner(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patched:
        for moment, (module, name, nth, word) in MOMENTS.items():
            patched.setattr(module, name, watched(module, name, nth, word, left[moment]))
        assert launch(*RESUMABLE, workdir=workdir) == 0
    return workdir, left


@pytest.fixture(scope="module")
def finished_run(run):
    return run[0]


def test_a_run_leaves_what_it_says(finished_run, capsys):
    assert launch(*SMOKE, workdir=finished_run) == 0
    printed = capsys.readouterr()
    for line in ("members", "train accuracy", "held-out accuracy", "generalisation gap", "total", "logits/shadow.npy"):
        assert line in printed.out
    assert "5 of 5 members are finished already" in printed.err  # and nothing was trained again
    summary = json.loads((finished_run / "summary.json").read_text())
    findings = json.loads((finished_run / "report" / "shadows_findings.json").read_text())
    values, rows = logits(finished_run), np.load(finished_run / "logits" / "rows.npy")
    assert values.shape == (5, 1797, 10) and np.isfinite(values).all()
    split = np.load(finished_run / "split.npz")
    packed = np.load(finished_run / "populations" / "shadow" / "membership.npz")["packed"]
    member = np.unpackbits(packed, axis=1, count=1797).astype(bool)
    assert (member.sum(1) == 640).all() and not member[:, split["target"]].any()
    from sklearn.datasets import load_digits

    from jaxunlearn import data, settings

    dataset = data.load(settings.DataSettings())
    assert sorted(dataset.ids.tolist()) == list(range(len(load_digits().target)))
    np.testing.assert_array_equal(np.load(finished_run / "logits" / "file_rows.npy"), dataset.ids[rows])
    np.testing.assert_array_equal(np.load(finished_run / "logits" / "labels.npy"), dataset.labels[rows])
    right = values.argmax(-1) == dataset.labels[rows]
    for i in range(5):
        assert right[i][member[i][rows]].mean() == pytest.approx(summary["train_accuracy"][i], abs=1e-9)
    mean = next(finding for finding in findings if finding["metric"] == "held-out accuracy")
    assert mean["low"] <= np.mean(summary["held_out_accuracy"]) <= mean["high"] and mean["n"] == 5
    assert json.loads((finished_run / "run.json").read_text())["status"] == "done"
    assert "<svg" in (finished_run / "report" / "shadows.svg").read_text()
    events = [json.loads(line) for line in (finished_run / "log.jsonl").read_text().splitlines()]
    assert {"time", "stage"} <= set(events[0])


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_with_the_numbers_of_an_uninterrupted_one(run, moment):
    finished_run, left = run
    assert (left[moment] / "split.npz").exists() and not (left[moment] / "summary.json").exists()
    assert launch(*RESUMABLE, workdir=left[moment]) == 0
    np.testing.assert_array_equal(logits(left[moment]), logits(finished_run))
    assert not list(left[moment].rglob("*.tmp-*")) and not list(left[moment].rglob("partial_*"))


KILLER = """
import os, signal, sys
sys.path.insert(0, {root!r})
from launch import _entry, shadows
_entry.prepare_process()
from jaxunlearn.store import chunks
inner, calls = chunks.save_partial, []
def killing_save(*args, **kwargs):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(*args, **kwargs)
chunks.save_partial = killing_save
sys.exit(_entry.main(shadows.command, '', ['x', *{argv!r}]))
"""


def test_a_process_that_is_killed_leaves_its_folder_free_and_the_next_continues(finished_run, tmp_path, capsys):
    argv = [*RESUMABLE, f"--workdir={tmp_path}"]
    code = KILLER.format(root=str(ROOT), argv=argv)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert launch(*argv) == 0
    assert "5 members continue after epoch 2" in capsys.readouterr().err
    np.testing.assert_array_equal(logits(tmp_path), logits(finished_run))


@pytest.mark.parametrize(
    "number, code, word", [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_is_a_word_an_exit_code_and_a_status(number, code, word, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scratch, "train_missing", lambda *_: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert launch(*SMOKE, workdir=tmp_path) == code
    assert f"{word}; run the same command again" in capsys.readouterr().err
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "interrupted"
    assert signal.getsignal(number) is before


def test_a_signal_that_a_callback_swallows_is_raised_again(tmp_path, monkeypatch):
    class Falls:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def swallow(*_):
        Falls()
        time.sleep(60)

    monkeypatch.setattr(scratch, "train_missing", swallow)
    assert launch(*SMOKE, workdir=tmp_path) == 143


def test_an_interrupt_during_the_imports_leaves_no_traceback():
    code = "import sys; sys.argv = ['-m']; import launch, os, signal; os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr == "interrupted\n"


def test_chunks_do_not_change_the_numbers(finished_run, tmp_path):
    assert launch(*SMOKE, "--config.engine.chunk=2", workdir=tmp_path) == 0
    assert len(list((tmp_path / "populations" / "shadow").glob("chunk_*"))) == 3
    np.testing.assert_allclose(logits(tmp_path), logits(finished_run), atol=1e-4)


def test_a_larger_population_keeps_the_members_it_has(finished_run, tmp_path, capsys):
    assert launch(*SMOKE, "--config.shadows.count=2", workdir=tmp_path) == 0
    assert launch(*SMOKE, workdir=tmp_path) == 0
    assert "2 of 5 members are finished already" in capsys.readouterr().err
    np.testing.assert_allclose(logits(tmp_path), logits(finished_run), atol=1e-4)


def copy(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "copy")


def test_a_truncated_checkpoint_is_trained_again_with_a_message(finished_run, tmp_path, capsys):
    workdir = copy(finished_run, tmp_path)
    chunk = next((workdir / "populations" / "shadow").glob("chunk_*"))
    damaged_file = max((p for p in (chunk / "arrays").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(damaged_file, damaged_file.stat().st_size // 2)
    (workdir / "logits" / "shadow.npy").unlink()
    assert launch(*SMOKE, workdir=workdir) == 0
    assert re.search(r"chunk_00000_00004 is damaged .* trained again", capsys.readouterr().err)
    np.testing.assert_array_equal(logits(workdir), logits(finished_run))


def test_a_checkpoint_with_a_flipped_byte_is_trained_again_with_a_message(finished_run, tmp_path, capsys):
    workdir = copy(finished_run, tmp_path)
    chunk = next((workdir / "populations" / "shadow").glob("chunk_*"))
    damaged_file = max((p for p in (chunk / "arrays").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(damaged_file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged_file.write_bytes(content)
    (workdir / "logits" / "shadow.npy").unlink()
    assert launch(*SMOKE, workdir=workdir) == 0
    assert "Its members are trained again" in capsys.readouterr().err
    np.testing.assert_array_equal(logits(workdir), logits(finished_run))


def test_a_disk_that_keeps_nothing_ends_in_a_message(tmp_path, capsys, monkeypatch):
    def damaged(chunk, template):
        raise store.chunks.Damaged(chunk.path, "is damaged")

    monkeypatch.setattr(store.chunks, "load", damaged)
    assert launch(*SMOKE, workdir=tmp_path / "run") == 2
    assert "does not keep what is written" in capsys.readouterr().err


def test_a_truncated_logits_file_is_repaired_with_a_message(finished_run, tmp_path, capsys):
    workdir = copy(finished_run, tmp_path)
    os.truncate(workdir / "logits" / "shadow.npy", 200_000)
    assert launch(*SMOKE, workdir=workdir) == 0
    printed = capsys.readouterr().err
    assert re.search(r"shadow.npy is damaged for 3 member\(s\); their logits are computed again", printed)
    np.testing.assert_array_equal(logits(workdir), logits(finished_run))


def test_a_diverged_member_is_flagged_and_the_others_are_bit_identical(finished_run, tmp_path, capsys):
    wild = "--config.shadows.learning_rate_factor=(1.0,1.0,1e37,1.0,1.0)"
    assert launch(*SMOKE, wild, workdir=tmp_path) == 0
    printed = capsys.readouterr().out
    assert "5 (1 diverged)" in printed and re.search(r"diverged, frozen\s+member 2 at step \d", printed)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["diverged"]) == ["2"]
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(logits(tmp_path)[others], logits(finished_run)[others])


def test_augmented_views_and_snapshots_are_recorded(tmp_path):
    extra = ["--config.data.augment=crop", "--config.data.pad=1", "--config.shadows.views=1",
             "--config.train.snapshots=(1,2)", "--config.engine.logits_dtype=float16"]  # fmt: skip
    assert launch(*SMOKE, *extra, workdir=tmp_path) == 0
    clean, view = logits(tmp_path), logits(tmp_path, "shadow.augmented_0.npy")
    assert clean.dtype == np.float16 and clean.shape == view.shape and np.abs(clean - view).max() > 1
    assert len(list((tmp_path / "populations" / "shadow").glob("snapshot_0000[12]/chunk_00000_00004"))) == 2


@pytest.mark.parametrize("extra", ["--config.shadows.count=1", "--config.shadows.ratio=1.0"])
def test_one_member_and_members_that_see_everything_still_report(extra, tmp_path, capsys):
    assert launch(*SMOKE, "--config.train.epochs=1", extra, workdir=tmp_path) == 0
    assert "held-out accuracy" in capsys.readouterr().out
    assert (tmp_path / "report" / "shadows.svg").exists()


def test_a_dry_run_plans_and_does_nothing(tmp_path, capsys):
    assert launch(*SMOKE, "--dry_run", workdir=tmp_path / "run") == 0
    printed = capsys.readouterr().out
    for word in ("members", "model-steps", "200", "memory", "time", "disk", "logits/shadow.npy"):
        assert word in printed
    assert not (tmp_path / "run").exists()


def test_print_config_shows_the_resolved_settings(capsys):
    assert launch(*SMOKE, "--print_config") == 0
    assert re.search(r"count: 5", capsys.readouterr().out)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


X = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
Y = np.arange(80) % 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config.shadows.cuont=3"], "unknown setting 'shadows.cuont'. Did you mean 'shadows.count'"),
        (["--config.epochs=3"], "unknown setting 'epochs'. Did you mean 'train.epochs'"),
        (["--config.shadows.count=-3"], "shadows.count = -3: must be between 1 and 100000"),
        (["--config.shadows.count=many"], "--config.shadows.count=many: invalid literal"),
        (["--config.train.epochs=0"], "train.epochs = 0: must be between 1 and 100000"),
        (["--config.split.shadow=5000"], "split.shadow = 5000 and at least 2 target rows do not fit"),
        (["--config.split.forget.size=900"], "split.forget.size = 900, but the target set has 637 rows"),
        (["--config.train.batch=4000"], "train.batch = 4000 is more than the 1437 rows"),
        (["--config.shadows.ratio=0.001"], "gives 0 rows per shadow model"),
        (["--config.model.name=cnnn"], "unknown model 'cnnn'. Did you mean 'cnn'"),
        (["--config.model.name=mine:net"], "cannot import module 'mine'"),
        (["--config.data.name=digit"], "'digit'. Did you mean 'digits'"),
        (["--config.engine.devices=9"], "engine.devices = 9, but this process sees 2 cpu device"),
        (["--config.train.snapshots=(9,)"], "train.snapshots contains epoch 9, but training has epochs 1 to"),
        (["--workdir=/dev/null/x"], "cannot write /dev/null/x"),
        (["--overwrite=shadow"], "unknown stage for --overwrite 'shadow'. Did you mean 'shadows'"),
        (["surplus"], "unexpected argument 'surplus'"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(arguments, message, tmp_path, capsys):
    assert launch(*SMOKE, f"--workdir={tmp_path}", *arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "nowhere.npz"),
        ({"a": X, "b": Y}, "x_train"),
        ({"x": X, "y": Y - 1}, r"row 0 is -1"),
        ({"x": np.where(np.arange(80)[:, None] == 7, np.nan, X), "y": Y}, "NaN or infinite"),
        ({"x": X, "y": Y[:70]}, "70"),
    ],
)
def test_bad_files_are_one_message_and_exit_code_2(content, message, tmp_path, capsys):
    path = npz(tmp_path / "data.npz", **content) if content else str(tmp_path / "nowhere.npz")
    code = launch("--config=configs/npz.py:smoke", f"--config.data.path={path}", workdir=tmp_path / "run")
    printed = capsys.readouterr().err
    assert code == 2 and re.search(message, printed) and "Traceback" not in printed
    assert not (tmp_path / "run" / "populations").exists()


def test_an_unknown_config_names_the_nearest(capsys):
    assert launch("--config=configs/digit.py") == 2
    assert "config file 'configs/digit.py' does not exist. Did you mean 'digits'" in capsys.readouterr().err
    assert launch("--config=configs/digits.py:smok") == 2
    assert "unknown variant 'smok'. Did you mean 'smoke'" in capsys.readouterr().err
    assert launch() == 2
    assert "no --config given" in capsys.readouterr().err


def test_missing_tfds_data_name_the_ways_to_get_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert launch("--config=configs/cifar100.py", workdir=tmp_path / "run") == 2
    printed = capsys.readouterr().err
    for way in ("download_and_prepare", "launch.data --config=CONFIG --import", "--config.data.path", "digits"):
        assert way in printed
    assert printed.count("error:") == 1


def test_other_settings_on_the_same_folder_stop_and_show_the_difference(finished_run, capsys):
    assert launch(*SMOKE, "--config.train.learning_rate=0.01", workdir=finished_run) == 2
    printed = capsys.readouterr().err
    assert "train.learning_rate: stored 0.05, now 0.01" in printed and "--overwrite=shadows" in printed


def test_a_second_process_on_the_same_folder_stops(finished_run, capsys):
    with store.open_run(str(finished_run)):
        assert launch(*SMOKE, workdir=finished_run) == 2
    assert f"in use by another process (process {os.getpid()}" in capsys.readouterr().err


def test_a_full_disk_stops_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1000))
    assert launch(*SMOKE, workdir=tmp_path) == 2
    assert "has 1000 B free, but this run writes about" in capsys.readouterr().err


def test_bugs_keep_their_traceback_and_exit_code_1(capsys, monkeypatch, tmp_path):
    from jaxunlearn.runs import experiments

    monkeypatch.setattr(experiments, "prepare", lambda settings: 1 // 0)
    assert launch(*SMOKE, workdir=tmp_path) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_interrupt_is_130_and_the_run_continues(tmp_path, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(chunks, "save", interrupt)
        assert launch(*SMOKE, workdir=tmp_path) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "interrupted"
    assert launch(*SMOKE, workdir=tmp_path) == 0
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "done"


def test_the_best_epoch_is_kept_over_chunks(finished_run, tmp_path):
    arguments = [*SMOKE, "--config.train.keep=best", "--config.engine.chunk=2"]
    assert launch(*arguments, workdir=tmp_path) == 0
    best_and_last = (json.loads((folder / "summary.json").read_text()) for folder in (tmp_path, finished_run))
    accuracy = [np.mean(summary["held_out_accuracy"]) for summary in best_and_last]
    assert accuracy[0] > accuracy[1] - 0.05  # chosen on other rows than these


def test_running_outside_the_checkout_finds_the_configs(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from launch import _entry, shadows; "
    code += "sys.exit(_entry.main(shadows.command, '', ['x', '--config=digits', '--print_config']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_members_that_do_not_fit_are_trained_in_chunks(finished_run, tmp_path, capsys, monkeypatch):
    from jaxunlearn import settings
    from jaxunlearn.population import capacity
    from jaxunlearn.runs import experiments
    from jaxunlearn.runs.drivers import plan

    config = settings.to_dict(settings.Settings())
    config["model"] |= {"name": "logistic"}
    config["train"] |= {"epochs": 4, "learning_rate": 0.05}
    config["shadows"] |= {"count": 5}
    needed = plan.make(experiments.prepare(settings.resolve(config))).program_bytes
    monkeypatch.setattr(capacity, "budget", lambda devices, fraction: needed - 1)
    assert launch(*SMOKE, workdir=tmp_path) == 0
    assert re.search(r"5 members do not fit at once; \d at a time \(.* of .* per device\)", capsys.readouterr().err)
    assert len(list((tmp_path / "populations" / "shadow").glob("chunk_*"))) > 1
    np.testing.assert_allclose(logits(tmp_path), logits(finished_run), atol=1e-4)


def test_running_out_of_memory_halves_the_chunk(finished_run, tmp_path, capsys, monkeypatch):
    import jax

    from jaxunlearn import population

    inner = population.train

    def greedy(job, *args, **kwargs):
        if len(job.member_ids) > 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        return inner(job, *args, **kwargs)

    monkeypatch.setattr(population, "train", greedy)
    assert launch(*SMOKE, workdir=tmp_path) == 0
    assert "out of memory with 5 members at once; going on with 3" in capsys.readouterr().err
    np.testing.assert_allclose(logits(tmp_path), logits(finished_run), atol=1e-4)
