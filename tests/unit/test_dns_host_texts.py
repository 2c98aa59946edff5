"""What managers are told, and what they have been told: texts and their readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from onionward.dns.host import dropin, networkmanager, resolved, writers
from onionward.dns.host.detect import NetworkManager
from onionward.errors import ResolverError
from tests.support import LocalSystem


@pytest.mark.parametrize(
    ("below", "etc", "expected"),
    [
        ([], [], NetworkManager()),
        ([], ["[main]\nplugins=ifupdown,keyfile\n"], NetworkManager()),
        (["[main]\ndns=none\n"], [], NetworkManager("none")),
        (
            ["[main]\ndns=none\n"],
            ["[main]\ndns = default\n"],
            NetworkManager("default", in_etc=True),
        ),
        ([], ["[main]\nrc-manager=file\n"], NetworkManager("", "file", in_etc=True)),
        ([], ["[main]\nsystemd-resolved=false\n"], NetworkManager(resolved=False, in_etc=True)),
        (["[main]\nsystemd-resolved=true\n"], [], NetworkManager()),
        ([], ["[connection]\ndns=none\n"], NetworkManager()),
        ([], ["no section\n", "[main]\ndns=dnsmasq\n"], NetworkManager("dnsmasq", in_etc=True)),
        ([], ["[main]\ndns=a\n[main]\ndns=unbound\n"], NetworkManager("unbound", in_etc=True)),
        ([networkmanager.TEXT], [], NetworkManager("none", "unmanaged", resolved=False)),
    ],
)
def test_what_network_manager_was_told(
    below: list[str], etc: list[str], expected: NetworkManager
) -> None:
    assert networkmanager.parse(below, etc) == expected


@pytest.mark.parametrize(
    ("text", "writes"),
    [
        ("", True),
        ("resolv_conf=/etc/resolv.conf\n", True),
        ("#libc=NO\n", True),
        ("libc=NO\n", False),
        ("name_servers=127.0.0.1\n  libc='no'\n", False),
        (writers.openresolv_text("name_servers=127.0.0.1"), False),
    ],
)
def test_whether_openresolv_writes(text: str, writes: bool) -> None:
    assert writers.openresolv_writes(text) is writes


def test_openresolv_keeps_what_it_was_told() -> None:
    text = "name_servers=127.0.0.1"
    assert writers.openresolv_text(text).startswith(f"{text}\n#")
    assert writers.openresolv_text("").startswith("#")


def test_another_hook_that_writes_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "HOOKS", tmp_path / "hooks")
    monkeypatch.setattr(writers, "HOOK", tmp_path / "hooks/zz-onionward")
    assert not writers.hears_of_hooks()
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks/debug").write_text("# RUN=yes\n")
    (tmp_path / "hooks/zz-onionward").write_text(writers.dhclient_hook(Path("/etc/resolv.conf")))
    assert writers.hears_of_hooks()
    (tmp_path / "hooks/resolvconf").write_text("make_resolv_conf() { : ; }\n")
    assert not writers.hears_of_hooks()


class TestDropIn:
    """A file that was not there before."""

    def test_it_is_made_and_goes(self, tmp_path: Path) -> None:
        system = LocalSystem()
        path = tmp_path / "a/b/zz-onionward.conf"
        saved = dropin.survey(path, f"{dropin.MARK}\n")
        assert dropin.apply(system, saved)
        assert not dropin.apply(system, saved)
        assert list(dropin.problems(saved)) == []
        assert dropin.recognise(path) == {**saved, "made": []}
        assert dropin.restore(system, saved) == ""
        assert dropin.restore(system, saved) == ""
        assert list(tmp_path.iterdir()) == []
        assert dropin.recognise(path) is None
        assert list(dropin.problems(saved)) == [f"{path} was changed or removed"]

    def test_what_others_put_beside_it_stays(self, tmp_path: Path) -> None:
        saved = dropin.survey(tmp_path / "a/zz-onionward.conf", f"{dropin.MARK}\n")
        dropin.apply(LocalSystem(), saved)
        (tmp_path / "a/other.conf").touch()
        dropin.restore(LocalSystem(), saved)
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["other.conf"]

    def test_a_directory_that_was_there_stays(self, tmp_path: Path) -> None:
        saved = dropin.survey(tmp_path / "zz-onionward.conf", f"{dropin.MARK}\n")
        dropin.apply(LocalSystem(), saved)
        dropin.restore(LocalSystem(), saved)
        assert tmp_path.is_dir()

    def test_a_name_that_is_taken(self, tmp_path: Path) -> None:
        (tmp_path / "zz-onionward.conf").write_text("[main]\n")
        with pytest.raises(ResolverError, match="is not onionward's"):
            dropin.survey(tmp_path / "zz-onionward.conf", "ours\n")

    def test_what_others_have_written_is_left(self, tmp_path: Path) -> None:
        path = tmp_path / "zz-onionward.conf"
        saved = dropin.survey(path, f"{dropin.MARK}\n")
        dropin.apply(LocalSystem(), saved)
        path.write_text("theirs\n")
        assert "changed by somebody else" in dropin.restore(LocalSystem(), saved)
        assert path.read_text() == "theirs\n"


@pytest.mark.parametrize("path", [resolved.PATH, *networkmanager.PLACES.values()])
def test_ours_is_read_after_all_others(path: Path) -> None:
    others = ["99-local.conf", "lab.conf", "zz-top.conf", "zzz.conf", "zzzz-last.conf"]
    assert sorted([path.name, *others])[-1] == path.name
