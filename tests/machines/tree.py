"""Debian trees to boot machines from: built once with mmdebstrap, then kept in a cache.

A tree is never written to; machines run on an overlay of it. No service of it is enabled: each
test starts what it needs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from onionward.errors import LabError

CACHE = Path("/var/cache/onionward-trees")
PACKAGES = (
    *("systemd-sysv", "dbus", "polkitd", "python3", "procps", "e2fsprogs", "bind9-dnsutils"),
    *("nftables", "iproute2", "conntrack", "tor", "acl", "cron", "at", "nscd"),
    *("systemd-resolved", "libnss-resolve", "network-manager", "dnsmasq", "unbound"),
    "dns-root-data",
)
_UNUSED_DAYS = 30
_OMITTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_RECIPE = "2"  # another number makes every cached tree a stale one
_TARGETS = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)|"


def tree(packages: Iterable[str] = PACKAGES, release: str = "") -> Path:
    """A tree of a Debian release with these packages, built when there is none yet.

    Args:
        packages: besides the smallest set.
        release: its code name; left out, this machine's.

    Raises:
        LabError: it cannot be built.

    """
    if os.geteuid() != 0:
        raise LabError("a Debian tree is built by root only", "Run the tests with sudo.")
    wanted = sorted(set(packages))
    own, sources = own_release(), _sources()
    release = release or own
    sources = [line.replace(f" {own}", f" {release}") for line in sources]
    recipe = "\n".join([_RECIPE, release, *_OMITTED, *wanted, *sources])
    place = CACHE / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    CACHE.mkdir(mode=0o755, exist_ok=True)
    if place.exists():
        # nobody waits for a tree that is there until another one is built
        os.utime(place)
        return place
    with _locked(CACHE / "lock"):
        _remove_leftovers(place)
        if not place.exists():
            unfinished = place.with_suffix(".unfinished")
            _build(unfinished, release, wanted, sources)
            unfinished.rename(place)
        os.utime(place)
    return place


def own_release() -> str:
    """The code name of this machine's release.

    Raises:
        LabError: it is no Debian.

    """
    lines = Path("/etc/os-release").read_text().splitlines()
    names = [line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME=")]
    if not names:
        raise LabError("/etc/os-release names no release", "The tests of machines need Debian.")
    return names[0].strip('"')


def _sources() -> list[str]:
    """Debian's own archives among those that apt is configured for, as lines of sources.list(5)."""
    text = _run("apt-get", "indextargets", "--format", _TARGETS, "Created-By: Packages")
    found: set[str] = set()
    for line in text.splitlines():
        origin, address, release, component, _ = line.split("|")
        if origin == "Debian":
            found.add(f"deb {address} {release} {component}")
    if not found:
        raise LabError("apt knows no archive of Debian", "Run: apt-get update")
    return sorted(found)


def _build(place: Path, release: str, packages: list[str], sources: list[str]) -> None:
    _run(
        *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}"),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _OMITTED),
        *(release, str(place), *sources),
    )
    presets = place / "etc/systemd/system-preset"
    presets.mkdir(parents=True, exist_ok=True)
    (presets / "00-nothing.preset").write_text("disable *\n")
    _run("systemctl", f"--root={place}", "preset-all")
    # it would change the network of the lab's host for good
    _run("systemctl", f"--root={place}", "mask", "systemd-sysctl.service")
    (place / "etc/resolv.conf").unlink(missing_ok=True)
    (place / "etc/machine-id").write_text("")


def _remove_leftovers(wanted: Path) -> None:
    """Remove builds that were interrupted, and trees that nobody has used for long."""
    oldest = time.time() - _UNUSED_DAYS * 86400
    for place in CACHE.iterdir():
        stale = place.is_dir() and place != wanted and place.stat().st_mtime < oldest
        if stale or place.suffix == ".unfinished":
            shutil.rmtree(place)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is missing", "See tools/install-dependencies.") from error
    if done.returncode:
        raise LabError(f"{' '.join(argv)} failed: {done.stderr or done.stdout}")
    return done.stdout
