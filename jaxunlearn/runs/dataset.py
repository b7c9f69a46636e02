"""Looking at a data set before any training: counts, balance, ranges, repeated rows, a contact sheet."""

import numpy as np

from jaxunlearn import data, store
from jaxunlearn.data import summary
from jaxunlearn.records import Dataset
from jaxunlearn.report import page, tables
from jaxunlearn.report.figures import figures
from jaxunlearn.settings import DataSettings

SHOWN_CLASSES = 12


def import_archive(path: str, settings: DataSettings) -> str:
    """Reads an official archive into the cache; returns where its arrays lie."""
    return str(data.import_archive(path, settings.cache))


def inspect(settings: DataSettings, folder: str, per_class: int = 10) -> tuple[summary.Summary, str]:
    """Loads and checks a data set; draws a contact sheet if its rows are pictures.

    Returns:
      (what is in it, path of the contact sheet or "").
    """
    dataset = data.load(settings)
    facts = summary.describe(dataset)
    if np.ndim(dataset.inputs) != 4:
        return facts, ""
    path = store.begin(folder).output("report", "contact_sheet.png")
    page.save_figure(contact_sheet(dataset, per_class), path)
    return facts, str(path)


def contact_sheet(dataset: Dataset, per_class: int):  # type: ignore[no-untyped-def]
    """A figure with the first pictures of each class (of the first 30 classes)."""
    rows = summary.examples(dataset, per_class)[:30]
    names = dataset.class_names or tuple(str(i) for i in range(dataset.num_classes))
    pictures = np.asarray(dataset.inputs)[np.maximum(rows, 0)] / dataset.scale
    pictures[rows < 0] = 1.0
    return figures.contact_sheet(pictures, names[: len(rows)], f"{dataset.name}: first rows of each class")


def text(facts: summary.Summary) -> str:
    """The facts as a table."""
    return tables.pairs(_text_rows(facts, facts.texts) if facts.texts else _number_rows(facts))


def _number_rows(facts: summary.Summary) -> list[tuple[str, str]]:
    """What to say of rows of numbers."""
    shown = facts.class_names or tuple(str(i) for i in range(facts.num_classes))
    absent = [name for name, count in zip(shown, facts.train_counts, strict=True) if not count]
    warnings = [("warning", f"no training row of class {', '.join(absent[:5])}")] if absent else []
    return [
        ("data set", f"{facts.name}, {facts.num_classes} classes"),
        *([("class numbers", _numbered(facts))] if facts.class_names else []),
        ("rows", f"{facts.num_train:,} to train on, {facts.num_held_out:,} held out"),
        ("one row", f"{' x '.join(map(str, facts.shape))} {facts.dtype}, values {facts.low:g} to {facts.high:g}"),
        ("balance", _balance(facts, "row", "class")),
        ("constant", f"{facts.constant_fraction:.1%} of all pixels or features never change"),
        ("normalised", "yes" if facts.is_normalised else "no (raw values, divided by their scale)"),
        *[("note", text) for text in facts.notes],
        *_repetitions(facts, "row"),
        *warnings,
    ]


def _text_rows(facts: summary.Summary, found: summary.TextFacts) -> list[tuple[str, str]]:
    """What to say of texts."""
    low, median, high = found.lengths
    lengths = f"{high} tokens each" if low == high else f"{low} to {high} tokens, median {median}"
    groups = f"{facts.num_classes:,} group{'s' * (facts.num_classes > 1)}"
    later = sum(not count for count in facts.train_counts)
    return [
        ("data set", f"{facts.name}, texts of {groups}"),
        *([("group numbers", _numbered(facts))] if facts.class_names else []),
        ("texts", f"{facts.num_train:,} to train on, {facts.num_held_out:,} held out"),
        ("tokens", f"{found.tokens:,}, of which {found.learned:,} are learned"),
        ("vocabulary", f"{found.vocabulary:,} token ids, of which {found.used:,} occur"),
        ("lengths", lengths),
        ("balance", _balance(facts, "text", "group") + f" ({later:,} more groups are held out)" * bool(later)),
        ("example", f"{found.example_name}: {found.example!r}"),
        *[("note", text) for text in facts.notes],
        *_repetitions(facts, "text"),
    ]


def _balance(facts: summary.Summary, row: str, kind: str) -> str:
    """How many rows the classes have; of texts, those classes alone that have one."""
    counts = np.asarray(facts.train_counts)
    shown = facts.class_names or tuple(str(i) for i in range(facts.num_classes))
    if facts.texts:
        shown = tuple(name for name, count in zip(shown, counts, strict=True) if count)
        counts = counts[counts > 0]
    if counts.min() == counts.max():
        return f"{counts.min():,} training {row}s in every {kind}"
    least, most = int(counts.argmin()), int(counts.argmax())
    return f"{counts.min():,} ({shown[least]}) to {counts.max():,} ({shown[most]}) training {row}s per {kind}"


def _repetitions(facts: summary.Summary, row: str) -> list[tuple[str, str]]:
    found = []
    if facts.shared:
        found.append(f"{facts.shared:,} held-out {row}s stand in the train pool too: a model has seen them")
    if facts.repeated:
        found.append(f"{facts.repeated:,} training {row}s repeat an earlier one: forgetting one leaves its twin")
    return [("warning", text) for text in found]


def _numbered(facts: summary.Summary) -> str:
    """The numbers that settings use, with the first class names: files count classes in the order of names."""
    values = facts.class_values or tuple(range(facts.num_classes))
    pairs = list(zip(values, facts.class_names, strict=True))[:SHOWN_CLASSES]
    return ", ".join(f"{value} = {name!r}" for value, name in pairs) + (", ..." if len(values) > SHOWN_CLASSES else "")
