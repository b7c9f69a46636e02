"""Scores: one number per sample from the logits of several models. Higher = the sample still looks trained on."""
