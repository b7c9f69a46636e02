"""The engine: M models of one architecture as one pytree, trained and queried as one program.

    task -> streams -> train (generator of Progress) -> predict

It takes functions and arrays, and knows no model, data set or file. See `training.py` for the flow of an epoch and
`executor.py` for how members are mapped onto devices.
"""

from jaxunlearn.population.executor import MemberMapping, make_mapping
from jaxunlearn.population.in_memory import fit, logits
from jaxunlearn.population.prediction import predict
from jaxunlearn.population.private import private
from jaxunlearn.population.streams import Stream, from_coupled, from_membership, from_rows, model_steps, steps_per_epoch
from jaxunlearn.population.task import (
    Batch,
    Metrics,
    Network,
    State,
    StepInfo,
    Task,
    in_training_mode,
    right_answers,
    supervised,
    variables,
)
from jaxunlearn.population.training import Carry, DeviceDataset, Progress, TrainingJob, host, kept_variables, train

__all__ = [
    "Batch",
    "Carry",
    "DeviceDataset",
    "MemberMapping",
    "Metrics",
    "Network",
    "Progress",
    "State",
    "StepInfo",
    "Stream",
    "Task",
    "TrainingJob",
    "fit",
    "from_coupled",
    "from_membership",
    "from_rows",
    "host",
    "in_training_mode",
    "kept_variables",
    "logits",
    "make_mapping",
    "model_steps",
    "predict",
    "private",
    "right_answers",
    "steps_per_epoch",
    "supervised",
    "train",
    "variables",
]
