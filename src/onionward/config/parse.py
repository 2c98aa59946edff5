"""TOML → Config: every problem at once, each with file and line.

load(path) ──► tomllib ──► one reader per type of value ──► Config ──► contradictions

A section is read key by key, so that one wrong value does not hide what is wrong with the next;
what could not be read keeps its default until everything has been reported.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from onionward.config.checks import UNREADABLE, contradictions
from onionward.config.values import (
    DEFAULT_PATH,
    Backend,
    BypassConfig,
    Config,
    Dns,
    FirewallConfig,
    HostConfig,
    Inbound,
    LanConfig,
    LogConfig,
    Resolver,
    Route,
    Source,
    TorConfig,
    UserConfig,
    UserRoute,
    VirtualNetworks,
)
from onionward.errors import ConfigError
from onionward.networks import Address, Network
from onionward.toml_lines import KeyPath

Section = TypeVar("Section", bound=NamedTuple)
Item = TypeVar("Item")

Problem = tuple[KeyPath, str]

_LARGEST = 16 << 20  # bytes; a device has no end
# The options that say which Tor network is used, and how quickly it moves; none of them can
# change what this program sets itself.
NETWORK_OPTIONS = frozenset(
    {
        "AlternateBridgeAuthority",
        "AlternateDirAuthority",
        "AssumeReachable",
        "CircuitBuildTimeout",
        "ClientBootstrapConsensusAuthorityDownloadInitialDelay",
        "ClientBootstrapConsensusAuthorityOnlyDownloadInitialDelay",
        "ClientBootstrapConsensusFallbackDownloadInitialDelay",
        "ClientBootstrapConsensusMaxInProgressTries",
        "DirAuthority",
        "FallbackDir",
        "LearnCircuitBuildTimeout",
        "PathsNeededToBuildCircuits",
        "TestingClientConsensusDownloadInitialDelay",
        "TestingClientDownloadInitialDelay",
        "TestingClientMaxIntervalWithoutRequest",
        "TestingTorNetwork",
        "UseDefaultFallbackDirs",
        "V3AuthVotingInterval",
    }
)


def load(path: Path | None) -> Config:
    """Read a configuration.

    Args:
        path: the file, or None for the default one, which need not exist.

    Raises:
        ConfigError: all that is wrong with it.

    """
    chosen = path or DEFAULT_PATH
    try:
        with chosen.open("rb") as file:
            raw = file.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            raise ConfigError([f"{chosen}: more than {_LARGEST >> 20} MiB are no configuration"])
        text = raw.decode("utf-8")
    except FileNotFoundError:
        if path is None:
            return Config()
        raise ConfigError([f"{chosen}: there is no such file"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{chosen}: byte {error.start} is not UTF-8; TOML is"]) from None
    except OSError as error:
        raise ConfigError([f"{chosen}: cannot be read: {error.strerror}"]) from None
    return parse_with_network(text, str(chosen))


def parse_with_network(text: str, name: str) -> Config:
    """As `parse`, and read the file that `tor.network` names.

    Raises:
        ConfigError: all that is wrong with either.

    """
    return _with_network(parse(text, name))


def parse(text: str, name: str) -> Config:
    """Parse the text of a configuration; `name` is what messages call it.

    Raises:
        ConfigError: all that is wrong with it.

    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(str(error), text, name)]) from None
    except (ValueError, RecursionError):
        # a number of thousands of digits, or arrays nested as deep
        raise ConfigError([f"{name}: has a value too large to be read"]) from None
    source = Source(name, text)
    problems: list[Problem] = []
    config = replace(_read_document(document, problems), source=source)
    reported = {path for path, _ in problems}
    problems += [found for found in contradictions(config) if found[0] not in reported]
    if problems:
        try:
            located = [source.locate(path, words) for path, words in problems]
        except RecursionError:
            raise ConfigError([f"{name}: has a value too large to be read"]) from None
        raise ConfigError(sorted(located, key=_by_line))
    return config


def _syntax_problem(words: str, text: str, name: str) -> str:
    at = re.search(r" \(at line (\d+), column \d+\)$", words)
    if at:
        return f"{name}:{at[1]}: not TOML: {words[: at.start()]}"
    cause = words.removesuffix(" (at end of document)")
    return f"{name}:{text.rstrip().count(chr(10)) + 1}: not TOML: {cause}"


def _by_line(problem: str) -> tuple[int, str]:
    found = re.match(r".*?:(\d+): ", problem)
    return (int(found[1]) if found else 0, problem)


_TABLES: Mapping[str, Any] = {
    "host": HostConfig(),
    "bypass": BypassConfig(),
    "tor": TorConfig(),
    "firewall": FirewallConfig(),
    "log": LogConfig(),
}
_ARRAYS: Mapping[str, Any] = {"lan": LanConfig(), "user": UserConfig()}


def _read_document(document: Mapping[str, Any], problems: list[Problem]) -> Config:
    known = {*_TABLES, *_ARRAYS, "onion"}
    read: dict[str, Any] = {}
    for key, value in document.items():
        if key in _TABLES:
            if isinstance(value, dict):
                read[key] = _read_section(_TABLES[key], value, (key,), problems)
            else:
                words = f"{_shown(value)} is not a table; write [{key}] on a line of its own"
                problems.append(((key,), words))
        elif key in _ARRAYS:
            read[key] = _read_array(_ARRAYS[key], value, key, problems)
        elif key == "onion":
            try:
                read[key] = _yes_or_no(value)
            except _WrongValueError as error:
                problems += [((key,), words) for _, words in error.problems]
        else:
            problems.append(((key,), _unknown(key, known)))
    return replace(Config(), **read)


def _read_array(
    default: Section, value: object, key: str, problems: list[Problem]
) -> tuple[Section, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        words = f"write [[{key}]], in two brackets, on a line of its own for each"
        problems.append(((key,), words))
        return ()
    return tuple(
        _read_section(default, entry, (key, index), problems) for index, entry in enumerate(value)
    )


def _read_section(
    default: Section, table: Mapping[str, Any], path: KeyPath, problems: list[Problem]
) -> Section:
    kinds = get_type_hints(type(default))
    known = set(default._fields)
    read: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            problems.append(((*path, key), _unknown(key, known)))
            continue
        try:
            read[key] = _READERS[kinds[key]](value)
        except _WrongValueError as error:
            problems += [((*path, key, *inside), words) for inside, words in error.problems]
            read |= {key: error.readable} if error.readable else {}
    return default._replace(**read)


def _unknown(key: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(key, known, 1)
    guess = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown key{guess}; known here: {', '.join(sorted(known))}"


class _WrongValueError(ValueError):
    """What is wrong inside one value, by position, and the part that could be read."""

    def __init__(self, *problems: Problem, readable: tuple[Network, ...] = ()) -> None:
        super().__init__()
        self.problems = problems
        self.readable = readable


def _wrong(words: str) -> _WrongValueError:
    return _WrongValueError(((), words))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(f"{_shown(value)} is not a text in quotes")
    if not value.isprintable():
        raise _wrong(f"{_shown(value)} has a control character")
    return value


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(f"{_shown(value)} is not a whole number")
    if abs(value) >= 2**63:
        raise _wrong(f"{_shown(value)} does not fit into 64 bits")
    return value


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(f"{_shown(value)} is not true or false")
    return value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_each(value, _text, '["ping", "ssh"]'))


def _addresses(value: object) -> tuple[Address, ...]:
    return tuple(_each(value, _address, '["192.168.7.100", "192.168.7.199"]'))


def _address(value: object) -> Address:
    try:
        return ipaddress.ip_address(_text(value))
    except ValueError as error:
        if isinstance(error, _WrongValueError):
            raise
        raise _wrong(f"{_shown(value)} is not an address") from error


def _each(value: object, read: Callable[[object], Item], example: str) -> list[Item]:
    if not isinstance(value, list):
        raise _wrong(f"{_shown(value)} is not a list; write {example}")
    items: list[Item] = []
    problems: list[Problem] = []
    for index, entry in enumerate(value):
        try:
            items.append(read(entry))
        except _WrongValueError as error:
            problems += [((index,), words) for _, words in error.problems]
    if problems:
        raise _WrongValueError(*problems)
    return items


def _file(value: object) -> Path:
    path = Path(_text(value))
    if not path.is_absolute():
        raise _wrong(f"{_shown(value)} is not an absolute path")
    return path


def _choice(kind: object, value: object) -> object:
    if not isinstance(value, str) or value not in get_args(kind):
        known = ", ".join(f'"{choice}"' for choice in get_args(kind))
        raise _wrong(f"{_shown(value)} is not known; known: {known}")
    return value


def _networks(value: object) -> tuple[Network, ...]:
    if not isinstance(value, list):
        raise _wrong(f'{_shown(value)} is not a list; write ["192.168.1.0/24"]')
    networks: list[Network] = []
    problems: list[Problem] = []
    for index, entry in enumerate(value):
        try:
            networks.append(_network(entry))
        except _WrongValueError as error:
            problems += [((index,), words) for _, words in error.problems]
            networks.append(UNREADABLE)
    if problems:
        raise _WrongValueError(*problems, readable=tuple(networks))
    return tuple(networks)


def _virtual_networks(value: object) -> VirtualNetworks:
    if value == "auto":
        return "auto"
    if isinstance(value, str):
        raise _wrong(f'{_shown(value)} is not known; known: "auto", or a list of networks')
    return _networks(value)


def _network(entry: object) -> Network:
    if not isinstance(entry, str):
        raise _wrong(f"{_shown(entry)} is not a network in quotes")
    if "%" in entry:
        raise _wrong(
            f"{_shown(entry)} is not a network; the name of an interface has no place in it"
        )
    try:
        return ipaddress.ip_network(entry)
    except ValueError as error:
        fixed = _host_bits_cleared(entry)
        if fixed is None:
            raise _wrong(
                f'{_shown(entry)} is not a network; write "192.168.1.0/24" or "2001:db8:5::/48"'
            ) from error
        raise _wrong(
            f'{_shown(entry)} names a host inside a network; write "{fixed}" for the network'
        ) from error


def _host_bits_cleared(entry: str) -> Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    try:
        words = f'"{value}"' if isinstance(value, str) and value.isprintable() else repr(value)
    except ValueError:  # Python prints no numbers of thousands of digits
        return "a number of thousands of digits"
    return words if len(words) <= 60 else words[:57] + "..."


_READERS: Mapping[object, Callable[[object], object]] = {
    str: _text,
    int: _number,
    bool: _yes_or_no,
    Path | None: _file,
    tuple[str, ...]: _texts,
    tuple[Address, ...]: _addresses,
    Route: partial(_choice, Route),
    UserRoute: partial(_choice, UserRoute),
    Inbound: partial(_choice, Inbound),
    Dns: partial(_choice, Dns),
    Backend: partial(_choice, Backend),
    Resolver: partial(_choice, Resolver),
    tuple[Network, ...]: _networks,
    VirtualNetworks: _virtual_networks,
}


def _small_file(path: Path) -> str:
    # a pipe would be waited for, and a device has no end
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file")
    with path.open("rb") as file:
        raw = file.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise OSError(errno.EFBIG, "it is too large")
    return raw.decode()


def _with_network(config: Config) -> Config:
    path = config.tor.network
    if path is None:
        return config
    try:
        text = _small_file(path)
    except (OSError, ValueError) as error:
        words = f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}"
        raise ConfigError([config.source.locate(("tor", "network"), words)]) from None
    problems = list(_network_problems(path, text))
    if problems:
        raise ConfigError(problems)
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return replace(config, network_lines=tuple(line for line in lines if line))


def _network_problems(path: Path, text: str) -> Iterator[str]:
    allowed = {name.lower() for name in NETWORK_OPTIONS}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#", 1)[0].strip()
        option = line.split(maxsplit=1)[0] if line else ""
        if not line:
            continue
        if option.lower() not in allowed:
            yield (
                f"{path}:{number}: {option}: not an option that says which Tor network to use; "
                f"known: {', '.join(sorted(NETWORK_OPTIONS))}"
            )
        elif line.endswith("\\") or not line.replace("\t", " ").isprintable():
            yield f"{path}:{number}: {option}: continued lines and control characters are refused"
