"""One module per packet filter: check, apply, verify, remove; no policy. And which one it is.

The configuration chooses a filter for `up`; what is in force after that is the journal's to say,
or, without one, what the machine has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from onionward.config.values import Config
    from onionward.policy import Flow, Policy
    from onionward.state import Journal
    from onionward.system import System

RulesetT = TypeVar("RulesetT")


class PacketFilter(Protocol[RulesetT]):
    """What the life cycle and `status` ask of a packet filter; a module can be one."""

    @property
    def NAME(self) -> str:  # noqa: N802  # a constant of a module
        """As the journal has it."""

    def block(self, policy: Policy) -> RulesetT:
        """The rules of the state "blocked"."""

    def route(self, policy: Policy) -> RulesetT:
        """The rules of the state "routed"."""

    def check(self, system: System, *rulesets: RulesetT) -> None:
        """Have the filter read rules, changing nothing; raises RefusedError."""

    def apply(self, system: System, ruleset: RulesetT) -> None:
        """Put rules in the place of those of ours that are there; raises CommandError."""

    def text(self, ruleset: RulesetT) -> str:
        """Rules as `put_back` takes them."""

    def put_back(self, system: System, text: str) -> None:
        """As `apply`, for rules that were in force before; raises CommandError."""

    def verify(self, system: System, ruleset: RulesetT) -> str:
        """Hold what is in force against what was loaded: its digest; raises VerifyError."""

    def remove_tables(self, system: System) -> None:
        """Remove all that is ours; nothing happens when there is nothing."""

    def any_table(self, system: System) -> bool:
        """Whether something of ours is loaded."""

    def read(self, system: System) -> str | None:
        """Our rules as the filter prints them, or None when those that route are missing."""

    def held_state(self, held: str) -> Literal["blocked", "routed"] | None:
        """The state whose rules these are."""

    def ahead(self, held: str) -> tuple[str, ...]:
        """Rules of others that run in front of ours in the same chain, in words."""

    def digest(self, held: str) -> str:
        """A fingerprint of rules; counts do not matter."""

    def counters(self, held: str) -> dict[str, int]:
        """Packets stopped, by reason."""

    def watched_devices(self, held: str) -> tuple[str, ...]:
        """Interfaces that are watched below IP."""

    def client_flows(self, system: System) -> tuple[Flow, ...]:
        """Connections of clients through tor that may still be open at their end."""

    def remember(self, system: System, flows: Iterable[Flow]) -> None:
        """Add such connections to those that the rules in force know."""


NAMES = ("nftables", "iptables-nft", "iptables-legacy")
"""All of them, as the journal names them."""

BSD = ("pf",)
"""Those of other systems, whose life cycle is that of onionward.bsd."""


def named(name: str) -> PacketFilter[Any]:
    """The filter of this name.

    Raises:
        ValueError: there is none.

    """
    match name:
        case "nftables":
            from onionward.backend import nftables

            return nftables
        case "iptables-nft" | "iptables-legacy":
            from onionward.backend.iptables import IpTables

            return IpTables("nft" if name == "iptables-nft" else "legacy")
    raise ValueError(f"{name!r} is not a packet filter")


def chosen(config: Config) -> PacketFilter[Any]:
    """The one that the configuration asks for, or that this machine has.

    What is asked for may be missing: `preflight` says so.

    Raises:
        ConfigError: it asks for that of another system.

    """
    if config.firewall.backend in BSD:
        from onionward.backend.platform import refuse_foreign_filter

        refuse_foreign_filter(config)
    from onionward.system import find_tool

    wanted: str = config.firewall.backend
    if wanted == "auto":
        wanted = "nftables" if find_tool("nft") or not find_tool("iptables-restore") else "iptables"
    if wanted == "iptables":
        from onionward.backend.iptables import variant_here

        wanted = f"iptables-{variant_here() or 'nft'}"
    return named(wanted)


def tools(name: str) -> tuple[str, ...]:
    """Programs that a filter needs, nft aside, whose version matters, too."""
    if name == "nftables":
        return ()
    return tuple(
        f"{family}{name[2:]}-{verb}" for family in ("ip", "ip6") for verb in ("restore", "save")
    )


def in_force(journal: Journal) -> PacketFilter[Any]:
    """The one that decides since the last `up`."""
    return named(journal.filters[-1])


def noted(journal: Journal) -> tuple[PacketFilter[Any], ...]:
    """All whose rules may be there: a change of filters has two for a moment."""
    return tuple(named(name) for name in journal.filters)


def present(system: System) -> tuple[PacketFilter[Any], ...]:
    """Those that hold rules of ours, whatever a journal says."""
    names = NAMES if has_nft() else NAMES[1:]
    return tuple(one for name in names if (one := named(name)).any_table(system))


def any_table(system: System, filters: Iterable[PacketFilter[Any]]) -> bool:
    """Whether one of these has rules of ours."""
    return any(one.any_table(system) for one in filters)


def blocked_since_boot(system: System) -> bool:
    """Whether the table is in force that blocks from the boot until `up`; nft alone has one."""
    if not has_nft():
        return False
    from onionward.backend import nftables

    return nftables.blocked_since_boot(system)


def is_guarded(system: System) -> bool:
    """Whether the guard holds its own tables, which end with it; never without nft."""
    from onionward.backend import nftables

    return has_nft() and nftables.is_guarded(system)


def has_nft() -> bool:
    """Whether there is nft, which alone watches frames and keeps tables for one process."""
    from onionward.system import find_tool

    return find_tool("nft") is not None


def fingerprint(text: str) -> str:
    """Two texts with the same are the same."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()
