"""What can be wrong with a project."""

from trainer.contract.errors import TrainerError
from trainer.contract.wording import action


class ProjectMissing(TrainerError):
    """No such project."""

    code = "project_missing"
    what = 'No project called "{name}".'
    remedy = f"Give a project's name: {action('projects')}. {{newest}}"

    def __init__(self, name: str, known: list[str]) -> None:
        newest = f"The newest are: {', '.join(known)}." if known else "There are no projects yet."
        super().__init__(name=name, newest=newest)
