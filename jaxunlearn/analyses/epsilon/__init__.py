"""epsilon-hat of unlearning approaches: many models of one request, retrained and unlearned."""
