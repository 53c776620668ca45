"""``tokred profile``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tokred.cli.options import Backbone, Classes, Device, Dtype, Json, Seed, number, print_json, whole

GIGA = 1e9


def command(
    backbone: Backbone = "videomae_vit_nano",
    reducer: Annotated[str, typer.Option("--reducer", help="e.g. sta:r=64; default: unreduced.")] = "none",
    budget: Annotated[
        float | None,
        typer.Option("--budget", parser=number(0, 1), help="Solve the strength for this share of the unreduced cost."),
    ] = None,
    time: Annotated[bool, typer.Option("--time", help="Also run the real model: time and peak memory.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", parser=whole(1), help="Clips per call for --time.")] = 1,
    num_classes: Classes = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Multiply-adds, parameters and tokens per block, without running the model."""
    from tokred.run.profile import profile

    found = profile(
        backbone,
        reducer,
        budget=budget,
        timed=time,
        batch_size=batch_size,
        num_classes=num_classes,
        device=device,
        dtype=dtype,
        seed=seed,
    )
    if json:
        print_json(found)
    else:
        for line in _summary(found):
            print(line)
        _print_blocks(found)
        for note in found["notes"]:
            print(f"note: {note}")
        if "measured" in found:
            for line in _measured(found["measured"]):
                print(line)
    return 0


def _summary(found: dict[str, Any]) -> list[str]:
    return [
        f"{found['backbone']} with {found['reducer']}, one {_unit(found)} {tuple(found['input'])}",
        f"  {found['total_macs'] / GIGA:.3f} GMAC (papers print this as GFLOPs) = "
        f"{found['total_flops'] / GIGA:.3f} GFLOP",
        f"  {found['share']:.1%} of the unreduced {found['unreduced_macs'] / GIGA:.3f} GMAC, "
        f"implied speed-up {found['implied_speedup']:.2f}x",
        *_lean(found),
        f"  reduction steps {found['reduction_macs'] / GIGA:.4f} GMAC as published ({found['reduction_share']:.2%}), "
        f"{found['executed_reduction_macs'] / GIGA:.4f} GMAC as run here",
        f"  embedding {found['embed_macs'] / GIGA:.4f} GMAC, head {found['head_macs'] / GIGA:.6f} GMAC, "
        f"{found['parameters'] / 1e6:.2f} M parameters, {found['tokens']['final']} tokens reach the head",
    ]


def _unit(found: dict[str, Any]) -> str:
    return "image" if len(found["input"]) == 4 else "clip"


def _lean(found: dict[str, Any]) -> list[str]:
    """Hosts with windows: what patch merging costs, and the count without queries of replicas."""
    lines = []
    if found["merging_macs"]:
        lines.append(f"  patch merging between the stages {found['merging_macs'] / GIGA:.4f} GMAC, on whole grids")
    if found["lean_macs"] != found["total_macs"]:
        lines.append(
            f"  {found['lean_macs'] / GIGA:.3f} GMAC without queries of replicas, as run here: implied speed-up "
            f"{found['unreduced_macs'] / found['lean_macs']:.2f}x"
        )
    return lines


def _print_blocks(found: dict[str, Any]) -> None:
    print(f"{'block':>5}{'tokens':>8}{'in MLP':>8}{'attention':>11}{'MLP':>9}{'norm':>9}{'reduction':>11}   GMAC")
    tokens = found["tokens"]
    for i, block in enumerate(found["block_macs"]):
        parts = (block[name] / GIGA for name in ("attention", "mlp", "norm", "reduction"))
        attention, mlp, norm, reduction = (f"{part:.4f}" for part in parts)
        print(f"{i:>5}{tokens['attention'][i]:>8}{tokens['mlp'][i]:>8}{attention:>11}{mlp:>9}{norm:>9}{reduction:>11}")


def _measured(measured: dict[str, Any]) -> list[str]:
    peak = {name: size / 2**20 for name, size in measured["peak_bytes"].items()}
    return [
        f"measured, batch {measured['batch']}, {measured['threads']} threads:",
        f"  {measured['reduced_ms']:.1f} ms against {measured['unreduced_ms']:.1f} ms unreduced, speed-up "
        f"{measured['speedup']:.2f}x [{measured['speedup_low']:.2f}, {measured['speedup_high']:.2f}]",
        f"  peak memory {peak['reduced']:.0f} MiB against {peak['unreduced']:.0f} MiB ({measured['memory_method']})",
        *(f"  note: {note}" for note in measured["notes"]),
    ]
