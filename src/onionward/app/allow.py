"""What of the machine an application may reach although it would be a way around Tor, by name."""

from __future__ import annotations

WHATS = {
    "display": "the Wayland and X11 sockets of DISPLAY and WAYLAND_DISPLAY (on by default)",
    "audio": "PulseAudio's and PipeWire's sockets: who speaks there can have the server connect",
    "session-bus": "the D-Bus session bus: whoever speaks there can have others connect in clear",
    "system-bus": "the D-Bus system bus: likewise, and names are resolved there",
    "ssh-agent": "the socket of SSH_AUTH_SOCK",
    "socket:PATH": "this Unix socket",
    "fd:NUMBER": "this open descriptor",
}
"""What `--allow` understands, and what each opens."""

BY_DEFAULT = frozenset({"display"})


def complaint(what: str) -> str:
    """Why `--allow` does not take this, or ""."""
    kind, colon, value = what.removeprefix("no-").partition(":")
    if what.startswith("no-"):
        return "" if what.removeprefix("no-") in BY_DEFAULT else f"{what} is not on by default"
    if not colon:
        return "" if kind in WHATS else _unknown(what)
    if kind == "fd":
        good = value.isascii() and value.isdecimal() and int(value) > 2
        return "" if good else f"{what}: fd:NUMBER wants the number of an open descriptor above 2"
    if kind == "socket":
        return "" if value.startswith("/") else f"{what}: socket:PATH wants an absolute path"
    return _unknown(what)


def _unknown(what: str) -> str:
    return f"{what} is not known; known: {', '.join(WHATS)}, no-display"


def granted(words: tuple[str, ...]) -> frozenset[str]:
    """What is allowed: the defaults, and the words of `--allow`; "no-" takes one away."""
    refused = {word.removeprefix("no-") for word in words if word.startswith("no-")}
    wanted = {word for word in words if not word.startswith("no-")}
    return frozenset((BY_DEFAULT | wanted) - refused)


def descriptors(granted: frozenset[str]) -> tuple[int, ...]:
    """Numbers of the descriptors that are allowed besides 0, 1 and 2."""
    return tuple(sorted(int(word[3:]) for word in granted if word.startswith("fd:")))
