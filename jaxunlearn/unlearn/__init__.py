"""Unlearning methods as gradient transforms, run on a whole population at once.

    METHODS -> builder(hyperparameters) -> Method (phases) -> run(setup) -> unlearned variables [M, ...]

`method.py` says what a method is, `running.py` runs it, `transforms.py`, `losses.py` and `passes.py` are what methods
are made of; one file per family of methods, one line each in `table.py`.
"""

from jaxunlearn.unlearn.entries import Entry
from jaxunlearn.unlearn.method import (
    Estimate,
    Member,
    Method,
    Move,
    Now,
    Phase,
    Pools,
    Reads,
    Samples,
    Saved,
)
from jaxunlearn.unlearn.network import Network
from jaxunlearn.unlearn.running import Checkpoint, Event, Outcome, Setup, run
from jaxunlearn.unlearn.table import METHODS, hyperparameters, lookup
