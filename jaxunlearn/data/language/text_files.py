"""The source `texts`: a user's files of texts, cut into blocks of tokens.

    files -> documents -> blocks (tokens, characters, name) -> Dataset

Every block is a row, named by its document: `book.txt:0`, `book.txt:1`, ...
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data.formats import files
from jaxunlearn.data.language import documents, texts, tokenizing
from jaxunlearn.data.language.documents import Document
from jaxunlearn.data.language.tokenizing import BYTES, Tokenizer
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings


class Block(NamedTuple):
    """One row.

    Attributes:
      name: the user's name of it.
      group: the group of its document.
      tokens: [n] int32.
      prompt: number of tokens at the start that are not learned.
      text: its characters, or None if they are not known.
      number: of the block within its document, from 0.
    """

    name: str
    group: str
    tokens: np.ndarray
    prompt: int
    text: str | None
    number: int = 0


def from_files(settings: DataSettings) -> Dataset:
    """Builds a data set from .txt and .jsonl files: documents are cut into blocks of at most `data.length` tokens.

    * `data.path` is a file, a folder of files (also in folders), or a folder with `train` and `test` (or `val`,
      `valid`; folders or files). Without these two, `data.held_out` of all blocks are held out at random.
    * A .txt file is one document; see `documents` for the lines of a .jsonl file.
    * Group of a text: its "group", else its folder (the uppermost, under `train` or the root), else its file. Groups
      are numbered by name.
    * A prompt with its answer is one row, never cut; the tokens of the prompt are not learned. A blank between the two
      belongs to the answer and is added if neither has one.
    * `data.unit=words`: blocks of `data.length` whitespace-separated words joined by blanks; the last block of a
      document may be shorter. Each block is tokenised by itself (MUSE).
    * `data.tokenizer`: `bytes` (UTF-8, 256 tokens; blocks end at whole characters) or a user's function, see
      `tokenizing`. If all rows are given as tokens, the vocabulary is its attribute, else the largest id plus 1.

    Blocks of fewer than two tokens are left out, with a note. Rows are named by a line's "id" if it has one, else
    file:block or file:line; ids count them in the order of sorted files, held-out ones after the train ones.

    Raises:
      DataError: no path, no texts, or a file or line that cannot be used (named).
      ConfigError: an unusable tokenizer, or `data.unit=words` where rows are given as tokens.
    """
    if not settings.path or not files.expand(settings.path).exists():
        absent = f", and {settings.path} does not exist" if settings.path else ""
        raise errors.DataError(
            f"data set 'texts' needs files{absent}: set --config.data.path to a folder of .txt files or .jsonl files "
            '(one object per line, {"text": "..."}), or to one such file.'
        )
    root = files.existing("texts", settings.path)
    tokenizer, pools = tokenizing.of(settings), documents.pools(root)
    pool_documents = [
        [
            document
            for path, group in zip(pool.paths, pool.groups, strict=True)
            for document in documents.read(path, group, root)
        ]
        for pool in pools
    ]
    all_documents = [document for pool in pool_documents for document in pool]
    if not all_documents:
        raise errors.DataError(f"{root} contains no texts: its files are empty.")
    tokenizer, notes = _with_vocabulary(tokenizer, all_documents)
    blocks = [
        [block for document in pool for block in _blocks(document, settings, tokenizer)] for pool in pool_documents
    ]
    _refuse_long([block for pool in blocks for block in pool], settings)
    pool_blocks = [[block for block in pool if len(block.tokens) >= 2] for pool in blocks]
    notes = [*documents.left_out_note(pools), *notes, *_short_note(blocks)]
    for pool, pool_name in zip(pool_blocks, ("train", "held-out"), strict=False):
        if not pool:
            subject = f"the {pool_name} pool of {root}" if len(pool_blocks) > 1 else str(root)
            raise errors.DataError(f"{subject} contains no text of at least 2 tokens.")
    if len(pool_blocks) == 1 and any(block.number for block in pool_blocks[0]):
        notes.append(
            "blocks are held out at random, so that both pools contain blocks of the same document; folders train and "
            "test hold out whole documents"
        )
    return _build(settings, pool_blocks, tokenizer, notes)


def _with_vocabulary(tokenizer: Tokenizer, all_documents: Sequence[Document]) -> tuple[Tokenizer, list[str]]:
    """Returns the tokenizer that all documents share, and notes about it."""
    if tokenizer is BYTES and all(document.tokens is not None for document in all_documents):
        tokenizer = Tokenizer("unknown", BYTES.encode, None, 0)
    for document in all_documents:
        if document.tokens is not None and len(document.tokens):
            complaint = tokenizing.wrong_id(document.tokens, tokenizer.vocabulary)
            if complaint:
                raise errors.DataError(f"{document.where} contains {complaint}.")
    return tokenizer, [] if tokenizer.vocabulary else ["the vocabulary ends at the largest token id of these texts"]


def _blocks(document: Document, settings: DataSettings, tokenizer: Tokenizer) -> Iterator[Block]:
    """Yields the rows of a document."""
    if document.prompt is not None:
        yield _question(document, tokenizer)
        return
    cuts = list(_cut(document, settings, tokenizer))
    for number, (tokens, text) in enumerate(cuts):
        name = f"{document.name}:{number}" if document.is_file or len(cuts) > 1 else document.name
        yield Block(name, document.group, tokens, 0, text, number)


def _cut(document: Document, settings: DataSettings, tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, str | None]]:
    """Yields (tokens, characters or None) of the blocks of a document."""
    length = settings.length
    if document.tokens is None and settings.unit == "words":
        words = document.text.split()
        for start in range(0, len(words), length):
            text = " ".join(words[start : start + length])
            yield tokenizing.encoded(tokenizer, text, document.where), text
        return
    if document.tokens is None:
        tokens = tokenizing.encoded(tokenizer, document.text, document.where)
        if len(tokens) <= length:
            yield tokens, document.text
            return
    elif settings.unit == "words":
        raise errors.ConfigError(
            f"data.unit = 'words' cuts characters, but {document.where} gives tokens. Set --config.data.unit=tokens."
        )
    else:
        tokens = document.tokens.astype(np.int32)
    start = 0
    while start < len(tokens):
        stop = min(start + length, len(tokens))
        # Blocks of bytes end between characters, so that their characters are known: 10xxxxxx continues a character.
        while tokenizer is BYTES and document.tokens is None and stop < len(tokens) and tokens[stop] & 0xC0 == 0x80:
            stop -= 1
        block = tokens[start:stop]
        yield block, tokenizing.decoded(tokenizer, block, document.where)
        start = stop


def _question(document: Document, tokenizer: Tokenizer) -> Block:
    """Returns the row of a prompt with its answer."""
    prompt, answer = document.prompt or "", document.text
    if not answer:
        raise errors.DataError(f"{document.where}: the answer is empty; nothing would be learned.")
    if prompt and not prompt[-1].isspace() and not answer[0].isspace():
        answer = " " + answer
    token_ids = [tokenizing.encoded(tokenizer, text, document.where) for text in (prompt, answer)]
    if not len(token_ids[1]):
        raise errors.DataError(f"{document.where}: the answer has no tokens; nothing would be learned.")
    return Block(document.name, document.group, np.concatenate(token_ids), len(token_ids[0]), prompt + answer)


def _refuse_long(rows: Sequence[Block], settings: DataSettings) -> None:
    """Raises a DataError if a prompt with its answer is too long; names the longest, so that one change is enough."""
    sizes = [len(row.tokens if settings.unit == "tokens" else (row.text or "").split()) for row in rows]
    longest = max(sizes, default=0)
    if longest > settings.length:
        count = sum(size > settings.length for size in sizes)
        raise errors.DataError(
            f"prompt and answer of {rows[sizes.index(longest)].name} have {longest:,} {settings.unit}, more than "
            f"data.length = {settings.length}, and are never cut ({count:,} such row(s), this is the longest). Set "
            f"--config.data.length={longest}, or shorten them."
        )


def _short_note(blocks: Sequence[Sequence[Block]]) -> list[str]:
    short = [block.name for pool in blocks for block in pool if len(block.tokens) < 2]
    if not short:
        return []
    return [f"left out, because they have fewer than 2 tokens: {len(short):,} block(s), first {short[0]}"]


def _build(
    settings: DataSettings, pools: Sequence[Sequence[Block]], tokenizer: Tokenizer, notes: Sequence[str]
) -> Dataset:
    rows = [block for pool in pools for block in pool]
    tokens = texts.padded([block.tokens for block in rows])
    names = sorted({block.group for block in rows}, key=_group_order)
    number_of = {name: number for number, name in enumerate(names)}
    is_read = all(block.text is not None for block in rows)
    if not is_read:
        notes = [*notes, "characters of these texts are not known: scores that read them are left out"]
    return texts.build(
        settings.name,
        tokens,
        np.array([number_of[block.group] for block in rows]),
        tokenizer.vocabulary or max(int(tokens.max()) + 1, 2),
        num_train=len(pools[0]) if len(pools) > 1 else 0,
        held_out=settings.held_out,
        class_names=names,
        prompts=np.array([block.prompt for block in rows]) if any(block.prompt for block in rows) else None,
        texts=[block.text or "" for block in rows] if is_read else None,
        names=[block.name for block in rows],
        notes=notes,
    )


def _group_order(name: str) -> tuple[int, int, str]:
    """Returns the sort key of a group: whole numbers first, by their value, then names."""
    is_number = name.isascii() and name.isdigit() and len(name) < 19
    return (0, int(name), name) if is_number else (1, 0, name)
