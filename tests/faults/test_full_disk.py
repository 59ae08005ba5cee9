"""The disk is full from the k-th file operation on, wherever that is; then somebody makes room."""

import re

import pytest
import tally
from injected import Fault
from soundness import differences, faults_of, leftovers

from trainer.contract.events import RunFailed

PARTS = 8  # that all operations are tried in


def told_badly(run, code, what):
    """What is wrong with how the run says that it ended, the disk being full while it saved this."""
    ended = run.view().ended
    if code == 0:
        return []  # a preview or a strip, which may fail alone
    if ended is None and (code == 1 or what == "room to tell why"):  # no room for an event: the console's log tells
        return [] if "No space left" in run.log_file.read_text() else ["nobody tells why it ended"]
    if not isinstance(ended, RunFailed) or ended.code != "disk_full":
        return [f"exit code {code}, and the run says: {ended}"]
    return [] if re.search(r"takes [\d.]+ .B, and [\d.]+ .B are free|No space left", ended.message) else [ended.message]


@pytest.mark.parametrize("part", ["a few", *(pytest.param(part, marks=pytest.mark.faults) for part in range(PARTS))])
def test_wherever_the_disk_is_full_the_run_stops_with_that_and_goes_on_once_there_is_room(
    stage, make_run, whole, chance, part
):
    reference = whole()
    operations = stage.operations(reference)
    lost = []
    every = range(len(operations))
    for number in chance.sample(every, 6) if part == "a few" else every[part::PARTS]:
        run = make_run()
        code = stage.train(run, Fault("full", number + 1))
        call, what = operations[number].split("\t")
        wrong = faults_of(run) + told_badly(run, code, what) + [f"{name} was left behind" for name in leftovers(run)]
        stage.train(run)
        wrong += differences(run, reference, images=code != 0)
        lost += [f"{call}, {what}: {one}" for one in tally.note(f"disk full, {what}", wrong)]
    assert not lost


def test_a_lora_file_that_does_not_fit_says_what_it_takes_and_what_is_free(stage, make_run):
    run = make_run()
    assert stage.train(run, Fault("full", 1, "write\tLoRA file")) == 2
    message = run.view().ended.message
    assert re.search(
        r"^The disk is full: \.ball-\d+\.safetensors\.proof takes [\d.]+ .B, and [\d.]+ .B are free \(.+\)\.$", message
    )
    assert leftovers(run) == []
