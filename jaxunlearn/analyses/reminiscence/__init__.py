"""The Reminiscence Attack as an analysis: relearning trajectories in, residual memory out."""

__all__: list[str] = []
