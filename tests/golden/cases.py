"""The cases: a configuration and a machine in, the seven texts out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from onionward import config
from onionward.accounts import Uids, User
from onionward.describe import describe
from onionward.facts import Account, Facts, parse_links
from onionward.paths import Paths
from onionward.policy import ControlGroup, Policy, derive
from onionward.policy import User as Paused
from onionward.render import nftables
from onionward.render.nftables import Ruleset, boot, lock
from onionward.render.resolver import resolv_conf
from onionward.render.torrc import relays, torrc
from onionward.tor.installed import Installed
from tests.support import FACTS, flow

FOLDER = Path(__file__).parent / "cases"
CGROUP = "onionward-golden"


@dataclass(frozen=True)
class Case:
    """A folder below `cases`.

    Attributes:
        path: the folder; `onionward.toml` and `facts.json` are what is given.
        policy: derived from both.
        route: the rules of the routed state.
        block: the rules of the blocked state.
        texts: all that is rendered, by the name of its file.

    """

    path: Path
    policy: Policy
    route: Ruleset
    block: Ruleset
    texts: dict[str, str]


def names() -> list[str]:
    return sorted(entry.name for entry in FOLDER.iterdir() if entry.is_dir())


def load(name: str, temporary: Path) -> Case:
    """Render a case; `temporary` holds its configuration with @CASE@ replaced by its folder."""
    path = FOLDER / name
    written = temporary / "onionward.toml"
    written.write_text((path / "onionward.toml").read_text().replace("@CASE@", str(path)))
    read = config.load(written)
    given = json.loads((path / "facts.json").read_text())
    facts = Facts(
        **{field: getattr(FACTS, field) for field in Facts.__dataclass_fields__}
        | {
            "links": parse_links(given["links"], frozenset(given.get("uplinks", ()))),
            "users": tuple(_user(**user) for user in given.get("users", ())),
            "ipv6": given["ipv6"],
            "dhcp_uids": tuple(given["dhcp_uids"]),
            "installed": Installed("/usr/bin/obfs4proxy", Path("/usr/share/tor")),
        }
    )
    group = given["tor_cgroup"]
    policy = derive(
        read,
        facts,
        tor_uid=given["tor_uid"],
        tor_cgroup=ControlGroup(**group) if group else None,
        kept=tuple(flow(*kept) for kept in given["kept"]),
        paused=(_paused(**user) for user in given.get("paused", ())),
    )
    route, block = nftables.route(policy), nftables.block(policy)
    texts = {
        "route.nft": route.text,
        "block.nft": block.text,
        "boot.nft": boot.whole(policy),
        "lock.nft": lock.routing(policy) + lock.egress(policy),
        "torrc": torrc(
            policy, Paths(), account=read.tor.user, network=relays(read, facts.installed)
        ),
        "policy.txt": describe(policy) + "\n",
        "resolv.conf": resolv_conf(),
    }
    return Case(path, policy, route, block, texts)


def _paused(name: str, uids: list[tuple[int, int]]) -> Paused:
    return Paused(name, tuple((first, last) for first, last in uids))


def _user(name: str, uid: int, subordinate: list[tuple[int, int]]) -> User:
    login = Account(name, uid, uid, Path("/home") / name)
    return User(login, frozenset({uid}), tuple(Uids(*pair) for pair in subordinate))
