"""Runs trials: one process for each batch, several at once, here or in the scratch network."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from onionward.verify.plan import Batch
from onionward.verify.scratch import Scratch, inside, interpreter

_SECONDS = 90.0  # for a batch; the longest takes a quarter of that on a busy machine
_SHARES = 4  # processes of one batch, because most trials wait

Outcomes = Mapping[tuple[str, str], str]
"""What an attempt said of itself, by vector and who; see `onionward.leaks.probe`."""


def run(batches: Sequence[Batch], scratch: Scratch | None, group: Path | None) -> Outcomes:
    """Make the trials of one account; returns what came of each attempt on the machine itself.

    Args:
        batches: of one account: what they bind is theirs alone meanwhile.
        scratch: where; None for this machine's own network.
        group: the control group of tor's service, for batches that ask for it.

    """
    running = [
        (share, _start(batch, share, scratch, group))
        for batch in batches
        for share in _shares(batch)
    ]
    outcomes: dict[tuple[str, str], str] = {}
    deadline = time.monotonic() + _SECONDS
    try:
        for share, process in running:
            outcomes |= _finish(process, share, deadline)
    finally:
        for _, process in running:
            if process.poll() is None:
                process.kill()
            process.communicate()
    return outcomes


def _shares(batch: Batch) -> list[Batch]:
    from dataclasses import replace

    shares = (batch.trials[place::_SHARES] for place in range(_SHARES))
    return [replace(batch, trials=share) for share in shares if share]


def _start(
    whole: Batch, share: Batch, scratch: Scratch | None, group: Path | None
) -> subprocess.Popen[str]:
    targets = whole.trials[0].attempt.targets
    options = list(share.options)
    if share.in_group and group is not None:
        options += ["--cgroup", str(group)]
    argv = [*interpreter(), "-m", "onionward.leaks.probe", *options, targets.to_json()]
    argv += [trial.vector.id for trial in share.trials]
    return subprocess.Popen(
        inside(scratch, argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
    )


def _finish(process: subprocess.Popen[str], share: Batch, deadline: float) -> Outcomes:
    try:
        words, errors = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        words, errors = process.communicate()
        errors = f"it did not end in {_SECONDS:g} s"
    said = [json.loads(line) for line in words.splitlines()]
    told = {entry["id"]: entry["outcome"] for entry in said if isinstance(entry, dict)}
    last = (errors.strip().splitlines() or ["it said nothing"])[-1]
    return {
        trial.key: told.get(trial.vector.id, f"broken: the probe failed: {last}")
        for trial in share.trials
    }
