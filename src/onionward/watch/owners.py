"""Whose a stream is, by the address under which tor knows who asks."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from onionward.networks import Address, Network, contains
from onionward.policy import CIRCUITS4, CIRCUITS6, Policy

_OF_RUNS = ipaddress.ip_network("169.254.96.0/19")  # as `onionward.app.root` gives them


class Owner(NamedTuple):
    """Somebody whose traffic tor carries.

    Attributes:
        kind: "host", "onion", "user", "lan", "run", "tor" (its own), "" when nobody knows.
        name: of the account, or of the interface.
        client: address of a client.

    """

    kind: str
    name: str = ""
    client: str = ""

    @property
    def scope(self) -> Owner:
        """The same without the client."""
        return Owner(self.kind, self.name)

    def words(self) -> str:
        """For people."""
        return self.client or self.name or _WORDS[self.kind]


_WORDS = {
    "host": "host",
    "onion": "onion names",
    "run": "runs",
    "tor": "tor itself",
    "user": "account",
    "lan": "client",
    "": "from before",
}


class Owners(NamedTuple):
    """How tor's addresses are to be read, by the policy in force.

    Attributes:
        rest: kind of whoever is not told apart: "host", "onion" or "".
        users: names of routed accounts in the order of their addresses.
        lans: names of interfaces, and the networks behind them.

    """

    rest: str = ""
    users: tuple[str, ...] = ()
    lans: tuple[tuple[str, tuple[Network, ...]], ...] = ()

    @classmethod
    def of(cls, policy: Policy) -> Owners:
        """Those of a policy."""
        rest = {"tor": "host", "onion": "onion"}.get(policy.route, "")
        lans = tuple((lan.interface, lan.networks) for lan in policy.lans)
        return cls(rest, tuple(user.name for user in policy.users), lans)

    def scopes(self) -> tuple[Owner, ...]:
        """All that a screen has a line for."""
        return (
            *((Owner(self.rest),) if self.rest else ()),
            *(Owner("user", name) for name in self.users),
            *(Owner("lan", interface) for interface, _ in self.lans),
        )

    def of_source(self, source: str, purpose: str) -> Owner:
        """Who has opened a stream.

        Args:
            source: address and port, as tor's event has them; "" when it has none.
            purpose: "USER", "DNS_REQUEST", or what tor does for itself (control-spec, 4.1.2).

        """
        if purpose and purpose not in ("USER", "DNS_REQUEST"):
            return Owner("tor")
        try:
            address = ipaddress.ip_address(source.rpartition(":")[0].strip("[]"))
        except ValueError:
            # runs of accounts come over a Unix socket
            return Owner("run") if source else Owner("")
        if (user := self._user(address)) is not None:
            return Owner("user", user)
        if address in _OF_RUNS:
            return Owner("run")
        for interface, networks in self.lans:
            if contains(networks, address):
                return Owner("lan", interface, str(address))
        return Owner(self.rest)

    def _user(self, address: Address) -> str | None:
        # as `onionward.render.nftables.accounts` gives them
        network, start = (CIRCUITS4, 1) if address.version == 4 else (CIRCUITS6, 1 << 16)
        if address not in network:
            return None
        number = int(address) - int(network[start])
        return self.users[number] if 0 <= number < len(self.users) else None
