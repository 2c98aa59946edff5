"""What old setups meant: every block of the wiki's article, and what has grown out of it."""

from __future__ import annotations

import tomllib
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward.config import parse
from onionward.errors import ConfigError, RefusedError
from onionward.importing import read, to_toml
from onionward.importing.words import commands
from onionward.networks import of_version

OLD = Path(__file__).parent / "old_setups"
HOST, BYPASS = "host = tor", "bypass = 192.168.0.0/23"
MAPPED = "virtual = 10.192.0.0/10"

# a block alone says no more than this; what says nothing of scopes routes the host
MEANS = {
    "01.torrc": {HOST, MAPPED},
    "03.sh": {HOST, BYPASS},
    "04.torrc": {HOST, MAPPED},
    "05.sh": {"host = direct", "lan = eth0"},
    "06.torrc": {HOST, MAPPED},
    "08.sh": {HOST, "lan = eth0", BYPASS},
    "10.torrc": {HOST, MAPPED},
    "12.sh": {"host = direct", "user = anonymous"},
    "16.sh": {"host = direct", "user = anonymous"},
    "18.sh": {"host = direct", "user = anonymous, control"},
    "19.torrc": {HOST, MAPPED},
    "21.sh": {"host = onion"},
    "27.pf": {HOST, BYPASS},
    "28.pf": {HOST, BYPASS},
    "29.torrc": {HOST, MAPPED},
    "30.pf": {"host = direct", "lan = fxp0"},
    "31.pf": {"host = direct", "lan = fxp0"},
    "32.torrc": {HOST, MAPPED},
    "37.pf": {HOST, "lan = fxp0", BYPASS},
    "38.pf": {HOST, "lan = fxp0", BYPASS},
    "39.firehol": {HOST, "lan = eth1"},
}


def imported(*files: tuple[str, str]) -> tuple[set[str], str]:
    """What the configuration says, read by onionward itself, and the whole text."""
    text = to_toml(read(files))
    config = parse(text, "imported.toml")
    networks = ", ".join(map(str, of_version(config.bypass.networks, 4)))
    says = {f"host = {config.host_route}"}
    says |= {f"lan = {lan.interface}" for lan in config.lan}
    says |= {f"user = {u.name}{', control' if u.control else ''}" for u in config.user}
    says |= {f"bypass = {networks}"} if networks else set()
    if config.tor.virtual_networks != "auto":
        says |= {f"virtual = {network}" for network in config.tor.virtual_networks}
    return says, text


@pytest.mark.parametrize("path", sorted(OLD.iterdir()), ids=lambda path: path.name)
def test_each_block_means(path: Path) -> None:
    says, text = imported((path.name, path.read_text()))
    assert says == MEANS.get(path.name, {HOST}), text


def test_torrc_and_rules_together() -> None:
    files = [(n, (OLD / n).read_text()) for n in ("04.torrc", "05.sh")]
    says, text = imported(*files)
    assert says == {"host = direct", "lan = eth0", MAPPED}
    assert "04.torrc:4: TransListenAddress is an option that tor no longer has" in text
    files = [(n, (OLD / n).read_text()) for n in ("06.torrc", "07.sh", "08.sh")]
    assert imported(*files)[0] == {HOST, "lan = eth0", BYPASS, MAPPED}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("03.sh", "there was not one rule for IPv6"),
        ("03.sh", "ESTABLISHED was accepted: connections from before went on in clear"),
        ("03.sh", "192.168.1.0/24 was reached for name resolution, too"),
        ("03.sh", "--syn: only what opens a connection was redirected"),
        ("03.sh", "03.sh:5: flushing: rules of others stay"),
        ("08.sh", "clients reached 192.168.1.0/24 around Tor"),
        ("12.sh", "what anonymous sends without a socket"),
        ("18.sh", "anonymous may speak to tor's control port, through a filter"),
        ("30.pf", "set skip on lo: nothing was judged there"),
        ("06.torrc", "DNSListenAddress is an option that tor no longer has"),
        ("39.firehol", "eth+ stands for any number of interfaces"),
    ],
)
def test_what_was_changed_is_said(name: str, words: str) -> None:
    assert words in to_toml(read([(name, (OLD / name).read_text())]))


DESCENDANT = """\
#!/usr/bin/env bash
readonly torrc="/etc/tor/torrc"
TOR_UID=$(id -u debian-tor)
TOR_EXCLUDE="192.168.0.0/16 172.16.0.0/12 10.0.0.0/8"
start() {
    if [[ -f $torrc ]]; then
        cat > "$torrc" <<EOF
VirtualAddrNetworkIPv4 10.192.0.0/10
AutomapHostsOnResolve 1
TransPort 9040 IsolateClientAddr
DNSPort 53
EOF
    fi
    sysctl -w net.ipv6.conf.all.disable_ipv6=1 >/dev/null 2>&1
    iptables -t nat -A OUTPUT -m owner --uid-owner "$TOR_UID" -j RETURN
    for NET in $TOR_EXCLUDE 127.0.0.0/9 224.0.0.0/4; do
        iptables -t nat -A OUTPUT -d "$NET" -j RETURN
    done
    iptables -t nat -A OUTPUT -p tcp --syn -j REDIRECT --to-ports 9040
    iptables -A INPUT -p tcp --dport 22 -m state --state NEW -j ACCEPT
}
case "$1" in
    start) start ;;
esac
"""


def test_a_descendant_that_leaks_its_onion_names() -> None:
    says, text = imported(("anon.sh", DESCENDANT))
    assert says == {HOST, "bypass = 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16"}
    assert (
        "anon.sh:8: names were mapped into 10.192.0.0/10: it lies in 10.0.0.0/8, which is reached "
        "directly: .onion names would have left" in text
    )
    assert "IPv6 was switched off: it goes through Tor like IPv4" in text
    assert "TCP 22 was open" in text


CERT = f"{'A' * 70} iat-mode=0"
BRIDGE = f"obfs4 192.0.2.1:443 {'0123456789' * 4} cert={CERT}"


def test_exits_and_bridges_of_a_torrc() -> None:
    text = to_toml(
        read(
            [
                (
                    "torrc",
                    "ExitNodes {DE}, {nl}\nExcludeExitNodes {us}\nStrictNodes 1\nUseBridges 1\n"
                    f"Bridge {BRIDGE}\nBridge 192.0.2.2:443\nBridge snowflake 192.0.2.3:80\n",
                )
            ]
        )
    )
    read_back = tomllib.loads(text)["tor"]
    assert read_back["exit_countries"] == ["de", "nl"]
    assert read_back["exclude_exit_countries"] == ["us"]
    assert read_back["bridges"] == [BRIDGE]
    assert parse(text, "o.toml").tor.bridges == (BRIDGE,)
    assert "torrc:6: Bridge 192.0.2.2:443: has no fingerprint" in text
    assert "torrc:7: Bridge snowflake 192.0.2.3:80: the transport snowflake is not sup" in text


def test_exits_that_are_single_relays_are_left_out() -> None:
    text = to_toml(read([("torrc", f"ExitNodes {{de}},{'A' * 40}\nExcludeExitNodes {{zz}}\n")]))
    assert "exit_countries" not in text
    assert text.count("only countries can be named, not single relays") == 2


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(RefusedError, match="firewall is no text"):
        read([("firewall", "\x7fELF\0\0")])


NAT = "iptables -t nat"


@pytest.mark.parametrize(
    ("script", "means", "words"),
    [
        # chains of a script's own are what leads to them
        (
            f"{NAT} -N TOR\n{NAT} -A PREROUTING -i eth1 -j TOR\n{NAT} -A TOR -p tcp -j REDIRECT "
            "--to-ports 9040",
            {"host = direct", "lan = eth1"},
            "s.sh:3: clients behind eth1 go through Tor",
        ),
        (
            f"{NAT} -A ONE -j TWO\n{NAT} -A TWO -p tcp -j REDIRECT --to-ports 9040\n"
            f"{NAT} -A OUTPUT -m owner --uid-owner alice -g ONE\n{NAT} -A TWO -j ONE",
            {"host = direct", "user = alice"},
            "the account alice goes through Tor",
        ),
        (
            f"{NAT} -A TOR -p tcp -j REDIRECT --to-ports 9040\n{NAT} -A OUTPUT -j TOR\n"
            f"{NAT} -A PREROUTING -i wlan0 -j TOR",
            {HOST, "lan = wlan0"},
            "",
        ),
        # exceptions
        (
            f"{NAT} -A OUTPUT ! -d 192.168.0.0/23 -p tcp -j REDIRECT --to-ports 9040",
            {HOST, BYPASS},
            "",
        ),
        (
            f"{NAT} -A OUTPUT -m owner ! --uid-owner debian-tor -p tcp -j REDIRECT --to-ports 9040",
            {HOST},
            "tor's own traffic leaves",
        ),
        (
            f"{NAT} -A OUTPUT -m owner --gid-owner debian-tor -j RETURN\n"
            f"{NAT} -A OUTPUT -m owner --uid-owner backup -j RETURN\n"
            f"{NAT} -A OUTPUT -p tcp --dport 22 -j RETURN\n"
            f"{NAT} -A OUTPUT -p tcp -j REDIRECT --to-ports 9040",
            {HOST},
            "s.sh:2: what backup sent left in clear; it goes through Tor now",
        ),
        (
            f"{NAT} -A OUTPUT -p tcp --dport 22 -j RETURN\n{NAT} -A OUTPUT -p tcp -j REDIRECT",
            {HOST},
            "names no network: what it let out goes through Tor now",
        ),
        # what cannot be said in a configuration is said loudly
        (
            f"{NAT} -A OUTPUT -m owner --gid-owner family -p tcp -j REDIRECT --to-ports 9040\n"
            f"{NAT} -A OUTPUT -m owner --uid-owner alice -p tcp -j REDIRECT --to-ports 9040",
            {"host = direct", "user = alice"},
            "NOT COVERED: the group family",
        ),
        (
            f"{NAT} -A OUTPUT -m owner --uid-owner 1000-1010 -p tcp -j REDIRECT --to-ports 9040\n"
            f"{NAT} -A OUTPUT -m owner --uid-owner alice -p tcp -j REDIRECT --to-ports 9040",
            {"host = direct", "user = alice"},
            "NOT COVERED: user ids 1000-1010",
        ),
        (
            "iptables -t mangle -A PREROUTING -i eth1 -p tcp -j TPROXY --on-port 9040",
            {"host = direct", "lan = eth1"},
            "",
        ),
        (
            f"TransPort 127.0.0.1:9040\nDNSPort 53\n"
            f"{NAT} -A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 3128\n"
            f"{NAT} -A OUTPUT -p tcp -j REDIRECT --to-ports 9040",
            {HOST},
            "s.sh:3: port 3128 is none of tor's in the torrc",
        ),
    ],
)
def test_what_rules_mean(script: str, means: set[str], words: str) -> None:
    says, text = imported(("s.sh", script))
    assert says == means, text
    assert words in text, text


HOST_RULE = f"{NAT} -A OUTPUT -p tcp -j REDIRECT --to-ports 9040"
ONION_RULE = f"{NAT} -A OUTPUT -d 10.192.0.0/10 -p tcp -j REDIRECT --to-ports 9040"
LOCAL = "bypass = 192.168.5.0/24"


@pytest.mark.parametrize(
    ("script", "means", "words"),
    [
        # everything, written as a network
        (f"{NAT} -A OUTPUT -d 0.0.0.0/0 -p tcp -j REDIRECT --to-ports 9040", {HOST}, ""),
        (f"{NAT} -A OUTPUT -d 0/0 --syn -p tcp -j REDIRECT --to-ports 9040", {HOST}, ""),
        (
            f"{NAT} -A OUTPUT -d 5.5.5.0/24 -p tcp -j REDIRECT --to-ports 9040",
            {HOST},
            "only 5.5.5.0/24 went through Tor, and there is no such scope",
        ),
        # what was refused must not leave in clear
        (
            f"iptables -P OUTPUT DROP\n{ONION_RULE}",
            {HOST},
            "s.sh:1: everything else that this machine sent was refused",
        ),
        (f"{ONION_RULE}\niptables -A OUTPUT -j REJECT", {HOST}, "was refused"),
        (f"{ONION_RULE}\niptables -t mangle -A OUTPUT ! -o lo -j DROP", {HOST}, "was refused"),
        (f"{ONION_RULE}\niptables -A OUTPUT -d 5.5.5.5 -j DROP", {"host = onion"}, ""),
        (f"{ONION_RULE}\niptables -P FORWARD DROP", {"host = onion"}, ""),
        (f"*filter\n:OUTPUT DROP [0:0]\nCOMMIT\n{ONION_RULE}", {HOST}, "was refused"),
        # less than a network is none
        (
            f"{HOST_RULE}\niptables -A OUTPUT -d 9.9.9.0/24 -p udp --dport 51820 -j ACCEPT",
            {HOST},
            "9.9.9.0/24 was let out by the filter, but its TCP was redirected",
        ),
        (
            f"{HOST_RULE}\n{NAT} -I OUTPUT -m owner --uid-owner carol -d 10.6.0.0/16 -j RETURN",
            {HOST},
            "10.6.0.0/16 was let out only in part (--uid-owner)",
        ),
        (
            f"{HOST_RULE}\n{NAT} -I OUTPUT -p udp --dport 123 -d 10.6.0.0/16 -j RETURN",
            {HOST},
            "in part (--dport -p)",
        ),
        (f"{HOST_RULE}\n{NAT} -I OUTPUT -s 10.6.0.1 -d 10.6.0.0/16 -j RETURN", {HOST}, "(-s)"),
        (
            f"{NAT} -I OUTPUT -p tcp -d 192.168.5.0/24 -j RETURN\n{HOST_RULE}",
            {HOST, LOCAL},
            "192.168.5.0/24 was excepted for TCP",
        ),
        # what is redirected before an exception from it, and after
        *(
            (
                "\n".join([*rules, HOST_RULE]),
                {HOST, "bypass = 10.0.0.0/9, 10.128.0.0/10"},
                "10.0.0.0/8 is reached directly but for 10.192.0.0/10, which goes to tor",
            )
            for rules in permutations((ONION_RULE, f"{NAT} -A OUTPUT -d 10.0.0.0/8 -j RETURN"))
        ),
        *(
            (
                f"{HOST_RULE}\n{NAT} -I OUTPUT ! {what} -d 10.6.0.0/16 -j RETURN",
                {HOST},
                "only in part",
            )
            for what in ("-p tcp", "--dport 80", "-s 10.6.0.1")
        ),
        (
            f"{NAT} -A OUTPUT -m owner ! --uid-owner tor -j TOR\n"
            f"{NAT} -A TOR -d 192.168.5.0/24 -j RETURN\n{NAT} -A TOR -p tcp -j REDIRECT",
            {HOST, LOCAL},
            "",
        ),
        (
            f"{NAT} -A OUTPUT -m owner --uid-owner eve -p tcp -j REDIRECT\n"
            "iptables -A OUTPUT -d 9.9.9.0/24 -j ACCEPT",
            {"host = direct", "user = eve"},
            "9.9.9.0/24: nothing is bypassed where this host is not routed",
        ),
        (
            f"iptables -P OUTPUT DROP\niptables -A OUTPUT -d 9.9.9.0/24 -j ACCEPT\n{ONION_RULE}",
            {HOST},
            "9.9.9.0/24 was let out of what was refused",
        ),
        # an exception that is taken back is none; what else is taken back is said
        (
            f"{NAT} -I OUTPUT -d 10.7.0.0/16 -j RETURN\n{HOST_RULE}\n"
            f"{NAT} -D OUTPUT -d 10.7.0.0/16 -j RETURN",
            {HOST},
            "",
        ),
        (
            f"{HOST_RULE}\n{NAT} -D OUTPUT -p tcp -j REDIRECT --to-ports 9040",
            {HOST},
            "s.sh:2: a rule is deleted: taken as if s.sh:1 stayed",
        ),
        (
            f"{NAT} -I OUTPUT -d 10.7.0.0/16 -j RETURN\n{HOST_RULE}\n"
            f"{NAT} --delete OUTPUT -d 10.7.0.0/16 -j RETURN",
            {HOST},
            "",
        ),
        (f"{HOST_RULE}\n{NAT} -D OUTPUT -j RETURN", {HOST}, "deletes a rule that no line before"),
        # functions may never be called
        (
            f"{HOST_RULE}\nstop() {{ {NAT} -A OUTPUT -d 192.168.5.0/24 -j ACCEPT; }}",
            {HOST, LOCAL},
            "Look whether these were reached directly at all: 192.168.5.0/24",
        ),
        # ways to write it
        (
            "iptables --table=nat --insert OUTPUT --destination=192.168.5.0/24 --jump RETURN\n"
            "iptables -tnat -AOUTPUT -ptcp -jREDIRECT --to-p 9040",
            {HOST, LOCAL},
            "",
        ),
        (
            "*nat\n:OUTPUT ACCEPT [0:0]\n[12:340] -A OUTPUT -d 192.168.5.0/24 -j RETURN\n"
            "[0:0] -A OUTPUT -p tcp -j REDIRECT --to-ports 9040\nCOMMIT",
            {HOST, LOCAL},
            "",
        ),
        (
            f"{HOST_RULE}\necho don't\n{NAT} -I OUTPUT -d 192.168.5.0/24 -j RETURN",
            {HOST, LOCAL},
            "",
        ),
        (f"{HOST_RULE}\n{NAT} -A PREROUTING -i lo -p tcp -j REDIRECT", {HOST}, "nobody is behind"),
        # accounts and their control port
        (
            f"{NAT} -A OUTPUT -d 127.0.0.1 -p tcp --dport 9051 -m owner --uid-owner eve -j ACCEPT",
            {HOST},
            "eve spoke to tor's control port",
        ),
        ("vim /etc/tor/torrc", {HOST}, "s.sh: nothing in it is about who goes where"),
        ("", {HOST}, "nothing in it is about who goes where"),
    ],
)
def test_nothing_becomes_less_safe_unsaid(script: str, means: set[str], words: str) -> None:
    says, text = imported(("s.sh", script))
    assert says == means, text
    assert words in text, text


def test_names_find_room_beside_a_bypass() -> None:
    exception = "ip6tables -t nat -A OUTPUT -d {} -j RETURN"
    found = read([("s.sh", f"{HOST_RULE}\n{exception.format('fd00::/8')}")])
    assert (str(found.virtual[6][0]), len(found.bypass)) == ("fc5a:7011::/32", 1)
    found = read([("s.sh", f"{HOST_RULE}\n{exception.format('fc00::/7')}")])
    assert found.bypass == {}
    assert "fc00::/7 leaves no room" in to_toml(found)


def test_without_its_bridges_no_configuration_is_taken() -> None:
    """The link would see that this is Tor."""
    text = to_toml(read([("torrc", f"UseBridges 1\nBridge snowflake 192.0.2.3:80 {'2B' * 20}\n")]))
    assert "none of the bridges can be used" in text
    with pytest.raises(ConfigError, match=r"tor\.bridges"):
        parse(text, "imported.toml")
    says, text = imported(("torrc", "UseBridges 0\n"))
    assert "bridges" not in text
    assert says == {HOST}


def test_isolation_of_a_torrc() -> None:
    flags = "IsolateDestAddr IsolateClientAddr IsolateSOCKSAuth"
    text = to_toml(read([("torrc", f"TransPort 127.0.0.1:9040 {flags}\n")]))
    assert parse(text, "imported.toml").tor.isolate_destinations
    assert "TransPort … IsolateSOCKSAuth: there is nothing like it here" in text


def test_rules_of_pf_that_know_ipv6_and_names() -> None:
    rules = (
        "block return out\npass out quick route-to lo1 inet proto udp to port domain keep state\n"
    )
    text = to_toml(read([("pf.conf", rules)]))
    assert "IPv6" not in text
    assert "names are asked of tor's resolver" in text
    assert "not understood" not in text


@pytest.mark.parametrize("words", ["x", "$n", f"{NAT} -A OUTPUT -d $n -j RETURN"])
def test_what_is_too_long_is_refused_and_not_cut(words: str) -> None:
    numbers = " ".join(f"10.{n // 256}.{n % 256}.0/24" for n in range(10_001))
    with pytest.raises(RefusedError, match=r"s\.sh: line 1: more than 10000 commands"):
        read([("s.sh", f"for n in {numbers}; do {words}; done\n{HOST_RULE}")])


def test_a_loop_of_chains_ends() -> None:
    rules = [f"{NAT} -A {a} -j {b}" for a in "XYZ" for b in "XYZ"]
    rules += [f"{NAT} -A OUTPUT -j X", f"{NAT} -A Z -p tcp -j REDIRECT --to-ports 9040"]
    assert imported(("s.sh", "\n".join(rules)))[0] == {HOST}


def test_what_iptables_save_prints() -> None:
    text = "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -j REDIRECT --to-ports 9040\nCOMMIT\n"
    assert imported(("rules.v4", text))[0] == {HOST}


def test_words_of_a_shell() -> None:
    text = "A=\"x y\"; for i in $A 'z z'; do\n  run \"$i\" \\\n    ${A:-no} '$A' # no\ndone && end"
    assert [command.words for command in commands(text)] == [
        ("run", "x", "x", "y", "$A"),
        ("run", "y", "x", "y", "$A"),
        ("run", "z z", "x", "y", "$A"),
        ("end",),
    ]
    assert [command.line for command in commands(text)] == [2, 2, 2, 4]


def test_nothing_is_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    read([("evil.sh", f"touch {witness}; x=$(touch {witness}); `touch {witness}`\n")])
    assert not witness.exists()


@given(st.lists(st.sampled_from([*DESCENDANT.split(), "for", "do", "done", "'", '"', "\n", "{"])))
def test_whatever_it_is_a_configuration_comes_out(words: list[str]) -> None:
    imported(("any.sh", " ".join(words)))


def test_ipv6_that_is_switched_on_again_is_not_called_switched_off() -> None:
    _, text = imported(
        (
            "stop.sh",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0\n"
            + "iptables -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 9040\n",
        )
    )
    assert "switched off" not in text
    assert "there was not one rule for IPv6" in text


def test_a_redirection_of_what_is_printed_is_no_separator() -> None:
    words = [c.words for c in commands("a 2>&1\nb >&2 && c\nd &>/dev/null\ne & f\n")]
    assert [w[0] for w in words] == ["a", "b", "c", "d", "e", "f"]
