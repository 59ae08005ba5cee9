import os
import stat
import tempfile
import time

import pytest

from trainer.contract import temporary
from trainer.contract.ours import NotOurs

OLD = time.time() - 2 * temporary.KEPT_SECONDS


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    monkeypatch.setattr(os, "environ", dict(os.environ))


def made(path, when=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    for one in (path, path.parent) if when else ():
        os.utime(one, (when, when))
    return path


def test_temporary_files_and_uploads_lie_in_the_home_for_this_user_alone(home):
    folder = temporary.use(home)
    assert tempfile.gettempdir() == str(folder)
    assert os.environ["TMPDIR"] == str(folder)
    assert os.environ["GRADIO_TEMP_DIR"] == str(folder / "gradio")
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    temporary.use(home)
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_is_old_is_removed_and_what_is_new_or_elsewhere_stays(home, tmp_path):
    outside = made(tmp_path / "mine" / "photo.png", OLD)
    new = made(home.temporary / "gradio" / "abc" / "new.png")
    gone = [
        made(home.temporary / "atelier-x" / "log", OLD),
        made(home.temporary / "gradio" / "def" / "old.png", OLD),
    ]
    link = home.temporary / "link"
    link.symlink_to(outside.parent)
    os.utime(link, (OLD, OLD), follow_symlinks=False)
    temporary.use(home)
    assert new.exists()
    assert outside.exists()
    assert not link.is_symlink()
    assert [path for path in gone if path.exists()] == []


def test_a_link_in_its_place_is_refused(home, tmp_path):
    theirs = made(tmp_path / "theirs" / "file", OLD)
    home.root.mkdir()
    home.temporary.symlink_to(theirs.parent)
    with pytest.raises(NotOurs):
        temporary.use(home)
    assert theirs.exists()
