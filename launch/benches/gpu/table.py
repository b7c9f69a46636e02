"""The measurements of `launch.bench gpu`, in order, as data.

Three passes: the first answers at least one question of every section, in about ten minutes on an H200 (estimated); the
second measures the rivals among which defaults are chosen; the third fills the tables. The next call with the same file
measures what a call has no time for. Within a pass the sections keep their order.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

NETWORKS, FOLDER = f"{__package__}.networks", __package__
SECTIONS = {
    1: "the device",
    2: "one member: the plain jitted step (the roof of everything else)",
    3: "the same inside the epoch: what loop, gather and augmentation cost",
    4: "groups of members, by form of the convolution",
    5: "small networks: members side by side (vmap) or one after another (map)",
    6: "the fast recipe",
    7: "scores, prediction sets, epsilon-hat",
    8: "PyTorch on the same device",
    9: "settings of XLA, on the epoch of section 3",
}
# Settings of XLA that may matter for an epoch of many small kernels.
XLA_FLAGS = {
    "no command buffers": "--xla_gpu_enable_command_buffer=",
    "command buffers around loops":
        "--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE",
    "command buffers from one kernel on": "--xla_gpu_graph_min_graph_size=1",
    "no autotuning": "--xla_gpu_autotune_level=0",
    "latency hiding scheduler": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "no Triton matrix products": "--xla_gpu_enable_triton_gemm=false",
}  # fmt: skip
FORMS = {"unrolled": "unrolled native", "grouped": "grouped, native weight gradient", "native": "grouped",
         "im2col": "im2col"}  # fmt: skip


class Measurement(NamedTuple):
    """One function of this folder with its arguments, run in a separate process or with its neighbours.

    Attributes:
      section: number in SECTIONS.
      function: "module:function", a generator (names, pace=..., **arguments) -> rows.
      arguments: by name, JSON.
      names: rows that it yields, in order; unique over the table.
      seconds: estimated on an H200, with start and compiling: for planning; it is ended after twice this time.
      turn: its pass, 1 to 3.
      environment: variables of its process.
      fresh: needs a separate process (memory, compile times, environment).
      needs: "" or "data" (--data) or "torch" (PyTorch installed).
    """

    section: int
    function: str
    arguments: Mapping[str, Any]
    names: tuple[str, ...]
    seconds: float
    turn: int = 3
    environment: Mapping[str, str] = {}
    fresh: bool = True
    needs: str = ""


class Sizes(NamedTuple):
    """Sizes of the whole bench, or of `--quick`."""

    model: str = "resnet18"
    label: str = "ResNet-18"
    side: int = 32
    fast_model: str = "airbench"
    rows: int = 50_000
    batches: tuple[int, ...] = (128, 512)
    fast_batches: tuple[int, ...] = (512, 1024)
    arithmetic: tuple[str, ...] = ("bf16", "tf32", "f32")
    groups: tuple[int, ...] = (8, 4, 2)
    steps: int = 40
    members: tuple[int, ...] = (16, 128, 1024)
    matrix: int = 8192
    copied: int = 2**31
    fast_members: tuple[int, ...] = (8, 1)
    fast_rows: int = 16_000
    variant: str = ""


FULL = Sizes()
QUICK = Sizes("cnn_bn", "small CNN", 8, "cnn_bn", 128, (8,), (8,), ("bf16", "tf32"), (2,), 3, (2,), 64, 2**12, (2,), 64,
              "smoke")  # fmt: skip
# Sizes of the analyses: full, and quick.
ANALYSES = {
    False: {"scores": {"samples": 50_000}, "signals": {"shadows": 128, "samples": 50_000, "classes": 100}, "sets": {},
            "epsilon-hat": {}},
    True: {"scores": {"shadows": 4, "samples": 60, "classes": 10, "population": 40, "rows_per_shadow": 20},
           "signals": {"shadows": 2, "samples": 50, "classes": 10},
           "sets": {"models": 3, "calibration": 60, "samples": 80, "classes": 10, "levels": 3},
           "epsilon-hat": {"approaches": 2, "samples": 12, "models": 8, "classes": 4}},
}  # fmt: skip


def measurements(quick: bool, path: str = "") -> list[Measurement]:
    """Lists all measurements, section by section.

    Args:
      quick: tiny sizes.
      path: CIFAR-10 as .npz for the accuracy of the fast recipe; "" = that row is skipped.
    """
    sizes = QUICK if quick else FULL
    rows = [*_device(sizes), *_steps(sizes), *_epochs(sizes), *_groups(sizes), *_small(sizes), *_fast(sizes, path),
            *_analyses(quick), *_torch(sizes), *_flags(sizes)]  # fmt: skip
    return rows


def passes(rows: list[Measurement]) -> list[Measurement]:
    """Returns measurements in the order in which they are run, pass by pass."""
    return sorted(rows, key=lambda measurement: measurement.turn)


def network(sizes: Sizes, batch: int, arithmetic: str, augment: str = "none") -> dict[str, Any]:
    """Returns the arguments of `networks.make_network`: ResNet-18 on CIFAR shapes, or the quick bench's small network.

    Args:
      sizes: of the bench.
      batch: rows per step.
      arithmetic: bf16, tf32 or f32.
      augment: of the training.
    """
    return {"model": sizes.model, "side": sizes.side, "batch": batch, "arithmetic": arithmetic,
            "augment": augment, "rows": sizes.rows}  # fmt: skip


def _device(sizes: Sizes) -> list[Measurement]:
    names = ["device memory", *(f"matrix products of {sizes.matrix}^3, {kind}" for kind in ("bf16", "tf32", "f32")),
             "copy"]  # fmt: skip
    arguments = {"side": sizes.matrix, "copied": sizes.copied}
    return [Measurement(1, f"{FOLDER}.device:device", arguments, tuple(names), 15, 1, fresh=False)]


def _steps(sizes: Sizes) -> list[Measurement]:
    rows = []
    for batch in sizes.batches:
        for arithmetic in sizes.arithmetic:
            first = batch == sizes.batches[0] and arithmetic != "f32"
            name = f"{sizes.label}, batch {batch}, {arithmetic}: plain step"
            extra = (f"{name}, compiling without autotuning", f"{name}, autotuning") if first else ()
            # Autotuning is measured only without a cache.
            environment = {"JAX_COMPILATION_CACHE_DIR": ""} if first else {}
            rows.append(Measurement(2, f"{NETWORKS}:plain_step", {"network": network(sizes, batch, arithmetic)},
                                     (name, *extra), 40 if first else 25, 1 if first else 3, environment))  # fmt: skip
    return rows


def _epochs(sizes: Sizes) -> list[Measurement]:
    batch, steps = sizes.batches[0], sizes.steps
    label = f"{sizes.label}, batch {batch}, bf16"
    plain = {"network": network(sizes, batch, "bf16"), "steps": steps}
    augmented = {"network": network(sizes, batch, "bf16", "flip_crop"), "steps": steps, "conv": "native"}
    return [
        Measurement(3, f"{NETWORKS}:scanned_step", plain, (f"{label}: scan over steps",), 25, 1),
        Measurement(3, f"{NETWORKS}:epoch", {**plain, "conv": "native"}, (f"{label}: engine, rows gathered",), 25, 2),
        Measurement(3, f"{NETWORKS}:epoch", {**augmented, "profiled": True},
                    (f"{label}: engine, gathered and augmented",), 25, 1),
    ]  # fmt: skip


def _groups(sizes: Sizes) -> list[Measurement]:
    """Lists the largest group in the default form, its rivals, and smaller groups; section 3 has a single member."""
    batch, largest = sizes.batches[0], sizes.groups[0]
    cells = [*((group, form) for group in sizes.groups for form in FORMS), (1, "im2col"), (1, "native")]
    rows = []
    for arithmetic in ("bf16", "tf32"):
        for group, form in cells:
            is_known = (arithmetic, group, form) == ("bf16", 1, "native")
            if is_known or (sizes is QUICK and arithmetic == "tf32" and form != "unrolled"):
                continue
            is_largest = group == largest
            turn = 1 if is_largest and form == "unrolled" else 2 if is_largest and arithmetic == "bf16" else 3
            name = (
                f"{sizes.label}, batch {batch}, {arithmetic}: {group} member(s), {FORMS[form] if group > 1 else form}"
            )
            arguments = {"network": network(sizes, batch, arithmetic, "flip_crop"), "steps": sizes.steps,
                         "members": group, "conv": form, "profiled": turn < 3}  # fmt: skip
            rows.append(Measurement(4, f"{NETWORKS}:epoch", arguments, (name,), 45, turn))
    return rows


def _small(sizes: Sizes) -> list[Measurement]:
    rows = []
    for case, label, forms in (("digits", "digits CNN", {"vmap": "im2col", "map": "unrolled"}),
                               ("location", "Location MLP", {"vmap": "native", "map": "native"})):  # fmt: skip
        cells = {f"{label}, {count} members: {mapping}": [count, mapping, form]
                 for count in sizes.members for mapping, form in forms.items()}  # fmt: skip
        arguments = {"case": case, "cells": cells}
        rows.append(Measurement(5, f"{FOLDER}.small:members", arguments, tuple(cells), 60, 1, fresh=False))
    return rows


def _fast(sizes: Sizes, path: str) -> list[Measurement]:
    rows = []
    for batch in sizes.fast_batches:
        for group in sizes.fast_members:
            label = f"{sizes.fast_model}, batch {batch}, bf16, {group} member(s)"
            arguments = {
                "network": network(sizes, batch, "bf16", "flip_crop") | {"model": sizes.fast_model},
                "steps": max(sizes.steps // 2, 2), "members": group, "epoch_rows": sizes.fast_rows,
                "profiled": group > 1,
            }  # fmt: skip
            names = (f"{label}: step", f"{label}: epoch of {sizes.fast_rows:,} samples, per member")
            turn = 1 if (batch, group) == (sizes.fast_batches[0], sizes.fast_members[0]) else 3
            rows.append(Measurement(6, f"{NETWORKS}:epoch", arguments, names, 40, turn))
    group = sizes.fast_members[0]
    arguments = {
        "path": path,
        "variant": sizes.variant,
        "arithmetic": "bf16",
        "members": group,
        "rows": sizes.fast_rows,
    }
    label = f"configs/cifar10_fast.py, {group} member(s), bf16"
    names = (f"{label}: held-out accuracy", f"{label}: training")
    return [*rows, Measurement(6, f"{NETWORKS}:fast_accuracy", arguments, names, 60, 1, needs="data")]


def _analyses(quick: bool) -> list[Measurement]:
    names = ("signals of all shadows, on the device", "sets: prediction sets of all models and levels",
             "epsilon-hat of all approaches, from host memory")  # fmt: skip
    scores = ("scores, all of one audit, from host memory",)
    arguments = {"sizes": ANALYSES[quick]}
    return [Measurement(7, f"{FOLDER}.analyses:analyses", arguments, names, 30, 1, fresh=False),
            Measurement(7, f"{FOLDER}.analyses:analyses", arguments, scores, 120, 2, fresh=False)]  # fmt: skip


def _torch(sizes: Sizes) -> list[Measurement]:
    batch = sizes.batches[0]
    # ResNet-18's operations per training sample at width 64 (multiply-add = 2); small ones are of no interest.
    operations = 3.33e9 if sizes is FULL else 0.0
    members = 8 if sizes is FULL else 2
    labels = {"compiled": "one model, bf16, channels last, compiled with CUDA graphs",
              "memory": "one model, bf16, channels last, eager", "func": f"torch.func over {members} models, bf16",
              "loader": "one model through a DataLoader"}  # fmt: skip
    rows = []
    for way, label in labels.items():
        if sizes is QUICK and way == "compiled":
            continue  # torch.compile alone takes longer than the whole quick bench
        arguments = {"way": way, "width": 64 if sizes is FULL else 4, "side": sizes.side, "batch": batch,
                     "members": members, "operations": operations}  # fmt: skip
        name = f"PyTorch ResNet-18, batch {batch}: {label}"
        seconds, turn = (70, 1) if way == "compiled" else (30, 1 if way == "loader" else 2)
        rows.append(Measurement(8, f"{FOLDER}.torch_way:ways", arguments, (name,), seconds, turn, needs="torch"))
    return rows


def _flags(sizes: Sizes) -> list[Measurement]:
    batch = sizes.batches[0]
    arguments = {"network": network(sizes, batch, "bf16", "flip_crop"), "steps": sizes.steps, "conv": "native"}
    flags = list(XLA_FLAGS.items()) if sizes is FULL else list(XLA_FLAGS.items())[:1]
    return [
        Measurement(9, f"{NETWORKS}:epoch", arguments, (f"{sizes.label}, batch {batch}, bf16: engine, {label}",),
                    30, 1 if number < 2 else 3, {"XLA_FLAGS": flag})
        for number, (label, flag) in enumerate(flags)
    ]  # fmt: skip
