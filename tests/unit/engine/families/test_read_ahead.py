"""The UNet's files, read in passing while images are encoded."""

from collections import namedtuple
from pathlib import Path
from threading import Event

import pytest

from trainer.engine.data.cache import TensorCache
from trainer.engine.families import read_ahead
from trainer.engine.families.read_ahead import PIECE_BYTES, ReadAhead

Memory = namedtuple("Memory", "available")


@pytest.fixture
def seen(monkeypatch, files):
    """Bytes that were read of each file, and a gate that every piece passes."""
    read, gate, asked = {}, Event(), Event()
    gate.set()
    plain = Path.open

    class Watched:
        def __init__(self, path):
            self.path, self.file = path, plain(path, "rb", buffering=0)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def readinto(self, piece):
            asked.set()
            gate.wait()
            size = self.file.readinto(piece)
            read[self.path.name] = read.get(self.path.name, 0) + size
            return size

    def open_watched(path, *how, **more):
        return Watched(path) if path in files else plain(path, *how, **more)

    monkeypatch.setattr(Path, "open", open_watched)
    return read, gate, asked


@pytest.fixture
def files(tmp_path):
    made = [tmp_path / name for name in ("one.safetensors", "two.safetensors")]
    for number, file in enumerate(made, 1):
        file.write_bytes(bytes(number * PIECE_BYTES + 5))
    return made


def test_every_file_is_read_to_its_end(files, seen):
    with ReadAhead(files) as reading:
        reading.start()
        reading.start()
        reading._thread.join()
    assert seen[0] == {file.name: file.stat().st_size for file in files}


def test_it_stops_within_a_piece_when_the_block_is_left(files, seen):
    read, gate, asked = seen
    gate.clear()
    with ReadAhead(files[1:]) as reading:
        reading.start()
        asked.wait()
    gate.set()
    reading._thread.join()
    assert read == {"two.safetensors": PIECE_BYTES}


def test_nothing_is_read_before_something_must_be_made(tmp_path, files, seen):
    with ReadAhead(files) as reading:
        assert reading._thread.ident is None
        cache = TensorCache(tmp_path / "cache", missed=reading.start)
        cache.get("key", dict)
        reading._thread.join()
    assert seen[0]
    missed = []
    TensorCache(tmp_path / "cache", missed=lambda: missed.append("key")).get("key", dict)
    assert missed == []


def test_nothing_is_read_where_memory_is_short(files, seen, monkeypatch):
    monkeypatch.setattr(read_ahead.psutil, "virtual_memory", lambda: Memory(PIECE_BYTES))
    with ReadAhead(files) as reading:
        reading.start()
        reading._thread.join()
    assert seen[0] == {}


def test_a_file_that_is_gone_is_told_to_the_log_alone(tmp_path, caplog):
    with ReadAhead([tmp_path / "gone.safetensors"]) as reading:
        reading.start()
        reading._thread.join()
    assert "gone.safetensors" in caplog.text
