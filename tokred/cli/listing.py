"""``tokred list``."""

from __future__ import annotations

from typing import Annotated

import typer

from tokred.cli.options import Json, one_of, print_json

KINDS = ("all", "methods", "backbones", "data", "experiments")


def command(
    kind: Annotated[str, typer.Argument(callback=one_of(*KINDS), help=f"One of {', '.join(KINDS)}.")] = "all",
    json: Json = False,
) -> int:
    """Methods, backbones, data sets and experiments."""
    from tokred.registry import broken_plugins, list_methods

    found: dict[str, dict[str, str]] = {}
    if kind in ("all", "methods"):
        found["methods"] = {name: f"[{cls.status}] {_first_line(cls.__doc__)}" for name, cls in list_methods().items()}
    if kind in ("all", "backbones"):
        found["backbones"] = _backbones()
    if kind in ("all", "data"):
        found["data"] = {
            "synthetic": "generated actions: appearance and motion labels, no download",
            "FOLDER": "videos, or one folder per class",
            "LIST": "text file, `path label` per line (space, comma or tab)",
            "VIDEO": "one file",
            "cifar10:PATH": "CIFAR-10: standard files, their archive, or train.npz and test.npz",
            "images:PATH": "pictures, or one folder per class; --animate turns them into clips",
        }
    if kind in ("all", "experiments"):
        found["experiments"] = _experiments()
    broken = broken_plugins()
    if json:
        print_json({**found, "broken_plugins": [vars(b) for b in broken]})
    else:
        for title, entries in found.items():
            print(f"{title}:")
            width = max((len(name) for name in entries), default=0)
            for name, text in entries.items():
                print(f"  {name:<{width}}  {text}")
        for b in broken:
            print(f"plug-in {b.name} ({b.distribution}) could not be loaded: {b.reason}")
    return 0


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().partition("\n")[0]


def _backbones() -> dict[str, str]:
    from tokred.backbones.zoo import backbone_spec, list_backbones

    found = {}
    for name in list_backbones():
        spec = backbone_spec(name)
        weights = "trained weights inside" if spec.weights else "give --checkpoint"
        found[name] = f"{spec.frames} frames of {spec.size[0]}x{spec.size[1]}, {weights}"
    found["timm/NAME"] = "an image VisionTransformer of timm"
    found["hf/FOLDER"] = "a local folder with a transformers VideoMAEForVideoClassification"
    return found


def _experiments() -> dict[str, str]:
    """Experiment files of a checkout: their first comment line is their purpose; sweeps with their profiles."""
    from pathlib import Path

    import tokred
    from tokred.run.spec_file import SpecError, read_yaml

    folder = Path(tokred.__file__).resolve().parents[1] / "experiments"
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        first = path.read_text().lstrip().partition("\n")[0]
        purpose = first.lstrip("# ") if first.startswith("#") else ""
        try:
            content = read_yaml(path)
        except SpecError as error:
            found[path.name] = f"{purpose} (cannot be read: {error.problems[0]})".strip()
            continue
        profiles = content.get("profiles") if isinstance(content, dict) else None
        sizes = f" [{', '.join(map(str, profiles))}]" if isinstance(profiles, dict) else ""
        found[path.name] = purpose + sizes
    return found
