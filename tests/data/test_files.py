"""Files appear whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from greenasr.data import files


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    value = {"ppl": 61.25, "bits": [1, 2], "name": "ü", "none": None}
    files.write_json(tmp_path / "new" / "row.json", value)
    assert files.read_json(tmp_path / "new" / "row.json") == value


def test_bytes_and_text_are_written_as_they_are(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "a", b"\x00\r\n")
    files.write_atomic(tmp_path / "b", "é\r\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n"
    assert (tmp_path / "b").read_bytes() == "é\r\n".encode()


def test_an_error_in_the_block_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    files.write_atomic(path, "old")
    with pytest.raises(KeyError), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyError("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(OSError, match="cannot write .*model.pt: No space left on device") as caught:
        with files.atomic(path) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_a_file_that_is_read_keeps_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing.txt"), files.atomic(tmp_path / "out.txt"):
        (tmp_path / "missing.txt").read_text()


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot write .*it is a folder"):
        files.write_atomic(tmp_path, "text")


def test_a_cut_json_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text('{"a": 1,\n "b": ')
    with pytest.raises(ValueError, match=r"costs.json:2: not JSON"):
        files.read_json(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        files.read_json(path)


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row.json: not a JSON value"):
        files.write_json(tmp_path / "row.json", {"ppl": float("nan")})
    assert not (tmp_path / "row.json").exists()
