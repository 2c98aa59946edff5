"""What clients get from the gateway besides packet rules: real clients, a real server, no Tor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.errors import LanError
from onionward.lan import dhcp, dhcp_server, sysctls
from onionward.system import System
from onionward.tor.process import user_of
from tests.lab.lan_network import (
    ETH1,
    GATEWAY4,
    GATEWAY6,
    ROUTER4,
    ROUTER6,
    UPLINK4,
    LanNetwork,
    Node,
    address_lan,
    announcement,
    answers_arp,
    connect,
    lan_network,
    options,
    reaches,
    received_icmp,
    until,
)
from tests.support import addr, net


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LanNetwork]:
    with lan_network(tmp_path) as built:
        yield built


def survey(network: LanNetwork, *interfaces: str) -> sysctls.Saved:
    return network.gateway.inside(lambda: sysctls.survey(System(), interfaces or ("eth1",)))


def apply(network: LanNetwork, saved: sysctls.Saved) -> None:
    network.gateway.inside(lambda: sysctls.apply(System(), saved))


def restore(network: LanNetwork, saved: sysctls.Saved) -> str:
    return network.gateway.inside(lambda: sysctls.restore(System(), saved))


def test_a_lease_tells_a_client_what_it_needs_and_no_more(network: LanNetwork) -> None:
    network.serve()
    told = network.lease(network.client)
    assert addr("198.18.8.100") <= addr(told.pop("ip_address")) <= addr("198.18.8.199")  # type: ignore[operator]
    for varying in ("expiry", "dhcp_renewal_time", "dhcp_rebinding_time"):
        told.pop(varying)
    assert told == {
        "subnet_mask": "255.255.255.0",
        "network_number": "198.18.8.0",
        "broadcast_address": "198.18.8.255",
        "routers": GATEWAY4,
        "domain_name_servers": GATEWAY4,
        "dhcp_server_identifier": GATEWAY4,
        "next_server": GATEWAY4,
        "dhcp_lease_time": "3600",
        "dhcp_message_type": "5",
    }


def test_names_of_clients_are_not_kept(network: LanNetwork) -> None:
    network.serve()
    given = network.lease(network.client)["ip_address"]
    leases = dhcp_server.lease_path(network.paths)
    log = dhcp_server.log_path(network.paths)
    assert given in leases.read_text()
    assert "client-name" not in leases.read_text() + log.read_text()
    said = [line for line in log.read_text().splitlines() if "IP range" not in line]
    assert given not in "\n".join(said)
    assert leases.stat().st_mode & 0o077 == 0


def test_a_network_without_a_server_gives_no_lease(network: LanNetwork) -> None:
    network.serve()
    network.stop()
    assert network.lease(network.client, 4) == {}


def test_another_interface_is_not_served(network: LanNetwork) -> None:
    network.gateway.ip("address add 198.18.9.1/24 dev eth1.5")
    network.serve()
    assert network.lease(network.other, 4) == {}
    network.serve(ETH1, second_segment())
    assert network.lease(network.other)["routers"] == "198.18.9.1"
    assert network.lease(network.client)["routers"] == GATEWAY4


def second_segment() -> dhcp.Segment:
    return dhcp.Segment("eth1.5", (addr("198.18.9.1"),), (net("198.18.9.0/24"),))


def test_leases_survive_a_restart(network: LanNetwork) -> None:
    pair = (addr("198.18.8.100"), addr("198.18.8.101"))
    two = dhcp.Segment("eth1", ETH1.addresses, ETH1.networks, pair)
    network.serve(two)
    first = network.lease(network.client)["ip_address"]
    network.stop()
    assert not network.config.exists()
    assert not dhcp_server.log_path(network.paths).exists()
    network.serve(two)
    network.client.ip("link set eth0 down address 02:00:00:00:00:99")
    network.client.ip("link set eth0 up")
    second = network.lease(network.client)["ip_address"]
    assert {first, second} == {str(address) for address in pair}
    network.client.ip("link set eth0 down address 02:00:00:00:00:98")
    network.client.ip("link set eth0 up")
    assert network.lease(network.client, 4) == {}


def test_an_interface_that_appears_later(network: LanNetwork) -> None:
    network.gateway.ip("link delete eth1")
    network.serve(dhcp.Segment("eth1", (), (), ETH1.wanted, hotplug=True))
    connect(network.gateway, "eth1", network.client)
    address_lan(network.gateway)
    assert network.lease(network.client)["routers"] == GATEWAY4
    server = socket.inet_pton(socket.AF_INET6, GATEWAY6)
    # the first announcement may come before the interface has all of its addresses
    until(
        "the gateway is announced as name server",
        lambda: server in options(announcement(network.client))[25],
        60,
    )


def test_router_advertisement(network: LanNetwork) -> None:
    network.serve()
    packet = announcement(network.client)
    # neither managed nor other configuration; a router for some time
    assert packet[5] & 0xC0 == 0
    assert int.from_bytes(packet[6:8], "big") >= 600
    found = options(packet)
    # link-layer address, prefix, MTU, name server; no search list
    assert set(found) == {1, 3, 5, 25}
    assert found[3][2] == 64
    assert found[3][16:] == socket.inet_pton(socket.AF_INET6, "2001:db8:8::")
    assert found[25][8:] == socket.inet_pton(socket.AF_INET6, GATEWAY6)


def slaac(network: LanNetwork) -> None:
    """A client that has made itself an address and has a router."""
    network.serve()
    for name in ("base_reachable_time_ms=500", "delay_first_probe_time=1", "retrans_time_ms=200"):
        network.client.run("sysctl", "-q", "-w", f"net/ipv6/neigh/eth0/{name}")
    network.client.ip("link set eth0 down")
    network.client.ip("link set eth0 up")
    until("the client has a router", lambda: "via fe80::" in network.client.default6())
    addresses = network.client.ip("-6 address show dev eth0 scope global")
    assert "2001:db8:8:" in addresses


def check_the_router(client: Node) -> None:
    """Let the client find out whether its router is alive (neighbour unreachability detection)."""
    gateway = client.default6().split()[2]
    state = ""

    def confirmed() -> bool:
        nonlocal state
        client.run("ip", "neighbour", "change", gateway, "dev", "eth0", "nud", "probe", check=False)
        state = client.ip(f"-6 neighbour show {gateway} dev eth0")
        return "REACHABLE" in state or "STALE" in state

    until("the router has answered", confirmed)


def test_clients_keep_their_router(network: LanNetwork) -> None:
    slaac(network)
    apply(network, survey(network))
    check_the_router(network.client)
    assert "via fe80::" in network.client.default6()


def test_without_the_setting_clients_lose_their_router(network: LanNetwork) -> None:
    slaac(network)
    saved = survey(network)
    apply(network, saved)
    restore(network, saved)
    check_the_router(network.client)
    until("the client has dropped it", lambda: network.client.default6() == "")


def learn_uplink(network: LanNetwork) -> None:
    """The gateway has a router that announced itself."""
    conf = network.directory / "router.conf"
    conf.write_text(
        "port=0\nbind-dynamic\ninterface=eth0\nenable-ra\nleasefile-ro\nuser=root\n"
        f"dhcp-range=::,constructor:eth0,ra-only,64,1h\npid-file={network.directory}/router.pid\n"
        f"log-facility={network.directory}/router.log\n"
    )
    network.router.run("dnsmasq", f"--conf-file={conf}")
    try:
        network.gateway.ip("link set eth0 down")
        network.gateway.ip("link set eth0 up")
        until("the gateway has a router", lambda: "via fe80::" in network.gateway.default6())
    finally:
        os.kill(int((network.directory / "router.pid").read_text()), signal.SIGTERM)


def test_the_gateway_keeps_its_own_router(network: LanNetwork) -> None:
    learn_uplink(network)
    before = network.gateway.settings()
    saved = survey(network)
    apply(network, saved)
    assert "via fe80::" in network.gateway.default6()
    assert network.gateway.read("net/ipv6/conf/eth1/forwarding") == "1"
    assert network.gateway.read("net/ipv6/conf/eth0/accept_ra") == "1"
    assert restore(network, saved) == ""
    assert network.gateway.settings() == before
    assert "via fe80::" in network.gateway.default6()


def test_written_naively_it_loses_its_router(network: LanNetwork) -> None:
    learn_uplink(network)
    network.gateway.sysctl("net/ipv6/conf/eth1/forwarding", "1")
    assert network.gateway.default6() == ""


def test_nothing_is_forwarded(network: LanNetwork) -> None:
    client, router, gateway = network.client, network.router, network.gateway
    client.ip("address add 198.18.8.11/24 dev eth0")
    client.ip("address add 2001:db8:8::11/64 dev eth0 nodad")
    client.ip(f"route add default via {GATEWAY4}")
    client.ip(f"-6 route add default via {GATEWAY6}")
    gateway.ip("address add 2001:db8::4/64 dev eth0 nodad")
    apply(network, survey(network))
    assert not reaches(client, router, ROUTER4)
    assert not reaches(client, router, ROUTER6)
    # the way is there
    gateway.sysctl("net/ipv4/ip_forward", "1")
    gateway.sysctl("net/ipv6/conf/all/forwarding", "1")
    assert reaches(client, router, ROUTER4)
    assert reaches(client, router, ROUTER6)


def test_other_addresses_are_not_told_by_arp(network: LanNetwork) -> None:
    network.gateway.ip("route add local 192.0.0.8 dev lo table local")
    told = (GATEWAY4, UPLINK4, "192.0.0.8")
    assert [answers_arp(network.client, a) for a in told] == [True, True, True]
    saved = survey(network)
    apply(network, saved)
    assert [answers_arp(network.client, a) for a in told] == [True, False, False]
    restore(network, saved)
    assert answers_arp(network.client, UPLINK4)


def test_clients_are_not_sent_past_the_gateway(network: LanNetwork) -> None:
    client, gateway = network.client, network.gateway
    client.ip("address add 198.18.8.11/24 dev eth0")
    client.ip(f"route add 198.18.77.0/24 via {GATEWAY4}")
    # another router on the same LAN, and forwarding that somebody else has switched on
    gateway.ip("route add 198.18.77.0/24 via 198.18.8.11")
    gateway.sysctl("net/ipv4/ip_forward", "1")
    saved = survey(network)
    apply(network, saved)
    assert not received_icmp(client, 5, ["198.18.77.1"])
    restore(network, saved)
    assert received_icmp(client, 5, ["198.18.77.1"])


def test_every_setting_returns(network: LanNetwork) -> None:
    before = network.gateway.settings()
    saved = survey(network, "eth1", "eth1.5", "eth9")
    apply(network, saved)
    apply(network, saved)
    assert network.gateway.read("net/ipv4/conf/eth1.5/arp_ignore") == "1"
    assert network.gateway.settings() != before
    for _ in range(2):
        assert restore(network, saved) == ""
        assert network.gateway.settings() == before


def test_an_interface_that_is_gone_is_no_error(network: LanNetwork) -> None:
    saved = survey(network, "eth1", "eth1.5")
    apply(network, saved)
    network.gateway.ip("link delete eth1")
    assert restore(network, saved) == ""
    assert network.gateway.read("net/ipv4/conf/eth1.5/arp_ignore") == "0"


def test_forwarding_that_others_switched_on_stays(network: LanNetwork) -> None:
    saved = survey(network)
    apply(network, saved)
    network.gateway.sysctl("net/ipv6/conf/all/forwarding", "1")
    assert "net/ipv6/conf/eth1/forwarding was changed by somebody else" in restore(network, saved)
    assert network.gateway.read("net/ipv6/conf/eth1/forwarding") == "1"
    assert network.gateway.read("net/ipv4/conf/eth1/arp_ignore") == "0"


def test_the_server_is_one_process_of_another_account(network: LanNetwork) -> None:
    (pid,) = network.serve()
    assert user_of(Path(f"/proc/{pid}")) == dhcp_server.choose_account(0).uid
    # it runs already, as asked
    assert network.serve() == (pid,)
    changed = dhcp.Segment("eth1", ETH1.addresses, ETH1.networks)
    (second,) = network.serve(changed)
    assert second != pid
    network.stop()
    network.stop()
    assert dhcp_server.running(network.config) == ()


def test_a_server_that_was_stopped_by_a_signal_is_replaced(network: LanNetwork) -> None:
    (pid,) = network.serve()
    os.kill(pid, signal.SIGSTOP)
    (second,) = network.serve()
    assert second != pid
    os.kill(second, signal.SIGSTOP)
    network.stop()
    assert dhcp_server.running(network.config) == ()


@pytest.mark.parametrize(("uid", "is_taken"), [(0, True), (12345, False)])
def test_a_process_with_the_same_arguments(uid: int, is_taken: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        config = Path(name) / "imitated.conf"
        config.write_text("port=0\nkeep-in-foreground\nuser=root\npid-file=\n")
        argv = ["setpriv", f"--reuid={uid}", "--clear-groups", "--", *dhcp_server.command(config)]
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
            expected = "\0".join([*dhcp_server.command(config), ""])
            until(
                "it looks alike",
                lambda: Path(f"/proc/{process.pid}/cmdline").read_text() == expected,
            )
            found = dhcp_server.running(config)
            process.kill()
    assert found == ((process.pid,) if is_taken else ())


def listeners(network: LanNetwork) -> tuple[dhcp.Listener, ...]:
    return network.gateway.inside(lambda: dhcp_server.listeners(System(), network.config))


def test_another_server_is_seen(network: LanNetwork) -> None:
    network.serve()
    assert listeners(network) == ()

    def bound(device: str) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if device:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        made.bind(("", 67))
        return made

    for device, is_in_the_way in (("", True), ("eth1", True), ("eth1.5", False)):
        with network.gateway.inside(lambda device=device: bound(device)):  # type: ignore[misc]
            found = listeners(network)
        assert [listener.device for listener in found] == [device]
        assert f"pid={os.getpid()}," in found[0].who
        assert bool(list(dhcp.problems({0: ETH1}, found, dnsmasq="/x"))) is is_in_the_way


def test_what_dnsmasq_complains_of_is_told(network: LanNetwork) -> None:
    network.paths.runtime.mkdir()
    with pytest.raises(LanError, match="bad option at line 1"):
        network.gateway.inside(
            lambda: dhcp_server.start(System(), "no-such-option\n", network.paths)
        )
