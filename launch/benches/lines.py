"""The file to which benches append rows: one JSON object per line."""

import os

from jaxunlearn import errors


def append(path: str, lines: list[str]) -> None:
    """Appends lines, on lines of their own even if a kill has cut off the last one; [] only tests that it can write.

    Raises:
      ConfigError: the file cannot be written.
    """
    try:
        with open(path, "ab+") as out:
            size = out.seek(0, os.SEEK_END)
            if lines and size:
                out.seek(size - 1)
                lines = [""] * (out.read(1) != b"\n") + lines
            out.write("".join(line + "\n" for line in lines).encode())
    except OSError as error:
        raise errors.ConfigError(
            f"--out={path} cannot be written: {error.strerror}. Give a file in a folder that exists."
        ) from error
