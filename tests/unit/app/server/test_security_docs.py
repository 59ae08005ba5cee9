import ast
import re

import pytest

from app.help import DOCS
from trainer.contract.home import CHECKOUT

TEXT = (DOCS / "security.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_test_that_the_promises_name_is_there(file, name):
    tree = ast.parse((CHECKOUT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_its_tests():
    promises = re.split(r"\n(?=- |\n)", TEXT)
    promises = [promise for promise in promises if promise.lstrip().startswith("- ")]
    assert len(promises) >= 18
    for promise in promises:
        assert "`tests/" in promise, promise
