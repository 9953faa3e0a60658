"""The doctor tells what is here, and a cure for all that is not."""

from pathlib import Path

from omnisource.doctor import examine


def test_every_lack_has_a_cure(tmp_path: Path) -> None:
    findings = examine(tmp_path / "not" / "there" / "yet")
    names = {finding.what for finding in findings}
    assert {"PyTorch", "memory", "disk", "decoder h264", "extra ray"} <= names
    assert all(finding.cure for finding in findings if finding.state != "good")
    assert all(not finding.cure for finding in findings if finding.state == "good")
