import os
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import headers
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from trainer.console.main import main as console
from trainer.contract.errors import FileExists
from trainer.models.errors import ConversionRefused
from trainer.tools.convert import convert, main

ROOT = Path(__file__).parents[3]


def small_model():
    """The tensors that tell an SD 1.x, one number wide where the width says nothing."""
    rng = torch.Generator().manual_seed(0)
    shapes = headers.sd15().items()
    return {name: torch.randn((2, *shape[1:])[: len(shape)], generator=rng).half() for name, shape in shapes}


def saved(path, held):
    torch.save(held, path)
    return path


def lightning(monkeypatch):
    """The class whose name Lightning writes into checkpoints, as far as saving it needs one."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.ModelCheckpoint


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def test_the_weights_arrive_bit_by_bit_under_their_own_names(tmp_path):
    tensors = small_model()
    target = tmp_path / "model.safetensors"
    convert(saved(tmp_path / "model.ckpt", {"state_dict": tensors, "global_step": 7, "epoch": 1}), target)
    written = load_file(target)
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[name], tensors[name]) for name in tensors)
    assert {tensor.dtype for tensor in written.values()} == {torch.float16}
    with safe_open(target, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ckpt", "model.safetensors"]


def test_a_bare_dictionary_of_tensors_is_a_checkpoint_too(tmp_path):
    convert(saved(tmp_path / "a.bin", {"a": torch.ones(2), "step": 3}), tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors").keys() == {"a"}


def test_wrappers_come_off_and_averaged_copies_stay_behind(tmp_path):
    held = {"module.a": torch.ones(1), "model_ema.a": torch.zeros(1), "model_ema.decay": torch.ones(())}
    convert(saved(tmp_path / "a.ckpt", {"state_dict": held}), tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors") == {"a": torch.ones(1)}


def test_tensors_that_share_memory_or_lie_crosswise_are_written_out(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    held = {"base": base, "same": base, "crosswise": base.t(), "row": base[1], "column": base[:, 1], "none": base[:0]}
    convert(saved(tmp_path / "a.ckpt", held), tmp_path / "a.safetensors")
    written = load_file(tmp_path / "a.safetensors")
    assert written.keys() == held.keys()
    assert all(torch.equal(written[name], held[name]) for name in held)


def test_what_lightning_writes_beside_the_weights_is_left_out(tmp_path, monkeypatch):
    best = {"best_model_score": np.float64(0.25), "epoch": np.int64(3), "rate": np.float32(1e-4)}
    held = {"state_dict": {"a": torch.ones(2)}, "callbacks": {lightning(monkeypatch): best}, "lr_schedulers": [{}]}
    convert(saved(tmp_path / "a.ckpt", held), tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors").keys() == {"a"}


@pytest.mark.parametrize("place", ["beside", "among"])
def test_a_checkpoint_that_would_run_a_program_is_refused_and_runs_nothing(tmp_path, place):
    marker = tmp_path / "it ran"
    tensors, hostile = {"a": torch.ones(2)}, Hostile(marker)
    held = {"state_dict": tensors, "x": hostile} if place == "beside" else {"state_dict": {**tensors, "x": hostile}}
    source = saved(tmp_path / "evil.ckpt", held)
    with pytest.raises(ConversionRefused) as told:
        convert(source, tmp_path / "evil.safetensors")
    assert f"{os.system.__module__}.system" in told.value.message
    assert "holds more than weights" in told.value.message
    assert "could run a program on your computer" in told.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.ckpt"]
    torch.load(source, weights_only=False)  # the test's own proof that this checkpoint is a hostile one
    assert marker.exists()


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.Popen", "numpy.dtype"])
def test_a_hostile_call_does_nothing_by_whatever_name(tmp_path, name):
    module, _, function = name.rpartition(".")
    marker = tmp_path / "it ran"
    pickled = f"c{module}\n{function}\n(Vopen({str(marker)!r}, 'w')\ntR.".encode()
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + pickled)
        file.writestr("archive/version", b"3\n")
        file.writestr("archive/byteorder", b"little")
    with pytest.raises(ConversionRefused):
        convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt"]


def test_classes_that_are_not_known_are_named(tmp_path):
    with pytest.raises(ConversionRefused, match=r"holds more than weights: pathlib\.P\w+Path\. It could run"):
        convert(saved(tmp_path / "a.ckpt", {"a": torch.ones(1), "where": Path("x")}), tmp_path / "a.safetensors")


def test_the_form_before_version_1_6_is_refused(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(ConversionRefused, match=r"the form that PyTorch had before version 1\.6"):
        convert(tmp_path / "old.ckpt", tmp_path / "old.safetensors")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"GGUF", b"\x08\0\0\0\0\0\0\0{}      "])
def test_what_is_no_checkpoint_is_told(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(ConversionRefused, match=r"a\.ckpt is no checkpoint"):
        convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors")


def test_another_zip_and_a_damaged_checkpoint_are_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "pictures.ckpt", "w") as file:
        file.writestr("one.png", b"x")
    held = saved(tmp_path / "whole.ckpt", {"a": torch.ones(1000)}).read_bytes()
    (tmp_path / "hole.ckpt").write_bytes(held.replace(b"ctorch._utils", b"ctorch._uti\x00\x00"))
    (tmp_path / "short.ckpt").write_bytes(held[:3000])
    for name in ("pictures", "hole", "short"):
        with pytest.raises(ConversionRefused):
            convert(tmp_path / f"{name}.ckpt", tmp_path / f"{name}.safetensors")
        assert not (tmp_path / f"{name}.safetensors").exists()


@pytest.mark.parametrize("held", [{}, {"state_dict": {}}, [1, 2], {"step": 3}, torch.ones(2)])
def test_a_file_without_named_weights_is_told(tmp_path, held):
    with pytest.raises(ConversionRefused, match="holds no weights"):
        convert(saved(tmp_path / "a.ckpt", held), tmp_path / "a.safetensors")


def test_nothing_is_overwritten(tmp_path):
    source = saved(tmp_path / "a.ckpt", {"a": torch.ones(1)})
    (tmp_path / "a.safetensors").write_text("mine")
    with pytest.raises(FileExists):
        convert(source, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_text() == "mine"
    with pytest.raises(ConversionRefused, match=r"does not end in \.safetensors"):
        convert(source, source)


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    source = saved(tmp_path / "a.ckpt", {"a": torch.ones(10**5)})
    code = (
        "import resource, signal, sys; from pathlib import Path; from trainer.tools.convert import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10**4, 10**4))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    # -B: Python would keep the compiled modules that it, too, can only write in part
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(source), str(tmp_path / "a.safetensors")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "cannot be written" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt"]


def test_the_console_tells_what_was_written(tmp_path, capfd):
    source = saved(tmp_path / "ana [1].ckpt", {"state_dict": small_model()})
    assert console(["convert", str(source)]) == 0
    _, written, sentence = capfd.readouterr().out.splitlines()
    assert written == f"Written: {tmp_path / 'ana [1].safetensors'}"
    assert sentence.startswith("SD 1.x, predicts noise, 512 px, fp16,")


def test_the_console_tells_when_it_is_no_base_model_and_when_it_is_refused(tmp_path, capsys):
    lora = {"lora_unet_x.lora_down.weight": torch.ones(4, 8), "lora_unet_x.lora_up.weight": torch.ones(8, 4)}
    assert main([str(saved(tmp_path / "lora.pt", lora)), str(tmp_path / "made.safetensors")]) == 0
    assert "it is a LoRA" in capsys.readouterr().out
    assert main([str(tmp_path / "nothing.ckpt"), str(tmp_path / "nothing.safetensors")]) == 2
    assert "Error (conversion_refused): No file at" in capsys.readouterr().out
    assert console(["convert"]) == 2
    assert "MODEL.ckpt" in capsys.readouterr().out


def test_the_weights_are_not_all_in_memory_at_once(tmp_path):
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    megabytes = 200
    held = {str(number): torch.zeros(2**18) for number in range(megabytes)}
    source = saved(tmp_path / "large.ckpt", {"state_dict": held})
    code = (
        "import re, sys; from pathlib import Path; from trainer.tools.convert import convert\n"
        "def own(): return int(re.search(r'RssAnon:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024\n"
        "import safetensors.torch, trainer.tools.convert; before = own(); peak = []\n"
        "write = trainer.tools.convert.save_file\n"
        "trainer.tools.convert.save_file = lambda *a, **k: (write(*a, **k), peak.append(own()))\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2])); print(peak[0] - before)"
    )
    command = [sys.executable, "-c", code, str(source), str(tmp_path / "large.safetensors")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < megabytes / 4


def peak_mib(source, target):
    """MiB of memory that converting takes at most, whatever comes of it."""
    code = (
        "import resource, sys; from trainer.tools.convert import main\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak(); code = main(sys.argv[1:]); print(code, peak() - before)"
    )
    command = [sys.executable, "-c", code, str(source), str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()[-2:]]


def packed_bomb(path):
    """600 MiB of zeros as a pickle's text, packed into less than one."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        size = 600 * 2**20
        file.writestr("archive/data.pkl", b"\x80\x02X" + size.to_bytes(4, "little") + bytes(size) + b".")
        file.writestr("archive/version", b"3\n")
        file.writestr("archive/byteorder", b"little")


@pytest.mark.skipif(sys.platform != "linux", reason="counts as Linux does")
@pytest.mark.parametrize(
    "make",
    [
        packed_bomb,
        lambda path: saved(path, {"a": torch.ones(1).expand(2**14, 2**14)}),
        lambda path: saved(path, many_names(2**18, 600)),
    ],
    ids=["packed", "one number named many times", "one tensor under many names"],
)
def test_a_small_checkpoint_that_would_unpack_to_a_large_one_is_refused_and_takes_no_memory(tmp_path, make):
    make(tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").stat().st_size < 4 * 2**20
    code, taken = peak_mib(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    assert code == 2
    assert taken < 256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt"]


def many_names(count, names):
    """The same numbers under many names."""
    one = torch.ones(count)
    return {f"name {number}": one for number in range(names)}


def test_a_checkpoint_that_holds_itself_comes_to_an_end(tmp_path):
    held = {"a": torch.ones(2)}
    held["state_dict"] = held
    convert(saved(tmp_path / "a.ckpt", held), tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors").keys() == {"a"}


def test_an_archive_whose_list_is_damaged_is_told(tmp_path):
    whole = saved(tmp_path / "a.ckpt", {"a": torch.ones(10)}).read_bytes()
    at = whole.rindex(b"PK\x01\x02")
    (tmp_path / "a.ckpt").write_bytes(whole[:at] + b"XX" + whole[at + 2 :])
    with pytest.raises(ConversionRefused):
        convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
