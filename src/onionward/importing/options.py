"""Options of iptables and ip6tables (iptables(8)), in whatever way they are written."""

from __future__ import annotations

from onionward.importing.chains import Parsed

_WITH_VALUE = frozenset(
    [
        "-t",
        "-A",
        "-I",
        "-i",
        "-o",
        "-p",
        "-s",
        "-d",
        "-j",
        "-g",
        "-m",
        "-P",
        "--table",
        "--append",
        "--insert",
        "--in-interface",
        "--out-interface",
        "--protocol",
        "--source",
        "--destination",
        "--src",
        "--dst",
        "--jump",
        "--match",
        "--policy",
        "--dport",
        "--dports",
        "--destination-port",
        "--destination-ports",
        "--sport",
        "--sports",
        "--source-port",
        "--to-ports",
        "--to-port",
        "--to-destination",
        "--to-source",
        "--uid-owner",
        "--gid-owner",
        "--state",
        "--ctstate",
        "--reject-with",
        "--icmp-type",
        "--comment",
        "--set-mark",
        "--mark",
        "--limit",
        "--log-prefix",
        "--tcp-option",
        "-N",
        "-D",
        "-F",
        "-X",
        "--delete",
        "--flush",
        "--new-chain",
        "--delete-chain",
    ]
)
_SAME = {
    "--table": "-t",
    "--append": "-A",
    "--insert": "-A",
    "-I": "-A",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--protocol": "-p",
    "--source": "-s",
    "--src": "-s",
    "--destination": "-d",
    "--dst": "-d",
    "--jump": "-j",
    "--policy": "-P",
    "--delete": "-D",
    "--delete-chain": "-X",
    "--dports": "--dport",
    "--destination-port": "--dport",
    "--destination-ports": "--dport",
    "--to-port": "--to-ports",
    "--ctstate": "--state",
    "--flush": "-F",
}


def options_of(words: tuple[str, ...]) -> Parsed:
    """Options of iptables; both places of "!" are understood."""
    parsed = Parsed()
    place, negated = 0, False
    while place < len(words):
        word = words[place]
        place += 1
        if word == "!":
            negated = True
            continue
        word, attached = _split(word)
        option = _SAME.get(word, word)
        value = attached
        if word in _WITH_VALUE and not attached and place < len(words):
            if words[place] == "!":
                negated, place = True, place + 1
            if place < len(words) and not words[place].startswith("-"):
                value, place = words[place], place + 1
            if option == "-P" and place < len(words):
                parsed.has["-j"], place = words[place], place + 1
        if option.startswith("-"):
            parsed.has[option] = value or parsed.has.get(option, "")
            if negated:
                parsed.negated.add(option)
        negated = False
    return parsed


def _split(word: str) -> tuple[str, str]:
    """An option without its value, and the value where it is attached (getopt_long(3))."""
    if word.startswith("--"):
        name, _, value = word.partition("=")
        if name not in _WITH_VALUE and len(name) > 4:
            meant = {_SAME.get(o, o) for o in _WITH_VALUE if o.startswith(name)}
            name = meant.pop() if len(meant) == 1 else name
        return name, value
    if len(word) > 2 and word[0] == "-" and word[:2] in _WITH_VALUE:
        return word[:2], word[2:]
    return word, ""
