import pytest

from trainer.contract.errors import Terminated, isolated
from trainer.dataset.errors import NoImages


def caught(error):
    told = []
    with isolated("Preview 1", lambda *words: told.append(words)):
        raise error
    return told


def test_work_that_fails_alone_is_told_with_its_cause(tmp_path):
    assert caught(ValueError("no")) == [
        ("isolated_failure", "Preview 1 failed: ValueError: no", "Training continues without it.")
    ]
    [(code, message, hint)] = caught(NoImages(tmp_path, 3))
    assert code == "no_images"
    assert message.startswith("Preview 1: No images in")
    assert hint


def test_the_systems_word_to_end_goes_through():
    with pytest.raises(Terminated):
        caught(Terminated())
