"""Figures of reports: arrays or findings in, matplotlib figures out."""

from jaxunlearn.report.figures import (
    curves,
    embeddings,
    epsilon_figures,
    figures,
    pair_figures,
    relearning_figures,
    verdict_bars,
)

__all__ = [
    "curves",
    "embeddings",
    "epsilon_figures",
    "figures",
    "pair_figures",
    "relearning_figures",
    "verdict_bars",
]
