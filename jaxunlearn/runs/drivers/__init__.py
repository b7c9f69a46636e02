"""One way in and one way out for all analyses: a user's arrays (`array_input`) or a run folder (`run_input`)."""
