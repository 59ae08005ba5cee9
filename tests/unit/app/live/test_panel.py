import json
import os
import re
import time
from types import SimpleNamespace

import gradio as gr
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.kit.action_errors import reported
from app.live.feed import PATIENCE_SECONDS, Feed
from app.live.monitor import Watches
from app.live.panel import Panel
from app.server.files import routes
from app.server.standby import Standby
from trainer.contract.events import (
    EventLog,
    Lora,
    Phase,
    RunFailed,
    RunFinished,
    RunStarted,
    Sample,
    Step,
    Warned,
)
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.runs import process
from trainer.runs.errors import InputsMissing
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue
from trainer.runs.sheets import strip_name

ENGLISH = gr.Request(headers={"accept-language": "en"})


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "Häuser & <b>")


@pytest.fixture
def panel(home, in_blocks):
    return in_blocks(lambda: Panel(home, Feed(home, Watches())))


def started(total=10):
    return RunStarted(
        family="sd15", base_model="pocket", steps_total=total, resumed_at=0, device="cpu bf16", memory_gib=0.5,
        versions={},
    )  # fmt: skip


def step(number):
    return Step(step=number, epoch=0.0, loss=0.1, lr=1e-4, grad_norm=1.0, seconds=1.0, memory_gib=1.0)


def sample(run, at, index=0, prompt="a <b>cat</b>"):
    name = f"samples/{at:06}-{index}.png"
    (run.path / "samples").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(run.path / name)
    return Sample(step=at, index=index, prompt=prompt, seed=1, file=name)


def lora(run, number, content=b"x" * 10):
    name = f"ana-{number:06}.safetensors"
    (run.path / name).write_bytes(content)
    return Lora(step=number, file=name, bytes=len(content), sha256="ab" * 32)


def new(home, *events, name="ana"):
    run = RunFolder.create(home, validated({"output": {"name": name}, "dataset": {"trigger_word": "<i>ana"}}))
    write(run, *events)
    return run


def write(run, *events):
    with EventLog(run.events_file) as log:
        for event in events:
            log.write(event)


def alive(run):
    """Let this very process be the run's trainer."""
    run.claim()
    return run


def names_of(*holders):
    return {id(part): name for holder in holders for name, part in vars(holder).items()}


def frame(panel, run, file=None, request=ENGLISH):
    """What Gradio is told to show, by the part's name."""
    names = {id(part): what for what, part in panel.asks.items()}
    names |= {id(part): f"moved {place}" for place, part in [("", panel.moved.section), *panel.moved.fields.items()]}
    names |= {id(part): f"told {what}" for what, part in vars(panel.result.told).items()}
    names |= names_of(panel, panel.result, panel.waiting)
    return {names[id(part)]: value for part, value in panel.frame(run.path.name if run else "", file, request).items()}


def ask(panel, run, known="", tongue="en"):
    """What the feed answers; None if there is nothing new."""
    made = panel.feed.answer(run.path.name if run else "", known, tongue)
    return None if made is None else json.loads(made)


def visible(update):
    return update["visible"]


def test_without_a_run_it_says_what_to_do(panel):
    told = ask(panel, None)
    assert "once you press Train" in told["html"]["headline"]
    assert told["chart"] is None
    assert not visible(frame(panel, None)["section"])


def test_a_running_run_shows_step_speed_clock_and_its_buttons(panel, home):
    run = alive(new(home, started(), Phase(name="train", done=0, total=10), step(1), step(2)))
    headline = ask(panel, run)["html"]["headline"]
    for words in ("step 2 of 10", "s per step", "done at", 'role="status"', "cpu bf16"):
        assert words in headline
    shown = frame(panel, run)
    assert all(visible(shown[what]) for what in ("stop", "pause", "save", "sample", "fold"))
    assert not visible(shown["resume"])
    assert not visible(shown["force"])


def test_the_tab_says_how_far_it_is_under_the_loras_name(panel, home):
    run = alive(new(home, started(), step(1), step(2), name="ana 2"))
    assert ask(panel, run)["title"] == "20 % ana-2"
    write(run, RunFinished(step=2, seconds=2.0, reason="completed"))
    assert ask(panel, run)["title"].endswith(" · ana-2")
    assert ask(panel, None)["title"] == ""


def test_it_speaks_the_browsers_language(panel, home):
    run = alive(new(home, started(), step(1)))
    told = ask(panel, run, tongue="de")
    assert "Schritt 1 von 10" in told["html"]["headline"]
    assert told["chart"]["words"]["loss"] == "Loss"
    assert ask(panel, run, tongue="ja")["chart"]["words"]["loss"] == "損失"
    assert ask(panel, run, known=told["key"]) is not None  # another language is another answer


def test_an_answer_is_given_once_and_made_once_for_all_tabs(panel, home):
    run = alive(new(home, started(), step(1)))
    told = ask(panel, run)
    assert ask(panel, run, known=told["key"]) is None
    assert panel.feed.answer(run.path.name, "", "en") is panel.feed.answer(run.path.name, "other", "en")
    write(run, step(2))
    assert "step 2 of 10" in ask(panel, run, known=told["key"])["html"]["headline"]


def test_of_many_answers_only_the_newest_are_kept(panel, home):
    for number in range(40):
        ask(panel, new(home, started(), step(number), name=f"r{number}"))
    assert len(panel.feed._made) <= 32


def test_a_step_changes_what_is_live_and_not_the_frame(panel, home):
    run = alive(new(home, started(), step(1)))
    write(run, sample(run, 0))
    before = ask(panel, run)
    write(run, step(2))
    after = ask(panel, run)
    assert after["frame"] == before["frame"]
    assert after["html"]["board"] == before["html"]["board"]
    assert after["chart"] != before["chart"]


@pytest.mark.parametrize("what", ["a file", "an end", "a request", "a strip", "a waiting run"])
def test_what_buttons_and_files_follow_changes_the_frame(panel, home, what):
    run = alive(new(home, started(), step(1)))
    before = ask(panel, run)["frame"]
    match what:
        case "a file":
            write(run, lora(run, 5))
        case "an end":
            write(run, RunFinished(reason="stopped", step=1, seconds=1.0))
        case "a request":
            run.request("stop")
        case "a strip":
            (run.path / strip_name("ana-000005.safetensors")).write_bytes(b"")
        case _:
            wait(home, new(home, name="two"))
    assert ask(panel, run)["frame"] != before


def wait(home, *runs):
    with Queue(home)._changing() as waiting:
        waiting.extend(runs)


def test_previews_stand_by_prompt_and_step_and_are_escaped(panel, home):
    run = alive(new(home, started()))
    write(run, sample(run, 0), sample(run, 5), sample(run, 0, 1, "dog"))
    board = ask(panel, run)["html"]["board"]
    assert board.count("<img") == 3
    assert board.index("step 0") < board.index("step 5")
    assert "<b>cat" not in board
    assert "&lt;b&gt;cat" in board


def test_two_steps_of_a_prompt_can_be_compared(panel, home):
    run = alive(new(home, started()))
    write(run, sample(run, 0), sample(run, 0, 1, "dog"))
    assert ask(panel, run)["compare"]["rows"] == []
    write(run, sample(run, 5))
    [row] = ask(panel, run, tongue="de")["compare"]["rows"]
    assert [at for at, _ in row["images"]] == [0, 5]
    assert ask(panel, run, tongue="de")["compare"]["words"]["left"] == "links"


def test_warnings_and_the_failure_are_cards_with_what_to_do(panel, home):
    run = new(
        home,
        started(),
        Warned(code="a", message="small <b>", hint="look"),
        RunFailed(code="x", message="The disk is full.", hint="Make room.", phase="train"),
    )
    notices = ask(panel, run)["html"]["notices"]
    assert "The disk is full." in notices
    assert "Make room." in notices
    assert 'role="alert"' in notices
    assert "small <b>" not in notices
    assert visible(frame(panel, run)["resume"])


def test_an_interrupted_run_can_be_continued(panel, home):
    run = new(home, started(), step(3))
    assert "Interrupted" in ask(panel, run)["html"]["headline"]
    shown = frame(panel, run)
    assert visible(shown["resume"])
    assert not visible(shown["stop"])


def test_what_a_file_tells_is_shown_and_a_struck_tag_is_not_handed_over(panel, home):
    run = new(home, started(2), RunFinished(step=2, seconds=1.0, reason="completed"))
    said = {"ss_tag_frequency": '{"1_ana": {"<b>müller": 2, "smile": 1}}'}
    save_file({"b": torch.zeros(3)}, run.path / "ana.safetensors", said)
    write(run, Lora(step=2, file="ana.safetensors", bytes=9, sha256="ab" * 32))
    shown = frame(panel, run)
    assert "&lt;b&gt;müller (2), smile (1)" in shown["told facts"]
    assert [tag for _, tag in shown["told struck"]["choices"]] == ["<b>müller", "smile"]
    assert "handover" not in shown["facts"]
    panel.result.told._strike(run.path.name, "ana.safetensors", ["<b>müller"])
    shown = frame(panel, run)
    assert "müller" not in shown["told facts"]
    assert shown["told struck"]["value"] == ["<b>müller"]
    assert "/handover/ana.safetensors?" in shown["facts"]
    link = re.search(r'href="([^"]+)"', shown["facts"])[1]
    served = TestClient(Starlette(routes=routes(home))).get(link)
    assert served.content == (run.path / "handover" / "ana.safetensors").read_bytes()


def moved_fields(panel, run, request=ENGLISH):
    """The fields that ask where something is now, as what each shows; None while nothing is asked."""
    updates = panel.frame(run.path.name, None, request)
    if not updates[panel.moved.section]["visible"]:
        return None
    shown = {place: updates[field] for place, field in panel.moved.fields.items()}
    return {place: update["info"] for place, update in shown.items() if update["visible"]}


def test_a_run_whose_images_and_model_were_moved_asks_where_they_are(panel, home, tmp_path):
    files = {"dataset": {"images": "/gone/<i>ana"}, "model": {"base_model": "/gone/base.safetensors"}}
    run = RunFolder.create(home, validated({"output": {"name": "ana"}, **files}))
    write(run, started(), step(3))
    asked = moved_fields(panel, run)
    assert asked.keys() == {"dataset.images", "model.base_model"}
    assert "/gone/<i>ana" in asked["dataset.images"]
    with pytest.raises(gr.Error, match=r"/gone/base\.safetensors"):
        reported(panel.moved._resume)(run.path.name, str(tmp_path), "", "", "")
    assert not Queue(home).waiting()
    alive(run)
    assert moved_fields(panel, run) is None


def test_the_folder_that_is_given_is_where_the_run_is_continued(panel, home, images, monkeypatch):
    run = RunFolder.create(home, validated({"output": {"name": "ana"}, "dataset": {"images": "/gone/ana"}}))
    write(run, started(), step(3))
    assert moved_fields(panel, run).keys() == {"dataset.images"}
    begun = []
    monkeypatch.setattr(process, "start", begun.append)
    panel.moved._resume(run.path.name, f'"{images}"', "", "", "")
    assert begun == [run]
    assert run.config().dataset.images == str(images)
    assert moved_fields(panel, run) is None


def test_a_concept_s_folder_is_asked_for_by_its_own_path(panel, home, images):
    concepts = [str(images), "/gone/ben", "/gone/cleo"]
    settings = {"images": str(images), "concepts": concepts}
    run = RunFolder.create(home, validated({"output": {"name": "ana"}, "dataset": settings}))
    write(run, started(), step(3))
    assert "/gone/ben" in moved_fields(panel, run)["further"]
    with pytest.raises(InputsMissing, match="/gone/cleo"):
        panel.moved._resume(run.path.name, "", "", "", str(images))


def test_a_run_that_waits_has_no_continue_and_stands_in_the_queue(panel, home):
    alive(new(home, started(), name="one"))
    second = new(home, name="two")
    wait(home, second)
    shown = frame(panel, second)
    assert not visible(shown["resume"])
    assert [name for _, name in shown["list"]["choices"]] == [second.path.name]


def test_stop_asked_for_is_said_and_force_comes_only_after_a_while(panel, home):
    run = alive(new(home, started(), step(1)))
    run.request("stop")
    assert "stopping after this step" in ask(panel, run)["html"]["headline"]
    assert not visible(frame(panel, run)["force"])
    long_ago = time.time() - PATIENCE_SECONDS - 1
    os.utime(run.control / "stop", (long_ago, long_ago))
    assert visible(frame(panel, run)["force"])


def test_of_a_trainer_that_hangs_it_says_since_when_and_offers_to_end_it(panel, home, monkeypatch):
    run = alive(new(home, started(), step(1)))
    told = ask(panel, run)
    assert "not responding" not in told["html"]["headline"]
    heard, now = run.taken_up(), time.time() + 120
    monkeypatch.setattr(time, "time", lambda: now)
    clock = time.strftime("%H:%M", time.localtime(heard))
    hanging = ask(panel, run, told["key"])  # without any news from the trainer
    assert f"not responding since {clock}" in hanging["html"]["headline"]
    assert visible(frame(panel, run)["force"])


def test_the_result_shows_the_newest_file_and_the_chosen_one(panel, home):
    run = new(home, started(), step(10))
    write(run, lora(run, 5), lora(run, 10), RunFinished(reason="completed", step=10, seconds=9.0))
    shown = frame(panel, run)
    assert visible(shown["section"])
    assert shown["file"]["value"] == "ana-000010.safetensors"
    assert [file for _, file in shown["file"]["choices"]] == ["ana-000010.safetensors", "ana-000005.safetensors"]
    assert "&lt;i&gt;ana" in shown["facts"]
    assert "ab" * 8 in shown["facts"]
    assert "ana-000005.safetensors" in frame(panel, run, "ana-000005.safetensors")["facts"]


def test_while_it_trains_there_is_no_result_yet(panel, home):
    run = alive(new(home, started(), step(5)))
    write(run, lora(run, 5))
    assert not visible(frame(panel, run)["section"])


def test_a_strength_strip_appears_once_it_is_there(panel, home):
    run = new(home, started(), step(10))
    write(run, lora(run, 10), RunFinished(reason="completed", step=10, seconds=9.0))
    shown = frame(panel, run)
    assert shown["strip"] == ""
    assert visible(shown["generate"])
    Image.new("RGB", (8, 8)).save(run.path / strip_name("ana-000010.safetensors"))
    later = frame(panel, run, "ana-000010.safetensors")
    assert "<img" in later["strip"]
    assert not visible(later["generate"])


class PreviewPlan:
    """A process that drew, and its exit code."""

    def __init__(self, code):
        self.code = code

    def wait(self):
        return self.code


@pytest.mark.parametrize("code, told", [(0, ""), (2, "see the run's log")])
def test_a_drawn_strip_never_leaves_its_button_stuck(panel, home, monkeypatch, code, told):
    run = new(home, started(), step(10))
    monkeypatch.setattr("trainer.runs.process.generate_strip", lambda _run, _file: PreviewPlan(code))
    during, after = panel.result._generate(run.path.name, "ana.safetensors", ENGLISH)
    assert (during[0]["interactive"], after[0]["interactive"]) == (False, True)
    assert told in after[1]


def test_a_strip_that_cannot_be_drawn_is_told(panel):
    [(_, told)] = panel.result._generate("no-such-run", "ana.safetensors", ENGLISH)
    assert "no-such-run" in told


def test_a_run_deleted_meanwhile_leaves_an_empty_panel(panel, home):
    run = alive(new(home, started(), step(1)))
    known = ask(panel, run)["key"]
    run.config_file.unlink()
    assert "once you press Train" in ask(panel, run, known)["html"]["headline"]


def test_five_open_pages_ask_once_a_second_and_more_so_seldom_that_the_training_is_left_its_cores(panel):
    waits = [panel.feed.pause_ms(f"page {number}", now=100.0) for number in range(20)]
    assert waits[:5] == [1000] * 5
    assert waits[9] == 2000
    assert waits[19] == 4000
    assert panel.feed.pause_ms("page 3", now=131.0) == 1000  # the others were closed


def test_the_route_answers_with_json_or_nothing_new(panel, home):
    run = alive(new(home, started(), step(1)))
    client = TestClient(Starlette(routes=panel.feed.routes()), headers={"accept-language": "de"})
    answer = client.get("/atelier/live", params={"run": run.path.name})
    assert "Schritt 1 von 10" in answer.json()["html"]["headline"]
    again = client.get("/atelier/live", params={"run": run.path.name, "key": answer.json()["key"]})
    assert (again.status_code, again.content) == (204, b"")


def test_an_open_page_starts_what_waits_for_a_trainer_that_was_killed(home, monkeypatch):
    feed, started, clock = Feed(home, Watches()), [], [0.0]
    monkeypatch.setattr(Queue, "take_over", lambda queue: started.append(queue.home))
    monkeypatch.setattr(Standby, "keep", lambda *_: None)  # it would start a process
    monkeypatch.setattr("app.live.feed.time", SimpleNamespace(monotonic=lambda: clock[0], time=time.time))
    client = TestClient(Starlette(routes=feed.routes()))
    for clock[0] in (100.0, 101.0, 104.9, 105.1):
        assert client.get("/atelier/live").status_code == 200
    assert started == [home, home]
