"""What a result was made with."""

from __future__ import annotations

import json

import tokred
from tokred.run import environment as module
from tokred.run.environment import code_digest, environment


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
