"""The resolver of a host that is routed: every name goes to tor, whoever manages resolv.conf.

The packet rules turn queries for port 53 to tor wherever they are addressed. What is done here is
what they cannot do: resolv.conf names loopback and no search list, caches are emptied, resolvers
that speak other protocols are led to port 53, and whoever manages resolv.conf leaves it alone until
it gets its own back, and what it wants by then.

`survey` before anything changes, `apply`, `restore` at the end; `problems` in between. Modules are
imported when they are wanted: `status` is in a hurry.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from onionward.dns import file
from onionward.paths import PATHS, Paths
from onionward.render.resolver import resolv_conf
from onionward.system import System, find_tool

if TYPE_CHECKING:
    from onionward.dns.host import resolved as resolved_module
    from onionward.dns.host.detect import Environment, Plan
    from onionward.dns.host.dropin import DropIn
    from onionward.dns.managers import Manager

__all__ = [
    "Saved",
    "apply",
    "examine",
    "is_covered",
    "is_in_force",
    "is_stale",
    "is_undone",
    "is_untouched",
    "lost_original",
    "original_is_lost",
    "problems",
    "recognise",
    "restore",
    "survey",
    "text",
    "traces",
    "watched",
    "words",
]


class Saved(TypedDict):
    """How to undo the step; JSON in the journal.

    Attributes:
        manager: who manages resolv.conf.
        reason: why that is thought, in words.
        asked: what the command line asked for: a manager, "auto", or "" for nothing.
        fixed: why resolv.conf stays as it is, or "".
        resolv_conf: how to put the original back, see `onionward.dns.file`; None when it stays.
        resolved: what systemd-resolved was told, or None.
        networkmanager: the file for NetworkManager, or None.
        openresolv: how to put its configuration back, or None.
        dhclient: the file for dhclient's script, or None.

    """

    manager: Manager
    reason: str
    asked: str
    fixed: str
    resolv_conf: file.Saved | None
    resolved: resolved_module.Saved | None
    networkmanager: DropIn | None
    openresolv: file.Saved | None
    dhclient: DropIn | None


def _environment(system: System, paths: Paths) -> Environment:
    from onionward.dns.host.facts import environment

    return environment(system, paths)


def _environment_since(system: System, before: Saved | None, paths: Paths) -> Environment:
    """As it is now; but where resolv.conf was replaced, that it cannot be any more changes nothing.

    Ours stays, and the original cannot be put back yet.
    """
    found = _environment(system, paths)
    replaced = before is not None and before["resolv_conf"] is not None
    return found._replace(fixed="") if replaced else found


def examine(
    system: System, wanted: str = "auto", paths: Paths = PATHS
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Why names cannot be resolved through Tor here as wanted, and what is not as good as it could.

    Each with what to do.
    """
    from onionward.dns.host import detect

    found = _environment(system, paths)
    return tuple(detect.obstacles(found, wanted)), tuple(detect.limits(found))


def survey(
    system: System,
    wanted: str = "auto",
    before: Saved | None = None,
    paths: Paths = PATHS,
    *,
    asked: str = "",
) -> Saved:
    """What has to be known to put everything back, before anything changes.

    Args:
        system: the seam.
        wanted: a manager, or "auto" for the one that is found.
        before: what an earlier survey has read, which prevails; but what others have written since
            is what returns.
        paths: where resolv.conf is.
        asked: what the command line asked for, if anything.

    Raises:
        ResolverError: a file of ours has the name of somebody else's.
        CommandError: a resolver does not answer.

    """
    from onionward.dns.host import detect, dropin, networkmanager, resolved, writers

    found = _environment_since(system, before, paths)
    plan = detect.plan(found, wanted)
    noted: Any = before or dict.fromkeys(Saved.__annotations__)
    place = networkmanager.PLACES[plan.networkmanager] if plan.networkmanager else None
    hook = writers.dhclient_hook(paths.resolv_conf)
    return Saved(
        manager=plan.manager,
        reason=plan.reason,
        asked=asked,
        fixed=found.fixed,
        resolv_conf=None if found.fixed else _surveyed_file(system, noted["resolv_conf"], paths),
        resolved=resolved.survey(system, noted["resolved"]) if plan.resolved else None,
        networkmanager=(
            noted["networkmanager"] or dropin.survey(place, networkmanager.TEXT) if place else None
        ),
        openresolv=(_surveyed_openresolv(system, noted["openresolv"]) if plan.openresolv else None),
        dhclient=(
            noted["dhclient"] or dropin.survey(writers.HOOK, hook) if plan.dhclient else None
        ),
    )


def _surveyed_file(system: System, before: file.Saved | None, paths: Paths) -> file.Saved:
    path = paths.resolv_conf
    if before is not None and (
        file.is_ours(path, before)
        or _is_untouched(path, before)
        # ours is below; what is there now is not what returns
        or file.is_covered(path, before)
    ):
        return before
    # somebody has written it since: what returns later is theirs
    return file.survey(system, path, resolv_conf())


def _is_untouched(path: Path, before: file.Saved) -> bool:
    """Whether an `apply` was ended between giving the original its second name and replacing it."""
    return before["kind"] == "renamed" and file.is_original(path, before)


def _surveyed_openresolv(system: System, before: file.Saved | None) -> file.Saved:
    from onionward.dns.host import writers

    if before is not None and file.is_ours(writers.OPENRESOLV, before):
        return before
    return writers.survey_openresolv(system)


def is_stale(system: System, saved: Saved, wanted: str = "auto", paths: Paths = PATHS) -> bool:
    """Whether something else has to be done by now than `saved` says, so that it has to be undone.

    Another manager was named, or found, because it has come or gone.
    """
    from onionward.dns.host import detect

    if is_covered(saved, paths):
        return False  # nothing can be undone below it
    found = _environment_since(system, saved, paths)
    return _outline(detect.plan(found, wanted), found.fixed) != _outline_of(saved)


def _outline(plan: Plan, fixed: str) -> tuple[object, ...]:
    parts = (plan.resolved, bool(plan.networkmanager), plan.openresolv, plan.dhclient)
    return (bool(fixed), *parts)


def _outline_of(saved: Saved) -> tuple[object, ...]:
    parts = ("resolved", "networkmanager", "openresolv", "dhclient")
    noted: Any = saved
    return (saved["resolv_conf"] is None, *(noted[part] is not None for part in parts))


def apply(system: System, saved: Saved, paths: Paths = PATHS) -> bool:
    """Lead all names to tor; returns whether resolv.conf was replaced. Can be repeated.

    Raises:
        CommandError: a manager does not take it. `restore` puts back what was done until then.

    """
    from onionward.dns.host import dropin, networkmanager, resolved, writers

    replaced = False
    # before resolv.conf changes, whoever writes it is told to leave it alone
    if (noted := saved["dhclient"]) is not None:
        dropin.apply(system, noted)
    if (configuration := saved["openresolv"]) is not None:
        writers.apply_openresolv(system, configuration)
    if (noted := saved["networkmanager"]) is not None:
        networkmanager.apply(system, noted)
    path = paths.resolv_conf
    original = saved["resolv_conf"]
    if not (original is None or file.is_ours(path, original) or _stays(system, path, original)):
        file.replace(system, path, original)
        replaced = True
    if (told := saved["resolved"]) is not None:
        resolved.apply(system, told)
    _empty_caches(system)
    return replaced


def _stays(system: System, path: Path, original: file.Saved) -> bool:
    return file.is_covered(path, original) or bool(file.fixed(system, path))


def restore(system: System, saved: Saved, paths: Paths = PATHS) -> str:
    """Put everything back: works from every point of `apply`, and twice.

    Returns:
        What was left alone because others have changed it since, or "".

    Raises:
        CommandError: a manager does not take it; what comes after it was not put back yet.

    """
    from onionward.dns.host import dropin, networkmanager, resolved, writers

    notes = []
    if (original := saved["resolv_conf"]) is not None:
        notes.append(file.restore(system, paths.resolv_conf, original))
    if (noted := saved["dhclient"]) is not None:
        notes.append(dropin.restore(system, noted))
    if (configuration := saved["openresolv"]) is not None:
        notes.append(writers.restore_openresolv(system, configuration))
    if (told := saved["resolved"]) is not None:
        notes.append(resolved.restore(system, told))
    if (noted := saved["networkmanager"]) is not None:
        notes.append(networkmanager.restore(system, noted))
    _empty_caches(system)
    return "; ".join(note for note in notes if note)


def _empty_caches(system: System) -> None:
    """Have caches of names forget them: neither clear answers nor addresses of .onion live on."""
    from onionward.dns.onion.facts import programs

    found = programs(("nscd", "systemd-resolve"))
    if "nscd" in found and find_tool("nscd") is not None:
        # 1: it has ended meanwhile, or keeps no names
        system.change(["nscd", "--invalidate=hosts"], accept=(0, 1))
    # also one that was not led: it was started since, or somebody else was named
    if "systemd-resolve" in found and find_tool("resolvectl") is not None:
        system.change(["resolvectl", "flush-caches"], accept=(0, 1))


def is_in_force(saved: Saved, paths: Paths = PATHS) -> bool:
    """Whether resolv.conf is ours, or stays as it is by design."""
    original = saved["resolv_conf"]
    return original is None or file.is_ours(paths.resolv_conf, original)


def is_covered(saved: Saved, paths: Paths = PATHS) -> bool:
    """Whether somebody has mounted something over our resolv.conf since."""
    original = saved["resolv_conf"]
    return original is not None and file.is_covered(paths.resolv_conf, original)


def is_undone(saved: Saved, paths: Paths = PATHS) -> bool:
    """Whether resolv.conf is the original: not replaced yet, or put back already."""
    original = saved["resolv_conf"]
    return original is not None and file.is_original(paths.resolv_conf, original)


def original_is_lost(saved: Saved, paths: Paths = PATHS) -> bool:
    """Whether ours is in force and the original, which waits beside it, is gone."""
    original = saved["resolv_conf"]
    if original is None or original["kind"] != "renamed":
        return False
    waiting = file.waiting_name(paths.resolv_conf)
    present = waiting.is_symlink() or waiting.exists()
    return file.is_ours(paths.resolv_conf, original) and not present


def problems(system: System, saved: Saved, paths: Paths = PATHS) -> tuple[str, ...]:
    """What is no longer as `apply` left it, in words; () while all is in force."""
    return tuple(_problems(system, saved, paths))


def _problems(system: System, saved: Saved, paths: Paths) -> Iterator[str]:
    if not is_in_force(saved, paths) and not is_covered(saved, paths):
        yield f"{paths.resolv_conf} was changed by another program"
    if (told := saved["resolved"]) is not None:
        from onionward.dns.host import resolved

        yield from resolved.problems(system, told)
    if (noted := saved["networkmanager"]) is not None:
        from onionward.dns.host import networkmanager

        yield from networkmanager.problems(system, noted)
    if (configuration := saved["openresolv"]) is not None:
        from onionward.dns.host import writers

        yield from writers.openresolv_problems(configuration)
    if (noted := saved["dhclient"]) is not None:
        from onionward.dns.host import dropin

        yield from dropin.problems(noted)


def watched(saved: Saved, paths: Paths = PATHS) -> tuple[Path, ...]:
    """What has to be looked at again when it changes; pure.

    Files are replaced by others of their name, and may be absent: it is their directory that tells.
    Of a directory every entry counts.
    """
    directories: tuple[Path, ...] = ()
    if saved["resolved"] is not None:
        from onionward.dns.host import resolved

        directories = resolved.DIRECTORIES
    return (paths.resolv_conf, *_own_files(saved), *directories)


def _own_files(saved: Saved) -> tuple[Path, ...]:
    """Files besides resolv.conf that `apply` makes or changes."""
    told = saved["resolved"]
    parts = (told and told["drop_in"], saved["networkmanager"], saved["dhclient"])
    found = [Path(part["path"]) for part in parts if part]
    if saved["openresolv"] is not None:
        from onionward.dns.host import writers

        found.append(writers.OPENRESOLV)
    return tuple(found)


def is_untouched(paths: Paths = PATHS) -> bool:
    """Whether at first sight nothing of an `apply` is there, as on a machine that is off."""
    from onionward.dns.host import places

    told = (places.RESOLVED, places.DHCLIENT, *places.NETWORKMANAGER.values())
    waiting = file.waiting_name(places.OPENRESOLV)
    return (
        not any(path.exists() for path in (*told, waiting))
        and file.recognise(paths.resolv_conf, resolv_conf()) is None
    )


def recognise(paths: Paths = PATHS) -> Saved | None:
    """What an `apply` without a readable journal must have done; None when there is no trace."""
    from onionward.dns.host import dropin, networkmanager, resolved, writers

    original = file.recognise(paths.resolv_conf, resolv_conf())
    parts: dict[str, Any] = {
        "resolved": resolved.recognise(),
        "networkmanager": networkmanager.recognise(),
        "openresolv": writers.recognise_openresolv(),
        "dhclient": dropin.recognise(writers.HOOK),
    }
    if original is None and not any(parts.values()):
        return None
    return Saved(
        manager="file",
        reason="recognised by what is left of it",
        asked="",
        fixed="" if original else "it was not replaced",
        resolv_conf=original,
        resolved=parts["resolved"],
        networkmanager=parts["networkmanager"],
        openresolv=parts["openresolv"],
        dhclient=parts["dhclient"],
    )


def traces(saved: Saved, paths: Paths = PATHS) -> tuple[Path, ...]:
    """Files that an `apply` has changed or made."""
    found = [paths.resolv_conf] if saved["resolv_conf"] else []
    return (*found, *_own_files(saved))


def lost_original(paths: Paths = PATHS) -> str:
    """What to say when ours is there and nothing is known of what was there before; else ""."""
    return file.lost_original(paths.resolv_conf, resolv_conf())


def words(saved: Saved, paths: Paths = PATHS) -> str:
    """What is in force, for people."""
    managed = "" if saved["manager"] == "file" else f" (managed by {saved['manager']})"
    if saved["resolv_conf"] is None:
        return f"{paths.resolv_conf} stays as it is, and queries go to Tor: {saved['fixed']}"
    return f"{paths.resolv_conf} points to Tor{managed}"


def text(system: System, wanted: str = "auto", paths: Paths = PATHS) -> str:
    """The files that would be used, each after its path; touches nothing."""
    from onionward.dns.host import detect, networkmanager, resolved, writers

    found = _environment(system, paths)
    plan = detect.plan(found, wanted)
    texts = {} if found.fixed else {str(paths.resolv_conf): resolv_conf()}
    if plan.resolved:
        texts[str(resolved.PATH)] = resolved.TEXT
    if plan.networkmanager:
        texts[str(networkmanager.PLACES[plan.networkmanager])] = networkmanager.TEXT
    if plan.openresolv:
        place = writers.OPENRESOLV
        now = place.read_text(errors="replace") if place.is_file() else ""
        texts[str(place)] = writers.openresolv_text(now)
    if plan.dhclient:
        texts[str(writers.HOOK)] = writers.dhclient_hook(paths.resolv_conf)
    who = "nobody (file)" if plan.manager == "file" else plan.manager
    lines = [f"# {paths.resolv_conf} is managed by {who}: {plan.reason}\n"]
    lines += [f"# {limit}\n" for limit in detect.limits(found)]
    lines += [f"\n# {path}\n{content}" for path, content in texts.items()]
    return "".join(lines)
