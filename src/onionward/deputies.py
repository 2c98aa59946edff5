"""Services that act in the network for whoever asks them, over ways that are no packets.

A packet of theirs has their own account on it, so rules for the account that asked do not meet it.
What is listed here is looked for, and closed to routed accounts by `masks`. Not listed are services
that ask for an administrator's password first (systemd's machined, importd and networkd, firewalld)
or that have no network (udisks, upower, colord).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Deputy:
    """A service, or several of one kind.

    Attributes:
        name: by which `[[user]] accept` leaves it open.
        does: what it does for others, in words that follow its name.
        directories: hold nothing but its sockets and queues, and stay when it is restarted.
        sockets: by which it is asked; those in no directory above come back open.
        bus_names: by which it is asked over D-Bus.
        ports: TCP ports of this machine by which it is asked; closing them takes packet rules.

    """

    name: str
    does: str
    directories: tuple[Path, ...] = ()
    sockets: tuple[Path, ...] = ()
    bus_names: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()


def _below(directory: str, *names: str) -> tuple[Path, ...]:
    return tuple(Path(directory) / name for name in names)


DEPUTIES = (
    Deputy(
        "resolved",
        "systemd-resolved looks up names",
        directories=(Path("/run/systemd/resolve"),),
        sockets=_below("/run/systemd/resolve", "io.systemd.Resolve", "io.systemd.Resolve.Monitor"),
        bus_names=("org.freedesktop.resolve1",),
    ),
    Deputy(
        # unscd and nsncd listen at the same place
        "nscd",
        "the name service cache looks up names",
        directories=(Path("/run/nscd"),),
        sockets=_below("/run/nscd", "socket"),
    ),
    Deputy(
        "avahi",
        "avahi looks up names on the link by multicast",
        directories=(Path("/run/avahi-daemon"),),
        sockets=_below("/run/avahi-daemon", "socket"),
        bus_names=("org.freedesktop.Avahi",),
    ),
    Deputy(
        # every account may add a queue for itself, with an address to send to
        "cups",
        "the print server connects to printers at any address",
        directories=(Path("/run/cups"),),
        sockets=_below("/run/cups", "cups.sock"),
        bus_names=("org.opensuse.CupsPkHelper.Mechanism",),
        ports=(631,),
    ),
    Deputy(
        "networkmanager",
        "managers of network connections connect and look for servers",
        bus_names=(
            "org.freedesktop.NetworkManager",
            "org.freedesktop.ModemManager1",
            "fi.w1.wpa_supplicant1",
            "net.connman",
            "net.connman.iwd",
        ),
    ),
    Deputy(
        "packages",
        "package managers fetch lists and packages",
        sockets=_below("/run", "snapd.socket", "snapd-snap.socket"),
        bus_names=(
            "org.freedesktop.PackageKit",
            "org.debian.apt",
            "org.freedesktop.Flatpak.SystemHelper",
        ),
    ),
    Deputy(
        "geoclue",
        "geoclue asks a server on the Internet where this machine is",
        bus_names=("org.freedesktop.GeoClue2",),
    ),
    Deputy(
        "realmd",
        "realmd looks up domains and their servers",
        bus_names=("org.freedesktop.realmd",),
    ),
    Deputy(
        "containers",
        "a container or virtual machine service fetches images and connects guests",
        directories=(Path("/run/libvirt"),),
        sockets=(
            *_below("/run", "docker.sock", "podman/podman.sock", "crio/crio.sock"),
            *_below("/run", "containerd/containerd.sock"),
            *_below("/run/libvirt", "libvirt-sock", "virtqemud-sock", "virtlxcd-sock"),
            *_below("/var/lib", "lxd/unix.socket", "incus/unix.socket"),
            Path("/var/snap/lxd/common/lxd/unix.socket"),
        ),
    ),
    Deputy(
        "mail",
        "the mail server delivers what is put into its queue",
        # closed further inside, postdrop(1) would try again for ever
        directories=(Path("/var/spool/postfix"),),
        sockets=_below("/run", "smtpd.sock"),
        ports=(25, 465, 587),
    ),
    Deputy(
        "proxy",
        "a proxy of this machine connects to any address",
        ports=(1080, 3128, 8118, 8123),
    ),
)

# These answer for the account database too, so that closing them would take the account's own
# entry away: they are only told of.
DIRECTORIES_OF_ACCOUNTS = (
    Deputy(
        "sssd",
        "sssd asks a directory server for the names of accounts, and of hosts where configured",
        sockets=_below("/var/lib/sss/pipes", "nss"),
    ),
    Deputy(
        "nslcd",
        "nslcd asks an LDAP server for the names of accounts, and of hosts where configured",
        sockets=_below("/run/nslcd", "socket"),
    ),
    Deputy(
        "winbind",
        "winbind asks a domain for the names of accounts, and of hosts where configured",
        sockets=_below("/run/samba/winbindd", "pipe"),
    ),
)


def ports_closed_to(accept: Iterable[str]) -> tuple[int, ...]:
    """TCP ports of this machine that an account must not connect to, but for what it accepts.

    A service there connects elsewhere for whoever asks, under its own account.
    """
    left_open = set(accept)
    return tuple(sorted(p for d in DEPUTIES if d.name not in left_open for p in d.ports))
