"""The executor: lifts a function of ONE member to a population.

    host loop over chunks > shard_map over the mesh axis "models" > one jitted call > map or vmap over members

`map` runs members one after another inside the program (a CPU core keeps one model in cache), `vmap` side by side (a
GPU wants the parallelism), a `group` above 1 puts that many side by side inside a map, and `loop` calls a one-member
program from the host (the plain reference). All give the same numbers to float rounding; `map` on one device and on
several are bitwise equal but for BatchNorm, whose sums the compiler may order differently in the two programs.
Automatic partitioning is never used: it inserts all-gathers around grouped convolutions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxunlearn import errors, trees

Tree = Any
AXIS = "models"


class MemberMapping(NamedTuple):
    """How members are mapped.

    Attributes:
      mapping: map, vmap or loop.
      group: members side by side inside a map (1 = strictly one after another).
      mesh: one mesh axis "models" over the devices that share the members.
    """

    kind: str
    group: int
    mesh: Mesh


def make_mapping(kind: str = "map", group: int = 1, devices: int = 0) -> MemberMapping:
    """A `MemberMapping` over the first `devices` local devices (0 = all).

    Raises:
      DeviceError: more devices asked for than there are.
    """
    present = jax.local_devices()
    if devices > len(present):
        raise errors.DeviceError(
            f"engine.devices = {devices}, but this process sees {len(present)} {present[0].platform} device(s). "
            "Ask for at most that many, or 0 for all."
        )
    chosen = np.asarray(present[: devices or len(present)])
    if kind == "loop":
        chosen = chosen[:1]
    return MemberMapping(kind, max(group, 1), Mesh(chosen, (AXIS,), axis_types=(AxisType.Auto,)))


def multiple(mapping: MemberMapping) -> int:
    """Member counts must be a multiple of this: devices times group."""
    return mapping.mesh.size * (mapping.group if mapping.kind == "map" else 1)


def pad(tree: Tree, mapping: MemberMapping) -> Tree:
    """Pads the model axis with copies of the last member up to the next `multiple`."""
    missing = -trees.size(tree) % multiple(mapping)
    if not missing:
        return tree
    return jax.tree.map(lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], missing, 0)]), tree)


def place(tree: Tree, mapping: MemberMapping, shared: bool = False) -> Tree:
    """Puts a tree on the devices: members spread over the mesh axis, or (shared) a copy on each."""
    sharding = NamedSharding(mapping.mesh, PartitionSpec() if shared else PartitionSpec(AXIS))
    return jax.device_put(tree, sharding)


def abstract(tree: Tree, mapping: MemberMapping, shared: bool = False) -> Tree:
    """Shapes, dtypes and placement of a tree, for compiling without data."""
    sharding = NamedSharding(mapping.mesh, PartitionSpec() if shared else PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


MemberFn = Callable[[Tree, Tree, Tree], Tree]  # (changing, fixed, shared) -> result, for ONE member


def map_members(fn: MemberFn, mapping: MemberMapping) -> MemberFn:
    """Lifts `fn(changing, fixed, shared)` of one member to trees with a leading model axis, ready to be jitted.

    `changing` and `fixed` both carry the model axis; only the first may be donated. `shared` is seen by all members.
    With mapping "loop" use `compile_lifted`, which keeps the loop on the host.
    """

    def over_members(changing: Tree, fixed: Tree, shared: Tree) -> Tree:
        if mapping.kind == "vmap":
            return jax.vmap(fn, in_axes=(0, 0, None))(changing, fixed, shared)
        group = mapping.group if mapping.group > 1 else None
        return jax.lax.map(lambda member: fn(member[0], member[1], shared), (changing, fixed), batch_size=group)

    return jax.shard_map(
        over_members,
        mesh=mapping.mesh,
        in_specs=(PartitionSpec(AXIS), PartitionSpec(AXIS), PartitionSpec()),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )


class Compiled(NamedTuple):
    """A lifted, compiled function with what the compiler says of its memory (None where it does not say)."""

    call: MemberFn
    memory: Any


def compile_mapped(
    fn: MemberFn, mapping: MemberMapping, changing: Tree, fixed: Tree, shared: Tree, donate: bool = False
) -> Compiled:
    """Compiles the lifted `fn` for the shapes of its arguments (arrays or ShapeDtypeStructs).

    `donate` gives the buffers of `changing` away: the caller must not use them after the call.
    """
    donated = (0,) if donate else ()
    if mapping.kind == "loop":
        first = jax.eval_shape(lambda tree: trees.take(tree, 0), (changing, fixed))
        single = jax.jit(fn, donate_argnums=donated).lower(*first, shared).compile()

        def loop(changing: Tree, fixed: Tree, shared: Tree) -> Tree:
            members = range(trees.size(fixed))
            return trees.stack([single(*trees.take((changing, fixed), i), shared) for i in members])

        return Compiled(loop, single.memory_analysis())
    program = jax.jit(map_members(fn, mapping), donate_argnums=donated)
    shapes = abstract(changing, mapping), abstract(fixed, mapping), abstract(shared, mapping, shared=True)
    compiled = program.lower(*shapes).compile()
    return Compiled(compiled, compiled.memory_analysis())
