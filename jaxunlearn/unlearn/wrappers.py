"""Wrappers: functions that take a method and return a method."""

import dataclasses

from jaxunlearn.unlearn.method import Method


def training_mode_in_first_epoch(method: Method) -> Method:
    """Every training phase as one epoch in training mode and the rest in evaluation mode, with one optimizer state.

    Code that switches to evaluation after the first epoch and never back trains like this, and published numbers rest
    on it.
    Source: the conformal unlearning code (quirk 6.1 of its training loops).
    """
    phases = []
    for phase in method.phases:
        if not phase.moves or phase.epochs <= 1 or phase.widen:
            phases.append(dataclasses.replace(phase, mode="train"))
            continue
        first = dataclasses.replace(phase, epochs=1, mode="train", keep="")
        later = dataclasses.replace(
            phase, epochs=phase.epochs - 1, mode="eval", same_optimizer=True, start="current", estimates={},
            first_epoch=phase.first_epoch + 1,
        )  # fmt: skip
        phases += [first, later]
    return dataclasses.replace(method, phases=tuple(phases))
