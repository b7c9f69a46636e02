"""A user's own score, named my_scores:surprise in the tests."""

import numpy as np


def surprise(measured, options):
    """Log-odds of the true class in the unlearned model."""
    return np.asarray(measured.unlearned.log_odds)


def misspelt(measured, options):
    """Asks for a signal that there is not."""
    return measured.unlearned.log_ods
