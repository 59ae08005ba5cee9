"""Every way into the program is fed with files that no program should have written."""

import io

import malformed
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.server.files import routes, thumbnail_url
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.export import export
from trainer.dataset.images import load_image
from trainer.dataset.scan import look, scan
from trainer.doctor.examine import examine

# What Pillow says of such files on the side is for a console; what it raises is tested here
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("malformed")
    assert malformed.make(made) >= 200
    return made


@pytest.fixture(scope="module")
def findings(folder, tmp_path_factory):
    items, problems = look(folder)
    config = validated({"dataset": {"images": str(folder), "resolution": 64}})
    return items, examine(items, problems, config, Home(tmp_path_factory.mktemp("home")))


def test_what_cannot_be_trained_is_named_by_a_finding_and_the_rest_can_be(folder, findings):
    items, found = findings
    named = {path for finding in found if finding.level == "error" for path in finding.images}
    broken = set()
    for path in [path for path in folder.iterdir() if path.is_file() and path.suffix not in (".txt", ".caption")]:
        try:
            assert load_image(path).mode == "RGB"
        except UnreadableImage:
            broken.add(path)
    assert broken <= named
    assert len(broken) > 60
    assert {item.path for item in items} - named >= {item.path for item in items if "caption-" in item.name}


def test_a_scan_goes_on_without_what_cannot_be_opened(folder):
    items, problems = scan(folder)
    assert len(items) > 60
    assert {"unreadable_image", "caption_encoding"} <= {problem.code for problem in problems}


def test_captions_of_every_kind_are_read_as_text_that_can_be_written(findings):
    items, found = findings
    captions = [item.caption for item in items if item.name.startswith("caption-")]
    assert all(caption.encode() is not None and "\0" not in caption for caption in captions)
    assert any(finding.code == "long_caption" for finding in found)


def test_every_thumbnail_is_an_image(folder, tmp_path):
    browser = TestClient(Starlette(routes=routes(Home(tmp_path))))
    for path in sorted(folder.glob("*")):
        answer = browser.get(thumbnail_url(path))
        assert answer.status_code == 200, path
        assert Image.open(io.BytesIO(answer.content)).format == "JPEG"


def test_an_export_takes_what_can_be_trained(folder, tmp_path):
    assert export(Home(tmp_path), folder, tmp_path / "new") > 60
