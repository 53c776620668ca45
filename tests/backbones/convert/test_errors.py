from __future__ import annotations

from tokred.backbones.convert.errors import CheckpointError


def test_a_checkpoint_error_is_a_value_error_that_carries_the_keys() -> None:
    error = CheckpointError("file: no", missing=("a",), unexpected=("b", "c"), misshaped=("d",))
    assert isinstance(error, ValueError)
    assert (str(error), error.missing, error.unexpected, error.misshaped) == ("file: no", ("a",), ("b", "c"), ("d",))
