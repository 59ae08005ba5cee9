"""Step 1: download the three icon sets (npm) and CLIP's public merge list (PyPI) into `work/`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile

from assets.pocket.build.common import ICON_SETS, WORK

MERGES_WHEEL = "open_clip_torch==3.3.0"
MERGES_MEMBER = "open_clip/bpe_simple_vocab_16e6.txt.gz"


def fetch() -> None:
    """Fill `work/icons/<style>/icons.json` and `work/bpe.txt.gz`; existing files stay."""
    WORK.mkdir(exist_ok=True)
    for style, package in ICON_SETS.items():
        target = WORK / "icons" / style
        if target.exists():
            continue
        command = [shutil.which("npm") or "npm", "pack", f"@iconify-json/{package}"]
        packed = subprocess.run(command, cwd=WORK, check=True, capture_output=True, text=True)
        archive = WORK / packed.stdout.strip().splitlines()[-1]
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
        archive.unlink()
    if not (WORK / "bpe.txt.gz").exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(WORK), MERGES_WHEEL]
        subprocess.run(command, check=True)
        wheel = next(WORK.glob("open_clip_torch-*.whl"))
        with zipfile.ZipFile(wheel) as archive_file:
            (WORK / "bpe.txt.gz").write_bytes(archive_file.read(MERGES_MEMBER))
        wheel.unlink()


if __name__ == "__main__":
    fetch()
