"""enable and disable on a directory: exact, repeatable, and never over somebody else's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from onionward.boot import install, prepare
from onionward.boot.install import Places, Texts
from onionward.boot.program import Program
from onionward.boot.units import OURS
from onionward.config import Config
from onionward.errors import CommandError, RefusedError, StepError
from tests.support import FACTS, DyingSystem, LocalSystem, ScriptedSystem

TEXTS = Texts("add table x", "table x {\n}\n", Program(("/usr/bin/onionward", "up"), {}))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    etc = tmp_path / "etc"
    (etc / "systemd/system/multi-user.target.wants").mkdir(parents=True)
    (etc / "init.d").mkdir()
    return Places(etc, tmp_path / "not-booted")


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "find_tool", lambda name: f"/usr/sbin/{name}")


def tree(places: Places) -> dict[str, str]:
    """Everything there, with links and contents."""
    found = {}
    for path in sorted(places.etc.rglob("*")):
        name = str(path.relative_to(places.etc))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = "directory" if path.is_dir() else path.read_text()
    return found


def test_disable_is_exact_and_both_can_be_repeated(places: Places) -> None:
    before = tree(places)
    system = LocalSystem()
    assert not install.is_enabled(places)
    install.enable(system, TEXTS, "systemd", places)
    enabled = tree(places)
    assert install.is_enabled(places)
    assert install.problems(places) == ()
    assert install.stored_rules(places) == TEXTS.rules
    assert places.rules.stat().st_mode & 0o777 == 0o600
    install.enable(system, TEXTS, "systemd", places)
    assert tree(places) == enabled
    assert install.disable(system, places)
    assert tree(places) == before
    assert not install.disable(system, places)


@pytest.mark.parametrize("start", range(7))
def test_from_wherever_enable_was_killed_disable_is_exact(places: Places, start: int) -> None:
    before = tree(places)
    with pytest.raises(DyingSystem.DeathError):
        install.enable(DyingSystem(start), TEXTS, "systemd", places)
    left = tree(places)
    # what was killed before the unit was there has made directories at most
    install.enable(LocalSystem(), TEXTS, "systemd", places)
    install.disable(LocalSystem(), places)
    after = tree(places)
    assert {k: v for k, v in after.items() if v != "directory"} == {
        k: v for k, v in before.items() if v != "directory"
    }
    assert set(after) <= set(before) | set(left)


def test_files_of_others_are_left_alone(places: Places) -> None:
    for path in (*places.block, *places.up, places.rules, *places.links):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("somebody's\n")
        before = tree(places)
        with pytest.raises(RefusedError, match=f"{path}: not made by onionward"):
            install.enable(LocalSystem(), TEXTS, "systemd", places)
        assert not install.disable(LocalSystem(), places)
        assert tree(places) == before
        path.unlink()


def test_a_damaged_file_of_ours_is_mended(places: Places) -> None:
    install.enable(LocalSystem(), TEXTS, "systemd", places)
    enabled = tree(places)
    places.rules.write_text("garbage")
    install.enable(LocalSystem(), TEXTS, "systemd", places)
    assert tree(places) == enabled
    places.rules.unlink()
    assert install.problems(places) == (
        f"at boot: {places.rules} is missing; `onionward enable` makes it again",
    )
    assert install.disable(LocalSystem(), places)


def test_what_fails_is_taken_back(places: Places, tmp_path: Path) -> None:
    booted = places._replace(systemd=tmp_path / "etc")
    before = tree(places)
    answers = {"systemctl": CommandError(["systemctl"], 1, "no")}
    with pytest.raises(StepError, match="not protected at boot"):
        install.enable(ScriptedSystem(answers), TEXTS, "systemd", booted)
    left = {name: text for name, text in tree(places).items() if OURS in text}
    assert left == {}
    assert tree(places) == before


def test_init_scripts(places: Places) -> None:
    system = ScriptedSystem({"update-rc.d": "", str(places.up[1]): ""})
    before = tree(places)
    install.enable(system, TEXTS, "sysvinit", places)
    assert install.problems(places) == ()
    assert [a for a in system.asked if "update-rc.d" in a] == [
        "update-rc.d onionward-block defaults",
        "update-rc.d onionward defaults",
    ]
    assert places.block[1].stat().st_mode & 0o777 == 0o755
    assert install.disable(system, places)
    assert tree(places) == before
    assert system.asked[-1] == "update-rc.d onionward-block remove"


def test_without_nft_it_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, places: Places
) -> None:
    monkeypatch.setattr(install, "find_tool", lambda _: None)
    before = tree(places)
    for refused in (
        lambda: prepare.texts(LocalSystem(), Config(), FACTS, None),
        lambda: install.enable(LocalSystem(), TEXTS, "systemd", places),
    ):
        with pytest.raises(RefusedError, match=r"nft is missing.*nothing was touched") as caught:
            refused()
        assert "apt install nftables" in caught.value.hint
    assert tree(places) == before
