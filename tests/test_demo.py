"""The demo at reduced size, as a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tokred import list_methods

ROOT = Path(__file__).resolve().parents[1]


def test_every_method_on_the_trained_model(tmp_path: Path) -> None:
    out = tmp_path / "demo run"
    words = ["compare", "--clips", "10", "--timing", "1", "--out", str(out)]
    run = [sys.executable, "-c", "from tokred.cli import main; main()", *words]
    environment = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("results.json", "results.csv", "report.html", "accuracy_gflops.png", "speed.png"):
        assert (out / name).stat().st_size > 1000, name
    results = json.loads((out / "results.json").read_text())
    finished = {row["method"] for row in results["rows"] if row["status"] == "done"}
    refused = {row["method"]: row["reason"] for row in results["rows"] if row["status"] == "refused"}
    assert finished | set(refused) == set(list_methods())
    learned = {name for name, method in list_methods().items() if method.capabilities.trainable}
    # Windows are not here, and gates save nothing inside a single clip.
    assert set(list_methods()) - finished <= learned | {"sta_window", "eventful"}, "what needs no training runs"
    assert "window attention" in refused["sta_window"]
    assert results["complete"]
    none = results["rows"][0]
    # Ten clips say little about accuracy, but a trained model is far above the 10 and 12.5 % of chance.
    assert all(numbers["top1"] >= 0.6 for numbers in none["accuracy"].values())
    for method in finished:
        assert method in done.stdout


def test_make_demo_calls_compare() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (shown,) = re.findall(r"(?m)^SHOWN := (.*)$", makefile)
    assert "tokred compare --reducers $(SHOWN) --out" in makefile
    assert set(shown.split(",")) < set(list_methods())
