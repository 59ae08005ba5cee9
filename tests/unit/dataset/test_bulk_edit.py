import pytest

from trainer.dataset.bulk_edit import Edit, changed, edited, tags_of

CAPTION = "ana, Red Scarf,  forest, smiling at a fox"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (Edit("add", put="snow"), "ana, Red Scarf, forest, smiling at a fox, snow"),
        (Edit("add", put=" snow ", first=True), "snow, ana, Red Scarf, forest, smiling at a fox"),
        (Edit("add", put="red scarf"), CAPTION),
        (Edit("add", put=" "), CAPTION),
        (Edit("remove", find="red scarf "), "ana, forest, smiling at a fox"),
        (Edit("remove", find="red"), CAPTION),
        (Edit("remove"), CAPTION),
        (Edit("rename", find="FOREST", put="wood"), "ana, Red Scarf, wood, smiling at a fox"),
        (Edit("rename", find="forest", put="Ana"), "ana, Red Scarf, smiling at a fox"),
        (Edit("rename", find="forest"), CAPTION),
        (Edit("replace", find="FOX", put="\\1 owl"), "ana, Red Scarf,  forest, smiling at a \\1 owl"),
        (Edit("replace", find="forest"), "ana, Red Scarf, smiling at a fox"),
        (Edit("replace", find="ana, "), "Red Scarf,  forest, smiling at a fox"),
        (Edit("replace", find="wolf", put="dog"), CAPTION),
        (Edit("replace", put="dog"), CAPTION),
        (Edit("trigger", put="forest"), "forest, ana, Red Scarf, smiling at a fox"),
        (Edit("trigger", put="ana"), CAPTION),
        (Edit("trigger"), CAPTION),
    ],
)
def test_a_caption_after_each_kind_of_change(edit, expected):
    assert edited(CAPTION, edit) == expected


@pytest.mark.parametrize(
    ("edit", "expected"),
    [(Edit("add", put="fox"), "fox"), (Edit("trigger", put="ana"), "ana"), (Edit("remove", find="fox"), "")],
)
def test_an_empty_caption(edit, expected):
    assert edited("", edit) == expected


def test_only_captions_that_change_are_given_back():
    captions = {"a": "fox, snow", "b": "owl", "c": "Fox"}
    assert changed(captions, Edit("remove", find="fox")) == {"a": "snow", "c": ""}


def test_tags_stand_between_commas():
    assert tags_of(" fox,, red scarf ,") == ["fox", "red scarf"]
