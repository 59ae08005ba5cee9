"""List the projects of the page, or take one out of or into this home.

A project is trained by `train --project NAME`.
"""

from rich.console import Console
from rich.markup import escape

from trainer.console.errors import show_note
from trainer.console.flags import Flags, Parser
from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.home import Home
from trainer.contract.pasted import bare, path_of
from trainer.contract.wording import for_console
from trainer.projects.project import Project
from trainer.projects.transfer import export_to, import_project

USAGE = ""


def add_flags(parser: Parser) -> None:
    """Add the flags for a project's file."""
    add = parser.add_argument
    add("--export", metavar="NAME", type=bare, help="Write this project to a file: --to FILE.")
    add("--to", metavar="FILE", type=path_of, help="The file to be written; it must not exist.")
    add("--import", metavar="FILE", type=path_of, help="Make a project of a TOML file.")
    add("--name", metavar="NAME", type=bare, help="What the imported project is called.")


def run(flags: Flags, console: Console) -> int:
    """List, export or import; returns 0."""
    home = Home.find(flags.get("home"))
    if ("export" in flags) != ("to" in flags):
        raise InvalidSettings("--export NAME and --to FILE belong together.", hint="Give both.")
    if "export" in flags:
        export_to(Project.named(home, flags["export"]), flags["to"])
        console.print(f"Written: {flags['to']}", markup=False, soft_wrap=True)
    elif "import" in flags:
        made = import_project(home, flags["import"], flags.get("name", ""))
        console.print(f'Project "{made.name}" is in {made.path}.', markup=False, soft_wrap=True)
    else:
        for project in Project.all(home):
            _show(project, console)
    return 0


def _show(project: Project, console: Console) -> None:
    try:
        entered = project.read()
    except TrainerError as error:  # of one that cannot be read, the others are listed all the same
        show_note(for_console(f"{project.name}: {error.message}"), "", console)
        return
    images, runs = str(entered.values.get("dataset.images", "")), len(project.runs())
    facts = [entered.preset or "no preset", images or "no images", f"{runs} run{'' if runs == 1 else 's'}"]
    console.print(f"[bold]{escape(project.name):22}[/] {escape(' · '.join(facts))}", soft_wrap=True)
    if entered.unreadable:
        show_note(f"{project.file} cannot be read; what is entered next is written beside it.", "", console)
