"""Services that systemd refuses to start again come up all the same."""

from __future__ import annotations

import pytest

from onionward.dns import service
from onionward.errors import CommandError
from tests.support import ScriptedSystem

TRY = "systemctl try-restart systemd-resolved.service"
SHOW = "systemctl show --property=Result --value systemd-resolved.service"
REFUSED = CommandError(TRY.split(), 1, "start of the service was attempted too often")


def test_one_that_was_started_too_often_is_started() -> None:
    last = ["systemctl reset-failed systemd-resolved.service"]
    last.append("systemctl restart systemd-resolved.service")
    system = ScriptedSystem({TRY: REFUSED, SHOW: "start-limit-hit\n", **dict.fromkeys(last, "")})
    service.restart_resolved(system)
    assert system.asked == [TRY, SHOW, *last]


def test_another_reason_is_an_error() -> None:
    system = ScriptedSystem({TRY: REFUSED, SHOW: "exit-code\n"})
    with pytest.raises(CommandError, match="too often"):
        service.restart_resolved(system)
    assert system.asked == [TRY, SHOW]


def test_what_is_no_service_has_no_limit() -> None:
    words = ["nmcli", "general", "reload", "dns-full"]
    system = ScriptedSystem({"nmcli": CommandError(words, 1, "no")})
    with pytest.raises(CommandError, match="no"):
        service.reload(system, words, gone=(8,))
    assert len(system.asked) == 1
