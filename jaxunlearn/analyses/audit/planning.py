"""Says which models and rows a verdict needs, and which more of them would sharpen it."""

from jaxunlearn.metrics.verdict.judge import FEWEST_POPULATION, FEWEST_RETAINED

ENOUGH_FOR_ROWS, ENOUGH_FOR_REQUEST = 2, 10
ENOUGH_POPULATION, ENOUGH_RETAINED = 300, 200


def lines(shadows: int, population: int, retained: int) -> list[tuple[str, str]]:
    """Returns what there is and what to add, as lines of a table.

    Args:
      shadows: number of shadow models at hand.
      population: number of rows that no model saw.
      retained: number of rows that were not to be forgotten.
    """
    return [
        ("shadow models", _of(shadows, ENOUGH_FOR_ROWS, ENOUGH_FOR_REQUEST,
                              "for verdicts on rows", "for the request as a whole")),
        ("train them", "as the audited model was, each on a random draw of your training rows without the requested "
                       "ones, another seed each; as many rows as the audited model if you can (half does)"),
        ("unseen rows", _of(population, FEWEST_POPULATION, ENOUGH_POPULATION,
                            "for any verdict", "to call single rows not forgotten")),
        ("give for them", "the answers of the audited model and of every shadow: population_unlearned, "
                          "population_shadows, population_labels; population_original if you have the original"),
        ("retained rows", _of(retained, FEWEST_RETAINED, ENOUGH_RETAINED,
                              "to call a row forgotten", "to call many so")),
    ]  # fmt: skip


def _of(there: int, least: int, good: int, for_least: str, for_good: str) -> str:
    """Returns `5 of 10: ...`, in words."""
    if there >= good:
        return f"{there:,}: enough"
    if there >= least:
        return f"{there:,}: enough {for_least}; {good:,} {for_good}"
    return f"{there:,}: at least {least:,} {for_least}, {good:,} {for_good}"
