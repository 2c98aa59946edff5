"""What a browser makes of pages about machines that leak, and of words that look like HTML."""

from __future__ import annotations

from pathlib import Path

import pytest

from onionward.verify import page
from onionward.verify.judge import judge
from onionward.verify.report import Marks, Report
from tests.lab import verify_browser as browser
from tests.unit.verify_values import SEEN, evidence, planned, report

EVIL = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"


def leaking() -> Report:
    made = planned()
    seen = {trial.key: SEEN for trial in made.trials if trial.vector.id.startswith("udp.quic")}
    escapes = Marks("canary", tuple((1006.0 + n / 2, 4) for n in range(10)))
    traffic = (escapes, *(marks for marks in report().traffic if marks.kind != "canary"))
    return report(results=judge(made, evidence(made, uplink=seen)), traffic=traffic, machine=EVIL)


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(page.render(leaking()))
    return path


def test_a_leak_is_red_in_the_banner_and_in_the_picture(shown: Path, tmp_path: Path) -> None:
    picture = browser.picture_of(shown, tmp_path)
    assert (picture.width, picture.height) == (browser.WIDTH, browser.HEIGHT)
    assert picture.at(1100, 125) == browser.RED
    counts = picture.counts()
    assert counts[browser.CONTROL] > 80  # two bars of what the control saw
    # the rows of the picture begin below the policy: marks of escapes are narrow and red there
    red = sum(picture.at(x, y) == browser.RED for y in range(700, 1700) for x in range(300, 1180))
    assert 300 < red < 5000
    text = browser.text_of(shown, tmp_path)
    assert "OPEN: 4 left this machine in clear" in text
    assert text.count('<rect class="canary"') == 10


def test_nothing_in_it_runs(shown: Path, tmp_path: Path) -> None:
    text = browser.text_of(shown, tmp_path)
    assert "<title>onionward verify: &lt;img" in text
    assert "<script" not in text
    assert "<img" not in text
