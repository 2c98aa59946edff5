"""pf.conf(5) of OpenBSD, before and since 4.7, and of FreeBSD, as such setups have it."""

from __future__ import annotations

import re

from onionward.importing.found import Found
from onionward.importing.words import shortened

_MACRO = re.compile(r'^\s*(\w+)\s*=\s*"?(.*?)"?\s*$')
_RULE = re.compile(r"^\s*(rdr|pass|block|match|nat|set|scrub|antispoof|table|anchor)\b")
_LOOPBACK = re.compile(r"lo\d*")


def is_pf(text: str) -> bool:
    """Whether these are rules of pf."""
    rules = [line for line in _lines(text) if _RULE.match(line[1])]
    return any(re.match(r"\s*(rdr|pass|block|scrub|match)\s", line) for _, line in rules)


def read(text: str, name: str, found: Found) -> None:
    """One file."""
    macros: dict[str, str] = {}
    for number, line in _lines(text):
        place = f"{name}:{number}"
        filled = re.sub(r"\$(\w+)", lambda m: macros.get(m[1], m[0]), line)
        if table := re.match(r"\s*table\s+<(\w+)>.*?\{(.*)\}", filled):
            macros[f"<{table[1]}>"] = table[2]
        elif not _RULE.match(line) and (macro := _MACRO.match(filled)):
            macros[macro[1]] = macro[2]
        else:
            for table_name, addresses in macros.items():
                if table_name.startswith("<"):
                    filled = filled.replace(table_name, f"{{ {addresses} }}")
            _rule(filled.strip(), place, found)


def _lines(text: str) -> list[tuple[int, str]]:
    """Lines without comments; one that goes on is one."""
    found: list[tuple[int, str]] = []
    held, begun = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        bare = re.sub(r"#.*", "", line).rstrip()
        begun = begun if held else number
        if bare.endswith("\\"):
            held += bare[:-1]
            continue
        if (held + bare).strip():
            found.append((begun, held + bare))
        held = ""
    return found


def _rule(line: str, place: str, found: Found) -> None:
    found.rules = True
    if line.startswith("block") and "inet" not in line.split():
        found.ip6 = True
    if "rdr" in line.split()[:1] or "rdr-to" in line:
        for interface in _interfaces(line):
            if not _LOOPBACK.fullmatch(interface):
                found.add_lan(interface, place)
        if "port domain" in line or "port 53" in line:
            found.keep(place, "names are asked of tor's resolver")
    elif line.startswith("set skip on"):
        found.change(place, f"{line}: nothing was judged there; it is now")
    elif "route-to" in line and re.search(r"\bport (domain|53)\b", line):
        found.keep(place, "names are asked of tor's resolver")
    elif "route-to" in line and re.search(r"\blo\d", line):
        if target := re.search(r"\bto (127\.\d+\.\d+\.\d+/\d+|10\.\d+\.\d+\.\d+/\d+)", line):
            found.keep(place, f"{target[1]}: addresses of names under .onion go to tor")
        elif "all" in line.split():
            found.route_host(place)
    elif re.search(r"\buser _?tor\b", line):
        found.tor_account = "_tor"
        found.keep(place, "tor's own traffic leaves; onionward makes an account for it alone")
    elif line.startswith("pass out") and (networks := re.search(r"\bto \{([^}]*)\}", line)):
        for text in networks[1].replace(",", " ").split():
            found.bypass_network(text, place)
    elif line.startswith("pass out") and (network := re.search(r"\bto ([\d.]+/\d+)", line)):
        found.bypass_network(network[1], place)
    elif line.startswith("pass in") and (ports := re.search(r"\bport \{?([\d, ]+)", line)):
        found.inbound.update({int(port): place for port in re.findall(r"\d+", ports[1])})
    elif line.startswith("block"):
        found.keep(place, "everything else is refused")
    elif line.startswith(("scrub", "match", "antispoof")):
        found.leave_out(place, f"{shortened(line)}: not about who goes where")
    elif not line.startswith("pass quick"):
        found.leave_out(place, f"not understood, and left out: {shortened(line)}")


def _interfaces(line: str) -> list[str]:
    if several := re.search(r"\bon \{([^}]*)\}", line):
        return several[1].replace(",", " ").split()
    one = re.search(r"\bon (\S+)", line)
    return [one[1]] if one else []
