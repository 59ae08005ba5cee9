"""One flipped bit in a checkpoint: the one before is used and named; if all are damaged, nothing starts from step 0."""

import random
import shutil

import pytest
from injected import Fault
from tally import note

from trainer.contract.events import RunFailed
from trainer.runs.folder import RunFolder

pytestmark = pytest.mark.faults
NAMES = ("adapter.safetensors", "optimizer.safetensors", "state.json")
TRIES = 36  # for each file


@pytest.fixture(scope="module")
def killed(stage, make_run):
    """A run killed after its second checkpoint, with a LoRA file."""
    run = make_run(dataset={"views": 2})
    stage.train(run, Fault("kill", step=5))
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["000002", "000004"]
    assert list(run.path.glob("*.safetensors"))
    return run


@pytest.fixture
def run(killed, tmp_path):
    shutil.copytree(killed.home.root, tmp_path / "home")
    return RunFolder(tmp_path / "home" / "runs" / killed.path.name)


def flip(file, seed):
    """Turn over one bit, a different one for each seed."""
    data, place = bytearray(file.read_bytes()), random.Random(seed)
    data[place.randrange(len(data))] ^= 1 << place.randrange(8)
    file.write_bytes(data)


@pytest.mark.parametrize("number", range(TRIES))
@pytest.mark.parametrize("name", NAMES)
def test_the_checkpoint_before_is_used_and_named(stage, run, name, number):
    loras = {path.name: path.read_bytes() for path in run.path.glob("*.safetensors")}
    flip(run.checkpoints / "000004" / name, f"{name}{number}")
    code, wrong = stage.train(run), []
    view = run.view()
    if code or view.started.resumed_at != 2:
        wrong.append(f"exit code {code}, resumed at {view.started.resumed_at}")
    if not any("000004" in one.message and "000002" in one.message for one in view.warnings):
        wrong.append("the checkpoints are not named")
    if any((run.path / lora).read_bytes() != data for lora, data in loras.items()):
        wrong.append("a LoRA file was changed")
    assert not note("bit flipped in a checkpoint", wrong)


@pytest.mark.parametrize("names", [("000002", "000004")])
@pytest.mark.parametrize("name", NAMES)
def test_if_all_are_damaged_it_is_refused(stage, run, name, names):
    files = {path: path.read_bytes() for path in run.path.glob("*.safetensors")}
    for one in names:
        flip(run.checkpoints / one / name, one)
    code, wrong = stage.train(run), []
    ended = run.view().ended
    if code != 2 or not isinstance(ended, RunFailed) or ended.code != "checkpoints_damaged":
        wrong.append(f"exit code {code}, {ended}")
    if any(path.read_bytes() != data for path, data in files.items()):
        wrong.append("a LoRA file was changed")
    assert not note("bit flipped in every checkpoint", wrong)
