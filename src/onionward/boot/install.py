"""`enable` and `disable`: files and links of the boot, put in place and taken away exactly."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal, NamedTuple

from onionward.boot import units
from onionward.boot.program import Program
from onionward.boot.units import OURS
from onionward.errors import OnionwardError, RefusedError, StepError
from onionward.system import System, find_tool

Init = Literal["systemd", "sysvinit"]


class Places(NamedTuple):
    """Where files of the boot are; tests use others.

    Attributes:
        etc: the machine's configuration.
        systemd: exists while systemd is process 1 (sd_booted(3)).

    """

    etc: Path = Path("/etc")
    systemd: Path = Path("/run/systemd/system")

    @property
    def rules(self) -> Path:
        """The block, for nft."""
        return self.etc / "onionward/boot.nft"

    @property
    def units(self) -> Path:
        """Units of the administrator (systemd.unit(5))."""
        return self.etc / "systemd/system"

    @property
    def block(self) -> tuple[Path, Path]:
        """What blocks: a unit, an init script."""
        return self.units / units.BLOCK_UNIT, self.etc / "init.d" / units.BLOCK_SCRIPT

    @property
    def up(self) -> tuple[Path, Path]:
        """What routes: a unit, an init script."""
        return self.units / units.UP_UNIT, self.etc / "init.d" / units.UP_SCRIPT

    @property
    def links(self) -> dict[Path, str]:
        """What makes systemd start the units, and where it points."""
        return {
            self.units / "sysinit.target.wants" / units.BLOCK_UNIT: f"../{units.BLOCK_UNIT}",
            self.units / "multi-user.target.wants" / units.UP_UNIT: f"../{units.UP_UNIT}",
        }


PLACES = Places()


class Texts(NamedTuple):
    """What the machine is to do at boot.

    Attributes:
        first: nft commands that block at once.
        rules: the rest of the block.
        program: what routes.

    """

    first: str
    rules: str
    program: Program


def choose(places: Places = PLACES) -> Init:
    """Which program starts services here.

    Raises:
        RefusedError: none that is known.

    """
    if places.systemd.is_dir() or Path("/sbin/init").resolve().name == "systemd":
        return "systemd"
    if (places.etc / "init.d").is_dir() and find_tool("update-rc.d"):
        return "sysvinit"
    raise RefusedError("neither systemd nor init scripts start services here; nothing was touched")


def nft_path() -> str:
    """The program that blocks at boot, whatever filter is in force after that.

    Raises:
        RefusedError: there is none.

    """
    found = find_tool("nft")
    if found is None:
        raise RefusedError(
            "nft is missing, and the block of the boot is nft's: one transaction over both "
            "families, which iptables has not; nothing was touched",
            "install it (apt install nftables); after the boot `up` uses the filter that "
            "[firewall] backend names",
        )
    return found


def is_enabled(places: Places = PLACES) -> bool:
    """Whether something of ours blocks at boot."""
    return any(_is_ours(path) for path in places.block)


def stored_rules(places: Places = PLACES) -> str:
    """The block as it is stored; "" when it is missing or unreadable."""
    with contextlib.suppress(OSError, UnicodeError):
        return places.rules.read_text().removeprefix(f"{OURS}\n")
    return ""


def problems(places: Places = PLACES) -> tuple[str, ...]:
    """What is missing of an enabled boot."""
    if not is_enabled(places):
        return ()
    wanted = [places.rules]
    if _is_ours(places.block[0]):
        wanted += [places.block[0], places.up[0], *places.links]
    else:
        wanted += [places.block[1], places.up[1]]
    missing = [str(path) for path in wanted if not path.exists()]
    if not missing:
        return ()
    return (f"at boot: {', '.join(missing)} is missing; `onionward enable` makes it again",)


def enable(system: System, texts: Texts, init: Init, places: Places = PLACES) -> None:
    """Block at every boot before there is a network, and route as soon as there is one.

    Raises:
        RefusedError: files or links of these names are somebody else's; nothing was touched.
        StepError: a step failed; what was made has been removed, if it was not enabled before.

    """
    nft = nft_path()
    _refuse_strangers(places)
    repeated = is_enabled(places)
    try:
        made = _make_directories(system, init, places)
        if repeated:
            made = tuple(dict.fromkeys((*_remembered(places), *made)))
        _write(system, texts, init, nft, places, made)
    except (OnionwardError, OSError) as error:
        if not repeated:
            with contextlib.suppress(OnionwardError, OSError):
                _remove(system, places)
                _reload(system, places)
        raise StepError(
            f"{error}\n  The machine is {'still' if repeated else 'not'} protected at boot."
        ) from error


def disable(system: System, places: Places = PLACES) -> bool:
    """Remove all of it; rules that are in force stay.

    Returns:
        False when there was nothing.

    """
    files = (*places.up, *places.block, places.rules)
    links = (path for path, target in places.links.items() if _links_to(path, target))
    if not (any(map(_is_ours, files)) or any(links)):
        return False
    end_attempts(system, places)
    _remove(system, places)
    _reload(system, places)
    return True


def _remove(system: System, places: Places) -> None:
    directories = _remembered(places)
    found = [path for path in (*places.up, *places.block) if _is_ours(path)]
    links = [path for path, target in places.links.items() if _links_to(path, target)]
    # a damaged one may have lost its first line
    if found or links or _is_ours(places.rules):
        found.append(places.rules)
    for path in links:
        system.remove_file(path)
    # the block goes last: it knows which directories are to go
    for path in sorted(found, key=places.block.__contains__):
        system.remove_file(path)
    for script in (places.up[1], places.block[1]):
        if script in found:
            system.change(["update-rc.d", script.name, "remove"])
    for directory in sorted(map(Path, directories), reverse=True):
        if directory.is_dir() and not any(directory.iterdir()):
            system.remove_tree(directory)


def end_attempts(system: System, places: Places = PLACES) -> None:
    """Let nobody call `up` again until the next boot; what is in force stays in force."""
    unit, script = places.up
    if _is_ours(unit) and places.systemd.is_dir():
        system.change(["systemctl", "stop", units.UP_UNIT], timeout=120)
    elif _is_ours(script) and not places.systemd.is_dir():
        system.change([str(script), "stop"], timeout=60)


def _write(
    system: System, texts: Texts, init: Init, nft: str, places: Places, made: tuple[str, ...]
) -> None:
    system.write_file(places.rules, f"{OURS}\n{texts.rules}", mode=0o600)
    rules = str(places.rules)
    if init == "sysvinit":
        _, block = places.block
        _, up = places.up
        text = units.block_script(nft, texts.first, rules, directories=made)
        system.write_file(block, text, mode=0o755)
        system.write_file(up, units.up_script(texts.program), mode=0o755)
        for script in (block, up):
            system.change(["update-rc.d", script.name, "defaults"])
        return
    block, up = places.block[0], places.up[0]
    system.write_file(block, units.block_unit(nft, texts.first, rules, directories=made))
    system.write_file(up, units.up_unit(texts.program))
    for path, target in places.links.items():
        if not _links_to(path, target):
            system.symbolic_link(target, path)
    _reload(system, places)


def _make_directories(system: System, init: Init, places: Places) -> tuple[str, ...]:
    wanted = {places.rules.parent}
    if init == "systemd":
        wanted |= {path.parent for path in places.links}
    missing: set[Path] = set()
    for directory in wanted:
        missing |= {path for path in (directory, *directory.parents) if not path.exists()}
    for directory in sorted(missing):
        system.make_directory(directory)
    return tuple(map(str, sorted(missing)))


def _remembered(places: Places) -> tuple[str, ...]:
    return tuple(
        directory
        for path in places.block
        if _is_ours(path)
        for directory in units.directories_of(path.read_text())
    )


def _refuse_strangers(places: Places) -> None:
    strangers = [
        path for path in (*places.block, *places.up) if _exists(path) and not _is_ours(path)
    ]
    strangers += [
        path
        for path, target in places.links.items()
        if _exists(path) and not _links_to(path, target)
    ]
    # a damaged one of ours may have lost its first line
    if _exists(places.rules) and not _is_ours(places.rules) and not is_enabled(places):
        strangers.append(places.rules)
    if strangers:
        names = ", ".join(map(str, strangers))
        raise RefusedError(
            f"{names}: not made by onionward; nothing was touched", "move it away, then repeat"
        )


def _reload(system: System, places: Places) -> None:
    if places.systemd.is_dir():
        system.change(["systemctl", "daemon-reload"], timeout=90)


def _exists(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _links_to(path: Path, target: str) -> bool:
    return path.is_symlink() and str(path.readlink()) == target


def _is_ours(path: Path) -> bool:
    if path.is_symlink():
        return False
    try:
        return OURS in path.read_text(errors="replace").splitlines()[:2]
    except OSError:
        return False
