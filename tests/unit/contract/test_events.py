import json
import math
import subprocess
import sys
import threading
import time
from itertools import pairwise

import pytest

from trainer.contract.events import (
    Checkpoint,
    EventLog,
    Heartbeat,
    Lora,
    Phase,
    RunFailed,
    RunFinished,
    RunStarted,
    RunView,
    Sample,
    Step,
    Warned,
    read_events,
)
from trainer.contract.home import CHECKOUT

PHASE = Phase(name="load", done=0, total=1)
FINISHED = RunFinished(reason="completed", step=9, seconds=2.5)
FAILED = RunFailed(code="disk_full", message="The disk is full.", hint="Free some space.")

# Files may not grow beyond 400 bytes at first, as on a full disk; then space is freed.
FULL_DISK = """
import resource, sys
from pathlib import Path
from trainer.contract.events import EventLog, RunFinished, Warned
log = EventLog(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))
written = 0
try:
    for _ in range(100):
        log.write(Warned(code="x", message="m" * 33, hint="h"))
        written += 1
except OSError:
    print(written)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.write(RunFinished(reason="stopped", step=1, seconds=0.0))
"""


def started(resumed_at=0):
    return RunStarted(
        family="sd15",
        base_model="pocket",
        steps_total=100,
        resumed_at=resumed_at,
        device="cpu fp32",
        memory_gib=0.5,
        versions={"torch": "2.13"},
    )


def step(number):
    return Step(step=number, epoch=0.1, loss=0.25, lr=1e-4, grad_norm=1.5, seconds=0.1, memory_gib=0.5)


def sample(number, index=0):
    return Sample(step=number, index=index, prompt="ein Bär", seed=1, file=f"samples/{number:06}-{index}.png")


def write(path, *events):
    with EventLog(path) as log:
        for event in events:
            log.write(event)


@pytest.fixture
def log_file(tmp_path):
    return tmp_path / "events.jsonl"


@pytest.mark.parametrize(
    "event",
    [
        started(),
        PHASE,
        step(1),
        sample(1),
        Checkpoint(step=1, folder="checkpoints/000001"),
        Lora(step=1, file="bälle.safetensors", bytes=5, sha256="ab"),
        Heartbeat(),
        Warned(code="c", message='two\nlines and "quotes" \u2028', hint="h"),
        FAILED,
        FINISHED,
    ],
    ids=lambda event: event.type,
)
def test_an_event_is_read_back_as_it_was_written(event, log_file):
    write(log_file, event)
    (found,), _, _ = read_events(log_file)
    assert found.model_copy(update={"seq": event.seq, "t": event.t}) == event


def test_every_line_carries_version_number_time_and_type(log_file):
    before = time.time()
    write(log_file, PHASE)
    line = json.loads(log_file.read_text())
    assert (line["v"], line["seq"], line["type"]) == (1, 0, "phase")
    assert before <= line["t"] <= time.time()


@pytest.mark.parametrize(
    "earlier",
    [
        {"type": "rolled_back", "to_step": 3, "cause": "loss"},
        {"type": "rung_changed", "from": "none", "to": "checkpointing", "cause": "memory"},
        {"type": "phase", "name": "dry_run", "done": 0, "total": 1},
        {"type": "phase", "name": "export", "done": 1, "total": 1},
        {"type": "phase", "name": "a later version's", "done": 1, "total": 1},
    ],
    ids=lambda line: line.get("name", line["type"]),
)
def test_a_log_of_another_version_is_read_and_what_is_unknown_in_it_is_no_damage(earlier, log_file):
    write(log_file, PHASE, step(1))
    with log_file.open("a") as file:
        file.write(json.dumps({"v": 1, "seq": 2, "t": 1.0, **earlier}) + "\n")
    write(log_file, FINISHED)
    events, cursor, damaged = read_events(log_file)
    assert [event.type for event in events] == ["phase", "step", "run_finished"]
    assert (cursor, damaged) == (log_file.stat().st_size, 0)


@pytest.mark.parametrize("wrong", [{"name": 5}, {"name": "dry_run", "done": "x"}, {"name": "load", "done": None}])
def test_a_phase_that_is_wrong_in_another_way_is_damage(wrong, log_file):
    log_file.write_text(
        json.dumps({"v": 1, "seq": 0, "t": 1.0, "type": "phase", "done": 0, "total": 1, **wrong}) + "\n"
    )
    assert read_events(log_file)[2] == 1


def test_numbers_have_no_gap_when_a_log_is_opened_again(log_file):
    for _ in range(3):
        write(log_file, PHASE, PHASE)
    assert [event.seq for event in read_events(log_file)[0]] == [0, 1, 2, 3, 4, 5]


def test_a_missing_log_is_an_empty_one(log_file):
    assert read_events(log_file) == ([], 0, 0)


def test_a_torn_tail_is_not_consumed(log_file):
    write(log_file, PHASE)
    whole = log_file.stat().st_size
    with log_file.open("ab") as file:
        file.write(b'{"v":1,"seq":1,"ty')
    events, cursor, damaged = read_events(log_file)
    assert (len(events), cursor, damaged) == (1, whole, 0)


def test_a_reader_gets_each_event_once_however_the_lines_arrive(log_file):
    write(log_file, PHASE, step(1), FINISHED)
    data = log_file.read_bytes()
    log_file.write_bytes(b"")
    found, cursor = [], 0
    for byte in data:
        with log_file.open("ab") as file:
            file.write(bytes([byte]))
        events, cursor, _ = read_events(log_file, cursor)
        found += events
    assert [event.type for event in found] == ["phase", "step", "run_finished"]


def test_a_log_opened_again_on_a_torn_tail_begins_a_new_line(log_file):
    write(log_file, PHASE)
    with log_file.open("ab") as file:
        file.write(b'{"v":1,"seq":1,"ty')
    write(log_file, step(1))
    events, _, damaged = read_events(log_file)
    assert ([(event.seq, event.type) for event in events], damaged) == ([(0, "phase"), (1, "step")], 1)


def test_a_line_that_lacked_only_its_newline_keeps_its_number(log_file):
    write(log_file, PHASE, PHASE)
    log_file.write_bytes(log_file.read_bytes()[:-1])
    write(log_file, step(1))
    assert [event.seq for event in read_events(log_file)[0]] == [0, 1, 2]


@pytest.mark.parametrize(
    "line",
    [b"{not json", b"\0\0\0\0", b"\xff\xfe", b"[]", b'{"v":1,"seq":0,"t":0}', b'{"type":"step","step":"x"}'],
    ids=["json", "zeros", "bytes", "list", "no type", "wrong shape"],
)
def test_a_damaged_line_is_counted_and_passed_over(line, log_file):
    write(log_file, PHASE)
    with log_file.open("ab") as file:
        file.write(line + b"\n")
    write(log_file, FINISHED)
    events, _, damaged = read_events(log_file)
    assert ([event.type for event in events], damaged) == (["phase", "run_finished"], 1)


def test_an_event_of_an_unknown_type_is_passed_over_and_not_damage(log_file):
    log_file.write_bytes(b'{"v":2,"seq":0,"t":0,"type":"weather","sun":true}\n')
    write(log_file, FINISHED)
    events, _, damaged = read_events(log_file)
    assert ([event.type for event in events], damaged) == (["run_finished"], 0)


def test_an_unknown_field_of_a_known_event_is_passed_over(log_file):
    log_file.write_bytes(b'{"v":1,"seq":0,"t":0,"type":"heartbeat","mood":"good"}\n')
    assert [event.type for event in read_events(log_file)[0]] == ["heartbeat"]


def test_a_heartbeat_is_written_while_nothing_else_is_said(log_file):
    with EventLog(log_file, heartbeat_seconds=0.1):
        deadline = time.monotonic() + 30
        while len(read_events(log_file)[0]) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert [event.type for event in read_events(log_file)[0]][:2] == ["heartbeat", "heartbeat"]


def test_a_heartbeat_comes_only_after_a_silence(log_file):
    silence = 0.8
    with EventLog(log_file, heartbeat_seconds=silence) as log:
        end = time.monotonic() + 2 * silence
        while time.monotonic() < end:
            log.write(PHASE)
            time.sleep(silence / 20)
    events, _, _ = read_events(log_file)
    pauses = [b.t - a.t for a, b in pairwise(events) if isinstance(b, Heartbeat)]
    assert [pause for pause in pauses if pause < 0.9 * silence] == []  # a starved test may really have been silent


def test_a_heartbeat_that_waited_for_an_event_to_be_written_is_left_out(log_file):
    log, looked = EventLog(log_file), threading.Event()  # not entered: without a pulse of its own
    log._closing.wait = lambda _: looked.is_set() or looked.set()  # one look, then the end
    beat = threading.Thread(target=log._beat, args=(60.0,))
    with log._lock:
        log._last = -math.inf
        beat.start()
        looked.wait()
        beat.join(0.2)  # it waits for the event
        log._append(PHASE)
    beat.join()
    log._file.close()
    assert [event.type for event in read_events(log_file)[0]] == ["phase"]


def test_no_heartbeat_follows_once_the_log_is_closed(log_file):
    with EventLog(log_file, heartbeat_seconds=0.05) as log:
        log.write(FINISHED)
    size = log_file.stat().st_size
    time.sleep(0.2)
    assert log_file.stat().st_size == size


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_line_the_disk_had_no_room_for_leaves_nothing_behind(log_file):
    command = [sys.executable, "-c", FULL_DISK, str(log_file)]
    child = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
    events, _, damaged = read_events(log_file)
    room = int(child.stdout)
    assert room > 0
    assert damaged == 0
    assert [(e.seq, e.type) for e in events] == [(n, "warning") for n in range(room)] + [(room, "run_finished")]


def test_a_view_keeps_what_happened_in_order():
    lora = Lora(step=2, file="a.safetensors", bytes=5, sha256="ab")
    saved = Checkpoint(step=2, folder="checkpoints/000002")
    warned = Warned(code="c", message="m", hint="h")
    view = RunView().fold([started(), PHASE, sample(0), step(1), Heartbeat(), step(2), saved, lora, warned, FINISHED])
    expected = RunView(started(), FINISHED, PHASE, [step(1), step(2)], [sample(0)], [lora], [saved], [warned])
    assert view == expected


def test_folding_in_pieces_gives_the_same_view_as_at_once():
    events = [started(), *(step(n) for n in range(1, 9)), sample(4), started(resumed_at=4), step(5), FINISHED]
    pieces = RunView()
    for event in events:
        pieces.fold([event])
    assert pieces == RunView().fold(events)


def test_resuming_at_a_step_drops_what_was_shown_beyond_it():
    events = [e for n in range(1, 7) for e in (step(n), sample(n), Checkpoint(step=n, folder=f"checkpoints/{n:06}"))]
    view = RunView().fold([started(), *events, started(resumed_at=4)])
    for kept in (view.steps, view.samples, view.checkpoints):
        assert [event.step for event in kept] == [1, 2, 3, 4]


def test_a_resumed_run_shows_each_step_once():
    first = [step(n) for n in range(1, 7)]
    again = [step(n) for n in range(5, 9)]
    view = RunView().fold([started(), *first, started(resumed_at=4), *again])
    assert [event.step for event in view.steps] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("events", "alive", "dead"),
    [
        ([], "running", "waiting"),
        ([PHASE], "running", "waiting"),
        ([started(), step(1)], "running", "interrupted"),
        ([started(), FINISHED], "completed", "completed"),
        ([started(), RunFinished(reason="stopped", step=1, seconds=0)], "stopped", "stopped"),
        ([started(), RunFinished(reason="paused", step=1, seconds=0)], "paused", "paused"),
        ([started(), FAILED], "failed", "failed"),
        ([FAILED], "failed", "failed"),
        ([started(), RunFinished(reason="stopped", step=1, seconds=0), PHASE], "running", "interrupted"),
        ([started(), FAILED, started(resumed_at=1), step(2)], "running", "interrupted"),
        ([started(), FAILED, started(resumed_at=1), FINISHED], "completed", "completed"),
    ],
    ids=[
        "nothing", "loading", "training", "completed", "stopped", "paused", "failed", "failed while loading",
        "stopped, then loading again", "failed, then resumed", "failed, then completed",
    ],
)  # fmt: skip
def test_a_runs_status_follows_its_last_start_and_whether_its_process_lives(events, alive, dead):
    view = RunView().fold(events)
    assert (view.status(alive=True), view.status(alive=False)) == (alive, dead)
