"""One command once per seed, each in a run folder of its own, and what came out of all of them.

    WORKDIR/seed_1, seed_2, ...    -> seeds.json: every finding with its value by seed
                                   -> report/seeds.html, .md, tables: mean, deviation and interval over seeds

Seeds are the independent units here: each draws split, forget sets, weights and batches anew, from one data set.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors, escapes, progress, records, store
from jaxunlearn.data.formats import files as data_files
from jaxunlearn.metrics import METRICS
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.report import cells, number_format
from jaxunlearn.report.section import Report, Section
from jaxunlearn.runs.drivers import delivery
from jaxunlearn.settings import Settings, to_dict

RECORD = "seeds.json"
LEVEL = 0.95
# Sections of more scores, methods or roles than this show their first choice alone; tables of more rows than that are
# on the page, not in the terminal.
MOST_ROWS, MOST_PRINTED = 12, 30
FIRST_CHOICES = ("iam_on", "lm_iam", "iam_off", "lira_off", "confidence", "lm_ratio", "lm_loss")
KEY = ("section", "of", "metric", "against", "place")


class Command(NamedTuple):
    """What is done once per seed.

    Attributes:
      name: of the verb; findings: the file of a run folder that holds its numbers; first: the score named first.
      run: (seed, its run folder) does it.
    """

    name: str
    findings: str
    run: Callable[[int, str], None]
    first: str = ""


def run(command: Command, seeds: Sequence[int], settings: Settings, workdir: str, is_fresh: bool = False) -> str:
    """Runs a command for every seed that is not finished yet, and returns the table over seeds.

    Args:
      command: what to do.
      seeds: distinct; at least one.
      settings: resolved; their own seed is not read.
      workdir: the folder around the run folders.
      is_fresh: finished seeds are done again too.

    Raises:
      UserError: what the command raises, or a folder that is in use or not ours.
    """
    begun = time.monotonic()
    with store.open_run(workdir) as folder:
        reporter = progress.Reporter(folder.log)
        told = _told(folder)
        facts = _fingerprint(command, settings)
        before = told.get(command.name, {})
        is_same = bool(facts) and not is_fresh and before.get("fingerprint") == facts
        finished = dict(before.get("finished", {})) if is_same else {}
        for place, seed in enumerate(seeds, 1):
            name = f"seed_{seed}"
            if str(seed) in finished and folder.path(name, command.findings).exists():
                reporter.say(f"seed {seed} ({place} of {len(seeds)}): finished in an earlier call, in {name}/")
                continue
            reporter.say(f"seed {seed} ({place} of {len(seeds)}): {command.name} in {name}/")
            start = time.monotonic()
            command.run(seed, str(folder.path(name)))
            seconds = time.monotonic() - start
            numbers = _numbers(folder, command, name)
            finished[str(seed)] = {"folder": name, "seconds": round(seconds, 3), "findings": numbers}
            told[command.name] = {"fingerprint": facts, "first": command.first, "finished": finished}
            store.files.write_json(folder.path(RECORD), told)
            reporter.say(f"seed {seed} took {progress.duration(seconds)}")
        told[command.name] = {
            "fingerprint": facts,
            "first": command.first,
            "seeds": list(seeds),
            "finished": finished,
            "findings": _over_seeds([str(seed) for seed in seeds], finished),
        }
        plain = to_dict(settings)
        plain.pop("seed")
        config = f"{settings.data.name}, {settings.model.name}, seeds {', '.join(map(str, seeds))}"
        return delivery.deliver(folder, _report(told, command.name, settings), plain, begun, {"config": config})


def _told(folder: store.Run) -> dict[str, Any]:
    """What earlier calls left in seeds.json, by command."""
    try:
        told = store.files.read_json(folder.path(RECORD))
    except FileNotFoundError:
        return {}
    if not all(isinstance(one, dict) and isinstance(one.get("finished"), dict) for one in told.values()):
        raise store.files.damaged(folder.path(RECORD), "it holds no finished seeds")
    return told


def _fingerprint(command: Command, settings: Settings) -> str:
    """Identifies what a finished seed was made from; "" where that cannot be known, so that none is taken as finished.

    Models and files of other runs, and code of the user's own, may change without a setting that does.
    """
    plain = to_dict(settings)
    plain.pop("seed")
    others = (settings.targets.start, *settings.audit.shadow_runs, settings.leaks.shadow_from)
    names = (settings.data.name, settings.data.tokenizer, settings.model.name, *settings.unlearn.methods,
             *settings.audit.scores)  # fmt: skip
    if any(others) or any(":" in name for name in names):
        return ""
    stamps = []
    for path in filter(None, (settings.data.path, settings.split.forget.path)):
        found = data_files.expand(path)
        inside = sorted(found.rglob("*")) if found.is_dir() else [found]
        stamps += [list(map(str, data_files.stamp(one))) for one in inside if one.is_file()]
    return store.files.fingerprint({"command": command.name, "findings": command.findings, "settings": plain,
                                    "files": stamps, "versions": store.versions()})  # fmt: skip


def _numbers(folder: store.Run, command: Command, name: str) -> list[dict[str, Any]]:
    """The findings of one seed, each with its key: section, of, metric, against, and which of several alike it is."""
    path = folder.path(name, command.findings)
    try:
        found = store.files.read_json(path, list if command.findings.endswith("findings.json") else dict)
    except FileNotFoundError as error:
        raise errors.StoreError(f"{path} is missing, although seed {name} has ended.") from error
    if isinstance(found, dict):
        found = _of_roles(found)
    seen: dict[tuple[str, ...], int] = {}
    numbers = []
    for one in found:
        key = tuple(str(one.get(part, "")) for part in KEY[:-1])
        place = seen[key] = seen.get(key, -1) + 1
        value = escapes.number(one["value"])
        numbers.append({**dict(zip(KEY, (*key, place), strict=True)), "value": value})
    return numbers


def _of_roles(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The means over forget sets of unlearned.json, as findings."""
    return [
        {"section": "unlearned", "of": role, "metric": metric, "value": _mean(values)}
        for role, one in told["roles"].items()
        for metric, values in one["numbers"].items()
    ]


def _mean(values: list[Any]) -> float:
    known = [number for number in map(escapes.number, values) if np.isfinite(number)]
    return statistics.fmean(known) if known else float("nan")


def _over_seeds(seeds: list[str], finished: dict[str, Any]) -> list[dict[str, Any]]:
    """Every finding over seeds, in the order in which the seeds have them: mean, interval, deviation, value by seed."""
    by_key: dict[tuple[Any, ...], dict[str, float]] = {}
    for seed in seeds:
        for one in finished[seed]["findings"]:
            by_key.setdefault(tuple(one[part] for part in KEY), {})[seed] = escapes.number(one["value"])
    found = []
    for key, values in by_key.items():
        one = _finding(key, np.array(list(values.values())))
        numbers = {"value": one.value, "low": one.low, "high": one.high, "std": one.std, "n": one.n}
        found.append({**dict(zip(KEY, key, strict=True)), **numbers, "confidence_level": LEVEL, "by_seed": values})
    return found


def _finding(key: tuple[Any, ...], values: np.ndarray) -> records.Finding:
    """Mean over seeds with Student's t interval; the deviation is that of a sample, NaN for one seed."""
    _, of, metric, against, _ = key
    mean = intervals.mean(values, metric=metric, of=of, against=against, confidence_level=LEVEL)
    known = values[np.isfinite(values)]
    deviation = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    return mean.replace(std=deviation, method="Student's t over seeds")  # type: ignore[attr-defined]


def _report(told: dict[str, Any], name: str, settings: Settings) -> Report:
    """The page: one table per command that was run with seeds in this folder, this one first."""
    names = [name, *(other for other in told if other != name and told[other].get("findings"))]
    sections = tuple(section for one in names for section in _sections(one, told[one], one == name))
    mine = told[name]
    count = len(mine["seeds"])
    answer = (
        f"launch.{name} over {count} seed{'s' * (count > 1)}: {len(mine['findings']):,} numbers, each with its "
        f"{'mean, deviation and interval over seeds' if count > 1 else 'value; one seed makes no interval'}."
    )
    return Report(
        f"Over seeds: {settings.data.name}",
        answer,
        sections,
        {"command": f"launch.{name}"},
        stem="seeds",
        records={RECORD: told},
        listed={"seeds.csv": _list(told[name])},
        notes=_notes(mine),
        files=((RECORD, "every number by seed, and over seeds; seeds.csv: the same as a table"),
               ("seed_*/", "the run folder of each seed, with its own report")),
        width=120,
    )  # fmt: skip


def _sections(name: str, told: dict[str, Any], is_printed: bool) -> list[Section]:
    """Main findings of a command, by the section that shows them for one seed: a row per number, then seed by seed."""
    seeds = [str(seed) for seed in told["seeds"]]
    first = (told.get("first") or "", *FIRST_CHOICES)
    made = []
    for section in dict.fromkeys(one["section"] for one in told["findings"]):
        own = [one for one in told["findings"] if one["section"] == section]
        names = list(dict.fromkeys(one["of"] for one in own))
        if len(names) > MOST_ROWS:
            chosen = next((name for name in first if name in names), names[0])
            own = [one for one in own if one["of"] == chosen]
        rows, findings = [], []
        for one in own:
            values = [escapes.number(one["by_seed"].get(seed)) for seed in seeds]
            findings.append(_finding(tuple(one[part] for part in KEY), np.array(values)))
            title = METRICS[one["metric"]].title if one["metric"] in METRICS else one["metric"]
            metric = title + f" ({one['place'] + 1})" * bool(one["place"])
            rows.append((one["of"], metric, findings[-1], " ".join(map(number_format.number, values))))
        heading = f"launch.{name}, {section.replace('_', ' ') or 'shadow models'}"
        heads = ("of", "metric", "over seeds", f"seeds {', '.join(seeds)}")
        made.append(
            Section(
                "_".join(filter(None, ("seeds", name, section))),
                heading,
                words_of(len(seeds)),
                cells.Table(heading, "seeds.csv has the rows that are left out." * (len(names) > MOST_ROWS), heads,
                            tuple(rows)),
                findings=tuple(findings),
                printed=is_printed and len(rows) <= MOST_PRINTED,
            )
        )  # fmt: skip
    return made


def _list(told: dict[str, Any]) -> cells.Table:
    """Every finding as a table: mean, deviation, interval, value by seed."""
    seeds = [str(seed) for seed in told["seeds"]]
    rows = tuple(
        (
            *(str(one[part]) for part in KEY[:-1]), one["place"] + 1,
            *(escapes.number(one[part]) for part in ("value", "std", "low", "high")), one["n"],
            *(escapes.number(one["by_seed"].get(seed)) for seed in seeds),
        )
        for one in told["findings"]
    )  # fmt: skip
    heads = (*KEY[:-1], "which", "mean", "deviation", "low", "high", "seeds", *(f"seed {seed}" for seed in seeds))
    return cells.Table("", "", heads, rows)


def words_of(count: int) -> str:
    """What ± and [ ] are in a table over seeds."""
    if count == 1:
        return "One seed: no deviation and no interval."
    return (
        f"Mean over {count} seeds ± their sample deviation, [ ] {number_format.rate(LEVEL)} interval of the mean "
        "(Student's "
        "t). Every seed draws split, forget sets, weights and batches anew, as far as the settings leave them to it; "
        "the data set is the same, so the intervals are of other draws from these data."
    )


def _notes(told: dict[str, Any]) -> tuple[str, ...]:
    """Findings that not every seed has, or not as finite numbers."""
    seeds = [str(seed) for seed in told["seeds"]]
    short = [one for one in told["findings"] if one["n"] < len(seeds)]
    if not short:
        return ()
    shown = ", ".join(f"{one['of']} {one['metric']}" for one in short[:3]) + ", ..." * (len(short) > 3)
    return (f"{len(short)} number(s) are missing or not finite for some seeds and are over the others ({shown})",)
