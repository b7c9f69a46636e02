"""Data-free model extraction (DFME): a copy of a model from its answers alone, without any of its data.

    generator: noise -> inputs on which clone and victim disagree most     (its gradient estimated from answers)
    clone:     learns the victim's answers on such inputs

A clone is a member of a population: the clones of V victims are one program (`task.job`), trained, checkpointed and
resumed by the engine. What is known of the victim is log-probabilities (`victims`).

Source: OUR reference, `dfme_attack` (Truong et al., Data-free model extraction).
"""

from jaxunlearn.attacks.extraction.options import Options, of_settings, queries
from jaxunlearn.attacks.extraction.task import clones_of, fidelity, job, task

__all__ = ["Options", "clones_of", "fidelity", "job", "of_settings", "queries", "task"]
