"""What a run leaves for others beside its LoRA file."""

import io

import pytest
from PIL import Image, PngImagePlugin

from trainer.contract.settings.config import validated
from trainer.engine.outputs import cover


@pytest.mark.parametrize(
    ("settings", "stays"),
    [
        ({}, False),
        ({"output": {"tags": "tags"}}, False),
        ({"preview": {"prompts": ["a bear"]}}, True),
        ({"output": {"tags": "all"}}, True),
    ],
)
def test_a_caption_as_the_prompt_does_not_go_with_the_file(settings, stays):
    said = PngImagePlugin.PngInfo()
    said.add_text("parameters", "Ana Petersen in her kitchen, Hauptstr. 5")
    png = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(png, "PNG", pnginfo=said)
    made = cover(validated(settings), png.getvalue())
    with Image.open(io.BytesIO(made)) as image:
        assert ("parameters" in image.info) == stays
        assert image.getpixel((0, 0)) == (1, 2, 3)
    assert (b"Petersen" in made) == stays
