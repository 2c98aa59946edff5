"""A stand-in for a BSD machine: pfctl, ifconfig, netstat and tor with a state that changes.

It prints what the real ones print, as far as it is read, and refuses what the grammar of its pf
does not know. What a packet would meet is asked of the evaluator after every change.
"""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from onionward.bsd import pf_conf
from onionward.bsd.kind import Kind
from onionward.errors import CommandError
from onionward.explain import Packet
from onionward.paths import Paths
from onionward.policy import Policy
from onionward.system import DIES_WITH_US
from tests.pf.grammar import Anchor, GrammarError, parse
from tests.pf.machine import Machine
from tests.support import LocalSystem, addr

PUBLIC = addr("1.1.1.1")

IFCONFIG = {
    "openbsd": """\
lo0: flags=2008049<UP,LOOPBACK,RUNNING,MULTICAST,LRO> mtu 32768
	index 3 priority 0 llprio 3
	groups: lo
	inet6 ::1 prefixlen 128
	inet6 fe80::1%lo0 prefixlen 64 scopeid 0x3
	inet 127.0.0.1 netmask 0xff000000
em0: flags=808843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST,AUTOCONF4> mtu 1500
	lladdr 02:00:5e:00:00:01
	index 1 priority 0 llprio 3
	groups: egress
	media: Ethernet autoselect (1000baseT full-duplex)
	status: active
	inet 198.18.0.2 netmask 0xffffff00 broadcast 198.18.0.255
	inet6 fe80::5eff:fe00:1%em0 prefixlen 64 scopeid 0x1
	inet6 2001:db8:18::2 prefixlen 64
em1: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> mtu 1500
	lladdr 02:00:5e:00:00:02
	index 2 priority 0 llprio 3
	media: Ethernet autoselect (1000baseT full-duplex)
	status: active
	inet 198.18.8.1 netmask 0xffffff00 broadcast 198.18.8.255
pflog0: flags=141<UP,RUNNING,PROMISC> mtu 33136
	index 4 priority 0 llprio 3
	groups: pflog
""",
    "freebsd": """\
em0: flags=1008843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST,LOWER_UP> metric 0 mtu 1500
	options=48505bb<RXCSUM,TXCSUM,VLAN_MTU,VLAN_HWTAGGING,JUMBO_MTU,VLAN_HWCSUM,TSO4,LRO>
	ether 02:00:5e:00:00:01
	inet 198.18.0.2 netmask 0xffffff00 broadcast 198.18.0.255
	inet6 fe80::5eff:fe00:1%em0 prefixlen 64 scopeid 0x1
	inet6 2001:db8:18::2 prefixlen 64
	media: Ethernet autoselect (1000baseT <full-duplex>)
	status: active
	nd6 options=23<PERFORMNUD,ACCEPT_RTADV,AUTO_LINKLOCAL>
em1: flags=1008843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST,LOWER_UP> metric 0 mtu 1500
	ether 02:00:5e:00:00:02
	inet 198.18.8.1 netmask 0xffffff00 broadcast 198.18.8.255
	status: active
lo0: flags=1008049<UP,LOOPBACK,RUNNING,MULTICAST,LOWER_UP> metric 0 mtu 16384
	options=680003<RXCSUM,TXCSUM,LINKSTATE,RXCSUM_IPV6,TXCSUM_IPV6>
	inet 127.0.0.1 netmask 0xff000000
	inet6 ::1 prefixlen 128
	inet6 fe80::1%lo0 prefixlen 64 scopeid 0x3
	groups: lo
	nd6 options=21<PERFORMNUD,AUTO_LINKLOCAL>
""",
}
ROUTES = {
    "openbsd": """\
Routing tables

Internet:
Destination        Gateway            Flags   Refs      Use   Mtu  Prio Iface
default            198.18.0.1         UGS        5       20     -     8 em0
198.18.0/24        198.18.0.2         UCn        1        0     -     4 em0
127/8              127.0.0.1          UGRS       0        0 32768     8 lo0

Internet6:
Destination                        Gateway                        Flags   Refs      Use   Mtu  Prio Iface
default                            fe80::1%em0                    UGS        0        0     -    56 em0
::1                                ::1                            UHhl      10       12 32768     1 lo0
""",  # noqa: E501
    "freebsd": """\
Routing tables

Internet:
Destination        Gateway            Flags         Netif Expire
default            198.18.0.1         UGS             em0
127.0.0.1          link#3             UH              lo0
198.18.0.0/24      link#1             U               em0

Internet6:
Destination                       Gateway                       Flags         Netif Expire
::1                               link#3                        UHS             lo0
""",
}
NETSTAT = """\
Active Internet connections (including servers)
Proto   Recv-Q Send-Q  Local Address          Foreign Address        (state)
tcp          0      0  198.18.0.2.22          198.18.0.77.50123      ESTABLISHED
tcp          0      0  198.18.0.2.40001       203.0.113.9.443        ESTABLISHED
tcp          0      0  *.22                   *.*                    LISTEN
tcp          0      0  127.0.0.1.25           *.*                    LISTEN
udp          0      0  *.*                    *.*
tcp6         0      0  *.22                   *.*                    LISTEN
"""


class Bsd(LocalSystem):
    """One machine; a test may change what it has."""

    def __init__(self, kind: Kind, paths: Paths, policy: Policy | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.paths = paths
        self.policy = policy
        self.enabled = kind.name == "openbsd"
        self.module = kind.name == "openbsd"
        self.main = ""
        self.anchors: dict[str, str] = {}
        self.lo1 = False
        self.tor: int | None = None
        self.connections = NETSTAT.splitlines()
        self.stubborn = False
        self.dropped: list[str] = []
        self.ended: list[str] = []
        self.states_cleared = 0
        self.fates: list[str] = []
        self.refuses = ""
        self.survives: int | None = None

    def effect(self, words: str) -> None:
        self.fates.append(self.fate())
        if self.survives is not None and len(self.effects) == self.survives:
            raise DeathError(words)
        super().effect(words)

    def fate(self) -> str:
        """What becomes of a connection of an ordinary account to a public address, now."""
        listed = pf_conf.statements(self.main, "main")
        first = next((s for s in listed if s.is_filter), None)
        text = self.anchors.get("onionward", "")
        skipped = re.search(r"^set skip on .*\blo\b", self.main, re.M)
        if not self.enabled or first is None or not first.is_hook or not text or skipped:
            return "direct"
        assert self.policy is not None
        packet = Packet("tcp", PUBLIC, 443, 12345)
        return Machine(self.policy, self._parsed(text)).fate(packet)

    def _parsed(self, text: str) -> Anchor:
        return _read(text, self.kind.dialect)

    def kill(self, pid: int, number: signal.Signals) -> None:
        self.effect(f"kill -{number.name} {pid}")
        if pid == self.tor:
            self.tor = None

    def execute(
        self, argv: Sequence[str], *, stdin: str, timeout: float, accept: Sequence[int]
    ) -> str:
        del timeout, accept
        words = [*argv[len(DIES_WITH_US) :]] if tuple(argv[:4]) == DIES_WITH_US else [*argv]
        if self.refuses and " ".join(words).startswith(self.refuses):
            raise CommandError(words, 1, "pfctl: DIOCXCOMMIT: Device busy")
        match words[0]:
            case "pfctl":
                return self._pfctl(words, stdin)
            case "ifconfig":
                return self._ifconfig(words)
            case "netstat":
                if words[1] == "-rn":
                    return ROUTES[self.kind.name]
                return "".join(f"{line}\n" for line in self.connections)
            case "sysctl":
                return "1024\n49151\n" if self.kind.name == "openbsd" else "10000\n65535\n"
            case "tcpdrop":
                self.dropped.append(" ".join(words[1:]))
                local, peer = ".".join(words[1:3]), ".".join(words[3:5])
                left = [one for one in self.connections if one.split()[3:5] != [local, peer]]
                if len(left) == len(self.connections):
                    raise CommandError(words, 1, "tcpdrop: No such process")
                if not self.stubborn:
                    self.connections = left
                return ""
            case "kldload" | "kldunload":
                self.module = words[0] == "kldload"
                if not self.module:
                    self.main, self.anchors, self.enabled = "", {}, False
                return ""
            case "ps":
                if self.tor is None:
                    raise CommandError(words, 1, "")
                return f"/usr/local/bin/tor {' '.join(self._tor_words()[1:])}\n"
            case "tor":
                if "--verify-config" not in words:
                    self.tor = 4242
                    self.paths.tor_pid.write_text("4242\n")
                return ""
            case _:
                raise AssertionError(f"no such command here: {words}")

    def _tor_words(self) -> list[str]:
        from onionward.tor.process import command

        return command(self.paths.torrc)

    def _ifconfig(self, words: list[str]) -> str:
        if words[1:] == ["-a"]:
            lo1 = "lo1: flags=2008049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 32768\n\tgroups: lo\n"
            return IFCONFIG[self.kind.name] + (lo1 if self.lo1 else "")
        if words[2] == "create":
            self.lo1 = True
        elif not self.lo1:
            raise CommandError(words, 1, "ifconfig: interface lo1 does not exist")
        elif words[2] == "destroy":
            self.lo1 = False
        return ""

    def _pfctl(self, words: list[str], stdin: str) -> str:
        # what is only read needs no device (pfctl(8), -n)
        if not self.module and "-n" not in words:
            raise CommandError(words, 1, "pfctl: /dev/pf: No such file or directory")
        if "-k" in words:
            self.ended.append(" ".join(words[1:]))
            return ""
        options = {"-a": "", "-f": "", "-s": "", "-F": "", "-o": ""}
        flags = set()
        rest = iter(words[1:])
        for word in rest:
            if word in options:
                options[word] = next(rest)
            else:
                flags.add(word)
        anchor = options["-a"]
        if options["-f"]:
            text = stdin if options["-f"] == "-" else Path(options["-f"]).read_text()
            return self._load(words, anchor, text, dry="-n" in flags, verbose="-v" in flags)
        if options["-s"]:
            return self._show(words, anchor, options["-s"])
        if options["-F"]:
            return self._flush(anchor, options["-F"])
        if "-e" in flags:
            if self.enabled:
                raise CommandError(words, 1, "pfctl: pf already enabled")
            self.enabled = True
        elif "-d" in flags:
            self.enabled = False
        return ""

    def _load(self, words: list[str], anchor: str, text: str, *, dry: bool, verbose: bool) -> str:
        loads = {}
        if anchor:
            try:
                self._parsed(text)
            except (GrammarError, ValueError) as error:
                raise CommandError(words, 1, f"stdin: syntax error: {error}") from error
        else:
            for statement in pf_conf.statements(text, "/etc/pf.conf"):
                known = {"set", "table", "scrub", "load", "include", "queue"}
                good = statement.is_filter or statement.is_translation
                if not good and statement.word not in known:
                    words_of_it = f"{statement.place}: syntax error"
                    raise CommandError(words, 1, words_of_it)
                if found := re.match(r'load anchor "(\w+)" from "(.*)"', statement.text):
                    loads[found[1]] = Path(found[2]).read_text()
            for name, loaded in loads.items():
                self._load(words, name, loaded, dry=True, verbose=False)
        if not dry:
            if anchor:
                self.anchors[anchor] = text
            else:
                self.main = text
                self.anchors |= loads
        if not verbose:
            return ""
        printed = [
            self._printed(one, what, in_anchor=bool(anchor))
            for one in (text, *loads.values())
            for what in ("nat", "rules")
        ]
        return "".join(printed)

    def _show(self, words: list[str], anchor: str, what: str) -> str:
        if what == "info":
            state = "Enabled" if self.enabled else "Disabled"
            return f"Status: {state} for 0 days 00:12:34          Debug: err\n"
        if what == "nat" and self.kind.name == "openbsd":
            raise CommandError(words, 1, "pfctl: Unknown show modifier 'nat'")
        if anchor and anchor not in self.anchors:
            raise CommandError(words, 1, "pfctl: Anchor does not exist.")
        text = self.anchors[anchor] if anchor else self.main
        return self._printed(text, what, in_anchor=bool(anchor))

    def _flush(self, anchor: str, what: str) -> str:
        if what == "states":
            self.states_cleared += 1
        elif anchor:
            # tables and redirection go with the rules of what this keeps as one text
            if what == "rules":
                self.anchors.pop(anchor, None)
        elif what == "rules":
            self.main = ""
        return ""

    def _printed(self, text: str, what: str, *, in_anchor: bool) -> str:
        """Rules in the kernel's words: lists taken apart, `=` before numbers, what is implied."""
        lines = []
        for statement in pf_conf.statements(text, "printed"):
            wanted = statement.is_translation if what == "nat" else statement.is_filter
            if wanted:
                lines += self._canonical(statement.text, in_anchor=in_anchor)
        return "".join(f"{line}\n" for line in lines)

    def _canonical(self, line: str, *, in_anchor: bool) -> list[str]:
        parts = re.split(r"\{([^}]*)\}", line)
        fixed, lists = parts[::2], [re.split(r"[,\s]+", p.strip()) for p in parts[1::2]]
        found = []
        for chosen in itertools.product(*lists):
            pieces = itertools.chain.from_iterable(itertools.zip_longest(fixed, chosen))
            text = "".join(piece or "" for piece in pieces)
            text = re.sub(r"\b(port|user) (\d)", r"\1 = \2", text)
            text = text.replace("from any to any", "all" if " port " not in text else "")
            text = re.sub(r"\s+", " ", text).strip()
            if re.fullmatch(r'(rdr-)?anchor "\w+"', text):
                text += " all"
            if text.startswith("pass") and in_anchor and self.kind.name == "freebsd":
                text += " flags S/SA keep state" if "proto tcp" in text else " keep state"
            found.append(text)
        return found


@cache
def _read(text: str, dialect: str) -> Anchor:
    return parse(text, dialect)


class DeathError(BaseException):
    """No program can catch a kill."""
