"""Unlearning-Leaks: what the original and the unlearned version of a model together reveal about a deleted record.

posteriors of both versions -> defence (what the owner publishes) -> feature of the pair -> attack classifier, trained
on shadow models -> P(the record was trained on and then deleted)

`plan` draws who trains on what, `logistic` is the exact logistic regression of whole populations, `sisa` aggregates
shards, `defences`, `features`, `classifiers` and `degradation` are the attack.

Source: Chen et al., When Machine Unlearning Jeopardizes Privacy, CCS 2021.
"""
