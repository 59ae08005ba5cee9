"""Hostile input to every reader, a few seconds each; by hand with `python tests/fuzz/engine.py TARGET 600`."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from engine import BYTES, CORPUS, TooLong, bounds, check, corpus, fuzz
from targets import TARGETS

EXAMPLES = int(os.environ.get("ATELIER_FUZZ_EXAMPLES", "100"))

# What Pillow says of such files on the side is for a console; what it raises is tested here
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_kept_is_no_fault(target, tmp_path):
    assert corpus(target)
    for data in corpus(target):
        check(target, tmp_path, data)


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_is_a_fault(target, tmp_path):
    fuzz(target, tmp_path, EXAMPLES)


def test_every_corpus_has_its_target_and_is_small():
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="the bounds are Linux's")
def test_the_bounds_hold():
    with pytest.raises(MemoryError), bounds():
        bytes(2 * BYTES)
    with pytest.raises(TooLong), bounds():
        while True:
            pass
    assert len(bytes(2 * BYTES)) == 2 * BYTES
