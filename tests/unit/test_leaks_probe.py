"""How attempts are run, and what their endings mean."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from onionward.leaks.model import Attempt
from onionward.leaks.probe import Run, main, outcome
from tests.unit.test_leaks_catalogue import TARGETS

ATTEMPT = Attempt(TARGETS, 20000)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ECONNREFUSED, errno.EHOSTUNREACH])
def test_a_refusal_is_the_machines_no(number: int) -> None:
    assert outcome(OSError(number, "no")).startswith("refused")


@pytest.mark.parametrize(
    "error", [OSError(errno.EADDRINUSE, "taken"), OSError(errno.EADDRNOTAVAIL, ""), KeyError("x")]
)
def test_anything_else_proves_nothing(error: Exception) -> None:
    assert outcome(error).startswith("broken")


def test_no_error_means_that_something_was_sent() -> None:
    assert outcome(None) == "sent"


def test_all_prepare_before_any_provokes() -> None:
    events: list[str] = []

    def plain(_attempt: Attempt) -> None:
        events.append("plain")

    def prepared(_attempt: Attempt) -> Iterator[None]:
        events.append("prepare")
        yield
        events.append("provoke")

    run = Run([("a", prepared, ATTEMPT), ("b", plain, ATTEMPT), ("c", prepared, ATTEMPT)])
    assert run.prepare()
    assert events == ["prepare", "plain", "prepare"]
    run.provoke()
    assert events[3:] == ["provoke", "provoke"]
    assert run.outcomes == {"a": "sent", "b": "sent", "c": "sent"}


def test_one_that_fails_does_not_stop_the_others() -> None:
    def refused(_attempt: Attempt) -> None:
        raise PermissionError(errno.EPERM, "no")

    def broken(_attempt: Attempt) -> Iterator[None]:
        raise ValueError("mine")
        yield

    def fine(_attempt: Attempt) -> None:
        return

    run = Run([("a", refused, ATTEMPT), ("b", broken, ATTEMPT), ("c", fine, ATTEMPT)])
    assert not run.prepare()
    run.provoke()
    assert run.outcomes["a"].startswith("refused")
    assert run.outcomes["b"] == "broken: ValueError: mine"
    assert run.outcomes["c"] == "sent"


def test_a_probe_waits_once() -> None:
    def restless(_attempt: Attempt) -> Iterator[None]:
        yield
        yield

    run = Run([("a", restless, ATTEMPT)])
    run.prepare()
    run.provoke()
    assert run.outcomes["a"].startswith("broken")


def test_vectors_of_several_accounts_are_not_mixed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main([TARGETS.to_json(), "udp.any4", "ping.any4"])
    assert ending.value.code == 2
    assert "several accounts" in capsys.readouterr().err
