"""Experiments that join several stages, by study.kind: all methods in one table, the conformal loss, epsilon-hat."""

from jaxunlearn.runs.drivers import run_input
from jaxunlearn.runs.studies import conformal_loss, methods

STUDIES: dict[str, run_input.Job] = {
    "methods": methods.JOB,
    "conformal": conformal_loss.JOB,
    "epsilon": run_input.job_of("epsilon"),
}
