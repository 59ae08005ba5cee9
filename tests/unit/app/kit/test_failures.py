"""The list of failures that Help shows: whole, true, and linked to. All of it is proved by tests/faults."""

import ast
import re
from pathlib import Path

import pytest
from failures import CASES
from failures.book import entry, listed
from failures.fixture import scene  # noqa: F401

from app.kit import failures
from app.kit.cards import problem_card
from app.kit.text import TABLES
from trainer.dataset.errors import NoImages

ROOT = Path(__file__).parents[4]
SOURCES = [*sorted((ROOT / "trainer").rglob("*.py")), *sorted((ROOT / "app").rglob("*.py"))]
SAMPLE = [name for name, case in CASES.items() if not case.trains][::4]  # the whole is tests/faults'
TOLD_BY = {"Warned", "RunFailed", "Problem", "Sign", "Finding"}  # what is called with a code
TABLES_OF_CODES = {"CASES", "LEFT"}


def name_of(call):
    """What is called, without what it belongs to."""
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def codes_of(tree, made):
    """Every code that a source file gives to what it tells people; of error classes those that are made somewhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in made:
            lines = [line for line in node.body if isinstance(line, ast.Assign)]
            yield from (line.value.value for line in lines if line.targets[0].id == "code")
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in TABLES_OF_CODES:
            yield from (key.value for key in node.value.keys)
        elif isinstance(node, ast.Call) and name_of(node) in TOLD_BY:
            given = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "code")]
            yield from (one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str))


def test_every_code_of_the_sources_has_a_case():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    made = {name_of(node) for node in nodes if isinstance(node, ast.Call)}
    made |= {node.exc.id for node in nodes if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name)}
    tables = [
        node.value for node in nodes if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "KNOWN"
    ]
    made |= {node.id for table in tables for node in ast.walk(table) if isinstance(node, ast.Name)}
    codes = {code for tree in trees for code in codes_of(tree, made)}
    # The last is of what one process of several tells another, which then has the code that came with it
    assert (codes | {"isolated_failure"}) - {"error"} == {case.code for case in CASES.values()}


def test_the_list_holds_exactly_the_cases():
    assert listed().keys() == CASES.keys()
    assert len({case.code for case in CASES.values()}) >= 60
    assert {case.group for case in CASES.values()} == set(failures.GROUPS)


def test_every_failure_says_what_happened_and_what_to_do_and_names_no_place_of_ours():
    for one in failures.FAILURES:
        assert one["message"].endswith((".", "…"))
        assert one["hint"]
        places = re.findall(r"(?<![\w/:])/\w+", one["message"] + one["hint"])
        assert set(places) <= {"/home"}, one


@pytest.mark.parametrize("name", SAMPLE)
def test_what_a_person_sees_is_what_help_lists(name, scene):  # noqa: F811
    case = CASES[name]
    assert entry(case, case.happens(scene)) == listed()[name]


@pytest.mark.parametrize("tongue", TABLES)
def test_help_has_a_row_to_lead_to_for_every_code(tongue):
    table = failures.table(tongue)
    anchors = re.findall(r'<tr id="(\w+)"', table)
    assert len(anchors) == len(set(anchors))
    assert set(anchors) == failures.CODES
    assert len(re.findall("<tr[ >]", table)) == len(failures.FAILURES) + len(failures.GROUPS)
    assert all(TABLES[tongue][f"help.failures.{group}"] in table for group in failures.GROUPS)


def test_a_card_leads_to_help(tmp_path):
    card = problem_card(NoImages(folder=tmp_path, other_files=3), "de")
    assert 'href="help#no_images" target="_blank">Mehr in der Hilfe</a>' in card
    assert failures.link("of_a_later_version", "de") == ""
