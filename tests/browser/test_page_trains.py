"""From a folder to a LoRA file, as a first-time user does it."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from safetensors import safe_open
from site_at_work import DEMO, Site, failure, until
from the_page import field, fill_example, press, room, shows, status

from trainer.dataset.errors import NoImages
from trainer.runs.queue import Queue


def digest(folder: Path) -> str:
    every = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in every)).hexdigest()


def test_the_built_in_example_trains_from_two_clicks_to_a_file(page: Page, site: Site, tmp_path):
    fill_example(page, "probe", views=4, whole=True)
    press(page, "Train")
    shows(page, "probe", "")
    board = page.get_by_role("region", name="Previews by prompt and step")
    expect(board.get_by_role("columnheader", name="step 0")).to_be_visible()
    before = board.get_by_role("img").first
    expect(before).to_be_visible()
    until(lambda: before.evaluate("image => image.naturalWidth") > 0, "the first preview is loaded")
    expect(status(page)).to_contain_text(re.compile(r"step [1-9]\d* of \d+"))
    shows(page, "probe", "Completed")
    with page.expect_download() as download:
        page.locator("#panel").get_by_role("link", name=re.compile(r"probe.*\.safetensors")).first.click()
    download.value.save_as(tmp_path / "probe.safetensors")
    with safe_open(tmp_path / "probe.safetensors", "pt") as file:
        names = list(file.keys())
        assert file.metadata()["ss_output_name"] == "probe"
    assert any("lora_up" in name for name in names)
    assert site.run("probe").status() == "completed"


def test_a_folder_with_umlauts_and_spaces_is_trained_on_and_only_read(page: Page, site: Site, tmp_path):
    folder = shutil.copytree(DEMO, tmp_path / "Bilder für 猫 & Co")
    (folder / "grinning-cat.txt").write_text("große Katze, 笑顔", encoding="utf-8")
    before = digest(folder)
    fill_example(page, "katze", views=3)
    field(page, "textbox", "Image folder").fill(str(folder))
    expect(page.get_by_text("8 images").filter(visible=True).first).to_be_visible()
    press(page, "Train")
    shows(page, "katze", "Completed")
    assert site.run("katze").config().dataset.images == str(folder)
    assert digest(folder) == before


def test_a_result_is_trained_on_by_two_clicks(page: Page, site: Site):
    first = site.train("ana")
    page.goto("/live")
    shows(page, "ana", "Completed")
    press(page, "Continue training")
    expect(page.get_by_text("Continues from ana.safetensors.")).to_be_visible()
    room(page, "Start")
    expect(field(page, "textbox", "Name")).to_have_value("ana 2")
    press(page, "Train")
    second = site.run("ana-2-")  # the first one is called ana-2026…, by its date
    assert second.config().adapter.start_from == str(first.path / "ana.safetensors")
    until(lambda: second.status() == "completed", f"it completes: {failure(second)}")


PRESS = """([id, above, before, between, away]) => {
    const button = document.getElementById(id), plan = document.getElementById(above);
    button.scrollIntoView({ block: "center" });
    const { left, top, width, height } = button.getBoundingClientRect();
    const at = { clientX: left + width / 2, clientY: top + height / 2, bubbles: true, isPrimary: true };
    const there = () => document.elementFromPoint(at.clientX, at.clientY);
    const grow = (pixels) => { plan.style.paddingTop = `${(parseFloat(plan.style.paddingTop) || 0) + pixels}px`; };
    let presses = 0;
    button.addEventListener("click", () => { presses += 1; });
    grow(before);
    const from = there();
    from.dispatchEvent(new PointerEvent("pointerdown", at));
    grow(between);
    at.clientX += away;
    const to = there();
    let both = from;
    while (!both.contains(to)) both = both.parentElement; // where a browser says "click" if they differ
    both.dispatchEvent(new PointerEvent("click", at));
    return presses;
}"""  # in one go, as no browser can be told to: the form's next answer comes when it likes


@pytest.mark.parametrize(("before", "between"), [(0, 0), (60, 0), (0, 60)], ids=["calm", "before", "while held"])
def test_a_press_of_train_counts_once_and_the_button_stays_while_the_plan_grows(page: Page, site, before, between):
    fill_example(page, "gedrückt")
    expect(page.locator("#bar")).to_contain_text("= 12 steps")
    place = page.locator("#start").bounding_box()
    assert page.evaluate(PRESS, ["start", "bar", before, between, 0]) == 1
    assert page.locator("#start").bounding_box() == place
    run = site.run("gedrückt")
    until(lambda: run.process() or run.view().ended, "a trainer takes it")
    assert len(list(site.home.runs.glob("*"))) == 1


@pytest.mark.parametrize(
    ("before", "between", "away", "presses"),
    [
        pytest.param(60, 0, 0, 1, id="it moved before"),
        pytest.param(0, 60, 0, 1, id="it moves while held"),
        pytest.param(0, 60, 90, 0, id="taken back"),
    ],
)
def test_a_press_of_a_button_that_moves_counts_once(page: Page, before, between, away, presses):
    fill_example(page, "daneben")
    page.locator("#example").hover()
    assert page.evaluate(PRESS, ["example", "title", before, between, away]) == presses


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "empty"])
def test_a_folder_without_images_is_told_with_what_to_do_and_nothing_starts(page: Page, site: Site, tmp_path, missing):
    folder = tmp_path / "nirgends <b>&amp;"
    if not missing:
        folder.mkdir()
    fill_example(page, "nichts")
    field(page, "textbox", "Image folder").fill(str(folder))
    press(page, "Train")
    alert = page.get_by_role("alert").filter(has_text=str(folder)).first
    expect(alert).to_be_visible()
    if not missing:
        expect(alert).to_contain_text(NoImages(folder=folder, other_files=0).hint)
    assert list(site.home.runs.glob("*")) == []


def test_of_two_trainings_the_second_waits_and_is_trained_although_the_first_fails(page: Page, site: Site, tmp_path):
    folder = shutil.copytree(DEMO, tmp_path / "fort")
    fill_example(page, "erster")
    field(page, "textbox", "Image folder").fill(str(folder))
    with Queue(site.home)._changing():  # no trainer is started, and looks there, before the folder is gone
        press(page, "Train")
        first = site.run("erster")
        shutil.rmtree(folder)
    fill_example(page, "zweiter", views=3)
    press(page, "Train")
    second = site.run("zweiter")
    until(lambda: first.status() == "failed", "the first one fails")
    until(lambda: second.status() == "completed", f"the second one completes: {failure(second)}")
    page.goto(f"/live?run={first.path.name}")
    shows(page, "erster", "Failed")
    expect(page.locator("#panel").get_by_role("alert")).to_contain_text(str(folder))
    page.goto(f"/live?run={second.path.name}")
    shows(page, "zweiter", "Completed")
