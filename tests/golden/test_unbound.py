"""The real unbound reads what is rendered for full DNS."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from onionward.config import parse
from onionward.dns import full

FULL = "[tor]\ndns = 'full'\nresolvers = ['9.9.9.9#dns.quad9.net', '2620:fe::fe#dns.quad9.net']\n"


def complaint(written: Path) -> str:
    done = subprocess.run(
        ["/usr/sbin/unbound-checkconf", str(written)], capture_output=True, text=True, check=False
    )
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        FULL + "dnssec = false\n",
        "[tor]\ndns = 'full'\nresolvers = ['9.9.9.9', '2620:fe::fe@5353']\n",
    ],
)
@pytest.mark.parametrize("log", ["", "/run/unbound.log"])
def test_unbound_reads_it(text: str, log: str, tmp_path: Path) -> None:
    config = parse(text, "c.toml")
    written = tmp_path / "unbound.conf"
    written.write_text(full.render(config, "nobody", log, ipv6=True))
    assert complaint(written) == ""
    # the control: it reads all of it
    written.write_text(written.read_text() + "    forward-nothing: yes\n")
    assert "forward-nothing" in complaint(written)
