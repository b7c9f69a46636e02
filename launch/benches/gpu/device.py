"""The device itself: memory, matrix products, copies: the peaks to which the shares of other rows refer."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxunlearn.population import capacity

from ..timing import value_row
from . import clock, peaks

Row = dict[str, Any]
PRODUCTS = 4


def device(names: Sequence[str], *, pace: clock.Pace, side: int, copied: int) -> Iterator[Row]:
    """Yields rows named by their last word: memory, bf16, tf32, f32, copy.

    Args:
      names: rows to measure.
      pace: of the windows.
      side: matrices are side x side; PRODUCTS of them, one after the other, are one call.
      copied: bytes read, and as many written, by one copy.
    """
    for name in names:
        kind = name.split()[-1]
        if kind == "memory":
            yield value_row(name, [capacity.budget(jax.local_devices()[:1], 1.0) / 2**30], "GiB for programs")
        elif kind == "copy":
            yield _copy(name, copied, pace)
        else:
            yield _product(name, kind, side, pace)


def _product(name: str, arithmetic: str, side: int, pace: clock.Pace) -> Row:
    dtype, precision = peaks.ARITHMETIC[arithmetic]
    # Random content: products of zeros draw less power and run faster than real ones.
    left, right = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))

    @jax.jit
    def products(left: jax.Array, right: jax.Array) -> jax.Array:
        for _ in range(PRODUCTS):
            left = (left @ right) * (1 / side**0.5)
        return left.astype(dtype)

    with jax.default_matmul_precision(precision):
        program = products.lower(left, right).compile()
    seconds = clock.windows(lambda: program(left, right), pace, jax.block_until_ready)
    rates = [PRODUCTS * 2 * side**3 / window for window in seconds]
    row = value_row(name, [rate / 1e12 for rate in rates], "TFLOP/s", side=side)
    return {**row, "arithmetic": arithmetic, "operation_rate": row["value"] * 1e12}


def _copy(name: str, copied: int, pace: clock.Pace) -> Row:
    values = jnp.ones(copied // 4, jnp.float32)
    program = jax.jit(lambda values: values + 1).lower(values).compile()
    seconds = clock.windows(lambda: program(values), pace, jax.block_until_ready)
    row = value_row(name, [2 * copied / window / 1e9 for window in seconds], "GB/s, read and written", bytes=copied)
    return {**row, "byte_rate": row["value"] * 1e9}
