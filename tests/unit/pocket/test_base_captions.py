"""What the built-in model is taught that words mean: the same in any place, beside any others."""

import re
from collections import Counter

import pytest

from assets.pocket.build.common import BASE_STYLES, PLAIN_STYLE, caption, concepts, other_captions, phrase

FORMS = 200


def test_the_usual_caption_names_the_style_or_leaves_it_to_the_plain_one():
    assert caption("red-apple", "noto") == "red apple, noto style"
    assert caption("red-apple", None) == "red apple"
    assert PLAIN_STYLE in BASE_STYLES


@pytest.mark.parametrize("style", [None, *BASE_STYLES])
@pytest.mark.parametrize("icon", ["red-apple", "crying-face", "bell", "face-with-tears-of-joy", "umbrella"])
def test_other_forms_keep_the_words_and_the_style(icon, style):
    made = other_captions(icon, style, FORMS)
    assert len(made) == FORMS
    assert made == other_captions(icon, style, FORMS), "the same for the same icon"
    for text in made:
        words, _, ending = text.rpartition(", ") if style else (text, "", "")
        assert ending == (f"{style} style" if style else "")
        kept = set(phrase(icon).split()) - {"face"}
        assert kept <= set(words.replace(",", " ").split())
    assert len(set(made)) > 20


def test_half_of_the_forms_and_more_have_something_before_the_words():
    made = Counter(text.startswith(("red", "apple")) for text in other_captions("red-apple", None, FORMS))
    assert 0.2 < made[True] / FORMS < 0.6


def test_a_face_is_called_without_the_word_only_where_that_is_nothing_else():
    assert any("face" not in text for text in other_captions("crying-face", None, FORMS))
    assert "tiger" in concepts()
    assert all("face" in text for text in other_captions("tiger-face", None, FORMS))


def test_articles_are_right():
    said = " ".join(other_captions("umbrella", None, FORMS)) + " ".join(other_captions("unicorn", None, FORMS))
    assert re.search(r"\ban umbrella", said)
    assert re.search(r"\ba unicorn", said)
    assert not re.search(r"\ba umbrella|\ban unicorn", said)
