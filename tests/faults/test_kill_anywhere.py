"""kill -9 at any moment of a run, half of them while it saves something."""

import signal

import pytest
import tally
from injected import Fault
from soundness import differences, faults_of

KILLS = 4  # of one run, before it is let end
KEEP_ONE = {"output": {"keep_checkpoints": 1}}  # no older checkpoint helps when the newest is damaged
SAVES = ("checkpoint", "LoRA file", "picture", "event line")


def killed(stage, run, chance, whole):
    """Train and kill; gives back what was being saved, or None if the run came to its end before."""
    if chance.random() < 0.25:
        seconds = chance.uniform(0, 1.0) * whole.view().ended.seconds
        code, doing = stage.train(run, seconds=seconds), "a random moment"
    else:
        operations = stage.operations(whole)
        places = sorted({one.split("\t")[1] for one in operations})
        doing = chance.choice([*SAVES, *places])  # those are wished twice as often
        number = chance.choice([number for number, one in enumerate(operations) if one.split("\t")[1] == doing])
        call = operations[number]
        code = stage.train(run, Fault("kill", operations[: number + 1].count(call), call))
    return doing if code == -signal.SIGKILL else None


@pytest.mark.parametrize("points", [4, *(pytest.param(40, id=f"40, {n}", marks=pytest.mark.faults) for n in range(8))])
def test_killed_anywhere_nothing_is_lost_and_the_next_start_ends_the_run(stage, make_run, whole, chance, points):
    reference = whole(**KEEP_ONE)
    lost, tried = [], 0
    while tried < points:
        run = make_run(**KEEP_ONE)
        doing = []
        for _ in range(KILLS):
            point = killed(stage, run, chance, reference)
            if point is None:
                break
            doing.append((point, faults_of(run)))
        code = stage.train(run)
        ended = differences(run, reference) + [f"exit code {code}"] * (code != 0)
        for point, wrong in doing:
            lost += tally.note(f"kill -9, {point}", wrong + ended)
        tried += len(doing)
    assert not lost


@pytest.mark.parametrize("what", [*SAVES, "cache", "room to tell why"])
@pytest.mark.parametrize("call", ["open", "write"])
def test_all_that_is_saved_passes_the_injector(stage, whole, call, what):
    assert f"{call}\t{what}" in stage.operations(whole())


@pytest.mark.parametrize(("broken", "lost"), [(True, 1), (False, 0)])
def test_a_writer_that_is_not_atomic_is_counted_as_lost(stage, make_run, tmp_path, broken, lost):
    run, record = make_run(), tmp_path / "record.jsonl"
    assert stage.train(run, Fault("kill", 1, "write\tpicture", broken_writer=broken)) == -signal.SIGKILL
    tally.note("broken writer", faults_of(run), record)
    assert f"| broken writer | 1 | {1 - lost} | {lost} |" in tally.table(record)
