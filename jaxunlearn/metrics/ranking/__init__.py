"""How well scores rank samples: tables over forget sets, the bootstrap, ScoreUI, per class, words alone."""
