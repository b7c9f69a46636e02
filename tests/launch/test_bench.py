"""The benchmark entry, the timing, and that everything that is compared trains the same."""

import json
import statistics
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from jaxunlearn import errors
from jaxunlearn.population import executor
from launch import _entry, bench
from launch.benches import jobs, population, programs, timing, workers

CASES = {
    "location": programs.CASES["location"]._replace(rows=128),
    "digits": programs.CASES["digits"]._replace(rows=128),
}
MEMBERS, STEPS = 3, 2
needs_torch = pytest.mark.skipif(not workers.installed(), reason="PyTorch is not installed")


def launch(*arguments):
    return bench.main(["launch.bench", *arguments])


def silent(line):
    pass


@pytest.fixture
def fake(monkeypatch):
    """A bench named fake, whose run can be set."""
    module = types.ModuleType("fake_bench")
    module.run = lambda quick: []
    monkeypatch.setitem(sys.modules, "fake_bench", module)
    monkeypatch.setitem(bench.BENCHES, "fake", "fake_bench:run")
    return module


def test_an_unknown_bench_is_a_user_error_with_the_nearest_name(capsys, fake):
    fake.run = None  # must not be called: names are checked before anything runs
    assert launch("fake", "populaton") == 2
    assert "'populaton'. Did you mean 'population'?" in capsys.readouterr().err
    assert launch("--quik") == 2
    assert "quick" in capsys.readouterr().err


def test_without_a_name_every_bench_is_listed_with_what_it_does(capsys):
    assert launch() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(bench.BENCHES) == list(bench.ABOUT)
    assert all(len(line.split()) > 3 for line in lines)


def test_help_names_the_benches_and_does_not_import_jax():
    code = "import sys\nfrom launch import bench\ncode = bench.main(['x', '--help'])\nassert 'jax' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=_entry.ROOT)
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout and "population" in done.stdout


def test_rows_are_printed_ratio_first_and_written_as_json_lines(capsys, fake, tmp_path):
    times = timing.Times("here", [10.0, 30.0, 20.0], [0.1, 0.1, 0.1])
    slower = timing.Times("there", [5.0, 10.0, 5.0], [0.2, 0.2, 0.4])
    calls = []

    def run(quick):
        calls.append(quick)
        return [
            timing.ratio_row("met", times, slower, 2.5, goal="C9"),
            timing.value_row("missed", [31.0], "s", target=20.0, compile_seconds=1.5, program_bytes=2048),
            {"name": "bare", "ratio": 0.5, "seconds": 0.002},
        ]

    fake.run = run
    out = tmp_path / "rows.jsonl"
    assert launch("fake", f"--out={out}") == 0
    assert launch("fake", "--quick", f"--out={out}") == 0
    assert calls == [False, True]
    met, missed, bare = capsys.readouterr().out.split("fake\n")[1].splitlines()[:3]
    assert met.split()[0] == "3x" and "(2 .. 4)" in met and "ok >= 2.5: met" in met and "C9 met" in met
    assert "20 against 5 model-steps/s" in met and "CPU time 2x" in met
    assert missed.split()[0] == "31" and "ok <= 20: NOT MET" in missed and "compiling 1.5 s; program 2.0 KiB" in missed
    assert bare.split()[0] == "0.5x" and "2 ms against 4 ms" in bare
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["quick"] for row in rows] == [False] * 3 + [True] * 3
    for row in rows:
        assert row["bench"] == "fake" and row["versions"]["jax"] == jax.__version__ and "cpu" in row["device"]
        assert isinstance(row["name"], str) and ("ratio" in row) != ("value" in row)
    assert rows[0]["ratio"] == 3.0 and rows[0]["met"] is True and rows[1]["met"] is False


def test_failures_leave_with_the_exit_codes_of_all_launchers(capsys, fake, tmp_path):
    fake.run = None
    assert launch("fake", f"--out={tmp_path / 'nowhere' / 'rows.jsonl'}") == 2  # before the bench runs
    assert "folder that exists" in capsys.readouterr().err
    for error, code in ((errors.DeviceError("no such device"), 2), (KeyboardInterrupt(), 130), (ValueError("x"), 1)):

        def run(quick, error=error):
            raise error

        fake.run = run
        assert launch("fake") == code
    assert "Traceback" in capsys.readouterr().err


def test_every_round_calls_every_variant_in_turn():
    called = []

    def variant(name):
        return timing.Variant(name, lambda: called.append(name) or 0.25, 10)

    times = timing.interleave({"a": variant("a"), "b": variant("b")}, 3, 0.0, silent)
    # Two calls of warm-up; then, in each of three rounds, an untimed and a timed one.
    assert called == ["a"] * 2 + ["b"] * 2 + (["a"] * 2 + ["b"] * 2) * 3
    assert len(times["a"].rates) == len(times["b"].cpu_seconds) == 3
    assert all(seconds >= 0.025 for seconds in times["a"].cpu_seconds)  # CPU time spent elsewhere counts
    assert timing.cores_used(timing.Times("c", [10.0, 20.0], [0.2, 0.1])) == 2.0


def test_ratios_are_taken_within_rounds_and_baselines_at_their_best():
    here = timing.Times("here", [8.0, 80.0, 10.0], [1.0] * 3)
    slow, fast = (timing.Times(name, [r, 10 * r, 2 * r], [1.0] * 3) for name, r in (("slow", 1.0), ("fast", 2.0)))
    best = timing.fastest({"s": slow, "f": fast}, ["s", "f"])
    assert best is fast
    row = timing.ratio_row("row", here, best)
    assert (row["low"], row["ratio"], row["high"]) == (2.5, 4.0, 4.0) and "met" not in row
    assert row["rate"] == statistics.median(here.rates) and row["baseline_seconds"] == 0.25


@pytest.fixture(scope="module", params=list(CASES))
def trained(request):
    """A tiny problem, its batches, and the losses [M] of the engine's first epoch."""
    problem = programs.build(CASES[request.param], MEMBERS)
    engine = programs.engine(problem, MEMBERS)
    assert engine.model_steps == MEMBERS * STEPS and programs.program_bytes(engine) > 0 and engine.compile_seconds > 0
    return problem, programs.batch_order(problem), next(engine.epochs).loss


def test_members_read_their_own_rows_once_per_epoch(trained):
    problem, order, _ = trained
    assert order.shape == (MEMBERS, STEPS, programs.BATCH)
    for mask, rows in zip(problem.role.membership, order, strict=True):
        np.testing.assert_array_equal(np.sort(rows.ravel()), np.flatnonzero(mask))


def test_naive_jax_trains_as_the_engine_does(trained):
    problem, order, losses = trained
    for naive in (programs.naive_scan(problem, order), programs.naive_loop(problem)):
        first, second = naive(order), naive(order)
        np.testing.assert_allclose(first.mean(1), losses, rtol=1e-4)
        assert first.shape == (MEMBERS, STEPS) and (second.mean(1) < first.mean(1)).all()  # it goes on


@pytest.fixture(scope="module")
def pool():
    """Two PyTorch processes."""
    with workers.started(2) as started:
        yield started
    assert all(worker.poll() == 0 for worker in started)


@pytest.mark.slow
@needs_torch
def test_pytorch_trains_as_the_engine_does_in_every_way(trained, pool):
    problem, order, losses = trained
    reference = programs.naive_scan(problem, order)
    epochs = [reference(order), reference(order)]
    np.testing.assert_allclose(epochs[0].mean(1), losses, rtol=1e-4)
    case = population.torch_case(problem, MEMBERS)
    assert workers.load(pool[:1], case)
    for way in ("loader", "memory", "func"):
        for epoch in epochs:
            torch_losses, cpu_seconds = workers.run(pool[:1], way, threads=1, members=MEMBERS)
            np.testing.assert_allclose(torch_losses, epoch, rtol=1e-3)
            assert cpu_seconds > 0
    workers.load(pool, case)  # members 0, 2 to the first process and 1 to the second
    torch_losses, _ = workers.run(pool, "memory", threads=1, members=MEMBERS)
    np.testing.assert_allclose(torch_losses, epochs[0][[0, 2, 1]], rtol=1e-3)


@pytest.mark.slow  # the whole bench
def test_a_comparison_has_a_row_for_every_goal(monkeypatch):
    for name, members in (("MEMBERS", 2), ("FEW", 1), ("QUICK_MANY", 4)):
        monkeypatch.setattr(population, name, members)
    monkeypatch.setattr(workers, "installed", lambda: False)
    rows = population.compare("location", CASES["location"], True, silent)
    assert {row.get("goal") for row in rows} == {"C1", "C4", "C5", "D1", None}  # C2 and C3 are the other case's
    sharded = [row for row in rows if row.get("goal") == "D1"]
    assert [row["met"] for row in sharded] == [True, True]
    for row in rows:
        assert bench.line(row) and json.loads(bench.as_json("population", True, row))["name"] == row["name"]


def test_pytorch_is_quoted_at_its_best_but_the_loader_as_published():
    rates = {"engine": 100.0, "loader 1": 5.0, "loader 2": 2.0, "memory 1": 20.0, "memory 2": 50.0, "scan": 1.0}
    times = {key: timing.Times(key, [rate], [1.0]) for key, rate in rates.items()}
    rows = population._baseline_rows("digits", CASES["digits"], times, {})
    quoted = [(row["goal"], row["baseline"], row["ratio"], row.get("target")) for row in rows]
    assert quoted == [
        ("C2", "loader 1", 20.0, None),
        ("C2", "loader 2", 50.0, 12.0),
        ("C2", "memory 2", 2.0, 2.0),
        ("C3", "scan", 100.0, 40.0),
    ]
    assert rows[2]["baseline_rates"] == {"memory 1": 20.0, "memory 2": 50.0}


def test_a_comparison_on_the_cpu_says_how_to_run_it_elsewhere(monkeypatch, capsys):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert launch("population", "--quick") == 2
    assert "JAX_PLATFORMS=cpu" in capsys.readouterr().err


def test_the_search_for_collectives_finds_them():
    mesh, spec = executor.make_mapping(devices=2).mesh, jax.sharding.PartitionSpec(executor.AXIS)
    summed = jax.shard_map(lambda x: jax.lax.psum(x, executor.AXIS), mesh=mesh, in_specs=spec, out_specs=spec)
    text = jax.jit(summed).lower(np.ones(2, np.float32)).compile().as_text()
    assert population.collectives(text) > 0


def test_a_failed_job_says_what_it_said():
    with pytest.raises(RuntimeError, match="no such thing"):
        jobs._call([sys.executable, "-c", "raise SystemExit('no such thing')"], {})


@pytest.mark.slow
def test_the_quick_study_ends_with_logits_and_sizes_run_in_fresh_processes():
    rows = jobs.study_rows(True, silent) + jobs.size_rows(True, silent)
    assert [row["unit"] for row in rows] == ["s", "s", "model-steps/s"]
    assert all(row["value"] > 0 for row in rows)
    assert rows[-1]["compile_seconds"] > 0 and rows[-1]["peak_process_bytes"] > rows[-1]["program_bytes"] > 0
