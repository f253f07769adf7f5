"""`workflow-r1 view --export`: one file that needs nothing, does nothing, and shows what the pages show."""

import re
from pathlib import Path

import pytest
from support.recorded_run import QUESTIONS, make_run, trajectory, turn
from typer.testing import CliRunner

from workflow_r1.cli.app import app
from workflow_r1.trajectory import write_jsonl


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def export(run: Path, report: Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["view", str(run), "--export", str(report)])
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


def test_it_holds_the_curves_and_the_last_step_with_its_transcripts(run: Path, tmp_path: Path):
    report = tmp_path / "report.html"
    export(run, report)
    page = report.read_text()
    assert [page.count(f'<summary><span class="text" dir="auto">{question}') for question in QUESTIONS] == [1, 1]
    assert page.count('class="turn"') == 16  # two turns of four rollouts of two questions
    assert "Clip fraction" in page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_it_asks_for_nothing_and_runs_nothing(run: Path, tmp_path: Path):
    hostile = "<script>alert(1)</script><img src=http://evil.example/x>\u202e"
    write_jsonl(run / "trajectories/train/3.jsonl", [trajectory(hostile, True, turn(hostile, answer=hostile))] * 2)
    (run / "hydra/.hydra").mkdir(parents=True)
    (run / "hydra/.hydra/overrides.yaml").write_text("- workflow_r1.operators.api_key=abc123\n")
    export(run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"<(script|img|link|iframe|a )|\b(src|href)=\"|url\(|\u202e|abc123", page)
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert "&lt;script&gt;alert(1)" in page


def test_where_no_report_can_be_a_sentence_says_so_and_nothing_is_lost(run: Path, tmp_path: Path):
    assert "name a file in a folder that exists, after --export" in export(run, run, code=1)
    assert (run / "trajectories/train/1.jsonl").exists()
    assert "name a file in a folder that exists" in export(run, tmp_path / "no" / "report.html", code=1)
    (tmp_path / "empty").mkdir()
    assert "is a run or an evaluation" in export(tmp_path / "empty", tmp_path / "report.html", code=1)


def test_a_report_is_written_over(run: Path, tmp_path: Path):
    (tmp_path / "report.html").write_text("old")
    export(make_run(tmp_path / "other"), tmp_path / "report.html")
    assert "old" not in (tmp_path / "report.html").read_text()[:10]
