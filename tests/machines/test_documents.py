"""What the documents have somebody do on a booted Debian is done on one, from its installation on.

internet ── gateway0 ── eth0  a booted Debian  eth1 ── client1
                              in the network of the lab's gateway, with the package alone
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.documents.session import (
    DEBIAN,
    INDEX,
    Ended,
    Session,
    blocks,
    documents,
    substitutions,
)
from tests.machines import deb
from tests.machines.machine import Machine, boot

DOCUMENTS = {document.name: document for document in documents()}
FIRST = "docs/install.md"
ON_DEBIAN = blocks(debian=True)
CONFIG = "/etc/onionward/onionward.toml"
NETWORK = "/run/onionward-lab/network.torrc"
TYPED = "cd /root && "
PATIENCE = 120.0


class Booted:
    """A booted Debian, and the lab's clients behind it.

    Args:
        lab: in whose gateway's network it is.
        machine: that one.
        package: what `make deb` makes.

    """

    def __init__(self, lab: Lab, machine: Machine, package: Path) -> None:
        self.lab = lab
        self.machine = machine
        self.package = package

    def files(self, machine: str) -> Path:
        """The root of a machine's files."""
        if machine == DEBIAN:
            return self.machine.path("/")
        return self.lab.hosts[machine].root if machine in self.lab.hosts else Path("/nowhere")

    def execute(self, machine: str, user: str | None, words: str) -> Ended:
        """Run words of a shell to their end."""
        if words == "make deb":  # it has been made: what it is made with is not on this machine
            self.machine.path("/root/build").mkdir(exist_ok=True)
            self.machine.path(f"/root/build/{self.package.name}").write_bytes(
                self.package.read_bytes()
            )
            return Ended(0, "")
        if machine in self.lab.hosts:
            argv = self.lab.hosts[machine].command(["sh", "-c", words])
        else:
            variables = {"PYTHONPATH": "", "DEBIAN_FRONTEND": "noninteractive", "COLUMNS": "80"}
            argv = self.machine.command(["sh", "-c", TYPED + words], user=user, env=variables)
        for _ in range(3 if ".onion" in words else 0):
            with suppress(subprocess.TimeoutExpired):
                return Ended.of(argv, 30)
            # a rendezvous that hangs is the network's misfortune, and is waited for by its circuit
            self.machine.output("onionward", "new-identity")
        return Ended.of(argv, PATIENCE)

    @contextmanager
    def going_on(self, machine: str, user: str | None, words: str) -> Iterator[None]:
        """Nothing in these documents goes on beside something else."""
        raise AssertionError(f"{machine}, {user}: {words}")
        yield


@pytest.fixture(scope="module")
def place(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A machine with what the package depends on, and without the package."""
    package = deb.build(tmp_path_factory.mktemp("package"))
    packages = ("systemd-sysv", "dbus", "dnsmasq-base", "curl", *deb.depends(package))
    with boot(lab.hosts["gateway"], packages) as machine:
        # nobody is there to say yes
        machine.write("/etc/apt/apt.conf.d/90yes", 'APT::Get::Assume-Yes "true";\n')
        machine.write(NETWORK, lab.network_torrc.read_text())
        machine.write("/etc/resolv.conf", f"nameserver {lab.dns4}\n")
        yield Booted(lab, machine, package)


@pytest.mark.parametrize("name", sorted(ON_DEBIAN, key=lambda name: name != FIRST))
def test_it_is_as_the_document_says(place: Booted, name: str) -> None:
    table = substitutions(DOCUMENTS[INDEX])
    session = Session(place, DEBIAN, table, place.lab.onion)
    if name != FIRST and place.execute(DEBIAN, None, "command -v onionward").status:
        for words in ("make deb", f"dpkg --install build/{place.package.name}"):
            done = place.execute(DEBIAN, None, words)
            assert not done.status, done.output
    try:
        session.follow(ON_DEBIAN[name])
    finally:
        place.execute(DEBIAN, None, "onionward disable; onionward down --force")
        place.machine.path(CONFIG).unlink(missing_ok=True)
    assert session.ran
