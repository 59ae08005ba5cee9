"""Our own temporary folder, within the home: the system's may belong to another user, be full, or be read by all."""

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from trainer.contract.home import Home
from trainer.contract.ours import check

KEPT_SECONDS = 24 * 3600  # what was not touched for so long is nobody's any more


def use(home: Home) -> Path:
    """Returns the home's temporary folder, which this process and those it starts use from now on.

    Gradio's uploads go there too. Old files in it are removed.

    Raises:
        NotOurs: It is a link or no folder.
        OSError: It cannot be made.
    """
    folder = home.temporary
    check(folder, folder=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    _sweep(folder)
    tempfile.tempdir = str(folder)
    os.environ.update(dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder)), GRADIO_TEMP_DIR=str(folder / "gradio"))
    return folder


def _sweep(folder: Path) -> None:
    """Remove what is old, and never through a link."""
    old = time.time() - KEPT_SECONDS
    for entry in folder.glob("*"):
        with suppress(OSError):
            if entry.name == "gradio" and not entry.is_symlink():
                _sweep(entry)  # one folder for each upload
            elif _newest(entry) < old:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _newest(entry: Path) -> float:
    """When this, or what it holds, was changed last, Unix seconds."""
    times = [entry.lstat().st_mtime]
    if not entry.is_symlink():
        times += [below.lstat().st_mtime for below in entry.rglob("*")]
    return max(times)
