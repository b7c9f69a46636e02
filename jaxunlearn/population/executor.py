"""The executor: maps a function of ONE member over a population.

    host loop over chunks > shard_map over the mesh axis "models" > one jitted call > map or vmap over members

`map` runs members one after another inside the program (a CPU core keeps one model in cache), `vmap` in parallel (for
GPUs), a `group` above 1 runs that many in parallel inside a map, and `loop` calls a one-member program from the host
(the plain reference). All give the same numbers up to float rounding; `map` on one device and on several is bitwise
equal except for BatchNorm, whose sums the compiler may order differently in the two programs. Automatic partitioning is
never used: it inserts all-gathers around grouped convolutions.
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
      kind: map, vmap or loop.
      group: members in parallel inside a map (1 = strictly one after another).
      mesh: one mesh axis "models" over the devices that share the members.
    """

    kind: str
    group: int
    mesh: Mesh


def make_mapping(kind: str = "map", group: int = 1, devices: int = 0) -> MemberMapping:
    """Returns a `MemberMapping` over the first `devices` local devices (0 = all).

    Raises:
      DeviceError: `devices` is more than there are.

    Example:
      >>> from jaxunlearn.population import make_mapping
      >>> mapping = make_mapping("vmap", devices=1)
      >>> mapping.kind, mapping.mesh.size
      ('vmap', 1)
    """
    local_devices = jax.local_devices()
    if devices > len(local_devices):
        raise errors.DeviceError(
            f"engine.devices = {devices}, but this process sees {len(local_devices)} {local_devices[0].platform} "
            "device(s). Ask for at most that many, or 0 for all."
        )
    mesh_devices = np.asarray(local_devices[: devices or len(local_devices)])
    if kind == "loop":
        mesh_devices = mesh_devices[:1]
    return MemberMapping(kind, max(group, 1), Mesh(mesh_devices, (AXIS,), axis_types=(AxisType.Auto,)))


def multiple(mapping: MemberMapping) -> int:
    """Returns the number that member counts are padded to a multiple of: devices times group."""
    return mapping.mesh.size * (mapping.group if mapping.kind == "map" else 1)


def pad(tree: Tree, mapping: MemberMapping) -> Tree:
    """Pads the model axis with copies of the last member up to the next `multiple`."""
    padding = -trees.size(tree) % multiple(mapping)
    if not padding:
        return tree
    return jax.tree.map(lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], padding, 0)]), tree)


def place(tree: Tree, mapping: MemberMapping, shared: bool = False) -> Tree:
    """Puts a tree on the devices: members distributed over the mesh axis, or (shared) a copy on each device."""
    sharding = NamedSharding(mapping.mesh, PartitionSpec() if shared else PartitionSpec(AXIS))
    return jax.device_put(tree, sharding)


def abstract(tree: Tree, mapping: MemberMapping, shared: bool = False) -> Tree:
    """Returns shapes, dtypes and placement of a tree, for compiling without data."""
    sharding = NamedSharding(mapping.mesh, PartitionSpec() if shared else PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


MemberFn = Callable[[Tree, Tree, Tree], Tree]  # (carry, inputs, shared) -> result, for ONE member


def map_members(fn: MemberFn, mapping: MemberMapping) -> MemberFn:
    """Maps `fn(carry, inputs, shared)` of one member over trees with a leading model axis, ready to be jitted.

    `carry` and `inputs` have the model axis; only `carry` may be donated. `shared` is the same for all members.
    For the mapping "loop" use `compile_mapped`, which keeps the loop on the host.
    """

    def over_members(carry: Tree, inputs: Tree, shared: Tree) -> Tree:
        if mapping.kind == "vmap":
            return jax.vmap(fn, in_axes=(0, 0, None))(carry, inputs, shared)
        group = mapping.group if mapping.group > 1 else None
        return jax.lax.map(lambda member: fn(member[0], member[1], shared), (carry, inputs), batch_size=group)

    return jax.shard_map(
        over_members,
        mesh=mapping.mesh,
        in_specs=(PartitionSpec(AXIS), PartitionSpec(AXIS), PartitionSpec()),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )


class CompiledProgram(NamedTuple):
    """A mapped, compiled function and the compiler's memory analysis (None where there is none)."""

    call: MemberFn
    memory: Any


def compile_mapped(
    fn: MemberFn, mapping: MemberMapping, carry: Tree, inputs: Tree, shared: Tree, donate: bool = False
) -> CompiledProgram:
    """Compiles the mapped `fn` for the shapes of its arguments (arrays or ShapeDtypeStructs).

    Args:
      fn: (carry, inputs, shared) -> result, for one member.
      mapping: how members are mapped.
      carry: tree with a leading model axis, which may be donated.
      inputs: tree with a leading model axis.
      shared: tree without a model axis, the same for all members.
      donate: give the buffers of `carry` away; the caller must not use them after the call.
    """
    donate_argnums = (0,) if donate else ()
    if mapping.kind == "loop":
        member_shapes = jax.eval_shape(lambda tree: trees.take(tree, 0), (carry, inputs))
        member_program = jax.jit(fn, donate_argnums=donate_argnums).lower(*member_shapes, shared).compile()

        def loop(carry: Tree, inputs: Tree, shared: Tree) -> Tree:
            members = range(trees.size(inputs))
            return trees.stack([member_program(*trees.take((carry, inputs), i), shared) for i in members])

        return CompiledProgram(loop, member_program.memory_analysis())
    program = jax.jit(map_members(fn, mapping), donate_argnums=donate_argnums)
    shapes = abstract(carry, mapping), abstract(inputs, mapping), abstract(shared, mapping, shared=True)
    executable = program.lower(*shapes).compile()
    return CompiledProgram(executable, executable.memory_analysis())
