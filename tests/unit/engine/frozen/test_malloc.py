"""What glibc's heap keeps of memory that was freed between pieces still in use."""

import os
import subprocess
import sys

import pytest

from trainer.runs.process import MEMORY_KEPT

PIECES, PIECE = 64, 4 * 2**20
SCRIPT = f"""
import psutil
from trainer.engine.frozen import malloc

{{before}}
pieces = [b"x" * {PIECE} for _ in range({PIECES})]
full = psutil.Process().memory_info().rss
del pieces[::2]
print(full - psutil.Process().memory_info().rss)
"""


def given_back(before):
    """Bytes that went back to the system when every second piece was freed."""
    environment = {**os.environ, **MEMORY_KEPT}
    script = [sys.executable, "-c", SCRIPT.format(before=before)]
    return int(subprocess.run(script, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' heaps are left as they are")
@pytest.mark.parametrize(
    ("before", "share"),
    [
        ("", 0.0),
        ("malloc.keep_little()", 0.5),
        ("with malloc.without_holes():\n    pass", 0.0),
        ("malloc.keep_little()\nwith malloc.without_holes():\n    pass", 0.5),
    ],
    ids=["as trainers start", "little kept", "after loading", "after loading with little kept"],
)
def test_freed_memory_goes_back_where_little_is_to_be_kept(before, share):
    assert given_back(before) / (PIECES * PIECE) == pytest.approx(share, abs=0.1)
