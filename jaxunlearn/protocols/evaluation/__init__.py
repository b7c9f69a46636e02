"""Evaluation: utility, membership attacks, distances and conformal numbers of unlearned models.

`measures.py` knows arrays only; `runs.py` is the door of a run folder, `door.py` of logits from any framework.
"""
