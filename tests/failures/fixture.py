"""The scene as a fixture."""

import pytest

from failures.scene import Scene


@pytest.fixture
def scene(tmp_path, monkeypatch, capsys, new_run, tiny_model, images):
    places = {tiny_model: "/home/ana/models/base", images: "/home/ana/pictures"}
    return Scene(tmp_path, monkeypatch, capsys, new_run, places)
