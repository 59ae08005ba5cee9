import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.contract.home import CHECKOUT, Home, append_line, atomic_write

# The system refuses this process files of over 1,000 bytes, as a full disk would.
SMALL_DISK = """
import resource, sys
from pathlib import Path
from trainer.contract.home import atomic_write
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
