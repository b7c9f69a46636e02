"""Studies: experiments that join several stages, by study.kind."""

from jaxunlearn.runs.drivers import run_input
from jaxunlearn.runs.studies import conformal_loss, methods, over_unlearning

__all__ = ["STUDIES"]

STUDIES: dict[str, run_input.AnalysisJob] = {
    "methods": methods.JOB,
    "conformal": conformal_loss.JOB,
    "over_unlearning": over_unlearning.JOB,
    "epsilon": run_input.job_of("epsilon"),
}
