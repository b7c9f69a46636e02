"""Layers that networks are made of, and how their convolutions are computed."""
