"""Findings for the tests of this room."""

from jaxunlearn.records import Finding


def finding(value=0.912, low=0.905, high=0.919, std=0.003, **facts):
    facts = {"metric": "AUC", "n": 5000, "method": "DeLong", **facts}
    return Finding(value, low, high, std, **facts)


def bare(value, **facts):
    return Finding(value, **facts)
