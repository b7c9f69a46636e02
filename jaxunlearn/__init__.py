"""jaxunlearn: sample-level auditing of machine unlearning, with populations of models trained as one program."""

__version__ = "0.1.0"
