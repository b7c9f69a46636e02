"""epsilon-hat of unlearning approaches: many models of one forget set, retrained and unlearned."""

__all__: list[str] = []
