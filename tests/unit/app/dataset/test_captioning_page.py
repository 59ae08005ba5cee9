import json

import pytest

from app.dataset import captioning
from tests.unit.dataset.test_captions import draw
from trainer.captioning.catalogue import CAPTIONERS
from trainer.captioning.jobs import CaptionJob


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / "pictures" / "red-fox.png")
    return tmp_path / "pictures"


@pytest.fixture
def ask(home):
    functions = {function.__name__: function for function in captioning.answers(home)}
    return lambda what, folder, **more: functions[what]({"folder": str(folder), **more}, None)


def test_every_captioner_is_offered_with_what_it_needs():
    offered = {one["name"]: one for one in captioning.captioners()}
    assert offered.keys() == CAPTIONERS.keys()
    assert all(one["sentence"] for one in offered.values())
    assert offered["file-names"]["install"] == offered["file-names"]["model"] == ""
    assert (offered["blip"]["size"], offered["wd14"]["size"]) == ("1.9 GB", "468 MB")
    json.dumps(captioning.captioners())


def test_a_folder_that_was_never_captioned_says_nothing(ask, folder):
    assert ask("captioning", folder) == {"state": "none", "working": False, "report": "", "done": 0, "of": 0}


def test_a_captioner_without_its_model_and_a_folder_that_is_gone_are_refused_in_words(ask, folder):
    refused = ask("caption_start", folder, captioner="blip", model=str(folder))
    assert "error" in refused
    assert "error" in ask("caption_start", folder.parent / "none", captioner="file-names")


def test_how_far_it_is_and_what_came_of_it_is_told(ask, home, folder):
    job = CaptionJob.of(home, folder)
    job.path.mkdir(parents=True)
    job.settings_file.write_text(f'folder = "{folder}"\ncaptioner = "file-names"\n', encoding="utf-8")
    job.process_file.write_text('{"pid": 999999999, "started": 0}')
    job.note(file_name="red-fox.png", text="red fox")
    job.note(file_name="blank.png", text="")
    assert "1 captioned" in ask("captioning", folder)["report"]
    assert "1 without a result" in ask("captioning", folder)["report"]


def test_stopping_asks_the_process(ask, home, folder):
    job = CaptionJob.of(home, folder)
    job.path.mkdir(parents=True)
    job.settings_file.write_text(f'folder = "{folder}"\ncaptioner = "file-names"\n', encoding="utf-8")
    ask("caption_stop", folder)
    assert job.asked_for("stop") is not None
