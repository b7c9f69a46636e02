"""Epsilon-hat: how well retrained and unlearned models can be told apart; what DP-SGD guarantees."""
