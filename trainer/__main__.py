"""`python -m trainer RUN`: train the run in that folder; every ending is one event, errors exit with code 2."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path

from trainer.contract.errors import DiskFull, OutOfMemory, TrainerError
from trainer.contract.events import EventLog, RunFailed
from trainer.contract.runs import RunFolder


def main(arguments: list[str]) -> int:
    """Run the training; 0 when it ended as wished, 2 when it failed with a reason."""
    run = RunFolder(Path(arguments[0]).resolve())
    main_process = os.environ.get("RANK", "0") == "0"
    if main_process:
        run.claim()
    with EventLog(run.events_file if main_process else Path(os.devnull)) as log:
        try:
            _train(run, log)
        except TrainerError as error:
            traceback.print_exc()  # the technical story goes to log.txt
            log.write(RunFailed(code=error.code, message=error.message, hint=error.hint))
            return 2
    return 0


def _train(run: RunFolder, log: EventLog) -> None:
    """The training, with what the system may raise turned into errors the user can act on."""
    import torch

    from trainer.loop import train

    try:
        train(run, log)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(str(error).split(". ")[0]) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(str(error)) from error
        raise TrainerError(f"The system refused: {error}.", hint=f"Details are in {run.log_file.name}.") from error
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise TrainerError(
            f"Unexpected: {type(error).__name__}: {error}.",
            hint=f"This is a fault of Atelier; please report it with {run.log_file.name}.",
        ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
