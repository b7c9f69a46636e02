"""Unlearning methods as gradient transforms, run on a whole population at once.

    METHODS -> builder(hyperparameters) -> Method (phases) -> run(...) -> unlearned variables [M, ...]

`run` works on arrays in memory. `base/method.py` describes a method, `engine/running.py` runs it, `blocks/` holds
what methods are made of: gradient transforms, losses, schedules, labels, streamed passes. One file per family in
`methods/` (of language models in `language/`, around other methods in `wrappers/`), one line each in `registry.py`.
"""

from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.entries import MethodEntry
from jaxunlearn.unlearn.base.method import (
    Estimate,
    EstimateContext,
    GradientStep,
    MemberRows,
    Method,
    Phase,
    Samples,
    SavedState,
    StepContext,
    StreamSpec,
)
from jaxunlearn.unlearn.base.network import Network
from jaxunlearn.unlearn.blocks import labels, losses, passes, schedules, transforms
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.engine.running import Event, Outcome, PhaseCheckpoint, UnlearningJob
from jaxunlearn.unlearn.in_memory import run
from jaxunlearn.unlearn.methods import (
    arithmetic,
    boundary,
    descent,
    exact,
    forsaken,
    pruning,
    relabelling,
    replay,
    saliency,
    sparsity,
    teachers,
    unsir,
)
from jaxunlearn.unlearn.methods.importance import codec, dampening, fisher, influence
from jaxunlearn.unlearn.registry import METHODS, hyperparameters, lookup

__all__ = [
    "Estimate",
    "EstimateContext",
    "Event",
    "GradientStep",
    "METHODS",
    "MemberRows",
    "Method",
    "MethodEntry",
    "Network",
    "Outcome",
    "Phase",
    "PhaseCheckpoint",
    "Samples",
    "SavedState",
    "StepContext",
    "StreamSpec",
    "UnlearningJob",
    "arithmetic",
    "boundary",
    "codec",
    "dampening",
    "descent",
    "exact",
    "fisher",
    "forsaken",
    "hyperparameters",
    "influence",
    "labels",
    "lookup",
    "losses",
    "network",
    "passes",
    "pruning",
    "relabelling",
    "replay",
    "run",
    "running",
    "saliency",
    "schedules",
    "sparsity",
    "teachers",
    "transforms",
    "unsir",
]
