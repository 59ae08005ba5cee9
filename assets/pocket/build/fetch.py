"""Step 1: download the three icon sets (npm) and CLIP's public merge list (PyPI) into `work/`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping

from assets.pocket.build.common import ICON_SETS, WORK

MERGES_WHEEL = "open_clip_torch==3.3.0"
MERGES_MEMBER = "open_clip/bpe_simple_vocab_16e6.txt.gz"


def fetch_icons(sets: Mapping[str, str]) -> None:
    """Download these packages of icons to `work/icons/<style>`; existing folders stay."""
    WORK.mkdir(exist_ok=True)
    for style, package in sets.items():
        target = WORK / "icons" / style
        if target.exists():
            continue
        command = [shutil.which("npm") or "npm", "pack", f"@iconify-json/{package}"]
        packed = subprocess.run(command, cwd=WORK, check=True, capture_output=True, text=True)
        archive = WORK / packed.stdout.strip().splitlines()[-1]
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
        archive.unlink()


def fetch_merges() -> None:
    """Fill `work/bpe.txt.gz`, if it is not there."""
    if (WORK / "bpe.txt.gz").exists():
        return
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(WORK), MERGES_WHEEL]
    subprocess.run(command, check=True)
    wheel = next(WORK.glob("open_clip_torch-*.whl"))
    with zipfile.ZipFile(wheel) as archive_file:
        (WORK / "bpe.txt.gz").write_bytes(archive_file.read(MERGES_MEMBER))
    wheel.unlink()


if __name__ == "__main__":
    fetch_icons(ICON_SETS)
    fetch_merges()
