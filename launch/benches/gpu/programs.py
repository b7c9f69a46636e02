"""Kernels and bytes of one training step, read from the text of a compiled program.

The step is the loop body with the most kernels (the scan over steps), or the whole program if that has more (no loop,
or one that the compiler has unrolled). Bytes are those of operands and results of every kernel; an operand counts in
full even if only a slice is read.
"""

import re
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8, "c64": 8}
# Instructions that launch nothing.
_FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "partition-id", "while", "call",
         "conditional", "async-start", "async-done", "copy-done", "opt-barrier"}  # fmt: skip
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")


class Step(NamedTuple):
    """One training step of a program: kernels launched, bytes that they read and write."""

    kernels: int
    num_bytes: int


def step_of(text: str) -> Step:
    """Counts kernels and bytes per step in the text of a compiled program (`compiled.as_text()`)."""
    computations, entry = _parse(text)
    bodies = [name for name in re.findall(r"\bbody=%?([\w.\-]+)", text) if name in computations]
    return max(_count(computations[name]) for name in [*bodies, entry])


Instruction = tuple[str, str, str, str]  # name, shape, operation, rest of the line


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    computations: dict[str, list[Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            current = header[2]
            computations[current] = []
            entry = current if header[1] else entry
        elif line.startswith("}"):
            current = ""
        elif current and (instruction := _INSTRUCTION.match(line)):
            computations[current].append(instruction.groups())  # type: ignore[arg-type]
    return computations, entry


def _count(instructions: list[Instruction]) -> Step:
    shapes = {name: shape for name, shape, _, _ in instructions}
    kernels = [instruction for instruction in instructions if instruction[2] not in _FREE]
    total = 0
    for _, shape, _, rest in kernels:
        operands = re.findall(r"%([\w.\-]+)", rest.partition("), ")[0])
        total += size(shape) + sum(size(shapes.get(name, "")) for name in operands)
    return Step(len(kernels), total)


def size(shape: str) -> int:
    """Returns the bytes of a shape as compilers print it: `bf16[8,64]{1,0}`, or a tuple of them."""
    total = 0
    for kind, axes in re.findall(r"\b(\w+)\[([\d,]*)\]", shape):
        count = 1
        for axis in filter(None, axes.split(",")):
            count *= int(axis)
        total += count * _BYTES.get(kind, 4)
    return total
