"""The UNet's files, read in passing while captions are encoded: a number that is none is found before any image is."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import originals
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from trainer.__main__ import main
from trainer.contract.events import RunFailed, read_events
from trainer.engine.data.cache import TensorCache
from trainer.engine.families.read_ahead import PIECE_BYTES, ReadAhead
from trainer.engine.families.unet import StableDiffusion
from trainer.models.errors import NotNumbers

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture
def seen(monkeypatch, files):
    """Bytes of tensors that were read of each file, and a gate that every piece passes."""
    read, gate, asked = {}, Event(), Event()
    gate.set()
    plain = Path.open

    class Watched:
        def __init__(self, path):
            self.path, self.file = path, plain(path, "rb")
            self.seek = self.file.seek

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

        def __getattr__(self, name):
            return getattr(self.file, name)

    def open_watched(path, *how, **more):
        return Watched(path) if path in files else plain(path, *how, **more)

    monkeypatch.setattr(Path, "open", open_watched)
    return read, gate, asked


def tensors(number):
    """Several pieces, none of them even."""
    return {"long": torch.ones(number * PIECE_BYTES // 4 + 5), "numbers": torch.arange(3), "short": torch.ones(2)}


@pytest.fixture
def files(tmp_path):
    made = [tmp_path / name for name in ("one.safetensors", "two.safetensors")]
    for number, file in enumerate(made, 1):
        save_file(tensors(number), file)
    return made


def spoil(file, name, place=-1, value=math.nan, dtype=torch.float32):
    held = load_file(file)
    held[name] = held[name].to(dtype)
    held[name].view(-1)[place] = value
    save_file(held, file)


def test_every_tensor_is_read(files, seen):
    with ReadAhead(files) as reading:
        reading.start()
        reading.start()
        reading.finish()
    held = {file.name: sum(tensor.nbytes for tensor in tensors(i).values()) for i, file in enumerate(files, 1)}
    assert seen[0] == held


def test_it_stops_within_a_piece_when_the_block_is_left(files, seen):
    read, gate, asked = seen
    gate.clear()
    with ReadAhead(files[1:]) as reading:
        reading.start()
        asked.wait()
    gate.set()
    reading._thread.join()
    assert sum(read.values()) <= PIECE_BYTES


def test_nothing_is_read_before_something_must_be_made(tmp_path, files, seen):
    with ReadAhead(files) as reading:
        assert reading._thread.ident is None
        cache = TensorCache(tmp_path / "cache", missed=reading.start)
        cache.get("key", dict)
        reading.finish()
    assert seen[0]
    missed = []
    TensorCache(tmp_path / "cache", missed=lambda: missed.append("key")).get("key", dict)
    assert missed == []


def test_a_file_that_is_gone_is_told_to_the_log_alone(tmp_path, caplog):
    with ReadAhead([tmp_path / "gone.safetensors"]) as reading:
        reading.finish()
    assert "gone.safetensors" in caplog.text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, PIECE_BYTES // 4 + 1, -1])
def test_a_number_that_is_none_is_found_wherever_it_lies(files, place, value):
    spoil(files[1], "long", place, value)
    with ReadAhead(files) as reading, pytest.raises(NotNumbers, match="long of its UNet"):
        reading.finish()


@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_of_every_format_are_looked_at(files, dtype):
    spoil(files[0], "long", 0, 1.0, dtype)
    with ReadAhead(files) as reading:
        reading.finish()
    spoil(files[0], "long", -1, math.nan, dtype)
    with ReadAhead(files) as reading, pytest.raises(NotNumbers, match="long"):
        reading.finish()


def test_every_thread_that_waits_is_told(files):
    spoil(files[0], "short")
    with ReadAhead(files) as reading, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(reading.finish) for _ in range(8)]
    assert all(isinstance(one.exception(), NotNumbers) for one in waiting)


def test_of_a_file_with_all_parts_only_the_unet_is_looked_at(tmp_path):
    file = originals.write_file(tmp_path / "model.safetensors", "sd15")
    held = load_file(file)
    name = next(name for name in held if name.startswith("model.diffusion_model."))
    unused = {"model_ema.decay": torch.tensor([math.nan]), "zeta": torch.full((8,), math.inf)}
    save_file(held | unused, file)
    with ReadAhead([file]) as reading:
        reading.finish()
    spoil(file, name, dtype=held[name].dtype)
    with ReadAhead([file]) as reading, pytest.raises(NotNumbers, match=name):
        reading.finish()


@pytest.mark.parametrize("trained", [False, True])
def test_a_run_is_refused_before_its_first_image_is_encoded(tmp_path, new_run, monkeypatch, trained):
    encoded, encode = [], StableDiffusion.encode_image
    monkeypatch.setattr(StableDiffusion, "encode_image", lambda *given: encoded.append(1) or encode(*given))
    base = tiny.model(tmp_path / "base")
    (file,) = (base / "unet").glob("*.safetensors")
    spoil(file, max(load_file(file)))
    run = new_run(model={"base_model": str(base)}, adapter={"text_encoder": trained})
    assert main([str(run.path)]) != 0
    (failed,) = (event for event in read_events(run.events_file)[0] if isinstance(event, RunFailed))
    assert failed.code == "not_numbers"
    assert encoded == []
