"""Other programs' rules that would cut runs off from tor: looked for when rules have changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from onionward.errors import StepError
from onionward.guard.netlink import received, subscribed

if TYPE_CHECKING:
    from onionward.app.root.tor import Serving
    from onionward.foreign_rules.of_runs import Stop
    from onionward.system import System

_NETFILTER = 12  # linux/netlink.h
_OF_NFTABLES = 1 << 6  # linux/nfnetlink.h, NFNLGRP_NFTABLES
_OFTEN = 5.0  # seconds between two looks, however often rules change


class Obstacles:
    """What was found, and whether it may have changed.

    Args:
        system: the seam.

    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._changes = subscribed(_NETFILTER, _OF_NFTABLES)
        self._found: tuple[Stop, ...] | None = None
        self._looked = 0.0
        self._changed = False

    def judge(self, serving: Serving, tell: Callable[[str], None], *, ipv6: bool) -> None:
        """Say what may stop a run that begins.

        Args:
            serving: its tor.
            tell: told what may stop some of it.
            ipv6: whether runs have IPv6.

        Raises:
            StepError: nothing gets to tor; with the rule and what lets it pass.

        """
        self._changed |= sum(1 for _ in received(self._changes)) > 0
        is_old = time.monotonic() - self._looked > _OFTEN
        # what stops runs is mended by somebody, maybe where the kernel tells nobody (the older
        # iptables)
        if self._found is None or self._found or (self._changed and is_old):
            from onionward.foreign_rules.of_runs import stops

            ports = (serving.trans_port, serving.dns_port)
            self._found = stops(self._system, *ports, ipv6=ipv6)
            self._looked = time.monotonic()
            self._changed = False
        for stop in self._found:
            if stop.is_all:
                raise StepError(f"no run would have a network: {stop.words}", stop.advice)
            tell(f"{stop.words}; {stop.advice}")
