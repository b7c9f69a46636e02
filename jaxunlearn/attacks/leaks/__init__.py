"""Unlearning-Leaks: what the original and the unlearned version of a model together reveal about a deleted record.

posteriors of both versions -> defence (what the owner publishes) -> feature of the pair -> attack classifier, trained
on shadow models -> P(the record was trained on and then deleted)

`plan` draws who trains on what, `logistic` is the exact logistic regression of whole populations, `host_models` fits
trees, `sisa` aggregates shards; `defences`, `features`, `classifiers` and `degradation` are the attack. `classifiers`
and `logistic` load the training engine, so they are imported by their own names.

Source: Chen et al., When Machine Unlearning Jeopardizes Privacy, CCS 2021.
"""

from jaxunlearn.attacks.leaks import defences, degradation, features, plan, sisa

__all__ = ["defences", "degradation", "features", "plan", "sisa"]
