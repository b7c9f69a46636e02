"""jaxunlearn: sample-level auditing of machine unlearning, with populations of models trained as one program.

    import jaxunlearn as ju

    ju.data.load(...)  ju.models.build(...)  ju.population.fit(...)  ju.unlearn.run("ssd", ...)
    ju.scores.run(["iam_on"], ju.Evidence(...))  ju.analyses.audit(evidence, forgotten)

Subpackages are imported when they are first used.
"""

import importlib
import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxunlearn import (
        analyses,
        attacks,
        data,
        errors,
        keys,
        metrics,
        models,
        population,
        records,
        report,
        scores,
        settings,
        unlearn,
    )
    from jaxunlearn.records import Dataset, Evidence, Finding, Split

__version__ = "0.1.0"
__all__ = [
    "Dataset", "Evidence", "Finding", "Split", "analyses", "attacks", "data", "errors", "keys", "metrics", "models",
    "population", "records", "report", "scores", "settings", "unlearn",
]  # fmt: skip

# The launchers and configs are jaxunlearn.launch and jaxunlearn.configs. Installed, they lie inside the package; in a
# checkout they lie next to it, and are found there whatever else is installed.
if not (pathlib.Path(__file__).parent / "launch").is_dir():
    __path__.append(str(pathlib.Path(__file__).parent.parent))


def __getattr__(name: str) -> Any:
    """Imports a subpackage, or the record of that name, when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name[0].isupper():
        return getattr(importlib.import_module("jaxunlearn.records"), name)
    return importlib.import_module(f"jaxunlearn.{name}")


def __dir__() -> list[str]:
    """Lists what `jaxunlearn` offers, imported or not."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
