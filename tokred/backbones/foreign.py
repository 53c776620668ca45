"""Models of timm and transformers by name, built without any download."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokred.backbones.convert import CheckpointError, read_file
from tokred.backbones.convert.fit import check_fit
from tokred.backbones.spec import IMAGENET_MEAN, IMAGENET_STD, BackboneInfo, BackboneSpec, set_info

_HF_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_HF_MODEL_TYPE = "videomae"


def create_timm(
    name: str, checkpoint: str | os.PathLike[str] | None, num_classes: int | None, overrides: Mapping[str, Any]
) -> nn.Module:
    """A timm model, random or from a file with the model's own names.

    Raises:
        ImportError: timm is not installed; ValueError: no such model (with close matches), or arguments it refuses;
        CheckpointError: weights that cannot be read or do not fit.
    """
    timm = _timm(name)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        meant = f"; close: {', '.join(f'timm/{match}' for match in close)}" if close else ""
        raise ValueError(f"timm {timm.__version__} has no model {name!r}{meant}")
    raw = None if checkpoint is None else read_file(checkpoint)
    state = None if raw is None else {key.removeprefix("module."): tensor for key, tensor in raw.tensors.items()}
    heads = _heads(timm.get_pretrained_cfg(name))
    classes = num_classes
    if classes is None and state is not None:
        classes = next((state[f"{head}.weight"].shape[0] for head in heads if f"{head}.weight" in state), None)
    arguments = dict(overrides) if classes is None else {**overrides, "num_classes": classes}
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    except (TypeError, AssertionError) as error:
        raise ValueError(f"timm/{name} refuses {', '.join(overrides) or 'its arguments'}: {error}") from error
    spec = _timm_spec(name, model)
    if raw is None or state is None:
        set_info(model, BackboneInfo(spec, None, "random", ("weights are random: none were given",)))
    else:
        notes = (*raw.notes, *load_strictly(raw.path, model, state, heads if num_classes is not None else ()))
        set_info(model, BackboneInfo(spec, raw.path, "timm", notes))
    return model


def create_hf(folder: str, num_classes: int | None, *, weights: bool = True) -> nn.Module:
    """``VideoMAEForVideoClassification`` from a local folder (config.json and weights), in float32.

    Args:
        weights: False takes only the sizes from the folder.
    Raises:
        ImportError: transformers is not installed; CheckpointError: no such folder, another model, or weights that
        do not fit.
    """
    place = Path(folder)
    config_file = place / "config.json"
    if not config_file.is_file():
        raise CheckpointError(f"hf/{folder}: no config.json there; a local folder is needed, nothing is downloaded")
    entries = _read_json(config_file)
    if entries.get("model_type") != _HF_MODEL_TYPE:
        raise CheckpointError(f"{config_file}: model_type is {entries.get('model_type')!r}; {_HF_MODEL_TYPE!r} is read")
    file = next((place / name for name in _HF_WEIGHTS if (place / name).is_file()), None)
    if weights and file is None:
        raise CheckpointError(f"hf/{folder}: holds no weights; one of {', '.join(_HF_WEIGHTS)} is read")
    try:
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification
    except ImportError as error:
        raise ImportError(f"hf/{folder} needs transformers: pip install 'tokred[hf]'") from error
    config = VideoMAEConfig.from_dict(entries)
    raw = read_file(file) if weights and file is not None else None
    head = None if raw is None else raw.tensors.get("classifier.weight")
    classes = num_classes if num_classes is not None or head is None else head.shape[0]
    if classes is not None and classes != config.num_labels:
        config.num_labels = classes
    model: nn.Module = VideoMAEForVideoClassification(config)
    spec, notes = _hf_spec(folder, config)
    if raw is None:
        set_info(model, BackboneInfo(spec, None, "random", ("weights are random: none were asked for", *notes)))
        return model
    state = _rename_biases(raw.tensors, model.state_dict())
    notes = [
        *raw.notes,
        *load_strictly(raw.path, model, state, ("classifier",) if num_classes is not None else ()),
        *notes,
    ]
    set_info(model, BackboneInfo(spec, raw.path, "Hugging Face", tuple(notes)))
    return model


def timm_matches(name: str) -> list[str]:
    """Names of timm close to a name, if timm is loaded or installed; for error messages only."""
    try:
        timm = _timm(name)
    except ImportError:
        return []
    return difflib.get_close_matches(name.removeprefix("timm/"), timm.list_models(), n=2, cutoff=0.7)


def _timm(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"timm/{name} needs timm: pip install timm ({error})") from error
    return timm


def _heads(config: Any) -> tuple[str, ...]:
    classifier = getattr(config, "classifier", None) or "head"
    return (classifier,) if isinstance(classifier, str) else tuple(classifier)


def load_strictly(path: str, model: nn.Module, state: dict[str, Tensor], new_heads: tuple[str, ...]) -> list[str]:
    """Strict loading; heads that may start anew do so where their shape differs or they are missing."""
    expected = dict(model.state_dict())
    if any(tensor.is_meta for tensor in expected.values()):
        raise CheckpointError(f"{path}: the model is on the meta device, which has no memory to load into")
    notes = []
    for head in new_heads:
        names = [f"{head}.weight", f"{head}.bias"]
        if any(n in expected and (n not in state or state[n].shape != expected[n].shape) for n in names):
            notes.append(f"{head} of the file dropped, the new one is not trained")
            for n in names:
                state.pop(n, None)
                expected.pop(n, None)
        elif not any(n in expected for n in names) and any(n in state for n in names):
            notes.append(f"{head} of the file dropped, none was asked for")
            for n in names:
                state.pop(n, None)
    hints = () if new_heads else ("num_classes=N asks for a new head",)
    check_fit(f"{path}: the checkpoint", state, expected, hints)
    stored = sorted({str(t.dtype).removeprefix("torch.") for t in state.values() if t.dtype != torch.float32})
    if stored:
        notes.append(f"stored as {', '.join(stored)}, loaded as float32")
    model.load_state_dict(state, strict=False)
    return notes


def _rename_biases(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """q_bias and v_bias became query.bias and value.bias in transformers 5; take either for either."""
    out = {}
    for key, tensor in tensors.items():
        for old, new in ((".q_bias", ".query.bias"), (".v_bias", ".value.bias")):
            for one, other in ((old, new), (new, old)):
                if key not in expected and key.endswith(one) and key.removesuffix(one) + other in expected:
                    key = key.removesuffix(one) + other
        out[key] = tensor
    return out


def _read_json(file: Path) -> dict[str, Any]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file}: is no JSON: {error}") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file}: holds a {type(entries).__name__}, not an object")
    return entries


def _timm_spec(name: str, model: nn.Module) -> BackboneSpec:
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or config.get("input_size", (3, 224, 224))[1:]
    mean, std = tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD))
    return BackboneSpec(f"timm/{name}", frames=1, size=(size[0], size[1]), mean=mean, std=std, layout="BCHW")


def _hf_spec(folder: str, config: Any) -> tuple[BackboneSpec, list[str]]:
    size = config.image_size if isinstance(config.image_size, (tuple, list)) else (config.image_size,) * 2
    mean, std, notes = IMAGENET_MEAN, IMAGENET_STD, []
    file = Path(folder) / "preprocessor_config.json"
    if file.is_file():
        entries = _read_json(file)
        mean, std = tuple(entries.get("image_mean", mean)), tuple(entries.get("image_std", std))
    else:
        notes.append("no preprocessor_config.json: ImageNet mean and standard deviation are used")
    spec = BackboneSpec(
        f"hf/{folder}", config.num_frames, (size[0], size[1]), mean=mean, std=std, stride=4, layout="BTCHW"
    )
    return spec, notes
