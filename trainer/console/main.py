"""`python -m trainer.console.main COMMAND …`: finds the command, whose module does the work."""

import sys

from trainer.contract import stops

if __name__ == "__main__":
    stops.end_quietly()  # while the rest is imported

from collections.abc import Sequence

from trainer.console import caption, convert, doctor, export_dataset, models, presets, projects, strength, train
from trainer.console.errors import FAILED, show_error
from trainer.console.flags import PAGE_FLAGS, PROGRAM, Flags, Parser, did_you_mean
from trainer.console.screen import Screen
from trainer.contract import streams
from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.system_errors import of_system

# By their modules' names; the module's docstring is the command's help
MODULES = (train, caption, doctor, export_dataset, models, presets, projects, convert, strength)
COMMANDS = {module.__name__.rpartition(".")[2].replace("_", "-"): module for module in MODULES}
# Flags that chose the command before there were words for it, and still do; of several the first here counts
CHOOSING = ("--caption", "--list-presets", "--models", "--export-dataset", "--doctor")
PAGE = "[--port N] [--listen ADDRESS] [--allow-host NAME[:PORT]] [--password-file FILE] [--no-browser] [--home DIR]"
TEST = f"""usage: {PROGRAM} test [pytest arguments]

Run the tests; `-m slow` runs long ones, and `--faults` kills trainers and fills their disk. A Chromium for the
tests of the page is installed where there is none."""


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say; returns 0 on success, 2 on an error the user can act on, 130 if it was ended."""
    console = Screen()
    try:
        if list(arguments[:1]) == ["help"] or {"-h", "--help"} & set(arguments):
            sys.stdout.write(f"{help_text(arguments)}\n")
            return 0
        name, flags = parsed(arguments)
        return int(COMMANDS[name].run(flags, console))
    except (TrainerError, OSError) as error:
        show_error(of_system(error) if isinstance(error, OSError) else error, console)
        return FAILED
    except KeyboardInterrupt:
        console.print("Stopped.")
        return stops.ENDED_BY_SIGNAL


def parsed(arguments: Sequence[str]) -> tuple[str, Flags]:
    """Returns the command that the arguments name, by its word or a flag, and what its flags set.

    Raises:
        InvalidSettings: There is no such command or flag, or a value is missing.
    """
    named = _named(arguments)
    if arguments and arguments[0] == named:
        return named, parser_of(named).flags(arguments[1:])
    if named == "caption":
        parser = Parser("caption", "", "", lambda parser: caption.add_flags(parser, "--caption"))
        return named, parser.flags(arguments)
    flags = Parser("", "", "", train.add_flags, _add_choosing).flags(arguments)
    return _chosen({f"--{name.replace('_', '-')}" for name, value in flags.items() if value}), flags


def parser_of(name: str) -> Parser:
    """Returns the flags of a command."""
    return Parser(name, COMMANDS[name].USAGE, str(COMMANDS[name].__doc__), COMMANDS[name].add_flags)


def help_text(arguments: Sequence[str]) -> str:
    """Returns the help of the command that the arguments name, else the overview of all commands.

    Raises:
        InvalidSettings: There is no such command.
    """
    words = [word for word in arguments if word not in ("help", "-h", "--help")]
    if words[:1] == ["test"]:
        return TEST
    if {word.partition("=")[0] for word in words if word.startswith("-") or word == words[0]} - PAGE_FLAGS:
        return parser_of(_named(words)).format_help().rstrip()
    rows = {
        "(no command)": "Open the page in the browser.",
        **{
            f"{name} {command.USAGE}".strip(): str(command.__doc__).partition("\n")[0]
            for name, command in COMMANDS.items()
        },
        "test [pytest arguments]": "Run the tests.",
    }
    return "\n".join(
        [
            f"usage: {PROGRAM} [COMMAND] [flags]\n\nTrains LoRAs for Stable Diffusion.\n",
            *(f"  {what:35} {about}" for what, about in rows.items()),
            f"\nThe page, without a command: {PAGE}",
            f"A command's flags: `{PROGRAM} COMMAND --help`. All settings: `{PROGRAM} train --help`.",
        ]
    )


def _named(arguments: Sequence[str]) -> str:
    """Returns the command named by the first word, else by a flag, else "train"."""
    if arguments and not arguments[0].startswith("-"):
        if arguments[0] not in COMMANDS:
            near = did_you_mean(arguments[0], [*COMMANDS, "test", "help"])
            hint = f"{near}`{PROGRAM} --help` lists the commands."
            raise InvalidSettings(f"There is no command {arguments[0]}.", hint=hint)
        return arguments[0]
    return _chosen({word.partition("=")[0] for word in arguments})


def _chosen(flags: set[str]) -> str:
    """Returns the command that one of these flags chooses, else "train"."""
    return next((flag[2:].removeprefix("list-") for flag in CHOOSING if flag in flags), "train")


def _add_choosing(parser: Parser) -> None:
    """Add the flags of `CHOOSING` and of their commands, apart from captioning."""
    doctor.add_flags(parser, "--doctor")
    export_dataset.add_flags(parser, "--export-dataset")
    parser.add_argument("--list-presets", action="store_true")
    parser.add_argument("--models", action="store_true")


if __name__ == "__main__":
    stops.interrupt()
    streams.prepare()
    sys.exit(main(sys.argv[1:]))
