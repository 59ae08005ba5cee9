import json

import pytest

from app.live.monitor import Watch, Watches
from trainer.contract.events import EventLog, Heartbeat, RunFinished, RunStarted, Step
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.contract.units import duration, size
from trainer.runs.folder import RunFolder


def started(resumed_at=0, total=100):
    return RunStarted(
        family="sd15", base_model="pocket", steps_total=total, resumed_at=resumed_at, device="cpu", memory_gib=0.5,
        versions={},
    )  # fmt: skip


def step(number, seconds=1.0):
    return Step(step=number, epoch=0.0, loss=0.1, lr=1e-4, grad_norm=1.0, seconds=seconds, memory_gib=1.0)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(Home(tmp_path), validated({"output": {"name": "ana"}}))


def write(run, *events):
    with EventLog(run.events_file) as log:
        for event in events:
            log.write(event)


def restamp(run, times):
    """Set the time of each event, which the log takes from the clock."""
    lines = [json.loads(line) for line in run.events_file.read_text().splitlines()]
    run.events_file.write_text("".join(json.dumps({**e, "t": t}) + "\n" for e, t in zip(lines, times, strict=True)))


def test_a_watch_tells_news_once_and_counts_them(run):
    watch = Watch(run)
    assert not watch.tick()
    write(run, started(), step(1))
    assert watch.tick()
    assert not watch.tick()
    assert (watch.step, watch.steps_total, watch.version) == (1, 100, 1)
    write(run, step(2))
    assert watch.tick()
    assert (watch.step, watch.version) == (2, 2)


def test_a_torn_line_is_read_once_it_is_whole(run):
    write(run, started(), step(1))
    line = run.events_file.read_bytes().splitlines(keepends=True)[-1]
    whole = run.events_file.read_bytes()
    run.events_file.write_bytes(whole[: -len(line)] + line[:30])
    watch = Watch(run)
    watch.tick()
    assert watch.step == 0
    run.events_file.write_bytes(whole)
    watch.tick()
    assert watch.step == 1


def test_a_file_put_in_the_logs_place_is_read_anew(run):
    write(run, started(), step(1), step(2))
    watch = Watch(run)
    watch.tick()
    run.events_file.unlink()
    write(run, started())
    watch.tick()
    assert watch.step == 0


def test_speed_is_by_the_clock_and_of_this_process_alone(run):
    write(run, started(), step(1), step(2), started(resumed_at=2), step(3), step(4), step(5))
    restamp(run, [0, 1, 2, 1000, 1001, 1003, 1005])
    watch = Watch(run)
    watch.tick()
    assert watch.seconds_per_step == pytest.approx(2.0)
    assert watch.seconds_left == pytest.approx(2.0 * 95)


@pytest.mark.parametrize("gap", [9 * 3600, -7200])
def test_a_night_asleep_is_no_part_of_the_time_left(run, gap):
    write(run, started(), *(step(number) for number in range(1, 6)))
    restamp(run, [0, 1, 3, 5 + gap, 7 + gap, 9 + gap])
    watch = Watch(run)
    watch.tick()
    assert watch.seconds_per_step == pytest.approx(2.0)


def test_nobody_can_tell_the_time_left_before_the_first_step(run):
    watch = Watch(run)
    assert watch.seconds_left is None
    write(run, started())
    watch.tick()
    assert watch.seconds_left is None
    write(run, step(1, seconds=3.0))
    watch.tick()
    assert watch.seconds_left == pytest.approx(3.0 * 99)


def test_the_state_follows_events_and_process(run):
    watch = Watch(run)
    assert watch.status == "waiting"
    write(run, started(), step(1))
    watch.tick()
    assert watch.status == "interrupted"
    write(run, RunFinished(reason="stopped", step=1, seconds=1.0))
    watch.tick()
    assert watch.status == "stopped"


def test_all_tabs_share_one_watch_and_each_look_is_up_to_date(run):
    watches = Watches()
    first = watches(run)
    write(run, started(), step(1))
    assert watches(RunFolder(run.path)) is first
    assert first.step == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 s"),
        (40.4, "40 s"),
        (89, "89 s"),
        (120, "2 min"),
        (1440, "24 min"),
        (5399, "1 h 30 min"),
        (11100, "3 h 05 min"),
    ],
)
def test_a_time_span_reads_like_speech(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(900_000, "0.9 MB"), (19_000_000, "19.0 MB"), (262_400_000, "262 MB"), (2_100_000_000, "2.1 GB")],
)
def test_a_size_is_in_human_units(count, words):
    assert size(count) == words


def beat(run, *events):
    """Events of a trainer that is this very process, taken up at second 1000."""
    write(run, *events)
    run.claim()
    run.process_file.write_text(json.dumps(json.loads(run.process_file.read_text()) | {"since": 1000.0}))


@pytest.mark.parametrize(
    ("now", "hangs"),
    [(1100, None), (1129, None), (1131, 1100.0)],
    ids=["just heard of", "a heartbeat may be late", "silent"],
)
def test_a_trainer_that_is_not_heard_of_hangs_since_then(run, now, hangs):
    beat(run, started(), step(1), Heartbeat())
    restamp(run, [1001, 1050, 1100])
    watch = Watch(run)
    watch.tick()
    assert watch.hangs_since(now) == hangs


@pytest.mark.parametrize(("now", "hangs"), [(1340, None), (1360, 1050.0)], ids=["a long preview", "stuck"])
def test_a_trainer_that_lives_but_gets_nothing_done_hangs_since_its_last_step(run, now, hangs):
    beat(run, started(), step(1), Heartbeat())
    restamp(run, [1001, 1050, now - 5])
    watch = Watch(run)
    watch.tick()
    assert watch.hangs_since(now) == hangs


def test_a_process_that_has_just_begun_is_given_its_time_and_one_that_is_gone_hangs_no_more(run):
    beat(run, started(), step(1))
    restamp(run, [10, 20])
    watch = Watch(run)
    watch.tick()
    assert watch.hangs_since(1025) is None
    assert watch.hangs_since(1031) == 1000.0
    run.release()
    assert watch.hangs_since(1031) is None
