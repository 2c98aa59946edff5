"""The texts of the boot, read by the real nft, systemd and sh; no part of them opens anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from onionward.boot import units
from onionward.boot.program import Program
from onionward.errors import CommandError
from onionward.render.nftables import boot
from onionward.system import System
from tests.golden.machine import namespace
from tests.unit.scopes import LAN, USERS, gateway

CONFIGS = {
    "host": "",
    "lan": LAN,
    "users": USERS,
    "host and lan": f"[host]\n{LAN}",
}
PROGRAM = Program(("/usr/bin/onionward", "up"), {"PYTHONPATH": "/opt/o"})


def dropping(system: System) -> list[str]:
    """What is dropped at last, by any chain in force."""
    listing = system.query(["nft", "list", "ruleset"])
    return sorted({line.strip() for line in listing.splitlines() if line.endswith("drop")})


@pytest.mark.usefixtures("real_tools")
@pytest.mark.parametrize("name", CONFIGS)
def test_no_beginning_of_the_file_opens_anything(name: str) -> None:
    policy = gateway(CONFIGS[name])
    first, rest = boot.first(policy), boot.rest(policy)
    cuts = {0, 1, *(n for n, c in enumerate(rest) if c == "\n"), len(rest) // 3, len(rest) - 4}
    with namespace([], None) as system:
        system.query(["nft", first])
        least = dropping(system)
        assert least
        loaded = 0
        for cut in sorted(cuts | {n + 1 for n in cuts} | {len(rest)}):
            system.query(["nft", first])
            try:
                system.query(["nft", "--file", "-"], stdin=rest[:cut])
            except CommandError:
                assert dropping(system) == least
            else:
                loaded += 1
                held = system.query(["nft", "list", "table", "inet", "onionward_boot"])
                assert "chain wire" in held or "chain first_wire" in held
                if policy.lans:
                    assert "chain arriving" in held or "chain first_clients" in held
                assert set(least) & set(dropping(system)) or "drop" in dropping(system)
        assert loaded >= 2
        # the control: without a table there is nothing that drops
        system.query(["nft", "delete", "table", "inet", "onionward_boot"])
        assert dropping(system) == []


# what systemd makes a mount namespace for (systemd.exec(5), sandboxing), which fails now and then
# while others mount
MOUNTING = (
    *("ProtectSystem", "ProtectHome", "ProtectProc", "ProtectKernel", "ProtectControlGroups"),
    *("PrivateTmp", "PrivateDevices", "PrivateMounts", "ProcSubset", "ReadOnlyPaths"),
    *("InaccessiblePaths", "TemporaryFileSystem", "BindPaths", "RootDirectory"),
)


def test_the_block_at_boot_asks_for_no_mount_namespace() -> None:
    text = units.block_unit("/usr/sbin/nft", "add table inet t", "/etc/boot.nft")
    assert [line for line in text.splitlines() if line.startswith(MOUNTING)] == []
    # the control: the other unit, which is tried again, asks for one
    other = units.up_unit(Program(("/usr/bin/true",), {}))
    assert [line for line in other.splitlines() if line.startswith(MOUNTING)]


def test_units_are_hardened_and_sound(tmp_path: Path) -> None:
    texts = {
        units.BLOCK_UNIT: units.block_unit(
            "/usr/sbin/nft", boot.first(gateway(f"onion = true\n{LAN}{USERS}")), "/etc/boot.nft"
        ),
        units.UP_UNIT: units.up_unit(Program(("/usr/bin/env", "true"), {})),
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=40", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-200:]
        # the control: without what hardens it, a unit does not pass
        bare = "".join(
            line for line in text.splitlines(keepends=True) if "Protect" not in line
        ).replace("CapabilityBoundingSet", "X-Capability")
        path.write_text(bare)
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=40", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0, name
        path.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name in texts)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "onionward" in line] == []


@pytest.mark.usefixtures("real_tools")
def test_the_init_script_blocks(tmp_path: Path) -> None:
    policy = gateway("")
    rules = tmp_path / "boot.nft"
    script = tmp_path / units.BLOCK_SCRIPT
    script.write_text(units.block_script("nft", boot.first(policy), str(rules)))
    (tmp_path / units.UP_SCRIPT).write_text(units.up_script(PROGRAM))
    for path in tmp_path.iterdir():
        subprocess.run(["sh", "-n", str(path)], check=True)
    with namespace([], None) as system:
        for text, chain in (("garbage", "first_wire"), (boot.rest(policy), "wire")):
            rules.write_text(text)
            system.query(["sh", str(script), "start"])
            held = system.query(["nft", "list", "table", "inet", "onionward_boot"])
            assert f"chain {chain} {{" in held
            system.query(["sh", str(script), "stop"])
            assert system.query(["nft", "list", "table", "inet", "onionward_boot"]) == held
