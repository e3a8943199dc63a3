"""The analyst's afternoon of the documentation runs as it stands, in a process in which torch cannot be imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[4] / "docs" / "analysts-afternoon.md"

SCRIPT = """
import json, re, shlex, sys
from pathlib import Path
sys.modules["torch"] = None  # importing it fails from here on
from townlet_training_core.cli.app import app

for kind, text in json.loads(Path(sys.argv[1]).read_text()):
    if kind == "python":
        exec(compile(text, "page", "exec"), {})
        continue
    for line in filter(None, text.splitlines()):
        print("$", line, flush=True)
        words = shlex.split(line)
        assert words[0] == "townlet"
        try:
            app(words[1:])
        except SystemExit as stop:
            assert not stop.code, f"exit code {stop.code}: {line}"
assert not [name for name in sys.modules if name.startswith("torch.")]
"""


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside the package")
def test_the_page_runs_without_torch(tmp_path: Path) -> None:
    pytest.importorskip("townlet_sim")
    for needed in ("duckdb", "pyarrow", "matplotlib"):
        pytest.importorskip(needed)
    blocks = re.findall(r"```(console|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 8
    (tmp_path / "blocks.json").write_text(json.dumps(blocks))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "blocks.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("actions.png", "drift.png", "returns.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    assert "PASS expert" in done.stdout
    assert "decisions" in done.stdout
    assert json.loads((tmp_path / "verdict.json").read_text())["decision"] == "promote"
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ">Promotion</h2>" in report
    assert "queue_conflict" in report
