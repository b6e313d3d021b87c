"""Files that are whole or not there, and folders held by one at a time."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from vaelib import files


def test_a_file_is_synced_before_it_gets_its_name_and_its_folder_afterwards(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        events.append(("sync", os.path.realpath(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def renamed(source, target):
        events.append(("rename", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    files.write(tmp_path / "file", "content")
    (first, temporary), (second, name), (third, folder) = events
    assert (first, second, third) == ("sync", "rename", "sync")
    assert temporary.endswith(".part")
    assert (name, folder) == (str(tmp_path / "file"), str(tmp_path))


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path):
    barrier = Barrier(4)

    def write(thread):
        barrier.wait()
        for _ in range(50):
            files.write(tmp_path / "file", str(thread) * 1000)

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(write, range(4)))
    assert (tmp_path / "file").read_text() in [str(thread) * 1000 for thread in range(4)]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_held_folder_is_refused_to_other_threads_and_free_afterwards(tmp_path):
    def hold():
        with files.locked(tmp_path):
            return True

    with ThreadPoolExecutor(1) as executor:
        with files.locked(tmp_path), pytest.raises(RuntimeError, match="in use by another process or thread"):
            executor.submit(hold).result()
        assert executor.submit(hold).result()


def test_an_error_within_is_not_taken_for_a_folder_in_use(tmp_path):
    with pytest.raises(BlockingIOError, match="busy"), files.locked(tmp_path):
        raise BlockingIOError("busy")
