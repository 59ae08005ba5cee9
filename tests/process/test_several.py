"""Several real processes that train one run, on this computer and as if on two."""

import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest
import torch
import warm
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from trainer.__main__ import main
from trainer.console.main import main as in_console
from trainer.contract.errors import InvalidSettings
from trainer.contract.events import RunFailed, RunFinished, RunStarted, Step, read_events
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.contract.wording import for_console
from trainer.engine.distributed import launcher
from trainer.engine.families.unet import StableDiffusion
from trainer.runs import process
from trainer.runs.folder import RunFolder
from trainer.runs.process import Group

# 5 images x 8 views at batch 4 = 10 steps
WHOLE = {"dataset": {"views": 8, "batch_size": 4, "caption_dropout": 0.2}, "adapter": {"text_encoder": True}}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_model, images):
    """The run that all others must repeat, by one process."""
    values = {
        "model": {"base_model": str(tiny_model), "precision": "fp32", "device": "cpu"},
        "dataset": {"images": str(images), "resolution": 64, **WHOLE["dataset"]},
        "adapter": {"rank": 4, "alpha": 2.0, **WHOLE["adapter"]},
        "optimizer": {"learning_rate": 1e-3},
        "preview": {"steps": 2, "prompts": ["ball"]},
        "output": {"name": "bälle", "files": 2, "checkpoint_every": 3},
    }
    run = RunFolder.create(Home(tmp_path_factory.mktemp("alone")), validated(values))
    assert warm.start(run).wait() == 0
    return run


def events(run, kind):
    return [event for event in read_events(run.events_file)[0] if isinstance(event, kind)]


def assert_same(run, alone):
    """One log without doubles, and the losses and the LoRA of the run that one process trained."""
    seen = read_events(run.events_file)[0]
    assert [event.seq for event in seen] == list(range(len(seen)))
    assert [event.step for event in run.view().steps] == list(range(1, 11))
    losses = [[event.loss for event in one.view().steps] for one in (run, alone)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    ours, theirs = (load_file(one.checkpoints / "000010" / "adapter.safetensors") for one in (run, alone))
    assert max((ours[name] - theirs[name]).abs().max() for name in theirs) < 1e-5
    assert max(tensor.abs().max() for name, tensor in ours.items() if "lora_up" in name) > 1e-3
    assert run.status() == "completed"


def group_of(child):
    """The processes that a launcher has started."""
    return psutil.Process(child.pid).children(recursive=True)


def gone(one):
    with suppress(psutil.NoSuchProcess):
        return one.status() == psutil.STATUS_ZOMBIE
    return True


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def as_rank(rank, run, computers, port, note):
    """One process of two, as another launcher would start it; it notes each thing encoded, and how long it waits."""
    local, here = (rank, 2) if computers == 1 else (0, 1)
    values = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": here, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in values.items()}, MASTER_ADDR="127.0.0.1")
    for name in ("encode_image", "encode_text"):
        setattr(StableDiffusion, name, noted(name, getattr(StableDiffusion, name), note))
    with run.log_file.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    code = main([str(run.path)])
    waits = torch.distributed.group.WORLD._get_backend(torch.device("cpu")).options._timeout
    note.with_suffix(".waits").write_text(str(waits.days))
    sys.exit(code)


def noted(name, plain, note):
    def encode(*arguments):
        with note.open("a") as file:
            file.write(f"{name}\n" * len(arguments[1]))  # a line for each of a batch
        return plain(*arguments)

    return encode


def train_as_two(runs, computers, notes):
    """The exit codes of two processes, forked from one that has imported PyTorch already."""
    context, port = get_context("forkserver"), free_port()
    context.set_forkserver_preload(["trainer.engine.loop"])
    ranks = [context.Process(target=as_rank, args=(i, runs[i], computers, port, notes[i])) for i in range(2)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join(300)
    return [one.exitcode for one in ranks]


def test_images_and_captions_are_encoded_by_one_process_for_all_who_wait_for_days(new_run, tmp_path):
    run, notes = new_run(), [tmp_path / "0", tmp_path / "1"]
    assert train_as_two([run, run], 1, notes) == [0, 0], run.log_file.read_text()[-3000:]
    texts = {"ball", *(path.read_text() for path in Path(run.config().dataset.images).glob("*.txt"))}
    made = notes[0].read_text().split()
    assert made.count("encode_image") == 5
    assert made.count("encode_text") == len({*texts, ""})
    assert not notes[1].exists()
    assert int((tmp_path / "1.waits").read_text()) >= 1
    assert [event.device for event in events(run, RunStarted)] == ["cpu fp32 x2"]


def test_two_processes_train_pocket_as_one_does(new_run, tmp_path):
    runs = [new_run(name, model={"base_model": "pocket"}, dataset={"batch_size": 4}) for name in ("one", "two")]
    assert warm.start(runs[0]).wait() == 0
    assert train_as_two([runs[1], runs[1]], 1, [tmp_path / "0", tmp_path / "1"]) == [0, 0]
    one, two = ([event.loss for event in run.view().steps] for run in runs)
    assert len(one) == 5
    assert two == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize("what", ["checkpoints", "images"])
def test_computers_that_hold_different_things_are_refused(what, alone, new_run, tmp_path):
    if what == "checkpoints":
        first = RunFolder(shutil.copytree(alone.path, tmp_path / "first" / "runs" / alone.path.name))
        second, seen = new_run("second", **WHOLE), "checkpoints (by step): 10, 0."
    else:
        fewer = shutil.copytree(alone.config().dataset.images, tmp_path / "fewer")
        next(fewer.glob("*.png")).unlink()
        first = new_run("first", **WHOLE)
        second, seen = new_run("second", **WHOLE | {"dataset": {**WHOLE["dataset"], "images": str(fewer)}}), "images"
    assert train_as_two([first, second], 2, [tmp_path / "0", tmp_path / "1"]) == [2, 2]
    failure = first.view().ended
    assert failure.code == "computers_differ"
    assert seen in failure.message
    assert "Copy" in failure.hint


def test_four_processes_on_two_computers_train_what_one_does(alone, new_run):
    first, second = new_run("first", **WHOLE), new_run("second", **WHOLE)
    address = f"127.0.0.1:{free_port()}"
    children = [process.start(run, Group(2, 2, number, address)) for number, run in enumerate((first, second))]
    assert [child.wait() for child in children] == [0, 0], first.log_file.read_text()[-3000:]
    assert [event.device for event in events(first, RunStarted)] == ["cpu fp32 x4"]
    assert_same(first, alone)
    assert not second.events_file.exists()
    assert not second.process_file.exists()


def test_killing_one_process_ends_all_of_them_and_one_alone_can_go_on(alone, new_run):
    run = new_run(**WHOLE, model={"processes": 2}, output={"checkpoint_every": 1})
    child = process.start(run)
    while len(events(run, Step)) < 4:
        assert child.poll() is None, run.log_file.read_text()
        time.sleep(0.05)
    group = group_of(child)
    assert len(group) == 2
    group[1].kill()
    assert child.wait() == 2
    assert all(gone(one) for one in group)
    (failure,) = events(run, RunFailed)
    assert (failure.code, run.status()) == ("process_lost", "failed")
    assert "SIGKILL" in failure.message
    assert max(int(path.name) for path in run.checkpoints.iterdir() if path.name.isdecimal()) < 10
    assert warm.start(run).wait() == 0
    assert events(run, RunStarted)[-1].resumed_at > 0
    assert_same(run, alone)


def test_two_processes_go_on_where_one_paused_and_the_console_shows_only_the_training(alone, new_run, capsys):
    run = new_run(**WHOLE)
    assert warm.start(run, "pause").wait() == 0
    assert run.status() == "paused"
    assert in_console(["--resume", run.path.name, "--home", str(run.home.root), "--processes", "2"]) == 0
    console = capsys.readouterr().out
    assert "Resumed at step" in console
    assert "Completed at step 10" in console
    assert not re.search("warn|OMP_NUM_THREADS|torch", console, re.IGNORECASE)
    assert [event.device for event in events(run, RunStarted)] == ["cpu fp32", "cpu fp32 x2"]
    assert 0 < events(run, RunStarted)[-1].resumed_at < 5
    assert [event.reason for event in events(run, RunFinished)] == ["paused", "completed"]
    assert run.process() is None
    assert_same(run, alone)


def test_force_quit_leaves_none_behind(new_run):
    run = new_run(dataset={"batch_size": 4}, model={"processes": 2})
    child = process.start(run)
    while len(group_of(child)) < 2:
        assert child.poll() is None, run.log_file.read_text()
    group = group_of(child)
    assert process.force_quit(run)
    assert all(gone(one) for one in group)
    assert run.process() is None
    assert run.status() == "interrupted"


def test_a_group_fails_for_the_earliest_reason_of_its_own(tmp_path):
    """The others of a group lose the connection, or are told to end, because one has failed."""
    told = [("process_lost", 1.0), ("out_of_memory", 3.0), ("disk_full", 2.0), ("terminated", 0.0)]
    failures = {}
    for rank, (code, when) in enumerate(told):
        file = tmp_path / f"{rank}.json"
        file.write_text(json.dumps({"message": code, "hint": "Do.", "code": code, "timestamp": when}))
        failures[rank] = ProcessFailure(rank, 100 + rank, 2, str(file))
    assert launcher._cause(ChildFailedError("trainer", failures)).code == "disk_full"
    del failures[1], failures[2]
    failures[4] = ProcessFailure(4, 104, -signal.SIGKILL, "")
    cause = launcher._cause(ChildFailedError("trainer", failures))
    assert (cause.code, "number 4 (SIGKILL)" in cause.message) == ("process_lost", True)


def test_more_processes_than_graphics_cards_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = validated({"dataset": {"batch_size": 4}})
    launcher._check(config, Group(2))
    with pytest.raises(
        InvalidSettings, match=r"model.processes = 3, but this computer has 2 graphics cards\."
    ) as caught:
        launcher._check(config, Group(3))
    assert "--model.processes 2" in for_console(caught.value.hint)


def test_an_address_that_is_taken_is_told_with_what_to_do(new_run):
    run = new_run(dataset={"batch_size": 2})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        group = Group(1, 2, 0, f"127.0.0.1:{taken.getsockname()[1]}")
        assert main([str(run.path), *group.arguments()]) == 2
    failure = run.view().ended
    assert failure.code == "computers_apart"
    assert "port" in failure.hint


def test_macs_graphics_cards_are_refused_for_they_cannot_send_to_each_other(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    config = validated({"dataset": {"batch_size": 4}})
    with pytest.raises(InvalidSettings, match=r"model\.device = mps") as caught:
        launcher._check(config, Group(1, 2, 0, "first:29500"))
    assert "--model.device cpu" in for_console(caught.value.hint)


def test_more_processes_than_images_in_a_step_are_refused_before_the_start(new_run):
    run = new_run(dataset={"batch_size": 2}, model={"processes": 3})
    assert main([str(run.path), *Group.of(run).arguments()]) == 2
    (failure,) = events(run, RunFailed)
    assert failure.code == "invalid_settings"
    assert "batch_size 2 x dataset.accumulation 1" in for_console(failure.message)
    assert not events(run, RunStarted)


@pytest.mark.parametrize(
    "given",
    [
        ["--machines", "2", "--machine-rank", "2", "--main-address", "localhost:29500"],
        ["--machines", "2", "--main-address", "localhost"],
        ["--main-address", "localhost:29500"],
        ["--machine-rank", "1"],
    ],
)
def test_flags_of_several_computers_that_do_not_fit_together_are_refused(alone, given, tmp_path, capsys):
    assert in_console(["--config", str(alone.config_file), "--home", str(tmp_path / "none"), *given]) == 2
    assert "do not fit together" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "none").exists()


def test_the_queue_keeps_a_runs_own_number_of_processes(new_run, capsys):
    run = new_run()
    home = str(run.home.root)
    assert in_console(["--resume", run.path.name, "--home", home, "--queue", "--processes", "2"]) == 2
    assert "keeps its number of processes (1)" in " ".join(capsys.readouterr().out.split())
