import errno
import os
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from trainer.contract import files
from trainer.contract.files import append_line, atomic_write, discard, sweep
from trainer.contract.home import CHECKOUT, Home

Usage = namedtuple("Usage", "free")
# The system refuses this process files of over 1,000 bytes, as a full disk would.
SMALL_DISK = """
import resource, sys
from pathlib import Path
from trainer.contract.files import atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    atomic_write(Path(sys.argv[1]), b"new" * 1000)
except OSError as error:
    print("refused", error.errno)
"""


def write_on_a_small_disk(path):
    command = [sys.executable, "-c", SMALL_DISK, str(path)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_written_file_holds_the_data_and_nothing_else_is_left(tmp_path):
    atomic_write(tmp_path / "new folder" / "bälle.bin", b"\0\r\n\xff")
    assert [(f.name, f.read_bytes()) for f in tmp_path.rglob("*.*")] == [("bälle.bin", b"\0\r\n\xff")]


def test_writing_again_replaces_the_content(tmp_path):
    for data in (b"a long first version", b"second"):
        atomic_write(tmp_path / "x", data)
    assert (tmp_path / "x").read_bytes() == b"second"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks files that are open")
def test_who_is_reading_the_old_file_sees_nothing_of_the_new_one(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        atomic_write(path, b"new")
        assert reader.read() == b"old"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_write_that_fails_keeps_the_old_content_and_leaves_no_part(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"old")
    assert write_on_a_small_disk(path).startswith("refused")
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("config.toml", b"old")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_first_write_that_fails_leaves_no_file(tmp_path):
    assert write_on_a_small_disk(tmp_path / "config.toml").startswith("refused")
    assert list(tmp_path.iterdir()) == []


def test_a_write_onto_a_folder_is_refused_and_leaves_no_part(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        atomic_write(tmp_path / "taken", b"x")
    assert [f.name for f in tmp_path.iterdir()] == ["taken"]


def test_on_a_full_disk_a_write_says_what_it_takes_and_what_is_free(tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _folder: Usage(free=3_100_000))
    with pytest.raises(OSError, match=r"ana\.bin takes 18\.9 MB, and 3\.1 MB are free") as caught:
        atomic_write(tmp_path / "new" / "ana.bin", bytes(18_900_000))
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.rglob("*.*")) == []


def test_what_writes_that_were_cut_short_left_is_swept_and_nothing_else(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / ".000006.part").mkdir()
    for name in (".a.bin.x1.part", "samples/.b.png.x2.part", ".ana.safetensors.proof", ".000006.part/state.json"):
        (tmp_path / name).write_text("half")
    for name in ("a.part", ".lock", "ana.safetensors"):
        (tmp_path / name).write_text("whole")
    sweep(tmp_path, alone=True)
    assert {path.name for path in tmp_path.rglob("*")} == {"samples", "a.part", ".lock", "ana.safetensors"}


@pytest.mark.parametrize("alone", [True, False])
def test_what_a_living_process_is_just_writing_is_not_swept(tmp_path, alone):
    ours, theirs = os.getpid(), os.getppid()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    for writer in (ours, theirs, ended.pid):
        (tmp_path / f".a.png.{writer}.x_1.part").touch()
    (tmp_path / f".b.png.{theirs}.x_1.part").touch()
    os.utime(tmp_path / f".b.png.{theirs}.x_1.part", (time.time() - 7200,) * 2)  # no write takes so long
    (tmp_path / ".a.png.1x2y3z4_.part").touch()  # as early versions wrote it
    sweep(tmp_path, alone)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f".a.png.{theirs}.x_1.part"} | ({".a.png.1x2y3z4_.part"} if not alone else set())


def test_a_file_that_is_being_written_says_who_writes_it(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(files.os, "fsync", lambda _handle: seen.extend(tmp_path.iterdir()))
    atomic_write(tmp_path / "a.png", b"x")
    assert files.WRITER.search(seen[0].name)[1] == str(os.getpid())


def test_a_folder_that_is_deleted_is_never_seen_by_half_and_its_rest_is_swept(tmp_path, monkeypatch):
    folder = tmp_path / str(os.getppid())  # a step, not the process that writes it
    folder.mkdir()
    (folder / "state.json").touch()
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_given, **_named: None)  # killed before it has deleted anything
    discard(folder)
    assert [path.name for path in tmp_path.iterdir()] == [f".{folder.name}-old.part"]
    monkeypatch.undo()
    sweep(tmp_path, alone=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_a_written_file_can_be_read_by_other_users(tmp_path):
    atomic_write(tmp_path / "ana.safetensors", b"x")
    assert (tmp_path / "ana.safetensors").stat().st_mode & 0o777 == 0o644


def test_the_chosen_home_comes_before_the_environments(monkeypatch, tmp_path):
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "environment"))
    assert Home.find(tmp_path / "chosen").root == (tmp_path / "chosen").resolve()


def test_the_environments_home_comes_before_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    assert Home.find().root == tmp_path.resolve()


@pytest.mark.parametrize("empty", [True, False])
def test_without_a_choice_the_home_is_the_checkout(monkeypatch, empty):
    monkeypatch.setenv("ATELIER_HOME", "")
    if not empty:
        monkeypatch.delenv("ATELIER_HOME")
    assert Home.find().root == CHECKOUT


def test_a_relative_home_becomes_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Home.find(Path("here")).root == tmp_path.resolve() / "here"


def test_a_tilde_is_the_users_own_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(tmp_path))
    assert Home.find(Path("~/atelier")).root == tmp_path.resolve() / "atelier"


@pytest.mark.parametrize("torn", [b"", b"whole\n", b"whole\nto"])
def test_a_line_is_added_and_one_cut_short_before_it_stays_by_itself(tmp_path, torn):
    (tmp_path / "lines").write_bytes(torn)
    append_line(tmp_path / "lines", "drei Füchse".encode())
    append_line(tmp_path / "lines", b"end")
    lines = (tmp_path / "lines").read_bytes().split(b"\n")
    assert lines == [*torn.splitlines(), "drei Füchse".encode(), b"end", b""]
