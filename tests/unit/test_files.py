"""Files that are whole or not there, and folders held by one at a time."""

import errno
import fcntl
import os
import stat
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


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM])
def test_a_file_system_that_cannot_sync_folders_gets_its_files(tmp_path, monkeypatch, number):
    fsync = os.fsync

    def only_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    files.write(tmp_path / "file", "content")
    assert (tmp_path / "file").read_text() == "content"
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="file"):
        files.write(tmp_path / "file", "other")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "content"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_folder_that_cannot_be_locked_is_named_with_a_way_out(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
    with pytest.raises(OSError, match=f"{tmp_path} cannot be made or locked .* VAELIB_RUNS"), files.locked(tmp_path):
        pass


def test_locks_of_two_kinds_exclude_each_other_and_every_user_may_lock(tmp_path, monkeypatch):
    with files.locked(tmp_path):
        assert stat.S_IMODE((tmp_path / ".lock").stat().st_mode) == 0o666
    (tmp_path / ".lock").write_text("4711\nelsewhere\n")  # as a machine without file locks leaves it
    with pytest.raises(RuntimeError, match=r"in use .*file systems without locks"), files.locked(tmp_path):
        pass


def test_a_folder_that_was_moved_and_made_again_is_not_written_to(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with files.locked(folder):
        folder.rename(tmp_path / "moved")
        with pytest.raises(OSError, match=str(folder)):  # nothing is there
            files.write(folder / "file", "content")
        folder.mkdir()
        for make in (str, (folder / ".lock").touch):  # at first, there is no lock
            make()
            with pytest.raises(
                RuntimeError, match=f"{folder} was moved away and made again, or its file .lock was del"
            ):
                files.write(folder / "file", "content")
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_disk_that_does_not_answer_is_no_missing_file(tmp_path, monkeypatch):
    assert files.exists(tmp_path) and not files.exists(tmp_path / "none") and not files.exists(tmp_path / "none" / "x")
    monkeypatch.setattr(os, "stat", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error"):
        files.exists(tmp_path)
