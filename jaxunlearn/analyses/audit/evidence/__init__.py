"""What an audit works on: signals of all models, gathered from arrays or from a run folder."""
