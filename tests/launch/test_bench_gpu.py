"""The GPU bench: what it reads off programs, its processes and rows file under failures, kills and deadlines."""

import collections
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import errors
from launch import _entry, bench
from launch.benches.gpu import clock, peaks, programs, report, runner, table
from launch.benches.gpu.table import Measurement

HERE = str(Path(__file__).parent)
MACHINE = {"device": "2 x cpu (cpu)", "kind": "cpu", "platform": "cpu", "cores": 2, "versions": {"jax": "0"},
           "torch": False, "warning": ""}  # fmt: skip


def fake(function, names, *, fresh=True, **arguments):
    return Measurement(2, f"fake_measurements:{function}", arguments, tuple(names), 1.0, True, {}, fresh)


@pytest.fixture
def measure(monkeypatch, tmp_path):
    """Runs given measurements as `launch.bench gpu` would, with a rows file; returns rows and what was said."""
    monkeypatch.setenv("PYTHONPATH", HERE)
    monkeypatch.setattr(runner, "probe", lambda quick, deadline: MACHINE)

    def run(*measurements, minutes=2.0, **options):
        monkeypatch.setattr(table, "measurements", lambda quick, path: list(measurements))
        messages = []
        out = str(tmp_path / "rows.jsonl")
        rows = runner.run(runner.Options(False, out, minutes, **options), messages.append)
        return {row["name"]: row for row in rows}, "\n".join(messages)

    run.out = tmp_path / "rows.jsonl"
    return run


def test_rows_arrive_in_the_file_and_are_not_measured_again(measure):
    first = fake("plain", ["a", "b"], values=[1.0, 2.0])
    rows, _ = measure(first)
    assert [row["value"] for row in rows.values()] == [1.0, 2.0]
    for row in rows.values():
        keys = {"name", "value", "unit", "share", "share_of", "seconds", "device", "versions", "section", "status"}
        assert keys <= set(row) and row["versions"] == {"jax": "0"} and row["device"] == MACHINE["device"]
    rows, output = measure(first._replace(arguments={"values": [5.0, 6.0]}), fake("plain", ["c"], values=[3.0]))
    assert [row["value"] for row in rows.values()] == [1.0, 2.0, 3.0] and "1 rows to measure" in output
    rows, _ = measure(first._replace(arguments={"values": [5.0, 6.0]}), again=True)
    assert [rows[name]["value"] for name in ("a", "b")] == [5.0, 6.0]
    assert len(measure.out.read_text().splitlines()) == 5  # what was measured before stays in the file


def test_a_line_cut_off_by_a_kill_is_measured_again_and_other_lines_are_kept(measure):
    rows, _ = measure(fake("plain", ["a"], values=[1.0]))
    whole = measure.out.read_text()
    measure.out.write_text("not ours\n" + whole + whole[: len(whole) // 2].replace('"a"', '"b"'))
    rows, _ = measure(fake("plain", ["a"], values=[5.0]), fake("plain", ["b"], values=[2.0]))
    assert [row["value"] for row in rows.values()] == [1.0, 2.0]
    assert json.loads(measure.out.read_text().splitlines()[-1])["name"] == "b"


def test_rows_of_another_machine_or_size_do_not_count(measure):
    row, _ = measure(fake("plain", ["a"], values=[1.0]))
    foreign = [{**row["a"], "device": "1 x NVIDIA H200 (gpu)"}, {**row["a"], "quick": True}]
    measure.out.write_text("".join(json.dumps(row) + "\n" for row in foreign))
    rows, _ = measure(fake("plain", ["a"], values=[4.0]))
    assert rows["a"]["value"] == 4.0


def test_what_fails_is_recorded_with_its_message_and_tried_once_more_by_the_next_call(measure):
    rows, output = measure(
        fake("failing", ["kept", "lost"], fresh=False),
        fake("plain", ["after an error"], values=[1.0], fresh=False),
        fake("plain", ["alone"], values=[2.0]),
    )
    assert rows["kept"]["status"] == "ok" and rows["after an error"]["value"] == 1.0
    assert rows["lost"]["status"] == "failed" and "out of memory while trying" in rows["lost"]["message"]
    assert "\n" not in rows["lost"]["message"]  # of several lines, in one cell of a table
    assert rows["lost"]["value"] is None and "failed" in report.line(rows["lost"]) and "lost" in output
    rows, output = measure(fake("plain", ["lost"], values=[3.0]), fake("plain", ["alone"], values=[9.0]))
    assert rows["lost"]["value"] == 3.0 and rows["alone"]["value"] == 2.0 and "1 rows to measure" in output


def test_a_crash_is_blamed_on_the_row_it_happened_at_and_its_neighbours_get_another_process(measure):
    rows, _ = measure(
        fake("plain", ["a"], values=[1.0], fresh=False),
        fake("crashing", ["b", "c"], fresh=False),
        fake("plain", ["d"], values=[4.0], fresh=False),
    )
    assert rows["a"]["value"] == 1.0 and rows["d"]["value"] == 4.0
    for name in ("b", "c"):  # c crashes by itself, in its own turn
        assert "code 7" in rows[name]["message"] and "the compiler gave up" in rows[name]["message"]
    group = [fake("plain", ["a", "b"], fresh=False), fake("plain", ["c", "d"]), fake("plain", ["e"], fresh=False)]
    failed, left = runner.blamed(group, {"a"})
    assert [name for _, name in failed] == ["b"] and [measurement.names for measurement in left] == [("c", "d"), ("e",)]
    failed, left = runner.blamed(group[1:], {"c"})
    assert [name for _, name in failed] == ["d"] and [measurement.names for measurement in left] == [("e",)]


def test_asking_for_some_rows_says_nothing_of_the_others(measure):
    both = [fake("plain", ["copy"], values=[1.0]), fake("plain", ["other"], values=[2.0])]
    rows, output = measure(*both, rows="copy")
    assert list(rows) == ["copy"] and "left" not in output


def test_a_machine_without_an_accelerator_is_refused_unless_the_cpu_is_meant(measure, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(errors.DeviceError, match="finds no accelerator here, only the CPU.*--quick"):
        measure(fake("plain", ["a"], values=[1.0]))


def test_the_deadline_is_kept_and_what_it_cuts_off_is_left_for_the_next_call(measure):
    begun = time.monotonic()
    rows, output = measure(fake("slow", ["at once", "late"], pause=300.0), minutes=0.05)
    assert time.monotonic() - begun < 3 + 20
    assert list(rows) == ["at once"] and "1 row(s) are left" in output
    rows, _ = measure(fake("slow", ["at once", "late"], pause=0.0))
    assert rows["late"]["value"] == 2.0


def test_a_process_that_hangs_is_ended_at_its_own_limit(measure, monkeypatch):
    monkeypatch.setattr(runner, "_LEAST_LIMIT_SECONDS", 1.0)
    rows, _ = measure(fake("slow", ["at once", "late"], pause=300.0), fake("plain", ["after"], values=[1.0]))
    assert rows["late"]["status"] == "failed" and "ended after 2 s, more than 2 times" in rows["late"]["message"]
    assert rows["after"]["value"] == 1.0


def test_after_a_kill_in_the_middle_the_next_call_goes_on_and_nothing_is_left_running(measure):
    script = (
        "import sys\nfrom launch.benches.gpu import runner, table\n"
        "one = table.Measurement(2, 'fake_measurements:slow', {'pause': 300.0}, ('at once', 'late'), 1.0, True)\n"
        f"runner.probe = lambda quick, deadline: {MACHINE!r}\n"
        "table.measurements = lambda quick, path: [one]\nrunner.run(runner.Options(False, sys.argv[1]))\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", script, str(measure.out)], cwd=_entry.ROOT,
                              env={**os.environ, "PYTHONPATH": f"{HERE}:{_entry.ROOT}"},
                              stderr=subprocess.DEVNULL)  # fmt: skip
    until = time.monotonic() + 60
    while not (measure.out.is_file() and measure.out.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    children = _children(killed.pid)
    assert children
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    while any(map(_is_alive, children)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_is_alive, children))  # it would hold the device's memory
    rows, output = measure(fake("slow", ["at once", "late"], pause=0.0))
    assert list(rows) == ["at once", "late"] and rows["late"]["value"] == 2.0
    assert "resumed" not in output and len(measure.out.read_text().splitlines()) == 3


def _children(parent):
    results = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                results.append(int(status.parent.name))
        except OSError:
            continue
    return results


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_machine_is_described_by_a_process_of_its_own():
    machine = runner.probe(True, 0.0)
    assert machine["device"] == "1 x cpu (cpu)" and machine["versions"]["jax"] == jax.__version__
    json.dumps(machine)


def test_getting_ready_does_not_touch_the_device():
    """The next process starts up while one measures; it must not take the device's memory yet."""
    modules = {
        measurement.function.partition(":")[0]
        for measurement in table.measurements(False, "x")
        if measurement.needs != "torch"
    }
    code = f"import {', '.join(sorted(modules))}\nfrom jax._src import xla_bridge\nassert not xla_bridge._backends"
    done = subprocess.run([sys.executable, "-c", code], cwd=_entry.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_bad_calls_are_refused_before_anything_is_measured(capsys, tmp_path):
    assert bench.main(["launch.bench", "gpu", f"--data={tmp_path / 'none.npz'}"]) == 2
    assert "is not a file. Give CIFAR-10 as .npz" in capsys.readouterr().err
    assert bench.main(["launch.bench", "conv", "--minutes=3"]) == 2
    assert "--minutes belongs to the bench gpu" in capsys.readouterr().err
    assert bench.main(["launch.bench", "gpu", "--minutes=0"]) == 2
    assert bench.main(["launch.bench", "gpu", "--report"]) == 2
    assert "--report needs --out=FILE" in capsys.readouterr().err
    with pytest.raises(errors.ConfigError, match="--rows=nothing: no row"):
        runner.run(runner.Options(True, rows="nothing"), print)


# ---------------------------------------------------------------------------------------------------------------------
# the table


@pytest.mark.parametrize("quick", [False, True])
def test_every_row_has_a_name_of_its_own_and_every_function_exists(quick):
    measurements = table.measurements(quick, "cifar10.npz")
    names = collections.Counter(name for measurement in measurements for name in measurement.names)
    assert set(names.values()) == {1} and {measurement.section for measurement in measurements} == set(table.SECTIONS)
    sections = [measurement.section for measurement in measurements]
    assert sections == sorted(sections)
    for measurement in measurements:
        module, _, function = measurement.function.partition(":")
        assert f"def {function}(" in (_entry.ROOT / f"{module.replace('.', '/')}.py").read_text()
        json.dumps(measurement._asdict())


def test_the_first_pass_fits_into_what_a_lent_machine_gives_and_covers_every_section():
    measurements = table.passes(table.measurements(False, "cifar10.npz"))
    first = [measurement for measurement in measurements if measurement.turn == 1]
    assert measurements[: len(first)] == first and {measurement.section for measurement in first} == set(table.SECTIONS)
    assert sum(measurement.seconds for measurement in first) < 12 * 60


def test_the_flags_of_the_last_section_are_known_to_this_compiler():
    """An unknown flag ends the process before anything is compiled."""
    flags = " ".join(table.XLA_FLAGS.values())
    done = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env={**os.environ, "XLA_FLAGS": flags},
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]


def test_processes_are_shared_where_memory_and_compile_times_do_not_matter():
    full = runner.grouped(table.passes(table.measurements(False)), quick=False)
    assert all(len(group) == 1 for group in full if group[0].fresh)
    assert any(len(group) == 2 for group in full)  # both small networks
    quick = runner.grouped(table.measurements(True), quick=True)
    assert len(quick) == 3  # everything, PyTorch, another XLA
    assert {measurement.turn for group in full for measurement in group} == {1, 2, 3}


# ---------------------------------------------------------------------------------------------------------------------
# kernels, shares, profiles, proposals

PROGRAM = """HloModule jit_f, is_scheduled=true

%fused (p: f32[8,64]) -> bf16[8,64] {
  %p = f32[8,64]{1,0} parameter(0)
  ROOT %c = bf16[8,64]{1,0} convert(%p)
}

%body (state: (s32[], f32[8,64])) -> (s32[], f32[8,64]) {
  %state = (s32[], f32[8,64]{1,0}) parameter(0)
  %x = f32[8,64]{1,0} get-tuple-element(%state), index=1
  %half = bf16[8,64]{1,0} fusion(%x), kind=kLoop, calls=%fused
  %conv = (bf16[8,64]{1,0}, u8[16]{0}) custom-call(%half, %half), custom_call_target="__cudnn$convForward"
  %y = f32[8,64]{1,0} fusion(%conv, %x), kind=kLoop, calls=%fused
  ROOT %out = (s32[], f32[8,64]{1,0}) tuple(%x, %y)
}

ENTRY %main (a: f32[8,64]) -> f32[8,64] {
  %a = f32[8,64]{1,0} parameter(0)
  %copy = f32[8,64]{1,0} copy(%a)
  ROOT %w = (s32[], f32[8,64]{1,0}) while(%copy), condition=%cond, body=%body
}
"""


def test_kernels_and_bytes_of_a_step_are_those_of_the_loop_body():
    f32, bf16 = 8 * 64 * 4, 8 * 64 * 2
    step = programs.step_of(PROGRAM)
    assert step.kernels == 3  # two fusions, one convolution; tuples and parameters launch nothing
    assert step.num_bytes == (bf16 + f32) + (bf16 + 16 + 2 * bf16) + (f32 + (bf16 + 16) + f32)


def test_a_scan_counts_one_step_however_many_there_are():
    def steps(length):
        def f(x):
            return jax.lax.scan(lambda x, _: (jnp.sort(jnp.sin(x)), None), x, None, length=length)[0]

        return programs.step_of(jax.jit(f).lower(jnp.ones(1000)).compile().as_text())

    few, many = steps(10), steps(1000)
    assert few == many and few.kernels >= 2 and few.num_bytes >= 2 * 4000


def test_shares_take_the_nearer_bound_and_say_whose():
    rates = {"bf16": 800e12, "copy": 4e12}
    row = {"operation_rate": 200e12, "arithmetic": "bf16", "byte_rate": 2e12}
    whole = peaks.with_share(row, rates, "measured")
    assert whole["share"] == 0.5 and whole["share_of"] == "measured copy bandwidth"
    assert peaks.with_share({**row, "byte_rate": 1e11}, rates, "measured")["share"] == 0.25
    assert peaks.with_share({**row, "byte_rate": 0, "arithmetic": "f32"}, rates, "measured")["share"] is None
    assert peaks.data_sheet("NVIDIA H100 80GB HBM3")["copy"] == 3.35e12
    assert peaks.data_sheet("NVIDIA H100 PCIe")["copy"] == 2.0e12 and peaks.data_sheet("cpu") == {}
    assert peaks.data_sheet("NVIDIA L40") == {} and peaks.data_sheet("NVIDIA GH200 480GB") == {}
    learnt = {}
    for row in ({"operation_rate": 7.0, "arithmetic": "bf16"}, {"byte_rate": 3.0}, {"operation_rate": None}):
        peaks.learn(learnt, {"section": 1, "status": "ok", **row})
    peaks.learn(learnt, {"section": 2, "status": "ok", "operation_rate": 9.0, "arithmetic": "bf16"})
    assert learnt == {"bf16": 7.0, "copy": 3.0}
    late = [{"section": 3, "status": "ok", "byte_rate": 1.0}, {"section": 1, "status": "ok", "byte_rate": 4.0}]
    assert [row.get("share") for row in peaks.with_shares(late)] == [0.25, None]  # the peak came after the row


def test_a_profile_says_where_the_time_goes():
    events = [("sm90_xmma_fprop_implicit_gemm", 0.4), ("input_reduce_fusion_3", 0.1), ("loop_add_fusion", 0.2)] * 2
    profile = clock.summary([*events, ("MemcpyD2D", 0.6)], seconds=4.0, steps=2, most=2)
    assert profile["busy"] == pytest.approx(0.5) and profile["kernels_run"] == 3.5
    assert profile["kinds"] == {"convolution": 0.4, "copy": 0.3, "element-wise": 0.2, "reduction": 0.1}
    assert [name for name, *_ in profile["top"]] == ["sm90_xmma_fprop_implicit_gemm", "MemcpyD2D"]
    assert clock.summary([], 1.0, 1, 1) == {}
    kinds = {"loop_convert_fusion": "element-wise", "input_convert_reduce_fusion": "reduction",
             "sm90_xmma_gemm_bf16bf16_tn": "matrix product", "nvjet_hsh_128x256": "matrix product",
             "void cudnn::ops::nchwToNhwcKernel": "change of layout", "wgrad2d_grouped": "convolution",
             "sm90_xmma_fprop_implicit_gemm": "convolution", "cudnn_generated_conv": "convolution"}  # fmt: skip
    assert {name: clock.kind_of(name) for name in kinds} == kinds


@pytest.fixture
def work(monkeypatch):
    """() -> what makes a call of given durations, on a clock of its own: a busy machine changes nothing."""
    now, calls = [0.0], []
    monkeypatch.setattr(clock, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def make(usual, *first):
        calls.clear()
        durations = iter(first)

        def call():
            calls.append(1)
            now[0] += next(durations, usual)

        return call, calls

    return make


def test_windows_are_as_many_as_asked_for_and_wait_for_the_work(work):
    call, calls = work(0.002)
    waited = []
    seconds = clock.windows(call, clock.Pace(5, 0.02), waited.append)
    np.testing.assert_allclose(seconds, [0.002] * 5)
    assert len(waited) == 10 and len(calls) == 55  # one cold call, four to see how long one takes, five windows of ten


def test_slow_first_calls_do_not_shorten_the_windows_and_slow_work_is_not_done_more_often_than_needed(work):
    call, calls = work(0.001, 0.05, 0.012, 0.012, 0.001)
    clock.windows(call, clock.Pace(2, 0.02), lambda result: None)
    assert len(calls) == 45  # recording a graph takes 12 ms, a step 1 ms: windows of twenty steps
    call, calls = work(0.01)
    seconds = clock.windows(call, clock.Pace(5, 0.001), lambda result: None)
    assert len(calls) == 6 and len(seconds) == 5  # the second call is the first window


def row(section, name, value, unit="us per sample", **facts):
    machine = {"device": "1 x NVIDIA H200 (gpu)", "versions": {"python": "3.12.3", "jax": "0.11.2"}, "quick": False,
               "seconds": 1.0, "xla_flags": ""}  # fmt: skip
    windows = {"low": value, "high": value, "rounds": 5, "share": 0.25, "time": "2026-01-01T00:00:00"}
    base = {"section": section, "name": name, "value": value, "unit": unit, "status": "ok", "arithmetic": "bf16"}
    return {**base, **windows, **machine, **facts}


def test_the_proposal_names_the_fastest_way_and_the_rows_behind_it():
    side = {"mapping": "map", "members": 8}
    rows = [
        row(4, "ResNet-18: 8 member(s), unrolled native", 20.0, conv="unrolled", **side),
        row(4, "ResNet-18: 8 member(s), grouped", 15.0, conv="native", **side),
        {
            **row(4, "ResNet-18: 8 member(s), im2col", 0.0, conv="im2col", **side),
            "status": "failed",
            "message": "memory",
        },
        row(5, "digits CNN, 16 members: map", 100.0, "model-steps/s", conv="unrolled", mapping="map", members=16),
        row(5, "digits CNN, 16 members: vmap", 400.0, "model-steps/s", conv="im2col", mapping="vmap", members=16),
        row(5, "digits CNN, 128 members: vmap", 500.0, "model-steps/s", conv="im2col", mapping="vmap", members=128),
    ]
    text = report.proposal(rows)
    assert "ResNet-sized networks (ResNet-18): map, 8 side by side, conv native, bf16" in text
    assert "1.33 times as slow: ResNet-18: 8 member(s), unrolled native" in text
    assert "tiny convolutions (digits CNN): vmap, conv im2col" in text and "4.00 times as slow" in text
    assert "128 members" not in text and "im2col, bf16\n    0" not in text  # one way alone, a failed way: no proposal
    table_text = report.markdown(rows)
    assert table_text.startswith("1 x NVIDIA H200 (gpu); python 3.12.3, jax 0.11.2; 2026-01-01")
    assert "| ResNet-18: 8 member(s), grouped | 15 us per sample | 25 % | 15 .. 15 |" in table_text
    assert "| failed | | | memory |" in table_text
    assert report.proposal(rows[:1]).startswith("No class of networks has two ways")
    others = [row(6, f"airbench, batch {batch}: step", 1.0 * batch, conv="unrolled", batch=batch, **side) for batch in
              (512, 1024)]  # fmt: skip
    assert not report.proposals(others)  # other work, not another way to do it


def test_the_report_keeps_machines_apart_and_reads_on_past_lines_that_are_none_of_its_own(capsys, tmp_path):
    out = tmp_path / "rows.jsonl"
    here = {"bench": "gpu", **row(2, "ResNet-18: plain step", 10.0)}
    there = {**here, "value": 3000.0, "device": "1 x cpu (cpu)"}
    lines = [here, {"bench": "gpu", "name": "x"}, there, {**here, "value": 9.0}]
    out.write_text("".join(json.dumps(row) + "\n" for row in lines) + "[1]\nnull\n")
    assert bench.main(["launch.bench", "gpu", "--report", f"--out={out}"]) == 0
    first, second = capsys.readouterr().out.split("1 x cpu (cpu)")
    assert "9 us per sample" in first and "3,000" not in first and "3,000 us per sample" in second
    assert len(out.read_text().splitlines()) == 6  # a report writes nothing
    missing = tmp_path / "none.jsonl"
    assert bench.main(["launch.bench", "gpu", "--report", f"--out={missing}"]) == 2 and not missing.exists()


# ---------------------------------------------------------------------------------------------------------------------
# the whole bench


@pytest.mark.slow
def test_the_quick_bench_measures_every_row_on_a_cpu(capsys, tmp_path):
    out, data = tmp_path / "rows.jsonl", tmp_path / "cifar10.npz"
    draw = np.random.default_rng(0)
    pictures = {f"x_{pool}": draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
                for pool, count in (("train", 600), ("test", 200))}  # fmt: skip
    labels = {name.replace("x", "y"): draw.integers(0, 10, len(rows)) for name, rows in pictures.items()}
    np.savez(data, **pictures, **labels)
    call = ["launch.bench", "gpu", "--quick", f"--out={out}", "--minutes=30"]
    assert bench.main([*call, "--rows=memory"]) == 0  # the others are left out, with what they need
    assert bench.main([*call, "--rows=held-out"]) == 0 and "give --data=cifar10.npz" in capsys.readouterr().err
    assert bench.main([*call, f"--data={data}"]) == 0
    rows = {row["name"]: row for row in runner.read(str(out))}
    measurements = [measurement for measurement in table.measurements(True) if measurement.needs != "torch"]
    assert {name for measurement in measurements for name in measurement.names} <= set(rows)
    assert not [row["message"] for row in rows.values() if row["status"] != "ok"]
    for row in rows.values():
        if row["unit"] in ("us per sample", "model-steps/s") and "PyTorch" not in row["name"]:
            assert row["share"] > 0 and row["share_of"].startswith("measured"), row["name"]
    for row in rows.values():
        assert row["value"] >= 0 or row["unit"] == "s more"  # a difference of two times
        assert row["low"] <= row["value"] <= row["high"] and row["seconds"] >= 0
    printed = capsys.readouterr()
    assert all(name in printed.out for name in rows)
    assert bench.main(["launch.bench", "gpu", "--quick", "--report", f"--out={out}"]) == 0
    text = capsys.readouterr().out
    assert "--quick: sizes and windows too small" in text and "dense networks (Location MLP): " in text
