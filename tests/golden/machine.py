"""A network and mount namespace of its own, and the seam that runs every command inside it.

    this machine                    the namespace
    ────────────                    ─────────────
    System.query ── nsenter ──────► nft, ip, tor       veth pairs with the names of the case
                                                       a mount of cgroup2 on /sys/fs/cgroup

It lives as long as the process that holds it, which ends when its standard input is closed: at
the latest when the tests do, whatever ends them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from onionward.system import System


class NamespaceSystem(System):
    """Runs commands in the namespace of a process; refuses when that is our own."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid

    def execute(
        self, argv: Sequence[str], *, stdin: str, timeout: float, accept: Sequence[int]
    ) -> str:
        assert not shares_network(self._pid), "this would be the machine's own network"
        prefix = ["nsenter", "--target", str(self._pid), "--net", "--mount", "--"]
        return super().execute([*prefix, *argv], stdin=stdin, timeout=timeout, accept=accept)


def shares_network(pid: int) -> bool:
    return Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()


@contextlib.contextmanager
def namespace(devices: Sequence[str], cgroup: str | None) -> Iterator[NamespaceSystem]:
    """A machine with these interfaces and this control group."""
    with subprocess.Popen(
        ["unshare", "--net", "--mount", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as holder:
        try:
            deadline = time.monotonic() + 10
            while not _is_cat(holder.pid):
                assert holder.poll() is None, "unshare failed"
                assert time.monotonic() < deadline, "unshare is not done after 10 s"
                time.sleep(0.002)
            system = NamespaceSystem(holder.pid)
            system.query(["ip", "link", "set", "lo", "up"])
            for number, name in enumerate(devices):
                # there are no dummy devices in every kernel; the other end is not looked at
                system.query(
                    f"ip link add peer{number} type veth peer name".split() + [name]  # noqa: RUF005
                )
            with _control_group(system, cgroup):
                yield system
        finally:
            assert holder.stdin is not None
            holder.stdin.close()


def _is_cat(pid: int) -> bool:
    # unshare has become cat only after it has made the namespaces
    return Path(f"/proc/{pid}/comm").read_text() == "cat\n"


@contextlib.contextmanager
def _control_group(system: System, name: str | None) -> Iterator[None]:
    """An empty control group where nft(8) looks for it on every machine."""
    if name is None:
        yield
        return
    group = f"/sys/fs/cgroup/{name}"
    system.query(["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"])
    system.query(["mkdir", group])
    try:
        yield
    finally:
        system.query(["rmdir", group])


def unique_cgroup(name: str) -> str:
    """Control groups are the whole machine's, whatever the namespace."""
    return f"{name}-{os.getpid()}"
