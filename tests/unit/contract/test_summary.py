"""A view from a summary and the log's tail is the view of the whole log, whatever happened to either."""

import hashlib
import json
import math
import os
import random
import sys

import pytest

from trainer.contract import events, summary
from trainer.contract.events import EventLog, Heartbeat, Reader, RunView, Steps, read_events
from trainer.contract.events import Step as StepEvent

STEP = {"epoch": 1.5, "loss": 0.1, "lr": 1e-4, "grad_norm": 0.5, "seconds": 0.4, "memory_gib": 1.0}
STARTED = {"family": "sd15", "base_model": "x", "device": "cpu", "memory_gib": 1.0, "versions": {"torch": "2"}}


@pytest.fixture(autouse=True)
def short_logs_are_summarized_too(monkeypatch):
    monkeypatch.setattr(events, "SUMMARIZED", 1)


SELDOM = (
    {"type": "checkpoint", "folder": "checkpoints/1"},
    {"type": "sample", "index": 0, "prompt": "ein Bär\u2028", "seed": 1, "file": "samples/1.png"},
    {"type": "lora", "file": "1.safetensors", "bytes": 9, "sha256": "0"},
    {"type": "warning", "code": "diverged", "message": "m", "hint": "h"},
    {"type": "heartbeat"},
    {"type": "phase", "name": "preview", "done": 1, "total": 2},
)
ENDS = (
    {"type": "run_finished", "reason": "paused", "seconds": 1.0},
    {"type": "run_failed", "code": "c", "message": "m", "hint": "h"},
)
NO_EVENTS = (b"", b"{}", b"\0" * 50, b"nonsense", b'{"type": "of another version"}')


def random_log(seed: int) -> bytes:
    """A log of some processes, each resumed from an earlier step; some were killed within a line."""
    rng, lines, step = random.Random(seed), [], 0

    def add(event):
        stamp = {"v": rng.choice([1, 1, 1, 2]), "seq": len(lines), "t": 1e9 + len(lines)}
        lines.append(json.dumps({**stamp, "step": step, **event}).encode())

    for _ in range(rng.randint(1, 4)):
        step = rng.randint(0, step)
        add({"type": "run_started", "steps_total": 99, "resumed_at": step, **STARTED})
        for _ in range(rng.randint(0, 40)):
            step += 1
            add({"type": "step", **STEP, "loss": rng.choice([rng.random(), math.inf, 0.0])})
            if rng.random() < 0.5:
                add(rng.choice(SELDOM))
            if rng.random() < 0.1:
                lines.append(rng.choice(NO_EVENTS))
        if rng.random() < 0.5:
            lines[-1] = lines[-1][: rng.randint(0, len(lines[-1]))]  # killed; the next process ends the line
        else:
            add(rng.choice(ENDS))
    return b"\n".join(lines) + rng.choice([b"\n", b""])


def whole(log) -> RunView:
    """What the log says, read without a summary."""
    return RunView().fold(read_events(log)[0])


def summarized(log) -> Reader:
    """Read the log and keep a summary of it, as the trainer does at its end."""
    reader = Reader(log).catch_up()
    reader.keep_if_due(last=True)
    return reader


@pytest.mark.parametrize("seed", range(150))
def test_a_summary_of_the_first_bytes_and_the_rest_of_the_log_give_the_whole_view(tmp_path, seed):
    data, log = random_log(seed), tmp_path / "events.jsonl"
    for cut in sorted(random.Random(seed).sample(range(len(data) + 1), min(6, len(data)))):
        log.write_bytes(data[:cut])
        summarized(log)  # each adds to the summary before it
        log.write_bytes(data)
        reader = Reader(log).catch_up()
        assert reader.view == whole(log)
        assert reader.view.seq == max((event.seq for event in read_events(log)[0][-1:]), default=-1)
        assert reader.cursor == read_events(log)[1]


@pytest.mark.parametrize("seed", range(20))
def test_a_log_that_grows_while_it_is_read_gives_the_whole_view(tmp_path, seed, monkeypatch):
    monkeypatch.setattr(events, "PIECE", 700)
    data, log, rng = random_log(seed), tmp_path / "events.jsonl", random.Random(seed)
    reader, end = Reader(log), 0
    while end < len(data):
        end = min(end + rng.randint(1, 900), len(data))
        log.write_bytes(data[:end])
        reader.catch_up()
        reader.keep_if_due()
    assert reader.view == whole(log) == Reader(log).catch_up().view


def kept(log):
    """Whether the summary beside the log is believed."""
    return summary.kept(log) is not None


@pytest.fixture
def log(tmp_path):
    log = tmp_path / "events.jsonl"
    log.write_bytes(random_log(3) + b"\n")
    summarized(log)
    assert kept(log)
    return log


def test_only_the_tail_of_a_summarized_log_is_parsed(log, monkeypatch):
    seen, parsed = [], events.parsed
    monkeypatch.setattr(events, "parsed", lambda lines: seen.append(lines) or parsed(lines))
    line = json.dumps({"type": "step", "step": 999, **STEP}).encode() + b"\n"
    with log.open("ab") as file:
        file.write(line)
    assert Reader(log).catch_up().view.steps[-1].step == 999
    assert [lines for lines in seen if lines] == [line]


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_summary_is_not_believed(log, seed):
    rng, file = random.Random(seed), summary.place(log)
    content = bytearray(file.read_bytes())
    if seed % 2:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
        del content[rng.randrange(len(content)) :]
    file.write_bytes(content)
    assert not kept(log)
    assert Reader(log).catch_up().view == whole(log)


def of_another_log(log):
    log.write_bytes(random_log(4) + log.read_bytes())


def of_a_longer_log(log):
    log.write_bytes(log.read_bytes()[:-200])


def of_a_log_changed_in_one_figure(log):
    content = log.read_bytes()
    at = content.index(b'"epoch": 1.5')
    log.write_bytes(content[:at] + b'"epoch": 2.5' + content[at + 12 :])


def of_another_version(log):
    resealed(log, lambda head: head.update(format=summary.FORMAT + 1))


def of_another_computer(log):
    resealed(log, lambda head: head.update(order="big" if sys.byteorder == "little" else "little"))


def of_words_that_are_none(log):
    resealed(log, lambda head: head.update(words={"events": [{"type": "step"}], "heard": 0}))


def of_no_words(log):
    resealed(log, lambda head: head.update(words=None))


def of_a_list(log):
    summary.place(log).write_bytes(b"[" * 100_000)


def of_a_terabyte(log):
    with summary.place(log).open("wb") as file:
        file.truncate(2**40)


def resealed(log, edit):
    """Change what the summary's head says, with a seal that fits."""
    _, head, rest = summary.place(log).read_bytes().split(b"\n", 2)
    said = json.loads(head)
    edit(said)
    content = json.dumps(said).encode() + b"\n" + rest
    summary.place(log).write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


@pytest.mark.parametrize(
    "edit",
    [
        of_another_log,
        of_a_longer_log,
        of_a_log_changed_in_one_figure,
        of_another_version,
        of_another_computer,
        of_words_that_are_none,
        of_no_words,
        of_a_list,
        of_a_terabyte,
    ],
)
def test_a_summary_of_something_else_is_rebuilt(log, edit):
    edit(log)
    assert kept(log) == (edit in (of_words_that_are_none, of_no_words))  # whole, but no view can be made of them
    reader = Reader(log).catch_up()
    assert reader.view == whole(log)
    reader.keep_if_due(last=True)
    assert kept(log)
    assert Reader(log).catch_up().view == whole(log)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_what_lies_in_a_summarys_place_is_neither_followed_nor_replaced(log, tmp_path):
    mine, place = tmp_path / "mine.txt", summary.place(log)
    before_all = place.read_bytes()
    mine.write_bytes(before_all)
    for put in (lambda: place.symlink_to(mine), place.mkdir, lambda: os.mkfifo(place)):
        place.unlink(missing_ok=True)
        put()
        before = place.lstat()
        assert not kept(log)
        summarized(log)
        assert place.lstat().st_ino == before.st_ino
        place.rmdir() if place.is_dir() and not place.is_symlink() else None
    assert mine.read_bytes() == before_all


def test_the_trainer_keeps_its_summary_as_it_writes_and_at_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "SUMMARIZED", 2000)
    written, keep = [], summary.keep
    monkeypatch.setattr(summary, "keep", lambda *given: written.append(given[3]) or keep(*given))
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        for number in range(1, 3001):
            log.write(StepEvent(step=number, **STEP))
        during = list(written)
    assert 10 < len(during) < 120  # each a sixteenth larger than the one before: not one for each step
    assert sum(during) < 20 * path.stat().st_size
    assert written[-1] == path.stat().st_size
    with EventLog(path) as log:  # resumed
        log.write(Heartbeat())
    assert [event.seq for event in read_events(path)[0]] == list(range(3001))
    assert Reader(path).catch_up().view == whole(path)


def test_a_full_disk_keeps_no_summary_and_stops_no_training(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(summary, "keep", full)
    with EventLog(tmp_path / "events.jsonl") as log:
        for number in range(9):
            log.write(StepEvent(step=number, **STEP))
    assert len(read_events(tmp_path / "events.jsonl")[0]) == 9


def test_steps_are_a_list_in_little_memory():
    rng = random.Random(1)
    every = [
        StepEvent(seq=n, t=n / 7, step=n, **{**STEP, "loss": rng.random(), "epoch": rng.random()}) for n in range(1, 50)
    ]
    steps = Steps(every)
    assert (len(steps), steps[0], steps[-1], steps[3:9], list(steps)) == (49, every[0], every[-1], every[3:9], every)
    assert steps == every
    assert steps != every[1:]
    assert list(steps.column("step")) == list(range(1, 50))
    with pytest.raises(IndexError):
        steps[49]
    steps.drop_after(20)
    assert steps == every[:20]
    assert Steps(figures=steps.figures) == every[:20]
    assert len(steps.figures) * steps.figures.itemsize == 20 * 80


def test_a_line_without_end_is_passed_in_pieces_and_what_follows_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "PIECE", 4096)
    path = tmp_path / "events.jsonl"
    step = json.dumps({"type": "step", "step": 1, **STEP}).encode()
    path.write_bytes(step + b"\n" + b"x" * 50_000 + b"\n" + b"\0" * 9000 + b"\n" + step + b"\n")
    found, cursor, damaged = read_events(path)
    assert ([event.step for event in found], cursor) == ([1, 1], path.stat().st_size)
    assert damaged
    assert len(events.whole_lines(path, 0)) <= 4096
