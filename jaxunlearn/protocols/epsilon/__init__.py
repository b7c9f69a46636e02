"""epsilon-hat of unlearning approaches: many models of one request, retrained and unlearned.

`measures.py` knows arrays only; `door.py` is the door of logit files from anywhere, `study.py` trains the models.
"""
