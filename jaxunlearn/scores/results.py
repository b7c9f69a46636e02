"""What is computed for each score, by its name; an unknown or skipped name is answered with the reason."""

from collections.abc import Iterable, Mapping

from jaxunlearn import errors
from jaxunlearn.scores.registry import SCORES


class ByScore(dict):
    """A dict by name of a score that says why a name is missing.

    Attributes:
      skipped: name -> why the score could not be computed.

    Example:
      >>> from jaxunlearn.scores.results import ByScore
      >>> by_score = ByScore({"iam_on": 0.9}, {"lira": "needs reference"})
      >>> by_score["iam_on"]
      0.9
      >>> by_score["lira"]
      Traceback (most recent call last):
      jaxunlearn.errors.DataError: score 'lira' was not computed: needs reference.
    """

    def __init__(self, values: Mapping | Iterable = (), skipped: Mapping[str, str] | None = None):
        """Holds `values`, and the reasons for those that are missing."""
        super().__init__(values)
        self.skipped = dict(skipped or {})

    def __missing__(self, name: object) -> object:
        """Raises a DataError for a skipped score, a ConfigError for another one."""
        if name in self.skipped:
            raise errors.DataError(f"score {name!r} was not computed: {self.skipped[str(name)]}.")
        if name in SCORES:
            raise errors.DataError(f"score {name!r} was not computed: it is not among the requested ones.")
        raise errors.unknown("score", str(name), self)
