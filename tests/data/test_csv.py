"""A user's CSV as a data set: what columns become, and every malformed file as one message that names its line."""

import gzip

import numpy as np
import pytest

from jaxunlearn import data, errors
from jaxunlearn.data.formats import published_permutations
from jaxunlearn.data.sources import tabular
from jaxunlearn.data.splitting import forget
from jaxunlearn.settings import DataSettings

TABLE = """\
age,city,outcome
31,Rome,yes
42.5,Oslo,no
18,"Rome",no
77,"Bern, old town",yes
25,,yes
"""


def load(path, **settings):
    return data.load(DataSettings(name="csv", path=str(path), **{"held_out": 0.4, **settings}))


@pytest.fixture
def written(tmp_path):
    def write(text, name="mine.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def in_file_order(dataset):
    order = np.argsort(dataset.ids)
    return dataset.inputs[order], dataset.labels[order], dataset.names[order]


def noted(dataset, words):
    return any(words in note for note in dataset.notes)


def test_numbers_stay_and_words_are_coded_by_their_sorted_values(written):
    dataset = load(written(TABLE))
    inputs, labels, names = in_file_order(dataset)
    np.testing.assert_array_equal(inputs, np.float32([[31, 3], [42.5, 2], [18, 3], [77, 1], [25, 0]]))
    assert labels.tolist() == [1, 0, 0, 1, 1] and dataset.class_names == ("no", "yes")
    assert names.tolist() == [f"mine.csv:{line}" for line in (2, 3, 4, 5, 6)]
    np.testing.assert_array_equal(dataset.ids, published_permutations.fixed(5))
    assert dataset.num_train == 3
    np.testing.assert_allclose(dataset.mean, dataset.inputs[:3].mean(0), rtol=1e-6)
    assert noted(dataset, "the label is column 'outcome', the last one")
    assert noted(dataset, "column 'city': 1 missing value is (first: mine.csv, line 6) kept as a category")


@pytest.mark.parametrize("separator, word", [(";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", "")])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_line_ends_marks_and_archives_do_not_matter(written, separator, word, end):
    rows = [line.replace('"Bern, old town"', "Bern") for line in TABLE.splitlines()]
    text = end.join(line.replace(",", separator) for line in rows).encode()
    expected = in_file_order(load(written("\n".join(rows), "plain.csv")))
    for name, raw in (("a.csv", text), ("a.tsv", b"\xef\xbb\xbf" + text), ("a.csv.gz", gzip.compress(text))):
        dataset = load(written(raw, name))
        for got, values in zip(in_file_order(dataset)[:2], expected[:2], strict=True):
            np.testing.assert_array_equal(got, values)
        assert noted(dataset, f"columns are separated by {word}") == bool(word)


def test_rows_are_named_by_the_line_they_begin_in(written):
    text = 'x,comment,label\n1,"two\nlines, and ""quotes""",a\n\n2,plain,b\n,,\n3,other,a\n'
    dataset = load(written(text))
    assert in_file_order(dataset)[2].tolist() == ["mine.csv:2", "mine.csv:5", "mine.csv:7"]
    assert noted(dataset, "'comment' has a different value in every row; data.ignore=comment leaves it out")
    assert load(written(text), ignore=("comment",)).inputs.shape == (3, 1)


def test_a_column_of_ids_names_the_rows_and_is_no_feature(written):
    path = written("id,x,y\nann,1,0\nbob,2,1\ncid,3,1\n")
    dataset = load(path)
    assert in_file_order(dataset)[2].tolist() == ["ann", "bob", "cid"] and dataset.inputs.shape == (3, 1)
    assert noted(dataset, "column 'id' names the rows")
    path = written("id,x,y\nann,1,0\nann,2,1\ncid,3,1\n")
    assert load(path).inputs.shape == (3, 2), "an id that repeats is a feature like another"
    assert "line 3: data.id_column = 'id' must name every row, but 'ann' also occurs in line 2" in refused(
        path, id_column="id"
    )
    assert "must name every row, but it is empty" in refused(written("k,x,y\n,1,0\nb,2,1\n"), id_column="k")
    assert "is also the label" in refused(path, id_column="y")
    index = written(",x,y\n0,5,0\n1,6,1\n2,7,0\n")
    assert load(index).inputs.shape == (3, 1) and noted(load(index), "column 1 has no name and only counts the rows")
    assert load(written("x,y,\n5,0,\n6,1,\n7,0,\n")).inputs.shape == (3, 1)


def test_requested_rows_may_be_named_as_the_file_does(written, tmp_path):
    dataset = load(written("id,x,y\nann,1,0\nbob,2,1\ncid,3,1\ndan,4,0\neve,5,1\n"), held_out=0.2)
    (tmp_path / "ask.txt").write_text(f"ids\n{dataset.names[1]}\n")
    assert forget.read_index_file(str(tmp_path / "ask.txt"), dataset)[0].tolist() == [1]


def test_the_label_is_the_column_named_or_the_usual_one_or_the_last(written):
    text = "Target,a,b\n3,1,x\n5,2,y\n3.0,4,x\n"
    dataset = load(written(text))
    assert dataset.class_names == ("3", "5") and in_file_order(dataset)[1].tolist() == [0, 1, 0]
    assert load(written(text), label="b").class_names == ("x", "y")
    assert "data.label: " in refused(written(text), label="c")
    assert "has no column 'Targets'. Did you mean 'Target'" in refused(written(text), label="Targets")
    both = written("label,class,x\n0,1,2\n1,0,3\n")
    assert "has the columns 'label', 'class': choose the label with --config.data.label=label" in refused(both)
    assert load(both, label="class").num_classes == 2


def test_numbers_may_be_categories_and_gaps_take_the_median_of_the_train_pool(written):
    text = "zip,x,y\n10115,1,a\n00100,?,b\n10115,3,a\n80331,NA,b\n"
    dataset = load(written(text), categories=("zip",), held_out=0.25)
    inputs = in_file_order(dataset)[0]
    assert inputs[:, 0].tolist() == [1, 0, 1, 2]
    train = [row for row in dataset.ids[:3] if row in (0, 2)]
    median = np.median([inputs[row, 1] for row in train])
    assert inputs[1, 1] == inputs[3, 1] == median
    assert noted(dataset, "column 'x': 2 missing values are (first: mine.csv, line 3) filled with")
    assert in_file_order(load(written(text)))[0][1, 0] == 100, "without it a number"


def test_a_folder_holds_both_pools(written, tmp_path):
    written("x,c,y\n1,b,0\n2,a,1\n", "both/train.csv")
    written("y,x,c\n1,3,c\n", "both/test.csv")
    dataset = load(tmp_path / "both")
    np.testing.assert_array_equal(dataset.inputs, [[1, 1], [2, 0], [3, 2]])
    assert dataset.num_train == 2 and dataset.ids.tolist() == [0, 1, 2] and dataset.labels.tolist() == [0, 1, 1]
    assert dataset.names.tolist() == ["train.csv:2", "train.csv:3", "test.csv:2"]
    written("x,d,y\n1,b,0\n", "both/test.csv")
    assert "test.csv has no column 'c', but train.csv has. Both need the same columns" in refused(tmp_path / "both")
    written("x,y\n1,0\n", "one/train.csv")
    assert "contains no test.csv" in refused(tmp_path / "one")


def refused(path, **settings):
    with pytest.raises(errors.DataError) as caught:
        load(path, **settings)
    return str(caught.value)


FLOATS = "x,y\n" + "".join(f"{row % 7},{row * 0.37:.3f}\n" for row in range(300))


@pytest.mark.parametrize("text, expected", [
    ("", "contains no rows: it is empty"),
    ("\n\n", "contains no rows: it is empty"),
    ("a,b,y\n", "contains a header, but no rows"),
    ("a,y\n1,0\n2,1,5\n", "line 3: 3 columns, expected 2 as in the header"),
    ("a,y\n1,0\n2\n", "line 3: 1 columns, expected 2"),
    ("5.1,3.5,0\n4.9,3.0,1\n", "has no header: its first line contains values (5.1, 3.5, 0"),
    ("a,b,a,y\n1,2,3,0\n4,5,6,1\n", "the header has the name 'a' twice"),
    ("a,,y\n1,2,0\n4,9,1\n", "column 2 has no name in the header"),
    ("just one\nvalue\nper line\n", "has only one column ('just one')"),
    ("a,y\n1,0\n2,0\n", "every row has the label '0' in column 'y'; a classifier needs at least 2"),
    ("a,y\n1,0\n2,\n", "line 3: the label 'y' is missing (1 such rows)"),
    (FLOATS, "the label 'y' has 300 different values in 300 rows"),
    ("x,name\n" + "".join(f"{row},person {row}\n" for row in range(40)), "has 40 different values in 40 rows"),
    ("a,y\n" + "3,0\n2,1\n" * 10 + "much,1\n", "line 22: column 'a' contains 'much', expected a number"),
    ('a,y\n"1,234",0\n"2,500",1\n', "line 2: column 'a' contains '1,234', expected a number. Write numbers with"),
    ("a;y\n1,5;0\n2,5;1\n", "column 'a' contains '1,5', expected a number. Write numbers with digits and a decimal"),
    ("a,y\n50%,0\n60%,1\n", "contains '50%'"),
    ("a,y\ninf,0\n2,1\n", "line 2: column 'a' contains 'inf', expected a number. Only finite"),
    ("a,y\n,0\n?,1\n", "column 'a' contains no value. Leave it out: --config.data.ignore=a"),
    ("y\n", "contains a header, but no rows"),
    ('a,y\n"open,0\n2,1\n', "line 2: unexpected end of data. Quotes inside a quoted cell are doubled"),
    ('a,y\n1,0\n"b"c,1\n', "line 3: ',' expected after '\"'"),
    ("stadt,y\nKöln,0\nBonn,1\n".encode("latin1"), "line 2: byte 0xf6 is not UTF-8"),
    ("a,y\n1,0\n".encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
])  # fmt: skip
def test_a_malformed_file_is_one_message(written, text, expected):
    assert expected in refused(written(text))


def test_unknown_columns_and_missing_files_are_named(written, tmp_path):
    path = written(TABLE)
    assert "data.ignore: " in refused(path, ignore=("cty",)) and "Did you mean 'city'" in refused(path, ignore=("cty",))
    assert "data.categories: " in refused(path, categories=("zip",))
    assert "no columns besides" in refused(path, ignore=("age", "city"))
    assert "data set 'csv' needs a file" in refused("")
    assert "nowhere.csv, given as data.path" in refused(tmp_path / "nowhere.csv")


def test_columns_that_are_numbered_are_a_header(written):
    assert load(written("0,1,2\n5,6,0\n7,8,1\n9,9,0\n")).inputs.shape == (3, 2)


def test_the_real_adult_table_has_the_codes_of_its_own_source(shared):
    path = shared("adult.csv.gz")
    adult = data.load(DataSettings(name="adult", path=str(path)))
    table = data.load(DataSettings(name="csv", path=str(path)))
    np.testing.assert_array_equal(table.labels, adult.labels)
    assert table.class_names == adult.class_names and table.num_train == adult.num_train
    assert {tuple(column) for column in table.inputs[:200].T} == {tuple(column) for column in adult.inputs[:200].T}
    assert table.inputs.shape == (32561, len(tabular.ADULT_FEATURES))
