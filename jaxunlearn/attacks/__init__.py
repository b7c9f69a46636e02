"""Attacks on models that were changed on request: what their answers give away.

`extraction` copies a model from its answers, `leaks` compares the answers of two versions of a model, `relearning`
looks at how fast a model relearns. Each is imported by its own name, because some of them load model code.
"""

__all__: list[str] = []
