"""The Dataset page: the images of a folder with their captions, to be edited in place."""

from contextlib import suppress

import gradio as gr

from app.dataset import captioning, checks, grid, image
from app.dataset.folder import ImageFolder
from app.dataset.grid import GridData, opened
from app.desk import element as desk
from app.desk.in_view import Opened, opened_project
from app.desk.presets import EXAMPLE, preset_titles
from app.desk.state import Desk
from app.kit.cards import problem_card
from app.kit.component import Element, asset
from app.kit.text import label, language, say
from trainer.contract.errors import TrainerError
from trainer.contract.home import Home

# The address names the folder, so a reload, a bookmark and the Train page's link all come to the same
OPEN = "(images) => { location.search = '?' + new URLSearchParams({ images }); }"


class CaptionGrid(Element):
    """A folder's images and captions; its value is what `opened` returns, or None for no folder."""

    SCRIPTS = (
        "elements.js",
        *(f"dataset/{name}.js" for name in ("grid", "tags", "picture", "mask", "checks", "captioner", "start")),
    )
    TEMPLATE = asset("dataset/page.html")


def build(home: Home, demo: gr.Blocks) -> None:
    """The page's components, and what happens when it is opened."""
    with gr.Row(elem_id="dataset-folder"):
        images = gr.Textbox(label=label("dataset.folder"), scale=4, min_width=160, max_lines=1)
        open_button = gr.Button(label("dataset.open"), scale=0, min_width=120, size="md")
    problem = gr.HTML(elem_id="dataset-problem")
    shown = CaptionGrid(elem_id="dataset")
    shown.serve([*grid.answers(home), *image.answers(home), *checks.answers(home), *captioning.answers(home)])

    def arrive(request: gr.Request) -> tuple[str, str, GridData | None]:
        """Show the folder that the address names, why it cannot be shown, and its first images."""
        project, images = (str(request.query_params.get(name, "")).strip() for name in ("project", "images"))
        folder = (not project and images) or images_of(home, Opened(project=project, images=images))
        return folder, *first_page(home, folder, language(request))

    gr.on([open_button.click, images.submit], None, images, None, js=OPEN, api_visibility="private")
    desk.build(home)
    demo.load(arrive, None, [images, problem, shown], api_visibility="private", show_progress="hidden")


def images_of(home: Home, asked: Opened) -> str:
    """The image folder of the project that an address means."""
    with suppress(TrainerError):
        return str(Desk.of(home, opened_project(home, asked)).values["dataset.images"])
    return ""


def first_page(home: Home, folder: str, tongue: str) -> tuple[str, GridData | None]:
    """Returns why the folder cannot be shown, as HTML, and what the grid shows of it."""
    if not folder:
        return f'<p class="quiet">{say(tongue, "dataset.no_folder")}</p>', None
    try:
        images = ImageFolder.of(home, folder, read=False)
    except TrainerError as error:
        return problem_card(error, tongue), None
    return "", {
        **opened(images, tongue),
        "presets": preset_titles(home, tongue),
        "preset": EXAMPLE,
        "captioners": captioning.captioners(),
    }
