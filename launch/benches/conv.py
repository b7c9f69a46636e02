"""Convolution forms under member mappings: time of forward and backward per member, relative to map + canonical.

Each row trains nothing; it takes the gradient of a small stack of convolutions for N members in one program, in one
form and under one mapping. The rows of a case are timed in interleaved rounds, each after one warm-up call, and the
median counts; process CPU time is reported with wall time because machines are shared. The last case puts the gradient
inside a scan over steps, as every training program does, where some forms are unexpectedly slow.
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxunlearn.models.layers.conv import conv

Weights = tuple[jax.Array, ...]
_STEPS = 4
_SLOW_SECONDS = 0.5


class BenchProblem(NamedTuple):
    """A stack of 3x3 convolutions with padding 1 on square pictures."""

    name: str
    size: int
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    batch: int
    members: tuple[int, ...]
    in_scan: bool = False


class Variant(NamedTuple):
    """How members are mapped, and the form of their convolutions."""

    mapping: str
    form: str


_CASES = (
    BenchProblem("digits 8x8 1-16-32", 8, (1, 16, 32), (1, 1), 64, (1, 4, 16, 64)),
    BenchProblem("28x28 1-16-32/2", 28, (1, 16, 32), (1, 2), 64, (1, 4, 16)),
    BenchProblem("32x32 3-16-16-16", 32, (3, 16, 16, 16), (1, 1, 1), 32, (1, 4, 8)),
    BenchProblem("32x32 3-64-64", 32, (3, 64, 64), (1, 1), 16, (1, 4)),
    BenchProblem("digits inside scan", 8, (1, 16, 32), (1, 1), 64, (1, 8), in_scan=True),
)
_QUICK = (
    BenchProblem("digits 8x8 1-16-32", 8, (1, 16, 32), (1, 1), 64, (4,)),
    BenchProblem("digits inside scan", 8, (1, 16, 32), (1, 1), 64, (4,), in_scan=True),
)
_BASELINE = Variant("map", "canonical")
_VARIANTS = (
    _BASELINE,
    Variant("map", "im2col"),
    Variant("map", "cpu"),
    Variant("chunks of 4", "im2col"),
    Variant("vmap", "canonical"),
    Variant("vmap", "im2col"),
    Variant("vmap", "unrolled"),
    Variant("vmap", "grouped"),
    Variant("vmap", "native"),
    Variant("loop", "native"),
    Variant("map", "native"),
)


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Times every form and mapping of every case.

    Args:
      quick: two small cases with 4 members and few rounds, about 20 seconds, instead of the whole table.

    Returns:
      One dict per row: name, case, mapping, form, members, seconds and cpu_seconds (per member and gradient, medians),
      ratio and cpu_ratio (to map + canonical of the same case and members, 1 = equal, larger = slower),
      compile_seconds, rounds, device, jax.
    """
    rows = []
    for case in _QUICK if quick else _CASES:
        for members in case.members:
            rows += _time_case(case, members, rounds=3 if quick else 7)
    return rows


def _time_case(case: BenchProblem, members: int, rounds: int) -> list[dict[str, Any]]:
    data = _draw(case, members)
    programs, compile_seconds = {}, {}
    for variant in _VARIANTS:
        # Above 8 members the unrolled form is the native one; a loop over members has no program to scan in.
        if (variant.form == "unrolled" and members > 8) or (variant.mapping == "loop" and case.in_scan):
            continue
        programs[variant] = _program(case, variant)
        start = time.perf_counter()
        jax.block_until_ready(programs[variant](*data))
        compile_seconds[variant] = time.perf_counter() - start
    times = _interleave({variant: functools.partial(program, *data) for variant, program in programs.items()}, rounds)
    gradients = members * (_STEPS if case.in_scan else 1)
    wall, cpu = times[_BASELINE]
    return [
        {
            "name": f"{case.name}, N={members}: {variant.mapping} + {variant.form}",
            "case": case.name,
            "mapping": variant.mapping,
            "form": variant.form,
            "members": members,
            "seconds": seconds / gradients,
            "cpu_seconds": cpu_seconds / gradients,
            "ratio": seconds / wall,
            "cpu_ratio": cpu_seconds / cpu,
            "compile_seconds": compile_seconds[variant],
            "rounds": rounds,
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
        }
        for variant, (seconds, cpu_seconds) in times.items()
    ]


def _interleave(calls: dict[Variant, Callable[[], Any]], rounds: int) -> dict[Variant, tuple[float, float]]:
    """Returns median (wall, CPU) seconds of each call; calls take turns, so other load affects all alike."""
    seconds: dict[Variant, list[tuple[float, float]]] = {variant: [] for variant in calls}
    for _ in range(rounds):
        for variant, call in calls.items():
            # One round is enough for a slow variant.
            if seconds[variant] and seconds[variant][0][0] > _SLOW_SECONDS:
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(call())
            seconds[variant].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        variant: (statistics.median(wall for wall, _ in pairs), statistics.median(cpu for _, cpu in pairs))
        for variant, pairs in seconds.items()
    }


def _program(case: BenchProblem, variant: Variant) -> Callable[[Weights, jax.Array], Any]:
    """Builds the function of all members: (weights with leading M, inputs [M, B, H, W, C]) -> gradients."""

    def member(weights: Weights, inputs: jax.Array) -> Weights:
        return jax.grad(_loss)(weights, inputs, case.strides, variant.form)

    if variant.mapping == "loop":
        step = jax.jit(member)

        def loop(weights: Weights, inputs: jax.Array) -> list[Weights]:
            return [step(tuple(w[i] for w in weights), inputs[i]) for i in range(inputs.shape[0])]

        return loop
    if case.in_scan:
        return jax.jit(_scanned(member, variant.mapping))
    return jax.jit(_mapped(member, variant.mapping))


def _mapped(member: Callable[..., Any], mapping: str) -> Callable[..., Any]:
    if mapping == "vmap":
        return jax.vmap(member)
    batch_size = 4 if mapping == "chunks of 4" else None
    return lambda *trees: lax.map(lambda member_trees: member(*member_trees), trees, batch_size=batch_size)


def _scanned(member: Callable[..., Any], mapping: str) -> Callable[..., Any]:
    """Builds gradient steps inside a scan: for maps members outside and steps inside, for vmap vice versa."""

    def steps(gradient: Callable[..., Weights], weights: Weights, inputs: jax.Array) -> Weights:
        def step(current: Weights, _: None) -> tuple[Weights, None]:
            return jax.tree.map(lambda w, g: w - 0.01 * g, current, gradient(current, inputs)), None

        return lax.scan(step, weights, None, length=_STEPS)[0]

    if mapping == "vmap":
        return lambda weights, inputs: steps(jax.vmap(member), weights, inputs)
    return _mapped(lambda weights, inputs: steps(member, weights, inputs), mapping)


def _loss(weights: Weights, inputs: jax.Array, strides: tuple[int, ...], form: str) -> jax.Array:
    for weight, stride in zip(weights, strides, strict=True):
        inputs = jax.nn.relu(conv(inputs, weight, stride, ((1, 1), (1, 1)), form))
    return jnp.mean(jnp.square(inputs))


def _draw(case: BenchProblem, members: int) -> tuple[Weights, jax.Array]:
    key = jax.random.key(0)
    weights = tuple(
        jax.random.normal(jax.random.fold_in(key, layer), (members, 3, 3, before, after)) / (9 * before) ** 0.5
        for layer, (before, after) in enumerate(zip(case.channels[:-1], case.channels[1:], strict=True))
    )
    shape = (members, case.batch, case.size, case.size, case.channels[0])
    return weights, jax.random.normal(jax.random.fold_in(key, 100), shape)
