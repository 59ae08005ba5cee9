"""Start's three questions: which images, for which model, to learn what."""

import base64
import re
import shutil
from pathlib import Path

from playwright.sync_api import Page, expect
from site_at_work import DEMO, Site, until
from the_page import field, fill_example, press, room

from trainer.dataset.scan import images_of
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


def test_dropped_images_get_another_name_and_are_found_again_by_it(page: Page, site: Site):
    page.goto("/?new=1")
    field(page, "textbox", "Name").fill("sets")
    page.locator("#drop input[type=file]").set_input_files(
        [*sorted(DEMO.glob("*.png"))[:2], *sorted(DEMO.glob("*.txt"))[:2]]
    )
    expect(page.get_by_role("button", name="Rename", exact=True)).to_be_visible()
    with page.expect_response(lambda answer: "desk_images" in (answer.request.post_data or "")):
        field(page, "textbox", "Trigger word").fill("oma")
    page.get_by_role("button", name="Rename", exact=True).click()
    name = page.get_by_label("New name for these images")
    expect(name).to_be_focused()
    name.press("Escape")
    page.get_by_role("button", name="Rename", exact=True).click()
    name.fill("Omas Bilder ü")
    name.press("Enter")
    kept = str(site.home.sets / "Omas Bilder ü")
    expect(field(page, "textbox", "Image folder")).to_have_value(kept)
    expect(page.get_by_text("2 images").filter(visible=True).first).to_be_visible()
    assert Project.named(site.home, "sets").read().values["dataset.images"] == kept

    page.goto("/?new=1")
    page.get_by_role("button", name="Browse folders").click()
    for choice in ("Dropped images", "Omas Bilder ü"):
        page.get_by_role("dialog").get_by_role("button", name=choice, exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("^Use this folder")).click()
    expect(field(page, "textbox", "Image folder")).to_have_value(kept)


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


FOLDER_DROP = """async ([field, files]) => {
  const entry = (name, text) => ({
    name, isDirectory: false, isFile: true,
    file: (done) => done(new File([Uint8Array.from(atob(text), (one) => one.charCodeAt(0))], name)),
  });
  const folder = (name, inside) => {
    let left = [inside];
    return { name, isDirectory: true, createReader: () => ({ readEntries: (done) => done(left.pop() ?? []) }) };
  };
  const [first, ...rest] = Object.entries(files).map(([name, text]) => entry(name, text));
  const dropped = folder("Omas Bilder", [first, folder("more", rest), entry(".hidden.png", "")]);
  const event = new Event("drop", { bubbles: true, cancelable: true });
  event.dataTransfer = { items: [{ webkitGetAsEntry: () => dropped }], files: [] };
  document.querySelector(field).dispatchEvent(event);
}"""  # a script can make no DataTransfer with a folder in it


def test_a_dropped_folder_arrives_with_all_that_is_in_it(page: Page):
    sources = sorted(DEMO.glob("*.png"))[:2]
    files = {path.name: path for source in sources for path in (source, source.with_suffix(".txt"))}
    page.goto("/?new=1")
    expect(page.get_by_text("Drop images or folders here")).to_be_visible()
    encoded = {name: base64.b64encode(path.read_bytes()).decode() for name, path in files.items()}
    page.evaluate(FOLDER_DROP, ["#drop button, #drop input", encoded])
    expect(page.get_by_text("2 images, 2 with captions")).to_be_visible()
    folder = Path(field(page, "textbox", "Image folder").input_value())
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)


def test_the_header_leads_to_the_other_projects_in_the_same_room(page: Page):
    for name in ("Haus am See", "Haus am Meer"):
        fill_example(page, name)
    room(page, "Settings")
    switch = page.get_by_role("button", name="Project: Haus am Meer")
    switch.click()
    page.locator("#projects").get_by_role("link", name="Haus am See", exact=True).click()
    expect(page.get_by_role("button", name="Project: Haus am See")).to_be_visible()
    assert "/settings" in page.url
    expect(page.get_by_role("textbox", name="As TOML")).to_have_value(re.compile('name = "Haus am See"'))
    page.get_by_role("button", name="Project: Haus am See").click()
    page.keyboard.press("Escape")
    expect(page.locator("#projects")).to_be_hidden()


def test_images_without_a_word_that_calls_them_are_said_beside_train_with_caption_them(page: Page, tmp_path):
    folder = tmp_path / "Omas Bilder ü"
    folder.mkdir()
    for source in sorted(DEMO.glob("*.png"))[:3]:
        shutil.copy(source, folder)
    fill_example(page, "ohne")
    field(page, "textbox", "Image folder").fill(str(folder))
    bar = page.locator("#bar")
    expect(bar).to_contain_text("3 images have no caption")
    field(page, "textbox", "Trigger word").fill("ohwx")
    expect(bar).not_to_contain_text("no caption")
    field(page, "textbox", "Trigger word").fill("")
    bar.get_by_role("link", name="Caption them").click()
    page.wait_for_url(re.compile("/dataset"))
    expect(page.get_by_role("button", name="Caption the images")).to_be_visible()
    expect(page.get_by_role("button", name="Project: ohne")).to_be_visible()


def test_a_caption_typed_a_moment_before_train_is_trained(page: Page, site: Site, tmp_path):
    fill_example(page, "gerade")
    field(page, "textbox", "Image folder").fill(str(shutil.copytree(DEMO, tmp_path / "Bilder ü")))
    room(page, "Dataset")
    first = page.locator(".captions-field").first
    expect(first).not_to_have_value("")
    expect(page.locator("#bar")).to_contain_text("steps at batch")
    first.fill("a furious emoji")
    press(page, "Train")
    run = site.run("gerade")
    items, _ = images_of(run.config().dataset)
    assert items[0].caption == "a furious emoji"


def test_the_plan_follows_what_is_excluded_beside_it(page: Page, tmp_path):
    fill_example(page, "weniger")
    field(page, "textbox", "Image folder").fill(str(shutil.copytree(DEMO, tmp_path / "Bilder ü")))
    room(page, "Dataset")
    before = len(list(DEMO.glob("*.png")))
    expect(page.locator("#bar")).to_contain_text(f"{before} images ×")
    page.get_by_role("checkbox", name=re.compile("^Select ")).first.check()
    page.get_by_role("button", name="Exclude", exact=True).click()
    expect(page.locator("#bar")).to_contain_text(f"{before - 1} images ×")
