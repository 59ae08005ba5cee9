"""Copy a folder with its fixes and captions.

The folder itself is never changed. Every setting of `train` is accepted too: what it uses is copied.
"""

from rich.console import Console

from trainer.console.bar import Bar
from trainer.console.flags import Flags, Parser, add_settings, given
from trainer.contract.errors import InvalidSettings
from trainer.contract.home import Home, user_path
from trainer.dataset.export import export

USAGE = "DIR --to NEW"


def add_flags(parser: Parser, folder: str = "export_dataset") -> None:
    """Add the flags of the export; `folder` is the flag before the folder, if not simply the first word."""
    parser.add_argument(folder, type=user_path, metavar="DIR", help="Folder with the images.")
    if folder == "export_dataset":
        add_settings(parser, listed=False)
    parser.add_argument("--to", type=user_path, metavar="NEW", help="The new folder.")


def run(flags: Flags, console: Console) -> int:
    """Copy the folder; returns 0."""
    home = Home.find(flags.get("home"))
    config = given(flags, home)[0]
    if not flags.get("to"):
        raise InvalidSettings("No folder to write to.", hint="Add --to NEW, a folder that does not exist yet.")
    target = flags["to"]
    with Bar(console, patience=5) as bar:

        def show(done: int, total: int) -> None:
            """Move the bar."""
            bar.show("Copying", done, total)

        count = export(home, flags["export_dataset"], target, show, folder_repeats=config.dataset.folder_repeats)
    console.print(f"{count} images with their captions in {target.resolve()}.", markup=False, soft_wrap=True)
    return 0
