"""The audit: evidence in, an answer for every single sample out.

Two doors: `runs` (a run folder; shadows, originals and retrains are trained if missing) and `door` (a file of arrays;
no model code is loaded). Both lead through `verdicts` and `judging` to `answers`, `presenting` and `publishing`.
"""
