"""Everything that can go wrong, brought about on purpose, and what a person then saw.

Each case is a function that makes one thing go wrong on the way on which it does for people. What they were told is
compared with the list that Help shows, `assets/docs/failures.json`.
"""

import failures.cases_data
import failures.cases_models
import failures.cases_programs
import failures.cases_training  # noqa: F401
from failures.book import CASES, Case, Seen

__all__ = ["CASES", "Case", "Seen"]
