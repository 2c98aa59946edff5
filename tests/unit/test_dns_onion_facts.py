"""What is read of a machine's name resolution, out of texts as they are on real machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onionward.dns.onion import facts
from onionward.paths import Paths
from tests.support import ScriptedSystem

SS = """\
UNCONN 0 0 127.0.0.54:53      0.0.0.0:* users:(("systemd-resolve",pid=70,fd=18))
UNCONN 0 0 127.0.0.53%lo:53   0.0.0.0:* users:(("systemd-resolve",pid=70,fd=16))
UNCONN 0 0 0.0.0.0:53         0.0.0.0:* users:(("dnsmasq",pid=33,fd=4),("dnsmasq",pid=34,fd=4))
UNCONN 0 0 [fe80::1]%eth0:53  [::]:*    users:(("named",pid=9,fd=4))
UNCONN 0 0 *:53               *:*
UNCONN 0 0 127.0.0.1:5353     0.0.0.0:* users:(("avahi-daemon",pid=8,fd=4))
"""
DEBIAN_DNSMASQ = [
    *("/usr/sbin/dnsmasq", "-x", "/run/dnsmasq/dnsmasq.pid", "-u", "dnsmasq"),
    *("-r", "/run/dnsmasq/resolv.conf", "-7", "/etc/dnsmasq.d,.dpkg-dist,.dpkg-old,.dpkg-new"),
    "--local-service",
]
NM_DNSMASQ = [
    *("/usr/sbin/dnsmasq", "--no-resolv", "--conf-file=/dev/null", "--proxy-dnssec"),
    "--conf-dir=/etc/NetworkManager/dnsmasq.d",
]


def test_who_is_on_port_53() -> None:
    assert facts.parse_servers(SS) == (
        ("127.0.0.54", (70,)),
        ("127.0.0.53", (70,)),
        ("0.0.0.0", (33, 34)),  # noqa: S104
        ("fe80::1", (9,)),
        ("*", ()),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("127.0.0.1",)),
        ("search example.test\n", ("127.0.0.1",)),
        ("nameserver 192.0.2.1\n", ("192.0.2.1",)),
        ("#nameserver 192.0.2.1\nnameserver\t192.0.2.2 # x\n", ("192.0.2.2",)),
        ("nameserver fe80::1%eth0\nnameserver ::1", ("fe80::1%eth0", "::1")),
        ("nameserver 1\nnameserver 2\nnameserver 3\nnameserver 4\n", ("1", "2", "3")),
        ("nameserver\n", ("127.0.0.1",)),
    ],
)
def test_nameservers(text: str, expected: tuple[str, ...]) -> None:
    assert facts.nameservers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0::/system.slice/dnsmasq.service\n", "dnsmasq.service"),
        ("9:name=systemd:/system.slice/a.service/x\n8:pids:/b.service\n0::/\n", "a.service"),
        ("0::/user.slice/user-1.slice/user@1.service/app.slice/d.service\n", "d.service"),
        ("0::/user.slice/session-1.scope\n", ""),
        ("", ""),
    ],
)
def test_unit(text: str, expected: str) -> None:
    assert facts.unit_of(text) == expected


@pytest.mark.parametrize(
    ("arguments", "text", "expected"),
    [
        (DEBIAN_DNSMASQ, "", ("/etc/dnsmasq.d",)),
        (NM_DNSMASQ, "", ("/etc/NetworkManager/dnsmasq.d",)),
        (["dnsmasq"], "conf-dir=/etc/dnsmasq.d/,*.conf\n", ("/etc/dnsmasq.d",)),
        (["dnsmasq"], "conf-dir = /a # why\n#conf-dir=/b\n", ("/a",)),
        (["dnsmasq"], "conf-dir=/etc/dnsmasq.d,*.cfg\n", ()),
        (["dnsmasq"], "conf-dir=/etc/dnsmasq.d,.conf\n", ()),
        (["dnsmasq", "-7/a", "--conf-dir", "/b"], "", ("/a", "/b")),
        (["dnsmasq"], "cache-size=0\n", ()),
    ],
)
def test_directories_of_dnsmasq(arguments: list[str], text: str, expected: tuple[str, ...]) -> None:
    assert facts.dnsmasq_directories(arguments, text) == expected


def test_configuration_of_dnsmasq() -> None:
    assert facts.dnsmasq_configuration(DEBIAN_DNSMASQ) == "/etc/dnsmasq.conf"
    assert facts.dnsmasq_configuration(NM_DNSMASQ) == "/dev/null"
    assert facts.dnsmasq_configuration(["dnsmasq", "-C", "/x"]) == "/x"


def test_directories_of_unbound() -> None:
    text = 'include-toplevel: "/etc/unbound/unbound.conf.d/*.conf"\n# include: "/a/*.conf"\n'
    assert facts.unbound_directories(text) == ("/etc/unbound/unbound.conf.d",)
    assert facts.unbound_directories("server:\n  include: /b/*.conf # why\n") == ("/b",)
    assert facts.unbound_directories("include: /c/one.conf\n") == ()
    assert facts.unbound_configuration(["unbound", "-d", "-c", "/x"]) == "/x"
    assert facts.unbound_configuration(["unbound", "-d"]) == "/etc/unbound/unbound.conf"


def test_resolv_conf_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    paths = Paths(resolv_conf=path, runtime=tmp_path)
    system = ScriptedSystem({"ss -Hlunp": ""})
    absent = facts.environment(system, paths)
    assert (absent.resolv_conf, absent.target, absent.followed) == ("", "", False)
    path.write_text("nameserver 192.0.2.1\n")
    plain = facts.environment(system, paths)
    assert (plain.resolv_conf, plain.target) == ("nameserver 192.0.2.1\n", "")
    path.rename(tmp_path / "list")
    path.symlink_to("list")
    # whether every account can come to pytest's directory is not this test's
    link = facts.environment(system, paths)
    assert (link.nameservers, link.target) == (("192.0.2.1",), str(tmp_path / "list"))
    (tmp_path / "list").chmod(0o600)
    assert not facts.environment(system, paths).followed
    path.unlink()
    path.mkdir()
    assert len(facts.environment(system, paths).unusable) == 1


def test_who_can_read_a_list() -> None:
    assert facts._is_public(Path("/etc/passwd"))
    assert facts._is_public(Path("/etc/does-not-exist-yet"))
    assert not facts._is_public(Path("/does-not-exist/resolv.conf"))


def test_what_cannot_be_read_to_an_end_is_not_read(tmp_path: Path) -> None:
    pipe, around = tmp_path / "pipe", tmp_path / "around"
    os.mkfifo(pipe)
    (tmp_path / "to-pipe").symlink_to(pipe)
    around.symlink_to("about")
    (tmp_path / "about").symlink_to("around")
    for path in (pipe, tmp_path / "to-pipe", around, tmp_path):
        assert facts.text_of(path) == ""
    assert facts.target_of(pipe) == ""
    assert facts.target_of(tmp_path / "to-pipe") == str(pipe)
    assert facts.target_of(around).startswith(str(tmp_path))
