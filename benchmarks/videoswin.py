"""Speed and memory of the video Swin against torchvision's.

    python benchmarks/videoswin.py                        # CPU, VideoSwin-T, 32 frames of 224 x 224, one thread
    python benchmarks/videoswin.py --models tiny small --threads 1 2

Every ratio comes from one interleaved run (torchvision, ours, torchvision, ...): these machines are shared and absolute
times drift. Writes benchmarks/results/videoswin_DEVICE.json and prints the targets with what was reached. Weights are
random, and the same in both models: time does not depend on them, and the logits are compared.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.video.swin_transformer import SwinTransformer3d

import tokred
from tokred.backbones import windows
from tokred.backbones.convert import to_official
from tokred.backbones.zoo import backbone_spec
from tokred.measure.latency import interleave, speedup
from tokred.measure.memory import peak_memory
from tokred.run.environment import environment

RESULTS = Path(__file__).parent / "results"
DENSE_SPEEDUP = 1.5


def torchvision_twin(name: str) -> nn.Module:
    """torchvision's model of the same size, with random weights."""
    sizes = backbone_spec(name).builder
    window = list(sizes.get("window", (8, 7, 7)))
    depths, heads = list(sizes["depths"]), list(sizes["num_heads"])
    return SwinTransformer3d([2, 4, 4], sizes["dim"], depths, heads, window, num_classes=sizes["num_classes"]).eval()


def kept_mib(model: nn.Module) -> float:
    """Size of the biases that stay in memory between calls, in 2**20 bytes."""
    found = [windows._KEPT[module] for module in model.modules() if module in windows._KEPT]
    return sum(bias.nbytes for kept in found for bias in kept.biases.values()) / 2**20


def dense(name: str, clips: Tensor, threads: int, seconds: float) -> dict[str, Any]:
    """The whole model, unreduced: speed-up over torchvision, peak memory of both, largest difference of logits."""
    torch.set_num_threads(threads)
    device = clips.device
    theirs = torchvision_twin(name)
    ours = tokred.create_backbone(name, pretrained=False)
    ours.load_state_dict(to_official(theirs))
    models = {"torchvision": theirs.to(device, clips.dtype), "tokred": ours.to(device, clips.dtype)}
    calls = {key: torch.inference_mode()(lambda model=model: model(clips)) for key, model in models.items()}
    logits = [call() for call in calls.values()]
    peaks = {key: peak_memory(call, device=device).peak_mib for key, call in calls.items()}
    run = interleave(calls, device=device, num_threads=threads, max_seconds=seconds, max_rounds=15, warmup=1)
    base, own = run.timings
    ratio = speedup(own, base)
    return {
        "model": name,
        "threads": threads,
        "dtype": str(clips.dtype).removeprefix("torch."),
        "clips": list(clips.shape),
        "rounds": base.rounds,
        "torchvision_ms": base.median_ms,
        "torchvision_iqr_ms": base.iqr_ms,
        "ms": own.median_ms,
        "iqr_ms": own.iqr_ms,
        "speedup": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "torchvision_peak_mib": peaks["torchvision"],
        "peak_mib": peaks["tokred"],
        "kept_bias_mib": kept_mib(ours),
        "largest_logit": float(logits[0].abs().max()),
        "difference": float((logits[0] - logits[1]).abs().max()),
        "notes": list(run.notes),
    }


def targets(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was aimed at in the dense model, what was reached, and whether it was."""
    where = f"{found['model']}, {found['threads']} threads, {found['dtype']}, batch {found['clips'][0]}"
    total = found["peak_mib"] + found["kept_bias_mib"]
    wanted = [
        (f"{where}: at least {DENSE_SPEEDUP}x torchvision", found["speedup"], DENSE_SPEEDUP, 1),
        (f"{where}: peak memory with kept biases not above torchvision's", total, found["torchvision_peak_mib"], -1),
        (f"{where}: logits are torchvision's", found["difference"], 1e-5 * max(1.0, found["largest_logit"]), -1),
    ]
    return [
        {"target": text, "reached": reached, "wanted": goal, "met": (reached - goal) * sign >= 0}
        for text, reached, goal, sign in wanted
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of the video Swin.")
    parser.add_argument("--models", nargs="+", default=["tiny"], choices=["tiny", "small", "base", "base_w16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--seconds", type=float, default=90.0, help="per model and thread count")
    arguments = parser.parse_args()
    clips = torch.randn(arguments.batch, 3, 32, 224, 224, generator=torch.Generator().manual_seed(0))
    clips = clips.to(arguments.device, getattr(torch, arguments.dtype))
    found, reached = [], []
    for model in arguments.models:
        for threads in arguments.threads:
            found.append(dense(f"videoswin_{model}", clips, threads, arguments.seconds))
            for line in targets(found[-1]):
                reached.append(line)
                verdict = "met" if line["met"] else "MISSED"
                print(
                    f"{verdict:>6}  {line['target']}: {line['reached']:.3g} (wanted {line['wanted']:.3g})", flush=True
                )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"videoswin_{torch.device(arguments.device).type}.json"
    content = {"environment": environment(arguments.device, arguments.dtype), "targets": reached, "dense": found}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
