"""Files appear whole or not at all: write beside the target, then rename over it.

    path  <-  os.replace(temporary in the same folder)        atomic within one file system

A run that is killed, or a disk that fills up, leaves what was there before.  JSON is written here
too, always sorted as given, indented and with a newline at the end, so that two runs can be compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it becomes ``path`` when the block ends without an error.

    The temporary file is removed otherwise.  Missing parent folders are made.  An OSError (a full
    disk, a folder that may not be written) is raised again with the name of ``path`` in its message.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "row.txt"
    >>> with atomic(target) as temporary:
    ...     _ = temporary.write_text("ppl 61.3")
    >>> target.read_text(), [file.name for file in target.parent.iterdir()]
    ('ppl 61.3', ['row.txt'])
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder", str(path))
        # The suffix stays last: numpy, matplotlib and gzip choose a format by it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o666 & ~_umask())
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and error.filename not in (None, str(temporary), str(path)):
            raise  # about another file, which the block was reading
        failure = OSError(
            f"cannot write {path}: {error.strerror or error}. "
            "What was there is unchanged; make room or choose another place"
        )
        failure.errno = error.errno
        raise failure from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The process's file mode mask (it can only be read by setting it)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write ``data`` to ``path`` whole or not at all; text as UTF-8 with its line ends as they are."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a place that cannot be written, before the work whose result goes there; makes its folder."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}. Choose another place") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        why = "it is a folder" if path.is_dir() else "its folder may not be written"
        raise OSError(f"cannot write {path}: {why}. Choose another place")


def digest(path: str | os.PathLike[str]) -> str:
    """The first 16 hex digits of a file's SHA-256: whether it is the text that a run was begun with."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON value to ``path`` whole or not at all.

    Raises ValueError for NaN and infinities, which JSON does not have.
    """
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON value ({error}): a figure is NaN or infinite") from error
    write_atomic(path, text + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read one JSON value; a file that is not JSON raises ValueError with its line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8: a JSON file was expected here") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}; was it cut short?"
        ) from error
