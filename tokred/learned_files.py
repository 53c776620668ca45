"""Files with the parameters of learned methods: safetensors with a header. Some come with the package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from tokred.learned import SHIPPED, LearnedError, LearnedReducer

FORMAT = "tokred learned reducer, 1"
STORED = torch.float16


def shipped_weights(method: str, host: nn.Module) -> Path | None:
    """The weights that come with the package for a method on a host, None where there are none.

    They belong to the embedded weights of a named backbone: with others they would be random numbers.
    """
    from tokred.backbones.spec import backbone_info
    from tokred.backbones.zoo import WEIGHTS_FOLDER

    info = backbone_info(host)
    if not method or info is None or info.weights != "embedded":
        return None
    path = WEIGHTS_FOLDER / f"{method}-{info.spec.name}.safetensors"
    return path if path.is_file() else None


def save_learned(
    reducer: LearnedReducer,
    path: str | os.PathLike[str],
    *,
    backbone: str,
    backbone_sha256: str,
    recipe: str,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the parameters of a trained reducer as float16 safetensors, in one step.

    Args:
        backbone: name of the backbone that it was trained on; backbone_sha256: digest of that one's weights.
        recipe: what it was trained by; metadata: more text for the header.
    Raises:
        LearnedError: it is not trained.
    """
    from safetensors.torch import save_file

    if not reducer.trained:
        raise LearnedError(f"{reducer.spec} is untrained: there is nothing to save")
    state = {
        name: (tensor.detach().cpu().to(STORED) if tensor.is_floating_point() else tensor.detach().cpu()).contiguous()
        for name, tensor in reducer.state_dict().items()
    }
    header = {
        **(metadata or {}),
        "format": FORMAT,
        "method": reducer.method,
        "settings": reducer.with_(weights=SHIPPED).spec if "weights" in reducer.config else reducer.spec,
        "backbone": backbone,
        "backbone_sha256": backbone_sha256,
        "recipe": recipe,
    }
    file = Path(path)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        save_file(state, str(partial), metadata=header)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def load_learned(reducer: LearnedReducer, path: str | os.PathLike[str]) -> None:
    """Read what ``save_learned`` wrote into a reducer that is built.

    Raises:
        LearnedError: the file cannot be read, is of another method, or does not fit; the reducer is unchanged then.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(path)
    try:
        with safe_open(file, framework="pt") as opened:
            header: dict[str, str] = opened.metadata() or {}
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise LearnedError(f"weights = {str(path)!r} is no readable safetensors file: {error}") from error
    if header.get("format") != FORMAT or header.get("method") != reducer.method:
        raise LearnedError(
            f"{file.name} holds weights of {header.get('method', 'something else')!r}, not of a learned method "
            f"{reducer.method!r}"
        )
    state, adapted = reducer.adapt(state)
    own = reducer.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} is unknown" for name in state if name not in own]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    wrong += [f"{name} is not finite" for name, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise LearnedError(f"{file.name} does not fit {reducer.spec} here: {'; '.join(wrong[:3])}{more}")
    reducer.load_state_dict(state)
    settings, backbone = header.get("settings", reducer.method), header.get("backbone", "a backbone")
    told = [f"{settings} on {backbone}", header.get("recipe") or file.name, adapted]
    reducer.provenance = ", ".join(part for part in told if part)
