"""Logits of a population on many rows: all members, block by block, float32, nothing kept on the device.

for rows, logits in predict(task, variables, inputs, rows, ...):   # rows: a slice, logits: [M, len, C]
...
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxunlearn import keys, trees
from jaxunlearn.population import executor
from jaxunlearn.population.task import Task

Tree = Any


def predict(
    task: Task,
    variables: Tree,
    inputs: jax.Array | np.ndarray,
    rows: np.ndarray,
    mapping: executor.MemberMapping,
    *,
    batch: int = 256,
    block: int = 4096,
    view_key: jax.Array | None = None,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the logits of all members, block by block.

    Args:
      task: one member's functions.
      variables: flax variables with leading M.
      inputs: [N_all, ...] raw inputs of the whole data set.
      rows: [N] int32 rows to predict.
      mapping: how members are mapped.
      batch: rows per forward pass of one member.
      block: rows per program call (bounds device memory).
      view_key: None for the clean view; a key for one augmented view. The draws of a row are a function of this key and
        the row's number: all members see the same augmented row, whatever is predicted with it.

    Yields:
      (slice into `rows`, logits [M, n, C] float32) with n <= block.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from jaxunlearn import models, population, settings
      >>> network = models.build(settings.ModelSettings("logistic"), num_classes=3)
      >>> task = population.supervised(network, network, lambda inputs, key, is_train: inputs,
      ...                              settings.TrainSettings(), jax.ShapeDtypeStruct((4,), jnp.float32))
      >>> states = jax.vmap(task.init)(jax.random.split(jax.random.key(0), 2))  # M = 2 random networks
      >>> inputs = np.ones((10, 4), np.float32)
      >>> blocks = population.predict(task, population.variables(states), inputs, np.arange(10),
      ...                             population.make_mapping(devices=1), batch=4, block=8)
      >>> [(rows.start, rows.stop, logits.shape) for rows, logits in blocks]
      [(0, 8, (2, 8, 3)), (8, 10, (2, 2, 3))]
    """
    rows = np.asarray(rows, np.int32)
    num_members = trees.size(variables)
    steps = max(1, min(block, len(rows) + batch - 1) // batch)
    block = steps * batch

    def answer(carry: None, member: Tree, shared: tuple) -> jax.Array:
        data, block_rows, key = shared

        def forward(carry: None, indices: jax.Array) -> tuple[None, jax.Array]:
            if view_key is None:
                return carry, task.predict(member, data[indices])
            return carry, task.view(member, data[indices], jax.vmap(keys.at, (None, 0))(key, indices))

        return jax.lax.scan(forward, None, block_rows.reshape(steps, batch))[1]

    members = executor.place(executor.pad(variables, mapping), mapping)
    data = executor.place(inputs, mapping, shared=True)
    key = view_key if view_key is not None else keys.root(0)
    padded_rows = np.concatenate([rows, np.full(-len(rows) % block, rows[0], np.int32)])
    program = None
    for start in range(0, len(padded_rows), block):
        shared = executor.place((data, padded_rows[start : start + block], key), mapping, shared=True)
        if program is None:
            # Shadow statistics live in the tails: a GPU's default of TF32 products would blur them.
            with jax.default_matmul_precision("float32"):
                program = executor.compile_mapped(answer, mapping, None, members, shared)
        logits = np.asarray(program.call(None, members, shared))[:num_members]
        stop = min(start + block, len(rows))
        yield slice(start, stop), logits.reshape(num_members, block, -1)[:, : stop - start]
