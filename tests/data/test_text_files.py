import json
import os

import numpy as np
import pytest

from jaxunlearn import data, errors
from jaxunlearn.data import naming, summary
from jaxunlearn.data.formats import published_permutations
from jaxunlearn.data.language import tokenizing
from jaxunlearn.data.splitting import forget, splits
from jaxunlearn.records import next_tokens
from jaxunlearn.runs import dataset as looking
from jaxunlearn.settings import DataSettings, ForgetSettings, SplitSettings


def load(path, **settings):
    return data.load(DataSettings(name="texts", path=str(path), **settings))


def refused(path, kind=errors.DataError, **settings):
    with pytest.raises(kind) as caught:
        load(path, **settings)
    return str(caught.value)


def write(folder, **content):
    """Writes files into a folder; `a__b_txt` is a/b.txt. Lists become lines of JSON."""
    for key, value in content.items():
        path = folder / key.replace("__", "/").replace("_txt", ".txt").replace("_jsonl", ".jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, list):
            value = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in value)
        path.write_bytes(value if isinstance(value, bytes) else value.encode())
    return folder


@pytest.fixture
def tokenizers(tmp_path, monkeypatch):
    """A module of tokenizers that a user might bring."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_words.py").write_text(
        "KNOWN = ['<unk>', 'the', 'cat', 'dog', 'sat']\n"
        "def plain(text): return [KNOWN.index(w) if w in KNOWN else 0 for w in text.split()]\n"
        "def whole(text): return plain(text)\n"
        "whole.vocabulary = 9\n"
        "whole.decode = lambda ids: ' '.join(KNOWN[one] for one in ids)\n"
        "def small(text): return plain(text)\n"
        "small.vocabulary = 2\n"
        "def odd(text): return plain(text)\n"
        "odd.vocabulary = 'many'\n"
        "def mute(text): return plain(text)\n"
        "mute.decode = 'no function'\n"
        "def numbers(text): return plain(text)\n"
        "numbers.decode = lambda ids: ids\n"
        "def fails(text): raise KeyError('no such word')\n"
        "def batch(text): return {'input_ids': plain(text)}\n"
        "def nested(text): return [[1, 2], [3]]\n"
        "def halves(text): return [0.5, 1.5]\n"
        "def below(text): return [3, -1]\n"
        "def far(text): return [3, 10**7]\n"
        "def nothing(text): return []\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "code")


def by_name(dataset):
    """Name -> (characters, tokens without padding, prompt, group) of every row."""
    prompts = np.zeros(len(dataset.ids), int) if dataset.prompts is None else dataset.prompts
    texts = [None] * len(dataset.ids) if dataset.texts is None else dataset.texts.tolist()
    return {
        str(name): (
            text,
            [token for token in row.tolist() if token >= 0],
            int(prompt),
            dataset.class_names[label],
        )
        for name, text, row, prompt, label in zip(
            dataset.names, texts, dataset.inputs, prompts, dataset.labels, strict=True
        )
    }


def test_documents_are_cut_into_blocks_that_name_their_file(tmp_path):
    write(
        tmp_path, b_txt="0123456789", a__deep__x_txt="abcd", a__y_txt="ef", c_jsonl=[{"text": "12345"}, {"text": "6 7"}]
    )
    dataset = load(tmp_path, length=4, held_out=0.3)
    assert by_name(dataset) == {
        "a/deep/x.txt:0": ("abcd", [97, 98, 99, 100], 0, "a"),
        "a/y.txt:0": ("ef", [101, 102], 0, "a"),
        "b.txt:0": ("0123", [48, 49, 50, 51], 0, "b"),
        "b.txt:1": ("4567", [52, 53, 54, 55], 0, "b"),
        "b.txt:2": ("89", [56, 57], 0, "b"),
        "c.jsonl:1:0": ("1234", [49, 50, 51, 52], 0, "c"),
        "c.jsonl:2": ("6 7", [54, 32, 55], 0, "c"),
    }
    assert (dataset.vocabulary, dataset.num_train, dataset.inputs.shape) == (256, 4, (7, 4))
    # ids count blocks in the order of the sorted files; the pools are cut by the permutation of every source.
    in_order = dataset.names[np.argsort(dataset.ids)].tolist()
    assert in_order == sorted(in_order)
    np.testing.assert_array_equal(dataset.ids, published_permutations.fixed(7))
    assert any("first c.jsonl:1:1" in note for note in dataset.notes)  # "5" alone is no text
    assert any("both pools contain blocks of the same document" in note for note in dataset.notes)


def test_blocks_of_bytes_end_at_whole_characters(tmp_path):
    text = "aé€😀" * 9 + "z"
    write(tmp_path, one_txt=text)
    dataset = load(tmp_path / "one.txt", length=7)
    order = np.argsort(dataset.ids)
    assert "".join(dataset.texts[order]) == text and dataset.class_names == ("all",)
    assert [list(text.encode()) for text in dataset.texts] == [row[1] for row in by_name(dataset).values()]
    assert max(len(text.encode()) for text in dataset.texts) == 7
    assert dataset.names[order][0] == "one.txt:0"


def test_folders_or_files_train_and_test_are_the_pools(tmp_path):
    write(tmp_path / "a", train__x__1_txt="aaaa", train__2_txt="bbbb", test__x__3_txt="cccc", test__z_txt="dddd")
    write(tmp_path / "a", extra_txt="not read", readme="not read")
    dataset = load(tmp_path / "a")
    assert dataset.num_train == 2 and dataset.ids.tolist() == [0, 1, 2, 3]
    assert dataset.names.tolist() == ["train/2.txt:0", "train/x/1.txt:0", "test/x/3.txt:0", "test/z.txt:0"]
    assert dataset.class_names == ("2", "x", "z") and dataset.labels.tolist() == [0, 1, 1, 2]
    assert "1 '.txt', 1 without suffix" in dataset.notes[0]
    write(tmp_path / "b", train_jsonl=[{"text": "aa", "id": "p", "group": 10}, {"text": "bb", "id": 4, "group": 9}],
          val_jsonl=[{"text": "cc"}])  # fmt: skip
    dataset = load(tmp_path / "b")
    assert dataset.num_train == 2 and dataset.names.tolist() == ["p", "4", "val.jsonl:1"]
    assert dataset.class_names == ("9", "10", "all") and dataset.labels.tolist() == [1, 0, 2]


def test_answers_are_learned_and_their_prompts_are_given(tmp_path):
    write(tmp_path, q_jsonl=[
        {"prompt": "Who?", "answer": "Me."},
        {"question": "Why? ", "answer": "So."},
        {"prompt": "", "answer": "Alone"},
        {"text": "Plain", "extra": [1]},
    ])  # fmt: skip
    dataset = load(tmp_path / "q.jsonl", held_out=0.5)
    rows_by_name = by_name(dataset)
    assert {name: (text, prompt) for name, (text, _, prompt, _) in rows_by_name.items()} == {
        "q.jsonl:1": ("Who? Me.", 4),
        "q.jsonl:2": ("Why? So.", 5),
        "q.jsonl:3": ("Alone", 0),
        "q.jsonl:4": ("Plain", 0),
    }
    learned = (next_tokens(dataset) >= 0).sum(1)
    assert dict(zip(dataset.names.tolist(), learned.tolist(), strict=True)) == {
        "q.jsonl:1": 4, "q.jsonl:2": 3, "q.jsonl:3": 4, "q.jsonl:4": 4
    }  # fmt: skip
    message = refused(tmp_path / "q.jsonl", length=7)
    assert (
        "prompt and answer of q.jsonl:1 have 8 tokens, more than data.length = 7, and are never cut (2 such" in message
    )
    assert "Set --config.data.length=8" in message
    write(tmp_path, plain_jsonl=[{"text": "aa"}, {"text": "bb"}])
    assert load(tmp_path / "plain.jsonl", held_out=0.5).prompts is None


def test_blocks_of_words_are_those_of_muse(tmp_path):
    write(
        tmp_path, a_txt="one two\n three  four five", b_jsonl=[{"prompt": "one two", "answer": "three"}, {"text": " "}]
    )
    dataset = load(tmp_path, unit="words", length=4, held_out=0.4)
    assert {name: row[0] for name, row in by_name(dataset).items()} == {
        "a.txt:0": "one two three four",
        "a.txt:1": "five",
        "b.jsonl:1": "one two three",
    }
    write(tmp_path, b_jsonl=[{"prompt": "one two three four", "answer": "five"}])
    assert "prompt and answer of b.jsonl:1 have 5 words" in refused(tmp_path, unit="words", length=4)
    write(tmp_path, b_jsonl=[{"tokens": [1, 2]}])
    assert "b.jsonl, line 1 gives tokens" in refused(tmp_path, errors.ConfigError, unit="words")


def test_rows_may_be_given_as_tokens(tmp_path):
    write(tmp_path, t_jsonl=[{"tokens": [5, 300, 2, 7, 1]}, {"tokens": [2, 2]}, {"tokens": []}, {"tokens": [1]}])
    dataset = load(tmp_path, length=4, held_out=0.5)
    assert dataset.vocabulary == 301 and dataset.texts is None
    assert {name: row[1] for name, row in by_name(dataset).items()} == {
        "t.jsonl:1:0": [5, 300, 2, 7],
        "t.jsonl:2": [2, 2],
    }
    assert any("vocabulary ends at the largest token id" in note for note in dataset.notes)
    assert any("scores that read them are left out" in note for note in dataset.notes)
    assert any("2 block(s), first t.jsonl:1:1" in note for note in dataset.notes)
    write(tmp_path, t_jsonl=[{"tokens": [97, 200, 98]}, {"tokens": [0, 0]}, {"text": "abc"}])
    mixed = load(tmp_path, held_out=0.5)
    assert (mixed.vocabulary, set(mixed.texts)) == (256, {"a\ufffdb", "\ufffd\ufffd", "abc"})
    write(tmp_path, t_jsonl=[{"tokens": [5, 300]}, {"text": "abc"}])
    assert "t.jsonl, line 1 contains the token id 300, but the vocabulary has 256" in refused(tmp_path)


def test_a_users_tokenizer_is_called_and_checked(tmp_path, tokenizers):
    folder = write(
        tmp_path / "texts", a_jsonl=[{"text": "the cat sat"}, {"text": "the dog ran a b the"}, {"text": "x y"}]
    )
    dataset = load(folder, tokenizer="my_words:plain")
    assert dataset.vocabulary == 5 and dataset.texts.tolist().count("the cat sat") == 1
    assert by_name(dataset)["a.jsonl:1"][1] == [1, 2, 4]
    assert load(folder, tokenizer="my_words:plain", length=4).texts is None  # nobody knows what its blocks say
    dataset = load(folder, tokenizer="my_words:whole", length=4)
    assert dataset.vocabulary == 9 and not any("vocabulary" in note for note in dataset.notes)
    assert by_name(dataset)["a.jsonl:2:0"][:2] == ("the dog <unk> <unk>", [1, 3, 0, 0])
    for name, expected in {
        "my_words:fails": "line 1, does not run: KeyError: 'no such word'",
        "my_words:batch": "returned dict of shape () and dtype object, expected a list of whole numbers",
        "my_words:nested": "returned no list of token ids",
        "my_words:halves": "returned list of shape (2,) and dtype float64",
        "my_words:below": "returned the token id -1; ids start at 0",
        "my_words:far": "returned the token id 10000000; no vocabulary has more",
        "my_words:small": "returned the token id 4, but the vocabulary has 2 tokens (ids 0 to 1)",
        "my_words:odd": "its attribute vocabulary is 'many'",
        "my_words:mute": "its attribute decode is not a function",
        "my_words:hole": "Did you mean 'whole'?",
        "no_words:x": "cannot import module 'no_words'",
        "words": "data.tokenizer = 'words': expected 'bytes', or my_module:my_tokenizer",
    }.items():
        assert expected in refused(folder, errors.ConfigError, tokenizer=name)
    assert "returned list, expected a string" in refused(
        folder, errors.ConfigError, tokenizer="my_words:numbers", length=4
    )
    assert "contains no text of at least 2 tokens" in refused(folder, tokenizer="my_words:nothing")


def test_the_grammar_is_read_back_by_its_own_alphabet():
    tokenizer = tokenizing.of(DataSettings(name="grammar"))
    dataset = data.load(DataSettings(name="grammar", train_rows=3, test_rows=3))
    for row, text in zip(dataset.inputs, dataset.texts, strict=True):
        np.testing.assert_array_equal(tokenizing.encoded(tokenizer, text, "a text"), row)
        assert tokenizing.decoded(tokenizer, row, "a text") == text
    assert tokenizing.encoded(tokenizer, dataset.texts[0].lower(), "a text").max() < 64


def test_lines_that_cannot_be_used_are_named(tmp_path):
    good = {"text": "good text"}
    for line, expected in {
        '{"text": "cut off': "line 2: not JSON (Unterminated string starting at, character 10)",
        "[1, 2]": "line 2: expected an object",
        '"text"': "got str",
        "[" * 100_000: "line 2: not JSON",
        "{}": "line 2 has the keys (none)",
        '{"Text": "a"}': "has the keys 'Text'; expected {",
        '{"text": "ab", "tokens": [1]}': "contains text and tokens; expected one of",
        '{"text": "ab", "prompt": "a", "answer": "b"}': "contains text and prompt and answer",
        '{"prompt": "a"}': "has no key 'answer'",
        '{"answer": "a"}': "has no key 'prompt'",
        '{"prompt": "a", "answer": ""}': "the answer is empty",
        '{"text": null}': "text is null, expected a string",
        '{"text": ["a"]}': 'text is ["a"]',
        '{"text": "\\ud800"}': "half of a surrogate pair",
        '{"tokens": "1 2"}': 'tokens is "1 2"',
        '{"tokens": [1, 2.0]}': "tokens is [1, 2.0], expected a list of whole numbers",
        '{"tokens": [true, false]}': "tokens is [true, false]",
        '{"tokens": [3, -1]}': "line 2 contains the token id -1; ids start at 0, and padding is added here",
        '{"tokens": [3, 5000000]}': "the token id 5000000",
        '{"tokens": [3, 99999999999999999999999]}': "which is not a token id",
        '{"text": "ab", "id": 1.5}': "id is 1.5",
        '{"text": "ab", "group": ["a"]}': 'group is ["a"]',
    }.items():
        write(tmp_path, a_jsonl=[good, line, good])
        message = refused(tmp_path)
        assert str(tmp_path / "a.jsonl") in message and expected in message


def test_folders_that_cannot_be_used_are_named(tmp_path):
    assert "needs files: set --config.data.path" in refused("")
    assert "needs files, and /nowhere does not exist: set --config.data.path" in refused("/nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} contains no texts (.txt, .jsonl)." in refused(empty)
    write(empty, **{"a.csv": "x", "b.json": "{}", ".hidden_txt": "hidden", "inner__c.csv": "x"})
    assert "it contains 1 '.csv', 1 '.json', 1 folder 'inner'" in refused(empty)
    assert "texts are read from .txt and .jsonl files" in refused(empty / "b.json")
    write(tmp_path / "blank", a_jsonl="\n \n")
    assert "its files are empty" in refused(tmp_path / "blank")
    write(tmp_path / "blank", a_txt="")
    assert "contains no text of at least 2 tokens" in refused(tmp_path / "blank")
    write(tmp_path / "latin", a_txt="für".encode("latin-1"), b_txt="ok then")
    assert "a.txt is not UTF-8 text (byte 1 is 0xfc)" in refused(tmp_path / "latin")
    write(tmp_path / "one", a_txt="ab")
    assert "has 1 row(s); with data.held_out = 0.2 one of the two pools is empty" in refused(tmp_path / "one")
    write(tmp_path / "pools", train__a_txt="aaaa")
    assert "has a folder 'train' but none of" in refused(tmp_path / "pools")
    write(tmp_path / "pools", test__a_txt="a")
    assert "the held-out pool of" in refused(tmp_path / "pools")
    write(tmp_path / "pools", train_jsonl=[{"text": "aa"}])
    assert "contains train and train.jsonl" in refused(tmp_path / "pools")


def test_links_and_pipes_are_not_followed_forever(tmp_path):
    folder = write(tmp_path / "texts", a__x_txt="one text", b__y_txt="another text")
    (folder / "c").symlink_to(folder / "nowhere")
    assert "is a link to" in refused(folder) and "does not exist" in refused(folder)
    (folder / "c").unlink()
    (folder / "a" / "round").symlink_to(folder)
    assert "is a link to a folder that it lies in" in refused(folder)
    (folder / "a" / "round").unlink()
    (folder / "same").symlink_to(folder / "a")
    assert sorted(load(folder).names) == ["a/x.txt:0", "b/y.txt:0", "same/x.txt:0"]
    os.mkfifo(folder / "pipe.txt")
    assert "pipe.txt is not a regular file" in refused(folder)


def test_files_larger_than_memory_are_refused_unread(tmp_path):
    write(tmp_path, a_txt="ab")
    with open(tmp_path / "huge.txt", "wb") as file:
        file.truncate(1 << 42)  # a hole on the disk
    assert "would take" in refused(tmp_path) and "as token ids" in refused(tmp_path)


def test_blocks_can_be_asked_for_by_name(tmp_path):
    write(tmp_path, **{f"{name}_txt": name * 8 for name in "abcdefgh"})
    write(tmp_path / "ask", **{"list.txt": "ids\na.txt:0\nc.txt:1\n"})
    (tmp_path / "ask").rename(tmp_path.parent / "ask_of_texts")
    path = tmp_path.parent / "ask_of_texts" / "list.txt"
    dataset = load(tmp_path, length=4, held_out=0.01)
    request = ForgetSettings(kind="index_file", path=str(path))
    (positions,) = forget.listed_rows(SplitSettings(forget=request), dataset)
    assert sorted(dataset.names[positions]) == ["a.txt:0", "c.txt:1"]
    assert naming.display_names(dataset, positions)[0] == f"{dataset.ids[positions[0]]} ({dataset.names[positions[0]]})"


def test_all_texts_of_a_group_can_be_asked_for(tmp_path):
    write(tmp_path, **{f"{group}__{n}_txt": f"{group}{n} text" for group in "abc" for n in range(20)})
    dataset = load(tmp_path)
    whole = ForgetSettings(kind="one_class", classes=(2,), count=1)
    split = splits.draw(dataset, SplitSettings(shadow=10, forget=whole), 3)
    texts_of_set = set(dataset.texts[split.forget[0]])
    assert (
        texts_of_set == {text for text in dataset.texts[split.target] if text.startswith("c")} and len(texts_of_set) > 5
    )


def test_the_look_at_texts_counts_tokens_and_repeated_texts(tmp_path):
    write(tmp_path, train__x_jsonl=[{"prompt": "Who?", "answer": "Me."}, {"text": "twice"}, {"text": "twice"}],
          test__y_jsonl=[{"text": "twice"}, {"text": "new\x1b[31m"}])  # fmt: skip
    dataset = load(tmp_path)
    facts = summary.describe(dataset)
    assert (facts.shared, facts.repeated, facts.texts.lengths) == (1, 1, (5, 5, 8))
    assert (facts.texts.tokens, facts.texts.learned, facts.texts.used) == (31, 23, len(set("Who? Me.twicenew\x1b[31m")))
    shown = looking.text(facts)
    for expected in (
        "texts of 2 groups", "0 = 'x', 1 = 'y'", "3 to train on, 2 held out", "31, of which 23 are learned",
        "256 token ids, of which 18 occur", "5 to 8 tokens, median 5", "3 training texts in every group (1 more groups",
        "0 (train/x.jsonl:1): 'Who? Me.'", "1 held-out texts stand in the train pool too",
        "1 training texts repeat an earlier one",
    ):  # fmt: skip
        assert expected in shown
    tokens = dataset.replace(texts=None, names=None, inputs=dataset.inputs[:, ::-1].copy())
    assert "'" in looking.text(summary.describe(tokens))
    assert "64 tokens each" in looking.text(summary.describe(data.load(DataSettings(name="grammar"))))


def test_looking_at_texts_draws_and_writes_nothing(tmp_path):
    facts, sheet = looking.inspect(DataSettings(name="grammar"), str(tmp_path / "run"))
    assert sheet == "" and not (tmp_path / "run").exists() and facts.texts.vocabulary == 64


def test_excluded_groups_keep_their_texts(tmp_path):
    write(tmp_path, **{f"{group}__{n}_txt": f"{group}{n} text" for group in "abc" for n in range(6)})
    dataset = load(tmp_path, ood_classes=("b",))
    assert dataset.class_names == ("a", "c") and set(dataset.ood.texts) == {f"b{n} text" for n in range(6)}
    assert len(dataset.texts) == len(dataset.names) == 12 and dataset.ood.vocabulary == 256
