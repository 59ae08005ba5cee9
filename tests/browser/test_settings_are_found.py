"""The list of all settings: found by anyone's word, marked where changed, and only what applies."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from site_at_work import Site, until
from the_page import field, fill_example, room
from tiny import images

from trainer.projects.project import Project


@pytest.fixture
def listed(page: Page) -> Page:
    fill_example(page, "suche")
    room(page, "Settings")
    expect(field(page, "spinbutton", "Rank")).to_have_value("16")
    return page


def test_a_veteran_s_word_leads_to_the_setting(listed: Page):
    search = field(listed, "searchbox", "Find a setting")
    search.fill("te lr")
    listed.get_by_role("button", name=re.compile("^Text encoder learning rate")).click()
    expect(field(listed, "spinbutton", "Text encoder learning rate")).to_be_focused()
    search.fill("network dim")
    expect(listed.get_by_role("button", name=re.compile(r"^Rank"))).to_contain_text("now 16")
    search.press("Enter")
    expect(field(listed, "spinbutton", "Rank")).to_be_focused()


def test_a_setting_of_another_room_is_led_to(listed: Page):
    for word, hit, name in (
        ("checkpoint", "Base model", "Other file"),
        ("class tokens", "Trigger word", "Trigger word"),
    ):
        field(listed, "searchbox", "Find a setting").fill(word)
        listed.get_by_role("button", name=re.compile(f"^{hit}")).click()
        expect(field(listed, "textbox", name)).to_be_focused()
        room(listed, "Settings")


def test_a_word_without_a_setting_says_what_stands_for_it(listed: Page):
    search = field(listed, "searchbox", "Find a setting")
    search.fill("xformers")
    expect(listed.get_by_text("PyTorch's own attention is used")).to_be_visible()
    search.fill("prodgy")
    listed.get_by_role("button", name="prodigy", exact=True).click()
    expect(listed.get_by_text("prodigy: Not here yet: AdamW is used")).to_be_visible()
    search.fill("AdamW8bit")
    expect(listed.get_by_text("adamw8bit: Not here yet: AdamW is used")).to_be_visible()


def test_a_value_that_was_found_is_never_stale(listed: Page):
    field(listed, "searchbox", "Find a setting").fill("network_dim")
    found = listed.get_by_role("button", name=re.compile(r"^Rank"))
    expect(found).to_contain_text("now 16")
    field(listed, "spinbutton", "Rank").fill("32")
    expect(found).to_contain_text("now 32")


def test_a_changed_setting_is_marked_and_one_click_goes_back(listed: Page):
    for name, role in (("Warmup", "spinbutton"), ("Rank", "spinbutton")):
        control = field(listed, role, name)
        before = control.input_value()
        control.press("ArrowUp")
        expect(control).not_to_have_value(before)
        listed.get_by_role("button", name=f"reset to {before}", exact=False).first.click()
        expect(control).to_have_value(before)
        expect(control).to_be_focused()


def test_a_learning_rate_steps_by_factors(listed: Page):
    rate = field(listed, "spinbutton", "Learning rate")
    rate.fill("0.0001")
    for after in ("0.00015", "0.0002", "0.0003", "0.0005", "0.0007", "0.001"):
        rate.press("ArrowUp")
        expect(rate).to_have_value(after)
    rate.press("ArrowDown")
    expect(rate).to_have_value("0.0007")


def test_only_what_applies_is_shown_and_what_is_wrong_is_said_at_its_field(listed: Page):
    prompt = field(listed, "textbox", "Class prompt")
    expect(prompt).to_be_hidden()
    field(listed, "checkbox", "Prior preservation").check()
    expect(prompt).to_be_visible()
    expect(listed.get_by_text("tells the subject from its class").first).to_be_visible()
    prompt.fill("a drawing")
    expect(listed.get_by_text("tells the subject from its class")).to_have_count(0)


def test_the_same_is_there_as_toml_and_either_changes_the_other(listed: Page):
    text = field(listed, "textbox", "As TOML")
    expect(text).to_have_value(re.compile(r"\[preview\]"))
    field(listed, "spinbutton", "Rank").fill("12")
    expect(text).to_have_value(re.compile(r"rank = 12"))
    text.fill(text.input_value().replace("rank = 12", "rank = 20\ndropout = 0.1"))
    expect(field(listed, "spinbutton", "Rank")).to_have_value("20")
    expect(field(listed, "spinbutton", "LoRA dropout")).to_have_value("0.1")
    text.fill("[adapter]\nrnak = 3")
    expect(listed.get_by_text("Did you mean")).to_be_visible()
    text.fill("network_dim = 32")
    expect(listed.get_by_text("Here that is “Rank”.")).to_be_visible()
    text.fill("rank = [")
    expect(listed.get_by_text("The text is no TOML")).to_be_visible()
    expect(field(listed, "spinbutton", "Rank")).to_have_value("20")


def test_epochs_and_repeats_make_views_whichever_is_edited(listed: Page):
    views, epochs, repeats = (field(listed, "spinbutton", name) for name in ("Views per image", "epochs", "repeats"))
    expect(epochs).to_have_value("4")
    repeats.fill("5")
    expect(views).to_have_value("20")
    epochs.fill("10")
    expect(views).to_have_value("50")
    views.fill("30")
    expect(epochs).to_have_value("6")
    expect(listed.locator("#bar")).to_contain_text("24 images × 30 views")


def test_repeats_are_those_of_the_folder_s_name(page: Page, tmp_path):
    images(tmp_path / "img" / "10_ohwx woman", 2)
    fill_example(page, "kohya", views=40)
    field(page, "textbox", "Image folder").fill(str(tmp_path / "img"))
    expect(page.locator("#bar")).to_contain_text("2 images × 40 views")
    room(page, "Settings")
    views, epochs, repeats = (field(page, "spinbutton", name) for name in ("Views per image", "epochs", "repeats"))
    expect(repeats).to_have_value("10")
    expect(epochs).to_have_value("4")
    epochs.fill("6")
    expect(views).to_have_value("60")


def test_options_of_kohya_s_sample_prompts_are_said_to_be_words(listed: Page):
    field(listed, "textbox", "Preview prompts").fill("a bell --n lowres --d 42")
    expect(listed.locator("#bar")).to_contain_text("--n, --d in “Preview prompts” have no effect")


def test_the_learning_strength_is_kept_as_long_as_it_is_ticked(listed: Page):
    rank, rate = (field(listed, "spinbutton", name) for name in ("Rank", "Learning rate"))
    rank.fill("32")
    expect(rate).to_have_value("0.0068")
    listed.get_by_label("Keep the learning strength").uncheck()
    rank.fill("16")
    expect(listed.locator("#bar")).to_contain_text("24 images")
    expect(rank).to_have_value("16")
    expect(rate).to_have_value("0.0068")


def test_a_slider_and_its_number_are_one_and_its_steps_are_those_of_the_field(page: Page, site: Site):
    fill_example(page, "schieber")
    room(page, "Settings")
    rate, slider = field(page, "spinbutton", "Learning rate"), field(page, "slider", "Learning rate")
    expect(rate).to_have_value("0.0034")
    expect(slider).to_have_attribute("aria-valuetext", "0.0034")
    slider.press("ArrowRight")
    expect(rate).to_have_value("0.005")
    rate.fill("0.0007")
    expect(slider).to_have_attribute("aria-valuetext", "0.0007")
    rank = field(page, "slider", "Rank")
    rank.press("End")
    expect(field(page, "spinbutton", "Rank")).to_have_value("256")
    until(lambda: Project.named(site.home, "schieber").read().values.get("adapter.rank") == 256, "it is kept")


def test_what_is_changed_is_counted_by_section_and_one_click_goes_back_to_the_preset(page: Page):
    fill_example(page, "zurück")
    room(page, "Settings")
    field(page, "spinbutton", "Warmup").fill("0.2")
    field(page, "spinbutton", "Rank").fill("8")
    side = page.locator("#settings-side")
    expect(side.get_by_role("button", name="LoRA")).to_contain_text("1")
    expect(side).to_contain_text("Changed from “Toy model · Style”: ")
    page.get_by_role("button", name="Back to the preset").click()
    expect(field(page, "spinbutton", "Rank")).to_have_value("16")
    expect(side.get_by_role("button", name="Back to the preset")).to_have_count(0)
    expect(page.locator("#bar")).to_contain_text("24 images ×")  # the images are the user's, and stay


def test_a_project_goes_out_and_comes_back_as_one_file(page: Page, site: Site, tmp_path):
    fill_example(page, "reise")
    room(page, "Settings")
    field(page, "spinbutton", "Rank").fill("24")
    until(lambda: Project.named(site.home, "reise").read().values.get("adapter.rank") == 24, "it is kept")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as a file").click()
    file = tmp_path / "reise.toml"
    download.value.save_as(file)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import a project").click()
    chooser.value.set_files(file)
    expect(page.get_by_role("button", name="Project: reise 2")).to_be_visible()
    expect(field(page, "spinbutton", "Rank")).to_have_value("24")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[adapter]\nrank = ", "TOML"),
        ("format = 99\n[adapter]\nrank = 8\n", "newer"),
        ("network_dim = 8\nnetwork_module = 'networks.lora'\n", "kohya"),
        ("[adapter]\nrnak = 8\n", "rank"),
    ],
    ids=["broken", "newer", "kohya", "misspelt"],
)
def test_a_file_that_is_no_project_is_said_and_makes_none(page: Page, site: Site, tmp_path, text, said):
    refused(page, site, tmp_path / "fremd.toml", text, said)


def test_the_settings_of_kohya_s_page_are_said_to_be_that(page: Page, site: Site, tmp_path):
    text = '{"LoRA_type": "Standard", "epoch": 10, "stop_text_encoder_training": 0}'
    refused(page, site, tmp_path / "kohya.json", text, "kohya.json is a settings file of kohya_ss")


def refused(page: Page, site: Site, file: Path, text: str, said: str) -> None:
    """Import a file that is no project, and see in view what it is, by the name that it has."""
    fill_example(page, "bleibt")
    room(page, "Settings")
    file.write_text(text)
    before = {project.name for project in Project.all(site.home)}
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import a project").click()
    chooser.value.set_files(file)
    alert = page.get_by_role("alert").filter(has_text=said)
    expect(alert).to_be_in_viewport(ratio=1)
    expect(alert).not_to_contain_text(str(site.home.root))
    assert {project.name for project in Project.all(site.home)} == before
    expect(page.get_by_role("button", name="Project: bleibt")).to_be_visible()


def test_a_file_of_an_earlier_version_is_a_project(page: Page, tmp_path):
    fill_example(page, "neu")
    room(page, "Settings")
    file = tmp_path / "alt.toml"
    file.write_text('preset = "sdxl-style"\n[adapter]\nrank = 12\n[dataset]\nimages = "/gone"\n')
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import a project").click()
    chooser.value.set_files(file)
    expect(page.get_by_role("button", name="Project: alt")).to_be_visible()
    expect(field(page, "spinbutton", "Rank")).to_have_value("12")


def test_the_learning_strength_is_let_go_until_it_is_kept_again(page: Page):
    fill_example(page, "frei")
    room(page, "Settings")
    keep, rank, rate = (
        page.get_by_label("Keep the learning strength"),
        field(page, "spinbutton", "Rank"),
        field(page, "spinbutton", "Learning rate"),
    )
    expect(rank).to_have_value("16")
    keep.uncheck()
    page.reload()
    expect(rank).to_have_value("16")
    expect(keep).not_to_be_checked()
    rank.fill("32")
    expect(rate).to_have_value("0.0034")
    keep.check()
    page.reload()
    expect(keep).to_be_checked()
    rank.fill("64")
    expect(rate).to_have_value("0.0068")
