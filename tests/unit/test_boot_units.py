"""Units and init scripts: what systemd and sh make of their texts."""

from __future__ import annotations

import configparser
import shlex

from onionward.boot import units
from onionward.boot.program import Program
from onionward.render.nftables import boot
from tests.unit.scopes import LAN, USERS, gateway

PROGRAM = Program(
    ("/opt/o n/onionward", "--config", "/etc/100%.toml", "up"), {"PYTHONPATH": "/a b"}
)
FIRST = boot.first(gateway(LAN + USERS))


def keys(text: str, name: str) -> list[str]:
    """The values of a key, in their order."""
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


def test_the_block_comes_before_any_network_and_after_what_flushes() -> None:
    text = units.block_unit("/usr/sbin/nft", FIRST, "/etc/onionward/boot.nft")
    assert keys(text, "DefaultDependencies") == ["no"]
    assert keys(text, "Before") == ["network-pre.target shutdown.target"]
    assert keys(text, "Wants") == ["network-pre.target"]
    assert "nftables.service" in keys(text, "After")[0].split()
    # by hand it would block a machine that is routed
    assert keys(text, "RefuseManualStart") == keys(text, "RefuseManualStop") == ["yes"]
    # a soft reboot has it run again; to stop it takes no rules away
    assert keys(text, "Conflicts") == ["shutdown.target"]
    for absent in ("ExecStop", "ExecStopPost", "ExecReload"):
        assert keys(text, absent) == []


def test_the_first_rules_are_in_the_unit_and_the_file_may_fail() -> None:
    text = units.block_unit("/usr/sbin/nft", FIRST, "/etc/onionward/boot.nft")
    (tried, first), (rest,) = keys(text, "ExecStartPre"), keys(text, "ExecStart")
    assert tried == f"-{first}"  # a failure that passes is not the machine's end
    # systemd's quotes are those of sh here; % and $ are doubled
    assert shlex.split(first) == ["/usr/sbin/nft", FIRST]
    assert shlex.split(rest.removeprefix("-")) == [
        "/usr/sbin/nft",
        "--file",
        "/etc/onionward/boot.nft",
    ]
    assert rest.startswith("-")
    assert keys(text, "OnFailure") == ["emergency.target"]
    assert not any(shell in text for shell in ("/bin/sh", "python"))


def test_up_is_tried_again_and_stopping_it_opens_nothing() -> None:
    text = units.up_unit(PROGRAM)
    assert keys(text, "Restart") == ["on-failure"]
    assert keys(text, "KillMode") == ["process"]
    assert keys(text, "ExecStop") == []
    assert keys(text, "StandardError") == ["journal+console"]
    (command,) = keys(text, "ExecStart")
    assert shlex.split(command) == ["/opt/o n/onionward", "--config", "/etc/100%%.toml", "up"]
    assert keys(text, "Environment") == ["'PYTHONPATH=/a b'"]


def test_words_that_systemd_would_read_otherwise() -> None:
    text = units.up_unit(Program(("/x", "$HOME", "50%", "it's", "back\\slash"), {}))
    (command,) = keys(text, "ExecStart")
    assert command == r"/x '$$HOME' '50%%' 'it\'s' 'back\\slash'"


def test_sections_are_whole() -> None:
    for text in (units.up_unit(PROGRAM), units.block_unit("/usr/sbin/nft", FIRST, "/x")):
        parser = configparser.RawConfigParser(strict=False)
        parser.read_string(text)
        assert parser.sections() == ["Unit", "Service", "Install"]


def test_directories_are_remembered() -> None:
    text = units.block_unit("nft", FIRST, "/x", directories=["/etc/onionward", "/etc/a"])
    assert units.directories_of(text) == ("/etc/onionward", "/etc/a")
    assert units.directories_of(units.block_unit("nft", FIRST, "/x")) == ()
    script = units.block_script("nft", FIRST, "/x", directories=["/etc/onionward"])
    assert units.directories_of(script) == ("/etc/onionward",)


def test_init_scripts_carry_their_order() -> None:
    block = units.block_script("/usr/sbin/nft", FIRST, "/etc/onionward/boot.nft")
    assert block.startswith("#!/bin/sh\n")
    assert "# X-Start-Before:    networking" in block
    assert "# Default-Start:     S\n" in block
    assert "# Required-Start:    $remote_fs $network onionward-block" in units.up_script(PROGRAM)
