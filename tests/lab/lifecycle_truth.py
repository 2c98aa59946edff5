"""Whether `status` says what the kernel, the processes and the files say."""

from __future__ import annotations

from tests.lab.lifecycle_machine import JOURNAL, RESOLV_CONF, Machine


def in_force(machine: Machine) -> str:
    """The state of the rules, as the kernel holds them."""
    done = machine.run("nft", "list", "table", "inet", "onionward")
    for state in ("blocked", "routed"):
        if f'"onionward: {state}"' in done.stdout:
            return state
    return "none"


def assert_status_is_true(machine: Machine) -> None:
    """`status` ends with 0 and tells the truth, and what to do when something is not finished."""
    report = machine.status()
    rules = in_force(machine)
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
