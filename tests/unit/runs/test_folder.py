import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import psutil
import pytest

from trainer.contract.events import EventLog, RunFinished, RunStarted
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.runs import process, workfolder
from trainer.runs.errors import RunBusy, RunMissing
from trainer.runs.folder import RunFolder

REQUESTS = ("stop", "pause", "sample", "save")


def named(name):
    """Settings with this LoRA name, even one that the settings themselves would refuse."""
    config = validated({})
    return config.model_copy(update={"output": config.output.model_copy(update={"name": name})})


@pytest.fixture
def run(home):
    return RunFolder.create(home, named("ana"))


@pytest.fixture
def child():
    """A process that sleeps until its test is over."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def record(run, pid, started):
    run.process_file.write_text(json.dumps({"pid": pid, "started": started}))


def test_a_new_run_holds_its_complete_settings_and_a_place_for_requests(home):
    config = validated({"adapter": {"rank": 4}, "preview": {"prompts": ["ein Bär"]}, "output": {"name": "Bälle"}})
    run = RunFolder.create(home, config)
    assert run.config() == config
    assert sorted(path.name for path in run.path.iterdir()) == ["config.toml", "control"]


def test_runs_created_within_a_second_get_folders_of_their_own(home):
    runs = [RunFolder.create(home, named("ana")) for _ in range(4)]
    assert len({run.path for run in runs}) == 4


def test_runs_created_within_a_second_are_told_newest_first(home, monkeypatch):
    clock = count(1_900_000_000 * 10**9, 10**6)
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    runs = [RunFolder.create(home, named(name)) for name in ("bo", "ana", "cleo", "ana", "bo")]
    assert RunFolder.all(home) == runs[::-1]


def test_runs_created_in_one_moment_are_told_by_their_numbers(home, monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1_900_000_000 * 10**9)
    monkeypatch.setattr(time, "strftime", lambda _: "20300317-174640")
    runs = [RunFolder.create(home, named("ana")) for _ in range(11)]
    assert RunFolder.all(home) == runs[::-1]


def test_a_run_that_is_deleted_while_all_are_told_is_left_out(home, run, monkeypatch):
    gone = home.runs / "gone" / "config.toml"
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone, run.config_file]))
    assert RunFolder.all(home) == [run]


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("Ülküs Bälle", "Ülküs-Bälle"),
        ("a   b", "a-b"),
        ("x/../../y", "x-..-..-y"),
        ("/etc/passwd", "etc-passwd"),
        ("..", "lora"),
        ("???", "lora"),
        ("", "lora"),
        ("v1.5", "v1.5"),
        ("猫", "猫"),
    ],
)
def test_a_folder_is_named_after_the_lora_and_lies_in_the_home_whatever_the_name(home, name, start):
    run = RunFolder.create(home, named(name))
    assert run.path.parent == home.runs
    assert re.fullmatch(re.escape(start) + r"-\d{8}-\d{6}", run.path.name)


def test_the_longest_allowed_name_has_room_in_a_folders_name(home):
    run = RunFolder.create(home, validated({"output": {"name": "猫" * 66}}))
    assert run.config().output.name == "猫" * 66


def test_a_run_is_found_by_its_name(home, run):
    assert RunFolder.find(home, run.path.name) == RunFolder(run.path.resolve())


def test_a_run_is_found_by_its_path_from_another_home(tmp_path, run):
    assert RunFolder.find(Home(tmp_path / "elsewhere"), str(run.path)) == RunFolder(run.path.resolve())


def test_a_folder_without_settings_is_no_run(home, run):
    (home.runs / "empty").mkdir()
    with pytest.raises(RunMissing):
        RunFolder.find(home, "empty")
    assert RunFolder.all(home) == [run]


def test_runs_are_listed_newest_first(home):
    runs = [RunFolder.create(home, named(name)) for name in ("zoe", "ana", "mia")]
    for age, run in enumerate(runs):
        os.utime(run.config_file, (1000 + age, 1000 + age))
    assert RunFolder.all(home) == runs[::-1]


def test_a_home_without_runs_lists_none(home):
    assert RunFolder.all(home) == []


def test_a_missing_run_is_refused_with_the_five_newest(home):
    runs = [RunFolder.create(home, named(name)) for name in ("zoe", "ana", "mia", "bob", "tom", "kim")]
    for age, run in enumerate(runs):
        os.utime(run.config_file, (1000 + age, 1000 + age))
    with pytest.raises(RunMissing) as caught:
        RunFolder.find(home, "nobody")
    assert '"nobody"' in caught.value.message
    assert ", ".join(run.path.name for run in runs[:0:-1]) in caught.value.hint
    assert runs[0].path.name not in caught.value.hint


def test_a_missing_run_in_an_empty_home_is_refused_with_that(home):
    with pytest.raises(RunMissing) as caught:
        RunFolder.find(home, "nobody")
    assert "no runs yet" in caught.value.hint


@pytest.mark.parametrize("what", REQUESTS)
def test_a_request_is_taken_once(run, what):
    run.request(what)
    run.request(what)
    assert [run.take_request(what), run.take_request(what)] == [True, False]


def test_a_request_is_taken_for_what_it_asks_only(run):
    run.request("save")
    assert [run.take_request(what) for what in REQUESTS] == [False, False, False, True]


def test_a_request_finds_its_place_again_if_the_folder_was_removed(run):
    run.control.rmdir()
    run.request("stop")
    assert run.take_request("stop")


def test_requests_meant_for_an_earlier_process_are_forgotten(run):
    for what in REQUESTS:
        run.request(what)
    run.forget_requests()
    assert [run.take_request(what) for what in REQUESTS] == [False] * 4


def test_claiming_a_run_makes_this_process_its_trainer(run):
    run.claim()
    assert run.process() == psutil.Process(os.getpid())


def test_a_new_run_has_no_process(run):
    assert run.process() is None


def test_a_live_process_is_found(run, child):
    record(run, child.pid, psutil.Process(child.pid).create_time())
    assert run.process() == psutil.Process(child.pid)


def test_a_process_that_ended_does_not_count(run, child):
    record(run, child.pid, psutil.Process(child.pid).create_time())
    child.kill()
    child.wait()
    assert run.process() is None


def test_a_process_number_given_to_another_program_does_not_count(run, child):
    record(run, child.pid, psutil.Process(child.pid).create_time() - 100.0)
    assert run.process() is None


def test_a_process_is_still_known_after_the_system_clock_was_set(run, child, monkeypatch):
    run.record(psutil.Process(child.pid))
    boot, created = psutil.boot_time(), psutil.Process.create_time
    monkeypatch.setattr(psutil, "boot_time", lambda: boot + 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + 3600)
    assert run.process() == psutil.Process(child.pid)


def test_while_somebody_begins_to_work_nobody_else_does(run, monkeypatch):
    monkeypatch.setattr(workfolder, "PATIENCE", 0.1)
    with run.alone(), pytest.raises(RunBusy, match="is being trained by another process"), run.alone():
        pass
    with run.alone():
        run.claim()


def test_of_many_starts_of_one_run_at_once_one_wins(run, monkeypatch):
    started = []

    def spawn(_run, _module):
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        return started[-1]

    monkeypatch.setattr(process, "_spawn", spawn)
    with ThreadPoolExecutor(8) as pool:
        outcomes = [pool.submit(process.start, run).exception() for _ in range(8)]
    for one in started:
        one.kill()
        one.wait()
    assert len(started) == 1
    assert [type(outcome) for outcome in outcomes].count(RunBusy) == 7


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="only POSIX keeps zombies")
def test_a_child_that_died_and_was_not_waited_for_does_not_count(run, child):
    record(run, child.pid, psutil.Process(child.pid).create_time())
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # until it is dead, and left unreaped
    assert psutil.pid_exists(child.pid)
    assert run.process() is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "{}", '{"pid": 1}', '{"pid": "x", "started": 0}', '{"pid": -1, "started": 0}', "\0"],
)
def test_a_damaged_process_file_means_no_process(run, text):
    run.process_file.write_text(text)
    assert run.process() is None


def test_a_runs_status_is_read_from_its_events_and_process(run, child):
    seen = [run.status()]
    record(run, child.pid, psutil.Process(child.pid).create_time())
    seen.append(run.status())
    with EventLog(run.events_file) as log:
        log.write(
            RunStarted(
                family="sd15", base_model="pocket", steps_total=1, resumed_at=0, device="cpu", memory_gib=0, versions={}
            )
        )
        child.kill()
        child.wait()
        seen.append(run.status())
        log.write(RunFinished(reason="paused", step=1, seconds=0.0))
    seen.append(run.status())
    assert seen == ["waiting", "running", "interrupted", "paused"]


def test_a_runs_home_is_where_it_was_created(home, run):
    assert run.home == home


@pytest.mark.parametrize("name", ["samples/000200-1.png", "ana.safetensors", "samples/../config.toml"])
def test_a_name_inside_the_run_leads_to_its_file(run, name):
    assert run.inside(name) == (run.path / name).resolve()


@pytest.mark.parametrize("name", ["../other/config.toml", "samples/../../x", "..", os.path.abspath(os.sep)])  # noqa: PTH100
def test_a_name_that_leads_out_of_the_run_is_refused(run, name):
    with pytest.raises(RunMissing):
        run.inside(name)


def test_a_neighbour_whose_name_begins_alike_is_outside(run):
    with pytest.raises(RunMissing):
        run.inside(f"../{run.path.name}-2/config.toml")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_link_that_leads_out_of_the_run_is_refused(run, tmp_path):
    (run.path / "samples").symlink_to(tmp_path)
    with pytest.raises(RunMissing):
        run.inside("samples/secret.png")
