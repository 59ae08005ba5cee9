"""What is shown is what the files say: reload, tabs, a closed browser, a crash of the trainer or of the server."""

import re

from playwright.sync_api import Page, expect
from site_at_work import Site, end, reached, until
from the_page import closed, press, shows, status, step

from trainer.runs.folder import RunFolder

LONG = {"views": 4000}  # more than any test waits for
SOME = {"views": 24}  # 48 steps: long enough to be interrupted, short enough to be awaited


def training(site: Site, page: Page, name: str, views: dict[str, int]) -> RunFolder:
    """A run in its first steps, shown by the page."""
    run = site.train(name, dataset=views)
    until(lambda: reached(run, 2), "two steps are done")
    page.goto("/live")
    shows(page, name, "Training")
    return run


def test_a_reload_shows_the_same_run_going_on(page: Page, site: Site):
    training(site, page, "geladen", LONG)
    before = step(page)
    page.reload()
    shows(page, "geladen", "Training")
    until(lambda: step(page) > before, "the reloaded page counts on")
    expect(page.get_by_role("region", name="Previews by prompt and step").get_by_role("img").first).to_be_visible()


def test_two_tabs_show_the_same_run_and_both_go_on(page: Page, site: Site):
    training(site, page, "doppelt", LONG)
    other = page.context.new_page()
    other.goto("/live")
    shows(other, "doppelt", "Training")
    seen = [step(page), step(other)]
    until(lambda: step(page) > seen[0] and step(other) > seen[1], "both tabs count on")


def test_a_training_goes_on_when_the_browser_is_closed(page: Page, site: Site):
    run = training(site, page, "allein", LONG)
    closed(page.context)
    done = run.view().steps[-1].step
    until(lambda: reached(run, done + 5), "five more steps")
    assert run.status() == "running"


def test_stop_and_save_leaves_a_file(page: Page, site: Site):
    run = training(site, page, "halt", LONG)
    press(page, "Stop and save")
    shows(page, "halt", "Stopped")
    expect(page.locator("#panel").get_by_role("link", name=re.compile(r"halt.*\.safetensors")).first).to_be_visible()
    assert list(run.path.glob("halt*.safetensors"))


def test_save_now_and_preview_now_add_a_checkpoint_and_images(page: Page, site: Site):
    calm = {"preview": {"every": 100_000}, "output": {"checkpoint_every": 100_000}}
    run = site.train("zwischen", dataset=LONG, **calm)
    page.goto("/live")
    shows(page, "zwischen", "step 1")
    press(page, "Save now")
    press(page, "Preview now")
    until(lambda: run.view().checkpoints, "a checkpoint")
    until(lambda: any(sample.step > 0 for sample in run.view().samples), "a preview")
    board = page.get_by_role("region", name="Previews by prompt and step")
    expect(board.get_by_role("img")).to_have_count(2)
    expect(board.get_by_role("img").last).to_have_css("image-rendering", "pixelated")  # 64 px shown at twice that


def test_a_pause_frees_the_machine_and_continue_completes(page: Page, site: Site):
    run = site.train("pause", dataset=SOME)
    until(lambda: reached(run, 2), "two steps are done")
    trainer = run.process()
    trainer.suspend()  # else it may be through before a slow page is there
    page.goto("/live")
    shows(page, "pause", "Training")
    press(page, "Pause")
    until(lambda: run.asked_for("pause") is not None, "it is asked to")
    trainer.resume()
    shows(page, "pause", "Paused")
    until(lambda: not trainer.is_running() or trainer.status() == "zombie", "the process is gone")
    assert run.process() is None
    press(page, "Continue")
    shows(page, "pause", "Completed")
    assert [one.step for one in run.view().steps] == list(range(1, 49))


def test_a_killed_trainer_is_interrupted_and_continue_goes_on_without_a_gap(page: Page, site: Site):
    run = training(site, page, "tot", LONG)
    until(lambda: run.view().checkpoints, "something to go on from")
    end(run)
    shows(page, "tot", "Interrupted")
    press(page, "Continue")
    shows(page, "tot", "Training")
    until(lambda: run.view().started.resumed_at >= 4, "it goes on from a checkpoint")
    press(page, "Stop and save")
    shows(page, "tot", "Stopped")
    done = [one.step for one in run.view().steps]
    assert done == list(range(1, done[-1] + 1))


def test_a_killed_server_ends_no_training_and_shows_it_again_once_started(page: Page, site: Site, window):
    run = training(site, page, "zäh", LONG)
    closed(page.context)
    site.kill()
    assert site.answers("/") == 0
    done = run.view().steps[-1].step
    until(lambda: reached(run, done + 3), "three more steps")
    site.start()
    again = window().new_page()
    again.goto("/live")
    shows(again, "zäh", "Training")
    before = step(again)
    until(lambda: step(again) > before, "the new page counts on")
    expect(status(again)).to_be_visible()
