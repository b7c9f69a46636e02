"""The Reminiscence Attack as an analysis: trajectories of relearning in, what came back too fast out."""
