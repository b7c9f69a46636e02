"""The engine: M models of one architecture as one pytree, trained and queried as one program.

    task -> streams -> train (generator of Progress) -> predict

It is handed functions and arrays and knows no model, no data set and no file. See `training.py` for the flow of an
epoch and `executor.py` for how members are mapped onto the machine.
"""

from jaxunlearn.population.executor import MemberMapping, make_mapping
from jaxunlearn.population.prediction import predict
from jaxunlearn.population.private import private
from jaxunlearn.population.streams import Stream, from_coupled, from_membership, from_rows, model_steps, steps_per_epoch
from jaxunlearn.population.task import (
    Batch,
    Metrics,
    State,
    StepInfo,
    Task,
    in_training_mode,
    right_answers,
    supervised,
    variables,
)
from jaxunlearn.population.training import Carry, DeviceDataset, Job, Progress, host, kept_variables, train
