"""Start's three questions: which images, for which model, to learn what."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect
from site_at_work import DEMO, Site, until
from the_page import field, fill_example

from trainer.projects.project import Project


def test_a_model_brings_its_preset_and_a_goal_the_one_for_it(page: Page):
    page.goto("/?new=1")
    preset = page.get_by_label("Preset", exact=True)
    expect(preset).to_have_value("")
    page.get_by_role("radio", name=re.compile("^stable-diffusion-xl-base")).check()
    expect(preset).to_have_value("sdxl-style")
    page.get_by_role("radio", name=re.compile("^Character")).check()
    expect(preset).to_have_value("sdxl-character")
    page.get_by_role("radio", name=re.compile("^stable-diffusion-v1-5")).check()
    expect(preset).to_have_value("sd15-character")
    expect(page.get_by_role("radio", name=re.compile("^Character"))).to_be_checked()


def test_dropping_again_adds_and_the_project_keeps_the_folder(page: Page, site: Site):
    page.goto("/?new=1")
    field(page, "textbox", "Name").fill("fallen")
    field(page, "textbox", "Name").blur()
    files = sorted(DEMO.glob("*.png"))
    for count, chosen in ((2, files[:2]), (3, files[2:3])):
        page.locator("#drop input[type=file]").set_input_files(chosen)
        expect(page.get_by_text(f"{count} images").filter(visible=True).first).to_be_visible()
    until(lambda: Project.named(site.home, "fallen").read().values.get("dataset.images"), "it is kept")


def test_a_folder_is_chosen_by_going_there(page: Page):
    page.goto("/?new=1")
    page.get_by_role("button", name="Browse folders").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=Path.home().name, exact=True).click()
    dialog.get_by_role("button", name=re.compile("^Use this folder")).click()
    expect(dialog).to_be_hidden()
    expect(field(page, "textbox", "Image folder")).to_have_value(str(Path.home()))


def test_the_example_is_a_project_of_its_own(page: Page, site: Site):
    fill_example(page, "meins")
    before = dict(Project.named(site.home, "meins").read().values)
    page.get_by_role("button", name="Try it with the built-in example").click()
    expect(field(page, "textbox", "Name")).to_have_value("example")
    assert dict(Project.named(site.home, "meins").read().values) == before
    page.get_by_role("link", name=re.compile("^meins")).click()
    expect(field(page, "textbox", "Name")).to_have_value("meins")
    page.get_by_role("link", name="New project").click()
    expect(field(page, "textbox", "Name")).to_have_value("")
