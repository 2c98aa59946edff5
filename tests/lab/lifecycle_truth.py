"""Whether `status` says what the kernel, the processes and the files say."""

from __future__ import annotations

import re
import time

from tests.lab.lifecycle_machine import BACKEND, JOURNAL, RESOLV_CONF, Machine

_SETTLING = 3.0  # seconds in which processes may end or be started again


def in_force(machine: Machine, backend: str = BACKEND) -> str:
    """The state of the rules, as the kernel holds them."""
    if backend:
        texts = [machine.output(f"ip{six}{backend[2:]}-save") for six in ("", "6")]
        if not all(re.search(r"(?m)^-A [A-Z]+ -j onionward-", text) for text in texts):
            return "none"
        return "blocked" if any("onionward-is-blocked" in text for text in texts) else "routed"
    done = machine.run("nft", "list", "table", "inet", "onionward")
    for state in ("blocked", "routed"):
        if f'"onionward: {state}"' in done.stdout:
            return state
    return "none"


def assert_status_is_true(machine: Machine, backend: str = BACKEND) -> None:
    """`status` ends with 0 and tells the truth, and what to do when something is not finished.

    What is not so at once may have changed while it was compared; what stays wrong is wrong.
    """
    deadline = time.monotonic() + _SETTLING
    while True:
        try:
            _compare(machine, backend)
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _compare(machine: Machine, backend: str) -> None:
    report = machine.status()
    rules = in_force(machine, backend)
    running = bool(machine.tor_pids())
    assert report["tor"] == ("running" if running else "stopped"), report
    journal = machine.journal() if machine.path(JOURNAL).exists() else None
    match rules:
        case "none":
            assert report["state"] == ("off" if journal is None else "open"), report
        case "blocked":
            assert report["state"] == "blocked", report
        case "routed":
            assert report["state"] == ("routed" if running else "blocked"), report
    if journal and report["state"] != "routed":
        assert report["problems"], "nothing tells what to do"
    if rules != "none" and journal:
        lans = journal["undo"].get("rules", {}).get("lans", [])
        assert {name: report["forwarded"][name] for name in lans} == dict.fromkeys(
            lans, report["state"]
        )
    ours = machine.path(RESOLV_CONF).read_text().startswith("# Written by onion")
    if journal and "onion" in journal["undo"]:
        assert report["resolver"] == "onion", report
    else:
        assert (report["resolver"] == "tor") == (ours and journal is not None), report
