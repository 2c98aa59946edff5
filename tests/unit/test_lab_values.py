"""The lab's texts and values; nothing here runs a command."""

from __future__ import annotations

import datetime
import ipaddress
import re
import socket
import threading
from pathlib import Path, PurePosixPath

import pytest

from onionward.errors import LabError
from onionward.lab import Host, Lab, TorNetwork, keys, render, services, topology
from onionward.lab.control import Control
from onionward.lab.render import AuthorityKeys
from onionward.lab.topology import Relay

NETWORK = TorNetwork()
KEYS = AuthorityKeys("A" * 40, "B" * 40)
TORRC = render.network_torrc([(Relay("authority", 1), KEYS)])
DATA = PurePosixPath("/data/x")
PIDS = {machine.name: 100 + number for number, machine in enumerate(topology.MACHINES)}
LAB4 = ipaddress.ip_network("198.18.0.0/15")
LAB6 = ipaddress.ip_network("2001:db8::/32")


def relay_torrc(relay: Relay) -> list[str]:
    return render.relay_torrc(relay, TORRC, DATA, 1_800_000_000).splitlines()


def test_client_lines_name_the_authorities() -> None:
    assert (
        "TestingTorNetwork 1\nLearnCircuitBuildTimeout 0\nCircuitBuildTimeout 10\n"
        f"DirAuthority authority1 orport=9001 no-v2 v3ident={'B' * 40}"
        f" 198.18.1.1:9030 {'A' * 40}\n"
    ) == TORRC


def test_relays_have_names_and_addresses_of_their_own() -> None:
    relays = list(NETWORK.relays())
    assert len(relays) == 8
    for attribute in ("nickname", "address4"):
        assert len({getattr(relay, attribute) for relay in relays}) == 8
    assert [relay.address6 for relay in relays if relay.address6] == [
        "2001:db8:3::1",
        "2001:db8:3::2",
    ]


def test_endpoints_are_what_the_relays_listen_on() -> None:
    for relay in NETWORK.relays():
        listening = {
            line.split(" ", 1)[1]
            for line in relay_torrc(relay)
            if line.startswith(("ORPort ", "DirPort "))
        }
        literal = {f"[{a}]:{p}" if ":" in a else f"{a}:{p}" for a, p in relay.endpoints}
        assert listening == literal


@pytest.mark.parametrize("relay", list(NETWORK.relays()), ids=lambda relay: relay.nickname)
def test_only_exits_exit(relay: Relay) -> None:
    lines = relay_torrc(relay)
    assert ("ExitPolicy accept *:*" in lines) == (relay.role == "exit")
    assert ("IPv6Exit 1" in lines) == (relay.role == "exit")
    bound = {line.split()[1].strip("[]") for line in lines if line.startswith("OutboundBind")}
    assert bound == {address for address in (relay.address4, relay.address6) if address}


def test_only_authorities_ask_for_a_consensus_before_there_is_one() -> None:
    for relay in NETWORK.relays():
        offline = "FetchServerDescriptors 0" in relay_torrc(relay)
        assert offline == (relay.role != "authority")


def test_no_address_outside_the_documentation_ranges() -> None:
    text = render.internet_links(NETWORK) + render.dnsmasq_conf(DATA)
    text += render.internet_cables(PIDS) + render.gateway_links(PIDS)
    for machine in topology.MACHINES:
        text += render.machine_links(machine) + render.resolv_conf(machine.resolver)
    for relay in NETWORK.relays():
        text += "\n".join(relay_torrc(relay))
    found = {ipaddress.ip_address(word) for word in re.findall(r"\d+\.\d+\.\d+\.\d+", text)}
    assert found
    assert all(address in LAB4 for address in found)
    six = {ipaddress.ip_address(word) for word in re.findall(r"2[0-9a-f]{3}:[0-9a-f:]+", text)}
    assert six
    assert all(address in LAB6 for address in six)


def test_links_answer_for_every_address() -> None:
    text = render.internet_links(NETWORK)
    for relay in NETWORK.relays():
        assert f"address add {relay.address4}/32 dev lo\n" in text
    for address in (topology.WEB6, topology.DNS6, topology.STRANGER6, "2001:db8:3::2"):
        assert f"address add {address}/128 dev lo nodad\n" in text


def test_every_machine_has_one_cable_to_its_link() -> None:
    cables = {"internet": render.internet_cables(PIDS), "gateway": render.gateway_links(PIDS)}
    for machine in topology.MACHINES:
        pid = PIDS[machine.name]
        holder = "gateway" if machine.name == "container" else "internet"
        text = cables.pop(holder)
        assert f"link add {machine.port} type veth peer name eth0 netns {pid}\n" in text
        assert f"link set {machine.port} master {machine.link.bridge} up\n" in text
        cables[holder] = text.replace(f"peer name eth0 netns {pid}\n", "")
    assert "peer name eth0" not in "".join(cables.values())
    assert f"link add lan0 type veth peer name eth1 netns {PIDS['gateway']}\n" in cables["internet"]


def test_the_switch_has_no_addresses() -> None:
    text = render.internet_cables(PIDS)
    for name in ("switch0", "lan0", "lan1", "lan2", "lan3"):
        assert f"dev {name}" not in text
        assert re.search(rf"^link set {name} (arp off )?addrgenmode none$", text, re.MULTILINE)


def test_machines_are_on_the_network_of_their_link() -> None:
    addresses = [address for m in topology.MACHINES for address in (m.address4, m.address6)]
    assert len(set(addresses)) == len(addresses)
    for machine in topology.MACHINES:
        for address, network, router in (
            (machine.address4, machine.link.network4, machine.link.router4),
            (machine.address6, machine.link.network6, machine.link.router6),
        ):
            assert ipaddress.ip_address(address) in ipaddress.ip_network(network)
            assert ipaddress.ip_address(router) in ipaddress.ip_network(network)
            assert address != router


def test_resolvers_of_the_clients() -> None:
    assert [client.resolver for client in topology.CLIENTS] == [
        *("198.18.8.1", "198.18.53.1", "2001:db8:53::1"),
    ]


def test_accounts_replace_those_of_the_same_name() -> None:
    lines = render.account_files(topology.ACCOUNTS)
    text = "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\nbobby:x:1::::\n"
    assert render.with_lines(text, lines["passwd"]).splitlines() == [
        "root:x:0:0::/root:/bin/sh",
        "bobby:x:1::::",
        "alice:x:61001:61001::/run/onionward-lab/home/alice:/bin/sh",
        "bob:x:61002:61002::/run/onionward-lab/home/bob:/bin/sh",
        "carol:x:61003:61003::/run/onionward-lab/home/carol:/bin/sh",
    ]
    assert lines["subuid"] == lines["subgid"] == ["bob:900000:65536"]


@pytest.mark.parametrize("now", [1_800_000_000.0, 1_800_000_000.999, 1_799_999_999.5, 86399.9])
def test_the_vote_begins_within_the_next_second(now: float) -> None:
    valid_after = render.first_consensus_at(now)
    begin = valid_after - render.INITIAL_VOTE_DELAY - render.INITIAL_DIST_DELAY
    assert int(now) < begin <= int(now) + 1
    assert (valid_after % 86400 - render.voting_offset(valid_after)) % render.VOTING_INTERVAL == 0
    assert 0 <= render.voting_offset(valid_after) < render.VOTING_INTERVAL


def test_voting_intervals_fit_into_a_day() -> None:
    assert 86400 % render.VOTING_INTERVAL == 0


def test_onion_services_have_directories_of_their_own() -> None:
    lines = render.onion_torrc(TORRC, DATA, TorNetwork(onion_services=2)).splitlines()
    wanted = [f"HiddenServiceDir {DATA}/service{number}" for number in (1, 2)]
    assert [line for line in lines if line.startswith("HiddenServiceDir")] == wanted
    assert "DisableNetwork 1" in lines


def test_the_host_is_told_where_the_network_is() -> None:
    assert render.onionward_toml() == ('[tor]\nnetwork = "/run/onionward-lab/network.torrc"\n')


@pytest.mark.parametrize(
    "counts", [{"authorities": 0}, {"exits": 0}, {"middles": 251}, {"onion_services": -1}]
)
def test_networks_that_cannot_be(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a Tor network needs"):
        TorNetwork(**counts)


def example() -> Lab:
    return Lab(
        name="x",
        directory=Path("/run/onionward-lab/x"),
        hosts={"host": Host("host", 12)},
        onions=("a.onion",),
        relays=(("198.18.1.1", 9001), ("2001:db8:3::1", 9001)),
        exits=("198.18.3.1",),
    )


def test_lab_survives_its_file() -> None:
    assert Lab.from_json(example().to_json()) == example()
    assert example().onion == "a.onion"


def test_addresses_of_the_clients() -> None:
    assert (example().client4(1), example().client6(3)) == ("198.18.8.11", "2001:db8:8::13")
    with pytest.raises(LabError, match="no client4"):
        example().client4(4)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"directory": 1}'])
def test_files_that_are_no_lab(text: str) -> None:
    with pytest.raises(LabError, match=r"lab\.json"):
        Lab.from_json(text)


def test_command_enters_every_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/a:/b")
    argv = Host("host", 12).command(["id", "-u"], user="visitor")
    assert argv[:3] == ["nsenter", "--target", "12"]
    assert {"--mount", "--net", "--uts", "--ipc", "--pid"} <= set(argv)
    assert argv[-2:] == ["id", "-u"]
    assert argv[argv.index("runuser") + 2] == "visitor"
    assert argv[-3].endswith(":/a:/b")
    assert "runuser" not in Host("host", 12).command(["id"])


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 200_000])
def test_content_has_its_size(size: int) -> None:
    whole = b"".join(services.content(size))
    assert len(whole) == size
    assert whole == b"".join(services.content(size + 1))[:size]


CERTIFICATE = "dir-key-certificate-version 3\nfingerprint {0}\ndir-key-expires {1} 00:00:00\n"


def cached_keys(directory: Path, days: int) -> Path:
    expires = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=days)
    text = CERTIFICATE.format("C" * 40, expires)
    (directory / "authority_certificate").write_text(text)
    (directory / "fingerprint").write_text("D" * 40 + "\n")
    for name in ("authority_signing_key", "secret_id_key"):
        (directory / name).touch()
    return directory


def test_fingerprints_of_cached_keys(tmp_path: Path) -> None:
    found = keys.read_fingerprints(cached_keys(tmp_path, 300))
    assert found == AuthorityKeys(identity="D" * 40, v3ident="C" * 40)


@pytest.mark.parametrize(("days", "usable"), [(300, True), (20, False), (-1, False)])
def test_keys_that_expire_soon_are_not_used(tmp_path: Path, days: int, *, usable: bool) -> None:
    now = datetime.datetime.now(datetime.UTC)
    assert keys.are_usable(cached_keys(tmp_path, days), now) == usable


@pytest.mark.parametrize(
    "missing", ["authority_certificate", "fingerprint", "authority_signing_key", "secret_id_key"]
)
def test_incomplete_keys_are_not_used(tmp_path: Path, missing: str) -> None:
    (cached_keys(tmp_path, 300) / missing).unlink()
    assert not keys.are_usable(tmp_path, datetime.datetime.now(datetime.UTC))


def serve(path: Path, *answers: bytes) -> threading.Thread:
    """A tor that gives these answers, then hangs up."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def answer() -> None:
        with listening, listening.accept()[0] as peer:
            for text in answers:
                peer.recv(1000)
                peer.sendall(text)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return thread


def test_control_reads_every_form_of_answer(tmp_path: Path) -> None:
    data = b"250+desc/all=\r\nrouter a\r\nrouter b\r\n.\r\n250-more=1\r\n250 OK\r\n"
    serve(tmp_path / "c", b"250 OK\r\n", data, b"250 OK\r\n650 HS_DESC UPLOADED x\r\n")
    with Control(tmp_path / "c") as control:
        assert control.ask("GETINFO desc/all").splitlines() == [
            *("desc/all=", "router a", "router b", "more=1", "OK"),
        ]
        control.ask("SETEVENTS HS_DESC")
        events = control.events()
        assert next(events) == "HS_DESC UPLOADED x"
        with pytest.raises(LabError, match="nothing more"):
            next(events)


def test_control_tells_what_was_refused(tmp_path: Path) -> None:
    serve(tmp_path / "c", b"250 OK\r\n", b"552 Unrecognized option\r\n")
    with Control(tmp_path / "c") as control, pytest.raises(LabError, match="552 Unrecognized"):
        control.ask("SETCONF Nothing=1")


def test_control_without_tor(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="does not listen"):
        Control(tmp_path / "nobody")
