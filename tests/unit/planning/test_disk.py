"""What a run writes to the disk is foreseen; with too little room nothing begins."""

from collections import namedtuple

import pytest

from trainer.__main__ import main
from trainer.contract.errors import DiskShort
from trainer.contract.events import EventLog, RunFailed, RunFinished, Step, read_events
from trainer.contract.settings.config import validated
from trainer.engine.prepare import prepare
from trainer.engine.savings import Ladder
from trainer.planning import disk
from trainer.planning.disk import bytes_used, check_space, run_bytes

Usage = namedtuple("Usage", "total used free")


def have(monkeypatch, free):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: Usage(10**12, 0, free))


def events(run, kind):
    return [event for event in read_events(run.events_file)[0] if isinstance(event, kind)]


def test_a_run_takes_no_more_than_was_foreseen_and_not_far_less(new_run, monkeypatch):
    monkeypatch.setattr(disk, "BESIDES", 0)
    run = new_run(adapter={"rank": 64}, output={"files": 4, "keep_checkpoints": 3, "checkpoint_every": 2})
    with EventLog(run.events_file) as log:
        training = prepare(run, log, Ladder(run.config()))
        trained = sum(weight.numel() for weight in training.adapter.parameters())
    assert main([str(run.path)]) == 0
    most = run_bytes(run.config(), trained, training.plan.steps, prompts=1)
    assert 0.5 * most < bytes_used(run.path) <= most


def test_more_of_everything_takes_more():
    few = run_bytes(validated({}), 10**6, 1000, 1)
    for section, change in (
        ("output", {"files": 50}),
        ("output", {"keep_checkpoints": 9}),
        ("output", {"dtype": "fp32"}),
        ("preview", {"every": 10}),
    ):
        assert run_bytes(validated({section: change}), 10**6, 1000, 1) > few
    assert run_bytes(validated({}), 2 * 10**6, 1000, 1) > few


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    have(monkeypatch, 400_000_000)
    with pytest.raises(DiskShort, match=r"will write 1\.5 GB to .*, but only 400 MB are free: 1\.1 GB are missing"):
        check_space(tmp_path / "not" / "there yet", 1_500_000_000)
    check_space(tmp_path, 400_000_000)


def test_a_run_that_will_not_fit_does_not_begin_and_goes_on_once_there_is_room(new_run, monkeypatch):
    run = new_run()
    have(monkeypatch, disk.BESIDES)
    assert main([str(run.path)]) == 2
    assert [failure.code for failure in events(run, RunFailed)] == ["disk_short"]
    assert not events(run, Step)
    have(monkeypatch, 10**9)
    assert main([str(run.path)]) == 0
    assert events(run, RunFinished)


def test_what_a_resumed_run_wrote_before_counts_as_there(new_run, monkeypatch):
    run = new_run()
    assert main([str(run.path)]) == 0
    written = bytes_used(run.path)
    with EventLog(run.events_file) as log:
        training = prepare(run, log, Ladder(run.config()))
    trained = sum(weight.numel() for weight in training.adapter.parameters())
    have(monkeypatch, run_bytes(run.config(), trained, training.plan.steps, 1) - written)
    assert main([str(run.path)]) == 0
