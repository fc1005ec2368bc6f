"""Files written whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from ssmid.io.files import write_bytes, write_whole


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be synchronized")
def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace

    def synced(handle):
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "content")
        sync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *names: events.append("name") or replace(*names))
    write_bytes(tmp_path / "a.bin", b"new")
    assert events == ["content", "name", "folder"]
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_after_an_error_the_old_file_stands_and_nothing_else(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")

    def half(path):
        path.write_bytes(b"ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a.bin", half)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"old"
