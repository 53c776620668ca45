"""What a result was made with."""

from __future__ import annotations

import json
from pathlib import Path

import tokred
from tokred.run import environment as module
from tokred.run.environment import code_digest, computing, environment


def test_it_names_versions_machine_and_precision() -> None:
    found = environment("cpu", "float32")
    assert json.loads(json.dumps(found)) == found
    assert found["tokred"] == tokred.__version__
    assert found["device"] == "cpu"
    assert found["processor"]


def test_other_code_has_another_digest(tmp_path, monkeypatch) -> None:
    here = code_digest()
    (tmp_path / "__init__.py").write_text("x = 1")
    monkeypatch.setattr(module.tokred, "__file__", str(tmp_path / "__init__.py"))
    code_digest.cache_clear()
    other = code_digest()
    (tmp_path / "__init__.py").write_text("x = 2")
    code_digest.cache_clear()
    assert len({here, other, code_digest()}) == 3
    code_digest.cache_clear()


def test_only_source_that_values_pass_through_is_part_of_a_cells_name() -> None:
    root = Path(tokred.__file__).parent
    names = {path.relative_to(root).as_posix() for path in computing(root)}
    assert names >= {
        "driver.py",
        "methods/sta.py",
        "run/work.py",
        "run/evaluate.py",
        "data/decode.py",
        "measure/gradnorm.py",
    }
    assert not {name for name in names if name.startswith(("report/", "cli/", "testing/", "run/sweep"))}
