"""Every failure that Help lists, brought about: people see that text, and nothing technical."""

import pytest
import tally
from failures import CASES
from failures.book import entry, listed, write
from failures.fixture import scene  # noqa: F401

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("name", CASES)
def test_what_a_person_sees_is_what_help_lists(name, scene, request):  # noqa: F811
    case = CASES[name]
    seen = case.happens(scene)
    assert seen.code == case.code
    if request.config.getoption("--write-help"):
        write(case, seen)
    wrong = [] if listed().get(name) == entry(case, seen) else [str(entry(case, seen))]
    assert not tally.note(f"error shown: {case.group}", wrong)
