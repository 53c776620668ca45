"""Which check catches which of the deliberately wrong reducers, and what its report says."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Specimen(NamedTuple):
    """A wrong reducer of a file ``wrong*.py``, the check that is meant for it, words of its report; where it shows.

    ``drawn`` tells whether drawn steps show it too, without any model.
    """

    reducer: str
    check: str
    says: str
    backbone: str = "video"
    drawn: bool = False


ZOO = (
    Specimen("ReadsInSecret", "check_declared_needs", "key is not declared"),
    Specimen("AssumesFrames", "check_declared_needs", 'declare that it needs "frames"'),
    Specimen("LearnsInSecret", "check_declarations", "no parameters, as trainable=False declares"),
    Specimen("Sleeps", "check_declarations", "a strength, or defaults that reduce"),
    Specimen("NeverWhole", "check_identity_at_zero", "a difference of", drawn=True),
    Specimen("TrustsBits", "check_fused_equals_eager", "the same decisions with unfused attention"),
    Specimen("EagerOnly", "check_fused_equals_eager", "the same decisions with unfused attention"),
    Specimen("CountsItsCalls", "check_neutral_composition", "beside a part that does nothing"),
    Specimen("KeepsTheModel", "check_detach_leaves_nothing", "nothing to hold the model after detach"),
    Specimen(
        "OneTooMany", "check_token_count_is_scheduled", "48 patch tokens after the step at block 1 on 96", drawn=True
    ),
    Specimen("ContentDecides", "check_token_count_is_scheduled", "patch tokens after the step", drawn=True),
    Specimen("PruneRatioAsKeepRatio", "check_token_count_is_scheduled", "24 patch tokens", drawn=True),
    Specimen("Backwards", "check_strength_is_monotone", "with more strength"),
    Specimen("SwallowsNonsense", "check_impossible_is_refused", "keep = 0 to be refused"),
    Specimen("SilentClamp", "check_impossible_is_refused", "or a note that says what was done instead"),
    Specimen("KnowsTheCount", "check_composition", "24 patch tokens after the step at block 1 on 48"),
    Specimen("SumsMerged", "check_values", "means by mass of what was merged", drawn=True),
    Specimen("MassIgnored", "check_values", "stand for different numbers of patches", drawn=True),
    Specimen("WrongMix", "check_values", "equal tokens to stay what they are", drawn=True),
    Specimen("FusesTwice", "check_values", "the rest added up by its weights", drawn=True),
    Specimen("ForgetsEarlierMerges", "check_mass_conserved", "96 in tokens and 0 dropped", drawn=True),
    Specimen("LosesMass", "check_mass_conserved", "48 in tokens and 0 dropped", drawn=True),
    Specimen(
        "DropsTheClassToken", "check_order_and_prefix_kept", "2 prefix tokens untouched in front", "image", drawn=True
    ),
    Specimen("KeepsTwice", "check_order_and_prefix_kept", "kept twice", drawn=True),
    Specimen("OutOfOrder", "check_order_and_prefix_kept", "the original order", drawn=True),
    Specimen("UnevenFrames", "check_order_and_prefix_kept", "temporal group", drawn=True),
    Specimen("RestoreGarbage", "check_restore", "a copy of the nearest kept token of the sequence", drawn=True),
    Specimen("IgnoresFill", "check_restore", "0 on the places dropped", drawn=True),
    Specimen("RestoresBackwards", "check_restore", "back in their places", drawn=True),
    Specimen(
        "LooksAtTheBatch", "check_batch_independence", "sample 0 alone to be reduced as in a batch of 3", drawn=True
    ),
    Specimen("CutsTheGradient", "check_gradients", "a gradient on the input", drawn=True),
    Specimen("DetachesMerged", "check_gradients", "none on 144 of 288 tokens", drawn=True),
    Specimen("HalfLearns", "check_gradients", "none to reducer.bias"),
    Specimen("TieOrder", "check_degenerate_inputs", "the earlier of two equal tokens"),
    Specimen("OnlyFloat32", "check_dtypes", "same dtype", drawn=True),
    Specimen("OverflowsHalf", "check_dtypes", "finite logits in torch.float16", drawn=True),
    Specimen("DividesByZero", "check_degenerate_inputs", "a model whose weights are all zero", drawn=True),
    Specimen("RanksInHalf", "check_decides_in_float32", "as from the same numbers in float32", drawn=True),
    Specimen("ReadsOneChannel", "check_channel_order", "with the channels in another order", drawn=True),
    Specimen("RollsDice", "check_determinism", "the same decisions on a second run", drawn=True),
    Specimen("RollsDice", "check_no_global_state", "torch's random state", drawn=True),
    Specimen("StirsPython", "check_no_global_state", "Python's random state", drawn=True),
    Specimen("Hooks", "check_no_global_state", "_global_forward_hooks", drawn=True),
    Specimen("Remembers", "check_no_state_between_forwards", "changes in last", drawn=True),
    Specimen("NeverForgets", "check_reset_forgets", "the same logits for a video after reset", drawn=True),
    Specimen("WritesInPlace", "check_tokens_untouched", "the features changed in place", drawn=True),
    Specimen("WritesSize", "check_tokens_untouched", "the masses changed in place", drawn=True),
    Specimen("WritesSeeds", "check_tokens_untouched", "the sample seeds changed in place", drawn=True),
    Specimen("WritesKeys", "check_tokens_untouched", "the keys changed in place", drawn=True),
    Specimen("WritesKeysQuietly", "check_tokens_untouched", "the keys changed in place", drawn=True),
    Specimen("WritesQueriesAndValues", "check_tokens_untouched", "the queries, the values changed", drawn=True),
    Specimen("CountsThreads", "check_threads", "on one thread and on two"),
    Specimen("SharesABoard", "check_threads", "forwards that run at once"),
    Specimen("KeepsFeatures", "check_memory", "no features alive after the forward"),
    Specimen("HoldsTheMap", "check_memory", "a whole attention map"),
    Specimen("CarriesALambda", "check_serialisation", "pickle"),
    Specimen("HiddenSetting", "check_serialisation", "made of its settings"),
    Specimen("NeedsAutograd", "check_inference_mode", "does not require grad"),
)

ELSEWHERE = {
    "check_blocks_taken_apart": "a fault of hosts: wrong adapters in test_identity.py",
    "check_pooling": "a fault of hosts: a wrong adapter in test_pooling.py",
    "check_counted_flops": "test_costs.py",
    "check_autocast": "test_devices.py",
    "check_cuda_autocast": "test_devices.py, where there is a GPU",
    "check_cuda_graphs": "test_devices.py, where there is a GPU",
    "check_compile": "test_graphs.py",
    "check_export": "test_programs.py",
    "check_onnx": "test_programs.py",
}


def about(*checks: str) -> list[Specimen]:
    """The specimens that these checks are meant for."""
    return [specimen for specimen in ZOO if specimen.check in checks]


def spec(reducer: str) -> str:
    """The spec of a reducer of the files ``wrong*.py``: "FILE.py:Class"."""
    files = Path(__file__).parent.glob("wrong*.py")
    (file,) = (file for file in files if f"\nclass {reducer}(" in file.read_text())
    return f"{file}:{reducer}"
