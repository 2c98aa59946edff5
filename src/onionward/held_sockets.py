"""Sockets from before the rules: an account's own, and those of others that it holds.

The kernel marks a socket with the account that made it. A program that has got one from another
account (inherited, or passed over a Unix socket) sends with that account's name on the packets.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onionward.accounts import WayAround
from onionward.networks import Address
from onionward.system import System

# (first, last) user id
UidRange = tuple[int, int]

_SHOW_ALL = ["ss", "-Htuane"]
# what still has data to send after its program has closed it
_CLOSING = frozenset({"FIN-WAIT-1", "LAST-ACK", "CLOSING"})
_WITHOUT_PEER = frozenset({"LISTEN", "UNCONN"})
# since then the kernel tells whose a connection was that its program has closed (inet_diag)
_TELLS_OWNERS = (6, 17)
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class HeldSocket:
    """A TCP or UDP socket as ss(8) shows it.

    Attributes:
        protocol: "tcp" or "udp".
        state: as ss names it, such as "ESTAB".
        local: its address here.
        local_port: its port here.
        peer: the other end; unspecified when there is none.
        peer_port: its port; 0 when there is none.
        uid: of the account that made it; 0 also when the kernel does not tell.
        inode: its number in /proc/PID/fd; 0 when no program has it any more.

    """

    protocol: str
    state: str
    local: Address
    local_port: int
    peer: Address
    peer_port: int
    uid: int
    inode: int


def parse(text: str) -> tuple[HeldSocket, ...]:
    """The sockets in the output of `ss -Htuane`."""
    found = []
    for line in text.splitlines():
        fields = line.split(maxsplit=6)
        if len(fields) < 6 or fields[0] not in ("tcp", "udp"):
            continue
        rest = fields[6] if len(fields) > 6 else ""
        local, local_port = _endpoint(fields[4])
        peer, peer_port = _endpoint(fields[5])
        numbers = dict(re.findall(r"(?<!\S)(uid|ino):(\d+)", rest))
        # ss leaves out the uid of root
        uid, inode = int(numbers.get("uid", 0)), int(numbers.get("ino", 0))
        found.append(
            HeldSocket(fields[0], fields[1], local, local_port, peer, peer_port, uid, inode)
        )
    return tuple(found)


def _endpoint(text: str) -> tuple[Address, int]:
    address, _, port = text.rpartition(":")
    # 192.0.2.1%eth0, [fe80::1]%eth0, or * for every address of both families
    address = address.split("%")[0].strip("[]").replace("*", "::")
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed, 0 if port == "*" else int(port)


def holders(uids: Sequence[UidRange], proc: Path = _PROC) -> dict[int, int]:
    """Which sockets the processes of some accounts hold: for each inode a process id (proc(5))."""
    found: dict[int, int] = {}
    for name in os.listdir(proc):  # noqa: PTH208  # there are many
        if not name.isdecimal():
            continue
        try:
            if not any(_within(uid, uids) for uid in _uids_of(proc / name)):
                continue
            with os.scandir(proc / name / "fd") as files:
                for file in files:
                    link = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(file.path))  # noqa: PTH115
                    if link is not None:
                        found.setdefault(int(link[1]), int(name))
        except OSError:
            continue  # it ended meanwhile
    return found


def _uids_of(process: Path) -> tuple[int, ...]:
    """Real, effective, saved and file system uid: whoever is one of them can use its files."""
    for line in (process / "status").read_text(errors="replace").splitlines():
        if line.startswith("Uid:"):
            return tuple(map(int, line.split()[1:]))
    return ()


def _within(uid: int, uids: Iterable[UidRange]) -> bool:
    return any(first <= uid <= last for first, last in uids)


def outward(system: System, uids: Sequence[UidRange]) -> tuple[HeldSocket, ...]:
    """Connections of these accounts with the outside, which `up` has to cut.

    Their own, those of others that their processes hold, and those that a program of theirs has
    closed with data still unsent. Connections to ports that something listens on were opened by
    others and are not among them; nor is what stays on this machine.

    Args:
        system: the seam.
        uids: ranges of user ids.

    """
    sockets = parse(system.query(_SHOW_ALL))
    return outward_of(sockets, uids, holders(uids), tells_owners=tells_owners(os.uname().release))


def connected(system: System, uids: Sequence[UidRange]) -> tuple[HeldSocket, ...]:
    """As `outward`, with those that the accounts made for this machine itself or let others open.

    Args:
        system: the seam.
        uids: ranges of user ids.

    """
    sockets = parse(system.query(_SHOW_ALL))
    own = (s for s in sockets if s.state not in _WITHOUT_PEER and _within(s.uid, uids))
    return (*own, *outward(system, uids))


def tells_owners(release: str) -> bool:
    """Whether this kernel (uname -r) tells whose a closed connection was."""
    return tuple(int(n) for n in re.findall(r"\d+", release)[:2]) >= _TELLS_OWNERS


def outward_of(
    sockets: Sequence[HeldSocket],
    uids: Sequence[UidRange],
    held: Mapping[int, int],
    *,
    tells_owners: bool = True,
) -> tuple[HeldSocket, ...]:
    """As `outward`, from what was read.

    Args:
        sockets: all of this machine.
        uids: ranges of user ids.
        held: what `holders` has found.
        tells_owners: whether closed connections have an owner here; otherwise those without one
            are taken for everybody's and returned, too.

    """
    listening = {(s.protocol, s.local_port) for s in sockets if s.state == "LISTEN"}
    return tuple(
        s
        for s in sockets
        if s.state not in _WITHOUT_PEER
        and not (s.peer.is_loopback or s.peer == s.local)
        and (s.protocol, s.local_port) not in listening
        and (
            _within(s.uid, uids)
            or s.inode in held
            or (s.inode == s.uid == 0 and s.state in _CLOSING and not tells_owners)
        )
    )


def ways_around(
    system: System, uids: Sequence[UidRange], *, proc: Path = _PROC
) -> tuple[WayAround, ...]:
    """Sockets of other accounts, held by these, that the kernel cannot cut; named "held".

    UDP sockets without a fixed peer, raw sockets, and packet sockets, which no account is looked
    at for.
    """
    held = holders(uids, proc)
    udp = {s.inode: s.uid for s in parse(system.query(_SHOW_ALL)) if s.state == "UNCONN"}
    ways = _held("UDP", {i: uid for i, uid in udp.items() if not _within(uid, uids)}, held)
    for kind, name in (("raw", "raw"), ("raw6", "raw IPv6"), ("packet", "packet")):
        try:
            text = (proc / "net" / kind).read_text()
        except OSError:
            continue
        owners = parse_table(text)
        if kind != "packet":
            owners = {i: uid for i, uid in owners.items() if not _within(uid, uids)}
        ways += _held(name, owners, held)
    return tuple(ways)


def parse_table(text: str) -> dict[int, int]:
    """Owner by inode, out of /proc/net/raw, raw6 or packet (proc(5), packet(7))."""
    header, *lines = text.splitlines() or [""]
    found = {}
    for line in lines:
        fields = line.split()
        if "Inode" in header.split():  # packet: … User Inode
            found[int(fields[-1])] = int(fields[-2])
        else:  # raw: … uid timeout inode ref pointer drops
            found[int(fields[9])] = int(fields[7])
    return found


def _held(name: str, owners: Mapping[int, int], held: Mapping[int, int]) -> list[WayAround]:
    return [
        WayAround(
            "held",
            f"process {held[inode]} holds a {name} socket of uid {uid}, which sends under that "
            "account's name; end the process",
        )
        for inode, uid in owners.items()
        if inode in held
    ]
