"""Inspection of a data set before any training: counts, balance, ranges, repeated rows, a contact sheet."""

import numpy as np

from jaxunlearn import data, store
from jaxunlearn.data import summary
from jaxunlearn.records import Dataset
from jaxunlearn.report import page, tables
from jaxunlearn.report.figures import figures
from jaxunlearn.settings import DataSettings

SHOWN_CLASSES = 12


def import_archive(path: str, settings: DataSettings) -> str:
    """Reads an official archive into the cache; returns the path of its arrays."""
    return str(data.import_archive(path, settings.cache))


def inspect(settings: DataSettings, folder: str, per_class: int = 10) -> tuple[summary.Summary, str]:
    """Loads and checks a data set; draws a contact sheet if its rows are images.

    Returns:
      (facts about the data, path of the contact sheet or "").
    """
    dataset = data.load(settings)
    facts = summary.describe(dataset)
    if np.ndim(dataset.inputs) != 4:
        return facts, ""
    path = store.begin(folder).output("report", "contact_sheet.png")
    page.save_figure(contact_sheet(dataset, per_class), path)
    return facts, str(path)


def contact_sheet(dataset: Dataset, per_class: int):  # type: ignore[no-untyped-def]
    """Draws the first images of each class (of the first 30 classes)."""
    rows = summary.examples(dataset, per_class)[:30]
    names = dataset.class_names or tuple(str(i) for i in range(dataset.num_classes))
    images = np.asarray(dataset.inputs)[np.maximum(rows, 0)] / dataset.scale
    images[rows < 0] = 1.0
    return figures.contact_sheet(images, names[: len(rows)], f"{dataset.name}: first rows of each class")


def text(facts: summary.Summary) -> str:
    """Returns the facts as a table."""
    return tables.pairs(_text_rows(facts, facts.texts) if facts.texts else _number_rows(facts))


def _number_rows(facts: summary.Summary) -> list[tuple[str, str]]:
    """Returns the table rows for numeric data and images."""
    class_names = facts.class_names or tuple(str(i) for i in range(facts.num_classes))
    absent_classes = [name for name, count in zip(class_names, facts.train_counts, strict=True) if not count]
    warnings = [("warning", f"no training row of class {', '.join(absent_classes[:5])}")] if absent_classes else []
    return [
        ("data set", f"{facts.name}, {facts.num_classes} classes"),
        *([("class numbers", _class_values_text(facts))] if facts.class_names else []),
        ("rows", f"{facts.num_train:,} to train on, {facts.num_held_out:,} held out"),
        ("one row", f"{' x '.join(map(str, facts.shape))} {facts.dtype}, values {facts.low:g} to {facts.high:g}"),
        ("balance", _balance_text(facts, "row", "class")),
        ("constant", f"{facts.constant_fraction:.1%} of all pixels or features never change"),
        ("normalised", "yes" if facts.is_normalised else "no (raw values, divided by their scale)"),
        *[("note", text) for text in facts.notes],
        *_repetition_warnings(facts, "row"),
        *warnings,
    ]


def _text_rows(facts: summary.Summary, text_facts: summary.TextFacts) -> list[tuple[str, str]]:
    """Returns the table rows for texts."""
    low, median, high = text_facts.lengths
    lengths = f"{high} tokens each" if low == high else f"{low} to {high} tokens, median {median}"
    groups = f"{facts.num_classes:,} group{'s' * (facts.num_classes > 1)}"
    num_held_out_groups = sum(not count for count in facts.train_counts)
    return [
        ("data set", f"{facts.name}, texts of {groups}"),
        *([("group numbers", _class_values_text(facts))] if facts.class_names else []),
        ("texts", f"{facts.num_train:,} to train on, {facts.num_held_out:,} held out"),
        ("tokens", f"{text_facts.tokens:,}, of which {text_facts.learned:,} are learned"),
        ("vocabulary", f"{text_facts.vocabulary:,} token ids, of which {text_facts.used:,} occur"),
        ("lengths", lengths),
        (
            "balance",
            _balance_text(facts, "text", "group")
            + f" ({num_held_out_groups:,} more groups are held out)" * bool(num_held_out_groups),
        ),
        ("example", f"{text_facts.example_name}: {text_facts.example!r}"),
        *[("note", text) for text in facts.notes],
        *_repetition_warnings(facts, "text"),
    ]


def _balance_text(facts: summary.Summary, row_word: str, class_word: str) -> str:
    """Returns the range of rows per class; for texts, over the classes that have any."""
    counts = np.asarray(facts.train_counts)
    class_names = facts.class_names or tuple(str(i) for i in range(facts.num_classes))
    if facts.texts:
        class_names = tuple(name for name, count in zip(class_names, counts, strict=True) if count)
        counts = counts[counts > 0]
    if counts.min() == counts.max():
        return f"{counts.min():,} training {row_word}s in every {class_word}"
    least, most = int(counts.argmin()), int(counts.argmax())
    smallest, largest = f"{counts.min():,} ({class_names[least]})", f"{counts.max():,} ({class_names[most]})"
    return f"{smallest} to {largest} training {row_word}s per {class_word}"


def _repetition_warnings(facts: summary.Summary, row_word: str) -> list[tuple[str, str]]:
    warnings = []
    if facts.shared:
        warnings.append(f"{facts.shared:,} held-out {row_word}s stand in the train pool too: a model has seen them")
    if facts.repeated:
        warnings.append(
            f"{facts.repeated:,} training {row_word}s repeat an earlier one: forgetting one leaves its copy"
        )
    return [("warning", text) for text in warnings]


def _class_values_text(facts: summary.Summary) -> str:
    """Returns the class numbers used by settings, with the first class names: files count classes in order of names."""
    values = facts.class_values or tuple(range(facts.num_classes))
    pairs = list(zip(values, facts.class_names, strict=True))[:SHOWN_CLASSES]
    return ", ".join(f"{value} = {name!r}" for value, name in pairs) + (", ..." if len(values) > SHOWN_CLASSES else "")
