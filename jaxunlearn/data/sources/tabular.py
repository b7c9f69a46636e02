"""The tabular benchmarks: Location-30, Purchase-100, Texas-100 (binary features) and UCI Adult.

The binary ones are read from their published archives (.tgz, .tar.gz, .zip), from the unpacked files, or from an
.npz. All of them are cut by the fixed permutation of seed 42, which gives the pools of the reference: the first
floor(0.8 n) rows train.

Source: pools and label shift of the IAM reference; the encoding of Adult of the Unlearning-Leaks reference.
"""

import csv
import dataclasses
import io
import pathlib
import tarfile
import zipfile
import zlib

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data.formats import arrays, encoding, files
from jaxunlearn.data.sources import builtin
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings


@dataclasses.dataclass(frozen=True)
class Binary:
    """A benchmark of binary features.

    Attributes:
      classes: number of classes.
      archive: name of the published archive.
      texts: ends of the paths in it: one table with the label first, or separate files of features and labels.
      url: where the archive is published.
    """

    classes: int
    archive: str
    texts: tuple[str, ...]
    url: str = "https://github.com/privacytrustlab/datasets"


BINARY = {
    "location30": Binary(30, "dataset_location.tgz", ("bangkok",)),
    "purchase100": Binary(100, "dataset_purchase.tgz", ("dataset_purchase",)),
    "texas100": Binary(100, "dataset_texas.tgz", ("texas/100/feats", "texas/100/labels")),
}

# Final order of Adult's features, by UCI names; the label follows them.
ADULT_FEATURES = (
    "age", "workclass", "fnlwgt", "education", "education-num", "occupation", "relationship", "marital-status", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country",
)  # fmt: skip
ADULT_FILE_ORDER = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
)  # fmt: skip
ADULT_WHOLE = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
ADULT_OTHER_NAMES = {"gender": "sex", "educational-num": "education-num", "class": "income", "salary": "income"}


def location30(settings: DataSettings) -> Dataset:
    """Loads Location-30: 5,010 rows of 446 binary check-in features, 30 classes."""
    return _binary(settings, "location30")


def purchase100(settings: DataSettings) -> Dataset:
    """Loads Purchase-100: 197,324 rows of 600 binary features, 100 classes."""
    return _binary(settings, "purchase100")


def texas100(settings: DataSettings) -> Dataset:
    """Loads Texas-100: 67,330 rows of 6,169 binary features, 100 classes."""
    return _binary(settings, "texas100")


def _binary(settings: DataSettings, name: str) -> Dataset:
    facts = BINARY[name]
    ways = [
        f"get {facts.archive} from {facts.url} and point --config.data.path to it (or put it into the cache folder)"
    ]
    path = files.locate(settings, [f"{name}.npz", facts.archive, facts.archive.replace(".tgz", "")], ways)
    if path.suffix == ".npz":
        content = files.read_npz(path)
        x, y = content.get("x", content.get("features")), content.get("y", content.get("labels"))
        if x is None or y is None:
            return builtin.from_content(content, path, name, settings.held_out, num_classes=facts.classes)
    else:
        stem = f"{name}-{files.digest(*map(files.stamp, _files_of(path)))}"
        content = files.load_cached(settings, stem, lambda: _read_texts(path, name, facts))
        x, y = content["x"], content["y"]
    y = arrays.tidy_labels(f"the labels of {path}", y, len(x))
    # Published labels of Purchase and Texas count from 1; an .npz may be shifted already, so the range decides.
    if y.min() == 1 or (y.min() > 1 and y.max() == facts.classes):
        y = y - 1
    return arrays.build_cut(name, x, y, settings.held_out, num_classes=facts.classes)


def _files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """Lists every file that a decoded copy of `path` may depend on."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [file for file in (path, path.with_name("labels")) if file.is_file()]


def _read_texts(path: pathlib.Path, name: str, facts: Binary) -> dict[str, np.ndarray]:
    # Quotes and blanks have no meaning in these tables; any line ending is accepted.
    texts = [text.replace(b"\r", b"\n").translate(None, b"\"' \t") for text in _texts(path, name, facts)]
    lines = [line for line in texts[0].split(b"\n") if line]
    if not lines:
        raise errors.DataError(f"{path} contains no rows.")
    if len(texts) == 1:
        cells = [line.partition(b",") for line in lines]
        labels, rows = [label for label, _, _ in cells], [rest for _, _, rest in cells]
    else:
        rows, labels = lines, [line for line in texts[1].split(b"\n") if line]
    if len(labels) != len(rows):
        raise errors.DataError(f"{path} contains {len(rows)} rows of features, but {len(labels)} labels.")
    try:
        y = np.array([int(label) for label in labels], np.int32)
    except (ValueError, OverflowError) as error:
        raise errors.DataError(f"{path} contains a label that is not a whole number ({error}).") from error
    return {"x": _binary_rows(rows, path), "y": y}


def _binary_rows(rows: list[bytes], path: pathlib.Path) -> np.ndarray:
    """Parses lines `0,1,0,...` to [N, F] uint8: every second byte is a feature, far faster than a CSV parser."""
    length = len(rows[0])
    x = np.empty((len(rows), (length + 1) // 2), np.uint8)
    for number, row in enumerate(rows):
        raw = np.frombuffer(row, np.uint8)
        x[number] = raw[::2] - ord("0") if len(raw) == length else 255
        if x[number].max() > 1 or np.any(raw[1::2] != ord(",")):
            beginning = row[:40].decode(errors="replace")
            raise errors.DataError(
                f"{path}: row {number} is not a list of {x.shape[1]} features 0 or 1 (it starts {beginning!r}). "
                "Unpack the published archive again, or give an .npz with x and y."
            )
    return x


def _texts(path: pathlib.Path, name: str, facts: Binary) -> list[bytes]:
    """Reads the published text files in an archive or a folder, or the file itself (Texas: also the file `labels`)."""
    try:
        if path.is_dir():
            files_inside = {str(entry.relative_to(path)): entry for entry in path.rglob("*") if entry.is_file()}
            return [files.read_bytes(files_inside[_find(files_inside, text, path, name)]) for text in facts.texts]
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                members = {member.name: member for member in tar.getmembers() if member.isfile()}
                selection = [members[_find(members, text, path, name)] for text in facts.texts]
                files.require_memory(str(path), sum(member.size for member in selection))
                return [tar.extractfile(member).read() for member in selection]  # type: ignore[union-attr]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = {entry.filename: entry for entry in archive.infolist()}
                selected_entries = [entries[_find(entries, text, path, name)] for text in facts.texts]
                files.require_memory(str(path), sum(entry.file_size for entry in selected_entries))
                return [archive.read(entry) for entry in selected_entries]
        if len(facts.texts) == 1:
            return [files.read_bytes(path)]
        labels = path.with_name("labels")
        if not labels.is_file():
            raise errors.DataError(
                f"{path} needs the file 'labels' in the same folder; give the archive or the unpacked folder."
            )
        return [files.read_bytes(path), files.read_bytes(labels)]
    except (OSError, EOFError, zlib.error, RuntimeError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise errors.DataError(f"{path} cannot be unpacked ({error}). Fetch {facts.archive} again.") from error


def _find(names: dict, end: str, path: pathlib.Path, name: str) -> str:
    """Returns the entry whose path ends in `end` (or its last component), without hidden companion files of macOS."""
    visible = [entry for entry in names if not pathlib.PurePosixPath(entry).name.startswith(".")]
    for ending in (end, end.rpartition("/")[2]):
        matches = [entry for entry in visible if ("/" + entry).endswith("/" + ending)]
        if matches:
            return min(matches, key=len)
    first_entries = ", ".join(sorted(visible)[:5]) or "nothing"
    raise errors.DataError(f"{path} contains no file {end!r} of data set {name!r}; it contains {first_entries}.")


def adult(settings: DataSettings) -> Dataset:
    """Loads UCI Adult: [N, 14] float32 codes, two classes (1 = more than 50K a year); `groups` is the code of sex.

    Text columns are coded by the sorted order of their distinct values in the file; `?` is a category of its own. The
    features are standardised by mean and std of the train pool. The file is adult.data as published, or a copy with
    header and without blanks (.csv, .gz), with UCI's or Kaggle's column names.

    Raises:
      DataError: missing file, a row with another number of columns, or a number column with text.

    Source: data preparation of the Unlearning-Leaks reference. Differs from it only in the standardisation.
    """
    ways = [
        "get adult.data from https://archive.ics.uci.edu/ml/machine-learning-databases/adult/ and point "
        "--config.data.path to it"
    ]
    path = files.locate(settings, ["adult.data", "adult.csv", "adult.csv.gz"], ways)
    columns = _adult_columns(path)
    x = np.empty((len(columns["age"]), len(ADULT_FEATURES)), np.float32)
    for index, feature in enumerate(ADULT_FEATURES):
        x[:, index] = _adult_codes(columns[feature], feature, path)
    income = np.array([value.rstrip(".") for value in columns["income"]])
    wrong = sorted(set(income.tolist()) - {"<=50K", ">50K"})
    if wrong:
        raise errors.DataError(f"{path}: the income {wrong[0]!r} is neither '<=50K' nor '>50K'.")
    return arrays.build_cut(
        "adult",
        x,
        (income == ">50K").astype(np.int32),
        settings.held_out,
        groups=x[:, ADULT_FEATURES.index("sex")].astype(np.int32),
        class_names=("<=50K", ">50K"),
    )


def _adult_columns(path: pathlib.Path) -> dict[str, list[str]]:
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
        # Any line ending is accepted.
        numbered = list(enumerate(csv.reader(io.StringIO(text, newline=None), skipinitialspace=True), 1))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise errors.DataError(f"{path} cannot be read as text ({error}). Fetch it again.") from error
    # adult.test opens with a line `|1x3 Cross validator`; adult.data closes with an empty one.
    rows = [(line, [cell.strip() for cell in row]) for line, row in numbered if row and not row[0].startswith("|")]
    rows = [(line, row) for line, row in rows if any(row)]
    order = list(ADULT_FILE_ORDER)
    if rows and not rows[0][1][0].lstrip("-").isdigit():
        order = [ADULT_OTHER_NAMES.get(cell.lower(), cell.lower()) for cell in rows[0][1]]
        rows = rows[1:]
    absent = [name for name in ADULT_FILE_ORDER if name not in order]
    if absent or not rows:
        what = f"has no column {absent[0]!r}" if absent else "contains no rows"
        raise errors.DataError(f"{path} {what}; expected the columns {', '.join(ADULT_FILE_ORDER)}.")
    for line, row in rows:
        if len(row) != len(order):
            raise errors.DataError(f"{path}, line {line}: {len(row)} columns, expected {len(order)}.")
    return {name: [row[index] for _, row in rows] for index, name in enumerate(order)}


def _adult_codes(values: list[str], feature: str, path: pathlib.Path) -> np.ndarray:
    if feature not in ADULT_WHOLE:
        return encoding.sorted_codes(np.array(values))
    try:
        return np.array([int(value) for value in values], np.float64)
    except (ValueError, OverflowError) as error:
        raise errors.DataError(
            f"{path}: column {feature!r} contains a value that is not a whole number ({error})."
        ) from error
