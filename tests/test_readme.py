"""The README's promises: its reducer runs as pasted, its links lead somewhere, its commands exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tokred.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_reducer_of_the_readme_runs_in_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = re.search(r"Save this as `mine.py`:\n\n```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    assert len([line for line in code.group(1).splitlines() if line.strip()]) <= 20
    (tmp_path / "mine.py").write_text(code.group(1))
    words = ["compare", "--reducers", f"{tmp_path / 'mine.py'}:Mine", "--budgets", "0.5", "--clips", "4"]
    with pytest.raises(SystemExit, match=r"^\d+$") as stopped:
        main([*words, "--timing", "0", "--out", str(tmp_path / "run")])
    assert stopped.value.code == 0, capsys.readouterr().err
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["done", "done"]
    assert rows[1]["method"] == "mine"
    assert rows[1]["gmac_share"] == pytest.approx(0.5, abs=0.02)


def test_the_python_example_runs() -> None:
    code = re.search(r"```python\nimport tokred\nfrom tokred.methods import STA\n(.*?)```", README, re.DOTALL)
    assert code is not None
    text = code.group(1).replace(', checkpoint="ckpt.pth"', "")
    assert 'create_backbone("videomae_vit_base"' in text
    # The nano model stands in for the large one: the same lines, without its minute of building and running.
    text = text.replace("videomae_vit_base", "videomae_vit_nano").replace("r=64", "r=16")
    import torch

    import tokred
    from tokred.methods import STA

    names = {"tokred": tokred, "STA": STA, "clips": torch.randn(1, 3, 16, 64, 64)}
    with torch.no_grad():
        exec(compile(text, "README.md", "exec"), names)
    assert names["logits"].shape == (1, 18)


def test_links_and_pictures_exist() -> None:
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", README) if not t.startswith(("http", "#"))]
    assert targets
    for target in targets:
        assert (ROOT / target.split("#")[0]).exists(), target


def test_every_method_stands_in_the_table() -> None:
    from tokred import list_methods

    for name in set(list_methods()) - {"none"}:
        assert f"`{name}`" in README, name


def test_every_command_of_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    commands = set(re.findall(r"tokred (compare|profile|report|parity|train|list|[a-z]+) ", README))
    commands &= {"compare", "profile", "report", "parity", "train", "list", "sweep", "show", "check", "tune", "stream"}
    assert commands
    for command in commands:
        with pytest.raises(SystemExit, match=r"^\d+$") as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0, command
