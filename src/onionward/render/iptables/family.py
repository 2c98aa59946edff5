"""One address family as iptables or ip6tables names things, and the networks of a policy in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from onionward.networks import NAME_PORTS, Network
from onionward.policy import CIRCUITS4, CIRCUITS6, RELAY4, RELAY6, Flow, Policy
from onionward.render.iptables.text import PREFIX

NAMES = ",".join(map(str, sorted(NAME_PORTS)))
FLAGS = "FIN,SYN,RST,ACK"
SYN_ONLY = f"-p tcp -m tcp --tcp-flags {FLAGS} SYN"
NOT_SYN_ONLY = f"-p tcp -m tcp ! --tcp-flags {FLAGS} SYN"
# the kernel's own sockets, for ICMP and neighbours, have no owner; --socket-exists would count them
OWNED = "-m owner --uid-owner 0-4294967294"
NO_SOCKET = "-m owner ! --uid-owner 0-4294967294"
LOCAL = "-m addrtype --dst-type LOCAL"
OURS = "-m addrtype --src-type LOCAL"
NOT_OURS = "-m addrtype ! --src-type LOCAL"

INLINE = 64
"""More networks of a list than this are kept in a set, where there are sets."""
MOST_INLINE = 1024
"""More than this without ipset are refused: each packet would be compared with all of them."""

Kind = Literal["src", "dst"]


class Family(NamedTuple):
    """A family for one policy.

    Attributes:
        n: 4 or 6.
        policy: whose networks these are.
        sets: whether large lists are kept in sets (ipset(8)).

    """

    n: int
    policy: Policy
    sets: bool

    @property
    def prohibited(self) -> str:
        """How the sender is told that something is refused."""
        return "icmp-admin-prohibited" if self.n == 4 else "icmp6-adm-prohibited"

    @property
    def loopback(self) -> str:
        """The address of loopback."""
        return "127.0.0.1" if self.n == 4 else "::1"

    @property
    def virtual(self) -> Network:
        """Where names under .onion are mapped."""
        return self.policy.virtual4 if self.n == 4 else self.policy.virtual6

    @property
    def relay(self) -> str:
        """Where tor takes what clients send."""
        return str(RELAY4 if self.n == 4 else RELAY6)

    @property
    def circuits(self) -> Network:
        """From which accounts appear to tor."""
        return CIRCUITS4 if self.n == 4 else CIRCUITS6

    @property
    def redirects(self) -> bool:
        """Whether tor can be reached."""
        return self.n == 4 or self.policy.ipv6

    def icmp(self, *types: int) -> tuple[str, ...]:
        """Matches of these types of the family's ICMP."""
        if self.n == 4:
            return tuple(f"-p icmp -m icmp --icmp-type {number}" for number in types)
        return tuple(f"-p ipv6-icmp -m icmp6 --icmpv6-type {number}" for number in types)

    @property
    def echo(self) -> str:
        """A ping."""
        return self.icmp(8 if self.n == 4 else 128)[0]

    @property
    def groups(self) -> tuple[str, ...]:
        """Destinations that are many machines."""
        if self.n == 4:
            return ("-m addrtype --dst-type BROADCAST,MULTICAST,ANYCAST",)
        # ip6tables takes several types for one packet that is all of them
        return ("-d ff00::/8", "-m addrtype --dst-type ANYCAST")

    def not_remote(self, limit: str = "") -> tuple[str, ...]:
        """Destinations that are this machine, or a group of which it may be one."""
        if self.n == 4:
            kinds = "LOCAL,BROADCAST,MULTICAST,ANYCAST"
            return (f"-m addrtype --dst-type {kinds}{limit}",)
        return ("-d ff00::/8", f"-m addrtype --dst-type LOCAL,ANYCAST{limit}")

    def of(self, networks: Iterable[Network]) -> tuple[Network, ...]:
        """The networks of this family."""
        return tuple(network for network in networks if network.version == self.n)

    def flows(self, flows: Iterable[Flow]) -> tuple[Flow, ...]:
        """The connections of this family."""
        return tuple(flow for flow in flows if flow.peer.version == self.n)

    def listed(self, name: str, networks: Iterable[Network], kind: Kind) -> tuple[str, ...]:
        """Matches of addresses in a list; `name` is that of its set."""
        ours = self.of(networks)
        if self.sets and len(ours) > INLINE:
            return (f"-m set --match-set {set_name(name, self.n)} {kind}",)
        return tuple(f"-{kind[0]} {network}" for network in ours)

    def bypass(self, kind: Kind) -> tuple[str, ...]:
        """Matches of bypassed networks."""
        return self.listed("bypass", self.policy.bypass, kind)

    def link(self, kind: Kind) -> tuple[str, ...]:
        """Matches of attached networks."""
        return self.listed("link", self.policy.link, kind)

    def admitted(self, kind: Kind) -> tuple[str, ...]:
        """Matches of the peers that may open connections to this machine."""
        match self.policy.inbound:
            case "none":
                return ()
            case "bypass":
                return self.bypass(kind)
            case "link":
                return (*self.link(kind), *self.bypass(kind))
            case "all":
                return ("",)


def set_name(name: str, version: int) -> str:
    """Of a set of ours; at most 31 characters (ipset(8))."""
    return f"{PREFIX}{name}{version}"


def owned(ranges: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    """Matches of sockets of these user ids."""
    return tuple(
        f"-m owner --uid-owner {first if first == last else f'{first}-{last}'}"
        for first, last in sorted(set(ranges))
    )


def marked(mark: int, *, but: bool = False) -> str:
    """A match of flows with this mark, or of all but those."""
    return f"-m connmark {'! ' if but else ''}--mark {mark:#x}"


def mark_flow(mark: int) -> str:
    """The target that marks a flow."""
    return f"CONNMARK --set-xmark {mark:#x}/0xffffffff"


def state(*states: str) -> str:
    """A match of what connection tracking makes of a packet."""
    return f"-m conntrack --ctstate {','.join(states)}"


def is_reply(*states: str) -> str:
    """A match of what the other end of a flow sends."""
    given = f" --ctstate {','.join(states)}" if states else ""
    return f"-m conntrack{given} --ctdir REPLY"


def ports(protocol: str, numbers: str, *, which: str = "dports", but: bool = False) -> str:
    """A match of ports."""
    return f"-p {protocol} -m multiport {'! ' if but else ''}--{which} {numbers}"
