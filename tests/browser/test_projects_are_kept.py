"""What a person enters is there again: after a reload, Back, another room, in another tab; and Train is never lost."""

import re
import shutil

import pytest
from playwright.sync_api import Browser, Page, expect
from site_at_work import DEMO, Site, until
from the_page import closed, field, fill_example, held, press, room, shows

from trainer.dataset.overlay import entries_of
from trainer.projects.project import Project
from trainer.runs.folder import RunFolder

SIZES = [(1280, 800), (1920, 1080), (390, 844)]


@pytest.fixture
def folder(tmp_path):
    """Own images in a folder with a space and an umlaut, without captions."""
    made = shutil.copytree(DEMO, tmp_path / "Omas Bilder ü", ignore=shutil.ignore_patterns("*.txt"))
    assert list(made.glob("*.png"))
    return made


def entered(site: Site, name: str) -> dict:
    """What the project's file says."""
    return dict(Project.named(site.home, name).read().values)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_guided_path_loses_nothing(window, site: Site, folder, width, height):
    page = window(viewport={"width": width, "height": height}).new_page()
    name = f"oma {width}"
    page.goto("/?new=1")
    field(page, "textbox", "Image folder").fill(str(folder))
    expect(page.get_by_text("8 images").filter(visible=True).first).to_be_visible()
    expect(page.locator("#bar")).to_contain_text("Choose what you want to use it with")
    field(page, "textbox", "Name").fill(name)
    field(page, "textbox", "Trigger word").fill("oma")
    page.get_by_label("Preset", exact=True).select_option("sdxl-character")
    expect(page.get_by_role("radio", name=re.compile("^Character"))).to_be_checked()
    room(page, "Settings")
    rank = field(page, "spinbutton", "Rank")
    expect(rank).to_have_value("16")
    rank.fill("24")
    for go in (
        page.reload,
        lambda: (room(page, "Dataset"), page.go_back()),
        lambda: (room(page, "Start"), room(page, "Settings")),
    ):
        go()
        expect(rank).to_have_value("24")
    room(page, "Dataset")
    caption = page.get_by_role("textbox", name=re.compile("^Caption of ")).first
    caption.fill("a cat, drawn")
    caption.blur()
    room(page, "Start")
    expect(field(page, "textbox", "Image folder")).to_have_value(str(folder))
    expect(field(page, "textbox", "Name")).to_have_value(name)
    expect(field(page, "textbox", "Trigger word")).to_have_value("oma")
    expect(page.get_by_label("Preset", exact=True)).to_have_value("sdxl-character")
    expect(page.locator("#bar")).to_be_in_viewport()
    kept = entered(site, name)
    assert (kept["dataset.images"], kept["preset"], kept["adapter.rank"]) == (str(folder), "sdxl-character", 24)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_is_typed_in_one_tab_is_shown_in_the_other_and_the_last_write_to_a_field_wins(page: Page, site: Site):
    fill_example(page, "zwei")
    room(page, "Settings")
    other = page.context.new_page()
    other.goto("/settings?project=zwei")
    rank, rank_there = (field(one, "spinbutton", "Rank") for one in (page, other))
    expect(rank_there).to_have_value("16")
    rank.fill("12")
    expect(rank_there).to_have_value("12")
    field(other, "spinbutton", "Batch size").fill("4")
    rank_there.fill("20")
    expect(rank).to_have_value("20")
    expect(field(page, "spinbutton", "Batch size")).to_have_value("4")
    until(lambda: entered(site, "zwei").get("adapter.rank") == 20, "it is kept")
    assert entered(site, "zwei")["dataset.batch_size"] == 4


def test_what_was_typed_a_moment_before_train_is_trained(page: Page, site: Site):
    fill_example(page, "eilig", views=3)
    room(page, "Settings")
    expect(field(page, "spinbutton", "Rank")).to_have_value("16")
    field(page, "spinbutton", "Rank").press_sequentially("0")
    press(page, "Train")
    shows(page, "eilig", "")
    assert site.run("eilig").config().adapter.rank == 160
    assert site.run("eilig").config().project == "eilig"


def test_who_types_and_leaves_before_the_page_has_its_answer_loses_nothing(page: Page, site: Site, folder):
    fill_example(page, "flink")
    with held(page, "desk_open"):
        page.goto("/?project=flink")
        field(page, "textbox", "Image folder").fill(str(folder))
        page.locator("#rooms").get_by_role("link", name="Dataset", exact=True).click()
    page.wait_for_url(re.compile("/dataset"))
    expect(field(page, "textbox", "Image folder")).to_have_value(str(folder))
    assert entered(site, "flink")["dataset.images"] == str(folder)


def test_train_waits_for_a_caption_that_could_not_be_saved_and_says_so(page: Page, site: Site, folder):
    fill_example(page, "warte")
    room(page, "Start")
    field(page, "textbox", "Image folder").fill(str(folder))
    room(page, "Dataset")
    name = sorted(path.name for path in folder.glob("*.png"))[0]
    caption = page.get_by_role("textbox", name=f"Caption of {name}", exact=True)
    expect(caption).to_be_editable()  # it is read
    (folder / name).rename(folder / "elsewhere")
    caption.fill("a red cat")
    press(page, "Train")
    expect(page.get_by_role("alert").filter(has_text="A caption could not be saved")).to_be_in_viewport()
    expect(caption).to_have_value("a red cat")
    assert RunFolder.all(site.home) == []
    (folder / "elsewhere").rename(folder / name)
    press(page, "Train")
    shows(page, "warte", "")
    assert entries_of(site.home, folder)[name].text == "a red cat"


def test_trains_answer_is_in_the_window_at_once(page: Page):
    page.goto("/?new=1")
    expect(page.get_by_role("radio", name=re.compile("^Just try it"))).to_be_visible()
    press(page, "Train")
    expect(page.get_by_role("alert").first).to_be_in_viewport()
    expect(page.get_by_role("alert").first).to_contain_text("No base model is chosen")


def test_own_images_are_not_trained_on_the_toy_model_unasked(page: Page, site: Site, folder):
    page.goto("/?new=1")
    field(page, "textbox", "Image folder").fill(str(folder))
    expect(page.locator("#bar")).to_contain_text("Choose what you want to use it with")
    press(page, "Train")
    expect(page.get_by_role("alert").first).to_be_visible()
    assert list(site.home.runs.glob("*")) == []


def test_an_unreadable_project_is_kept_aside(page: Page, site: Site):
    fill_example(page, "kaputt")
    project = Project.named(site.home, "kaputt")
    project.file.write_text("rank = [")
    page.goto("/?project=kaputt")
    field(page, "textbox", "Name").fill("wieder da")
    until(lambda: project.read().values.get("output.name") == "wieder da", "it is kept")
    assert [path.read_text() for path in project.path.glob("unreadable *.toml")] == ["rank = ["]


def test_what_was_typed_while_the_server_was_away_is_kept_once_it_is_back(browser: Browser, site: Site):
    page = browser.new_page(base_url=site.url, locale="en-US")  # unguarded: it complains of the lost server
    fill_example(page, "weg")
    room(page, "Settings")
    rank = field(page, "spinbutton", "Rank")
    expect(rank).to_have_value("16")
    site.kill()
    rank.fill("24")
    expect(page.get_by_role("alert").first).to_contain_text("The server does not respond")
    site.start()
    until(lambda: entered(site, "weg").get("adapter.rank") == 24, "it is kept")
    expect(rank).to_have_value("24")
    closed(page.context)


def test_another_tab_follows_a_project_that_gets_its_name(page: Page, site: Site):
    page.goto("/?new=1")
    field(page, "textbox", "Trigger word").fill("oma")
    page.wait_for_url(re.compile("project=Project"))
    other = page.context.new_page()
    other.goto(page.url)
    expect(field(other, "textbox", "Trigger word")).to_have_value("oma")
    field(page, "textbox", "Name").fill("getauft")
    field(page, "textbox", "Name").blur()
    other.wait_for_url(re.compile("project=getauft"))
    field(other, "textbox", "Trigger word").fill("opa")
    until(lambda: entered(site, "getauft").get("dataset.trigger_word") == "opa", "it is kept in the same project")
