"""Images, captions, base model, VAE or the whole disk moved between stop and resume: asked for by name, then exact."""

import shutil

import pytest
from injected import Fault
from safetensors.torch import load_file
from strange import contents
from tally import note

from trainer.planning.moving import move_inputs
from trainer.runs.folder import RunFolder

pytestmark = pytest.mark.faults
MOVED = ("pictures", "captions.jsonl", "base", "vae", "concepts", "concepts/ben", "")  # of the disk; "": all of it


@pytest.fixture(scope="module")
def disk(tmp_path_factory, tiny_model, images):
    disk = tmp_path_factory.mktemp("mounted") / "disk"
    for name in ("pictures", "concepts/ben", "concepts/cleo"):
        shutil.copytree(images, disk / name)
    shutil.copytree(tiny_model, disk / "base")
    shutil.copytree(tiny_model / "vae", disk / "vae")
    (disk / "captions.jsonl").write_text('{"file_name": "image 0.png", "text": "a red ball"}\n')
    return disk


@pytest.fixture(scope="module")
def stopped(stage, make_run, disk):
    """A run killed after its first checkpoint, and the LoRA of the same run that was not."""
    changes = {
        "model": {"base_model": str(disk / "base"), "vae": str(disk / "vae")},
        "dataset": {
            "images": str(disk / "pictures"),
            "captions": str(disk / "captions.jsonl"),
            "concepts": [str(disk / "concepts" / name) for name in ("ben", "cleo")],
        },
    }
    whole, killed = make_run(**changes), make_run(**changes)
    assert stage.train(whole) == 0
    stage.train(killed, Fault("kill", step=3))
    return killed, load_file(whole.path / "ball.safetensors")


def replaced(disk, name):
    """Something else of the same kind where it was, such as another disk mounted there."""
    place = disk / name
    if place.suffix:
        place.write_text('{"file_name": "image 0.png", "text": "another"}\n')
        return
    shutil.copytree(disk.parent / "kept" / name, place)
    for caption in [*place.rglob("*.txt")]:
        caption.write_text("somebody else's")
    for weights in place.rglob("*.safetensors"):
        data = bytearray(weights.read_bytes())
        data[len(data) // 2 & ~7 :: 4] = bytes(byte ^ 1 for byte in data[len(data) // 2 & ~7 :: 4])
        weights.write_bytes(data)


@pytest.mark.parametrize("another", [False, True], ids=["gone", "another in its place"])
@pytest.mark.parametrize("name", MOVED)
def test_it_is_asked_for_and_then_exact(stage, disk, stopped, tmp_path, name, another):
    killed, expected = stopped
    shutil.rmtree(disk.parent / "kept", ignore_errors=True)
    shutil.copytree(disk, disk.parent / "kept")
    shutil.copytree(killed.home.root, tmp_path / "home")
    run = RunFolder.find(type(killed.home)(tmp_path / "home"), killed.path.name)
    new, wrong = tmp_path / "anderswo ü" / (name or "all"), []
    new.parent.mkdir(parents=True)
    try:
        (disk / name).rename(new)
        if another:
            replaced(disk, name)
        before = contents(new) if new.is_dir() else new.read_bytes()
        if stage.train(run) != 2 or run.view().ended.code not in ("inputs_missing", "resume_refused"):
            wrong.append(f"it was not refused: {run.view().ended}")
        move_inputs(run, {}, [(str(disk / name), str(new))])
        if stage.train(run) != 0:
            wrong.append(f"it does not continue: {run.view().ended}")
        else:
            made = load_file(run.path / "ball.safetensors")
            if not all(made[key].equal(expected[key]) for key in expected):
                wrong.append("another LoRA")
        if before != (contents(new) if new.is_dir() else new.read_bytes()):
            wrong.append("a file of the user's was changed")
    finally:
        shutil.rmtree(disk, ignore_errors=True)
        (disk.parent / "kept").rename(disk)
    assert not note("files moved before a resume", wrong)
