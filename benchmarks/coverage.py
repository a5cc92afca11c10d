"""Which networks can be pruned: torchvision's classification models and networks of timm, each proven by the preflight.

    python benchmarks/coverage.py coverage.jsonl                  # all of them; goes on where it was stopped
    python benchmarks/coverage.py coverage.jsonl --models torchvision:resnet18,timm:vit_tiny_patch16_224
    python benchmarks/coverage.py coverage.jsonl --table          # what was found, as Markdown
    python benchmarks/coverage.py docs/results/model-coverage.jsonl.gz --table

Each network has random weights, ten classes and the smallest square image that it takes, and runs in a process of its
own, niced, with bounds on processor time and memory.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

SIDES = (32, 48, 64, 75, 96, 112, 128, 160, 192, 224, 256, 288, 384)

TIMM = (
    "resnet26d", "resnetv2_50", "resnest14d", "resnext26ts", "seresnet18", "skresnet18", "ecaresnet26t",
    "res2net50_26w_4s", "gcresnext26ts", "resnetblur18", "wide_resnet50_2", "densenetblur121d", "dla34",
    "dpn68", "vovnet39a", "ese_vovnet19b_dw", "hrnet_w18_small", "cspresnet50", "cspdarknet53", "darknet53",
    "selecsls42b", "repvgg_a0", "mobileone_s0", "mobilenetv3_small_050", "mobilenetv4_conv_small",
    "efficientnet_lite0", "tf_efficientnetv2_b0", "mixnet_s", "ghostnet_100", "fbnetc_100", "hardcorenas_a",
    "rexnet_100", "regnetz_b16", "nf_regnet_b0", "eca_nfnet_l0", "inception_v4", "xception41", "convnext_atto",
    "convnextv2_atto", "edgenext_xx_small", "fastvit_t8", "mobilevit_xxs", "mobilevitv2_050",
    "efficientformerv2_s0", "inception_next_atto", "poolformer_s12", "vit_tiny_patch16_224",
    "deit_tiny_patch16_224", "cait_xxs24_224", "pit_ti_224", "levit_128s", "convit_tiny",
    "swin_tiny_patch4_window7_224", "pvt_v2_b0", "mixer_s32_224", "resmlp_12_224", "gmlp_ti16_224",
    "coatnet_nano_rw_224", "maxvit_pico_rw_256", "efficientvit_b0", "xcit_nano_12_p16_224", "tiny_vit_5m_224",
    "eva02_tiny_patch14_224", "hgnetv2_b0", "starnet_s1",
)  # fmt: skip


def models() -> list[str]:
    """List the networks."""
    import torchvision

    own = torchvision.models.list_models(module=torchvision.models)
    return [*(f"torchvision:{name}" for name in own), *(f"timm:{name}" for name in TIMM)]


def build(name: str) -> tuple[Any, int]:
    """Build a network and find the smallest side of an image that it takes."""
    import torch

    family, _, plain = name.partition(":")
    if family == "timm":
        import timm

        model = timm.create_model(plain, num_classes=10)
        usual = int(model.default_cfg["input_size"][-1])
        fixed = bool(model.default_cfg.get("fixed_input_size"))
    else:
        from search.tasks.models.torchvision_models import torchvision_model

        model, usual, fixed = torchvision_model(plain, 10), 224, False
    model.eval()
    for side in (usual,) if fixed else sorted({*SIDES, usual}):
        try:
            for training in (False, True):
                with torch.no_grad():
                    model.train(training)(torch.randn(2, 3, side, side))
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError):
            continue
        return model.eval(), side
    return model.eval(), usual


def examine_one(name: str, seconds: int, gigabytes: float) -> dict[str, Any]:
    """Prove one network; runs in a process of its own."""
    warnings.simplefilter("ignore")
    limit = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))  # other work on the machine does not count
    import torch

    from methods.network.preflight import examine
    from spaces import InputError

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, side = build(name)
    start = time.process_time()
    row: dict[str, Any] = {"model": name, "side": side}
    try:
        found = examine(model, torch.randn(1, 3, side, side))
    except InputError as error:
        return row | {"verdict": "refused", "why": str(error)[:300], "seconds": time.process_time() - start}
    reasons = Counter(found.analysis.stays.values())
    return row | {
        "verdict": "proven",
        "groups": len(found.groups),
        "units": sum(group.channels for group in found.groups),
        "flops": found.dense.flops,
        "least": found.least.flops / found.dense.flops,
        "least_params": found.least.params / found.dense.params,
        "difference": found.difference,
        "seconds": time.process_time() - start,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "stays": {why[:200]: count for why, count in reasons.most_common(4)},
    }


def run(name: str, seconds: int, gigabytes: float) -> dict[str, Any]:
    """Prove one network within bounds."""
    command = [sys.executable, __file__, "--one", name, "--seconds", str(seconds), "--gigabytes", str(gigabytes)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda: os.nice(19), check=False)
    if done.returncode == -signal.SIGXCPU:
        return {"model": name, "verdict": "too slow", "why": f"more than {seconds} seconds of processor time"}
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    big = "Memory" in said or "memory" in said or done.returncode < 0
    return {"model": name, "verdict": "too large" if big else "crashed", "why": said[:300]}


def read(file: Path) -> list[dict[str, Any]]:
    """Read what was found so far, perhaps compressed; the last row of a network counts."""
    if not file.exists():
        return []
    text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()
    rows = {row["model"]: row for row in map(json.loads, text.splitlines())}
    return list(rows.values())


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the findings out as Markdown."""
    lines = []
    for family in ("torchvision", "timm"):
        own = [row for row in rows if row["model"].startswith(f"{family}:")]
        good = [row for row in own if row["verdict"] == "proven" and row["least"] <= 0.4]
        if own:
            share = f"{len(good) / len(own):.0%}"
            lines.append(f"{family}: {len(good)} of {len(own)} ({share}) pass every proof and reach 40% of the FLOPs")
    lines += ["", "| model | side | groups | units | least FLOPs | least parameters | seconds | MB | verdict |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        if row["verdict"] == "proven":
            stays = next((why for why in row["stays"] if "network's output" not in why), "")
            said = f"proven; in parts whole: {stays}" if stays else "proven"
            cells = [row["side"], row["groups"], row["units"], f"{row['least']:.1%}", f"{row['least_params']:.1%}"]
            cells += [f"{row['seconds']:.1f}", row["megabytes"], said.replace("|", "/")]
        else:
            why = row.get("why", "").replace("|", "/").replace("\n", " ")
            cells = [row.get("side", ""), "", "", "", "", f"{row['seconds']:.1f}" if "seconds" in row else "", ""]
            cells.append(f"{row['verdict']}: {why}")
        lines.append("| " + " | ".join(map(str, [row["model"], *cells])) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prove what is not in the file yet, or print what is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--models", default="")
    parser.add_argument("--seconds", type=int, default=900)
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--one")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(examine_one(options.one, options.seconds, options.gigabytes)))
        return
    if options.file is None:
        parser.error("give the file of the findings")
    rows = read(options.file)
    if options.table:
        print(table(rows))
        return
    done = {row["model"] for row in rows}
    for name in options.models.split(",") if options.models else models():
        if name not in done:
            row = run(name, options.seconds, options.gigabytes)
            with options.file.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(
                row["model"],
                row["verdict"],
                f"{row['least']:.3f}" if "least" in row else row.get("why", ""),
                flush=True,
            )


if __name__ == "__main__":
    main()
