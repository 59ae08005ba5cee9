"""What a run is asked for when it is resumed and its files are not there."""

from trainer.contract.settings.config import validated
from trainer.runs.moved import missing


def test_what_lay_within_a_missing_folder_is_not_asked_for_besides(tmp_path):
    old = str(tmp_path / "photos")
    within = {"images": f"{old}/reg", "class_images": True}
    config = validated({"dataset": {"images": old, "concepts": [within, str(tmp_path / "photos 2")]}})
    assert missing(config) == [("dataset.images", old), ("dataset.concepts", str(tmp_path / "photos 2"))]
    (tmp_path / "photos").mkdir()
    assert ("dataset.concepts", f"{old}/reg") in missing(config)
