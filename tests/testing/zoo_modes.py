"""Which check catches which reducer of ``wrong_modes.py``: in which mode or surroundings, or at which size alone."""

from __future__ import annotations

from testing.zoo import Specimen

MODES = (
    Specimen("ShapeCache", "check_no_state_between_forwards", "after one of (2, 5, 11), which has as many patches"),
    Specimen("RandomInTraining", "check_determinism", "the same decisions in training mode"),
    Specimen("RaisesInTraining", "check_determinism", "no training here"),
    Specimen("GradModeFlips", "check_determinism", "the same decisions where gradients are recorded"),
    Specimen("DefaultDtype", "check_determinism", "the same decisions under a default dtype of bfloat16"),
    Specimen("PythonSeed", "check_determinism", "with other seeds"),
    Specimen("AutocastFlips", "check_autocast", "the same decisions under autocast to bfloat16"),
    Specimen("SeedsInInit", "check_no_global_state", "changes in torch's random state"),
    Specimen("SeedsItsWeights", "check_no_global_state", "torch's generator not to be seeded by construction"),
    Specimen("FlashOff", "check_no_global_state", "changes in flash attention, cudnn.benchmark"),
    Specimen("DoubleFromNowOn", "check_no_global_state", "changes in torch's default dtype"),
    Specimen("MutatesSettings", "check_serialisation", "at = [0], a caller's list, to stay as it was given"),
    Specimen("Hoards", "check_memory", "nothing alive that a step made for the tokens of one forward"),
    Specimen("ClaimsState", "check_declarations", "something to be kept between forwards"),
    Specimen("ClaimsDynamic", "check_declarations", "[(45,)] for all of 13 different contents"),
    Specimen("ClaimsNoIdentity", "check_declarations", "identity_at_zero=True is true of it"),
    Specimen("ClaimsGrid", "check_declarations", "kept tokens that are no grid"),
    Specimen("OverDeclares", "check_declared_needs", "attention never read"),
)

SIZES = (
    Specimen("BigBatch", "check_batch_independence", "sample 0 alone to be reduced as in a batch of 9"),
    Specimen("CountAtBatch8", "check_token_count_is_scheduled", "expected   326 patch tokens"),
    Specimen("ByteIndex", "check_order_and_prefix_kept", "prefix tokens untouched in front"),
    Specimen("BFloatPositions", "check_order_and_prefix_kept", "every kept token once"),
    Specimen("ManyFrames", "check_token_count_is_scheduled", "got        327"),
    Specimen("DeepLayers", "check_token_count_is_scheduled", "at block 7 on 336"),
    Specimen("NearOne", "check_token_count_is_scheduled", "got        336"),
    Specimen("Squeezes", "check_mass_conserved", "patches in kept, merged and dropped tokens"),
)

NOT_WRONG = (
    ("RandomWeights", "check_no_global_state"),
    ("TooModest", "check_declarations"),
    ("ByThreshold", "check_declarations"),
    ("EverySecondColumn", "check_declarations"),
    ("ReadsWithAClassToken", "check_declared_needs"),
)
"""What a check that is too strict would accuse."""
