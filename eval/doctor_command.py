"""`gve doctor`: what is installed, what runs where and how fast, and what to change. Paste its output into an issue."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from gve.eval import environment
from gve.eval.console import printable, run_command

OK, BROKEN = 0, 1
SECONDS, CLIPS, CLIP_SIZE = 5.0, 16, 144
"""The speed test: its length, and its rendered clips of two seconds, in pixels a side."""
LEAST_DISK_GB = 20
"""Free disk below which the weights of a published model may not fit."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0, or 1 if something is broken; 2 for bad usage, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="gve doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--no-speed", action="store_true", help="leave out the speed test of five seconds")
    return run_command(_doctor, parser, argv)


def _doctor(arguments: argparse.Namespace) -> int:
    facts: dict[str, Any] = {"versions": environment.versions()}
    facts |= {name: environment.library(name) for name in environment.OPTIONAL}
    missing = [name for name, number in facts["versions"].items() if number is None]
    facts |= (
        {} if missing else {"device": environment.device(), "hub": environment.hub(), "cache": environment.cache()}
    )
    if not missing and facts["torchvision"]["state"] != "broken":
        facts["model"] = try_model(facts["device"]["type"], seconds=0.0 if arguments.no_speed else SECONDS)
    problems, advice = broken(facts), changes(facts)
    if arguments.json:
        text = json.dumps(facts | {"broken": problems, "advice": advice}, indent=2)
    else:
        text = "\n".join(
            [*lines(facts), "", *(f"broken: {one}" for one in problems), *(advice or ["nothing to change"])]
        )
    sys.stdout.write(text + "\n")
    return BROKEN if problems else OK


def try_model(device: str, *, seconds: float) -> dict[str, Any]:
    """Open the checkpoint that ships as a published model would run on the device, and embed rendered clips.

    Returns:
        `attention`, `precision` and, after at least one clip, `videos_per_second`, and milliseconds a video of reading
        in one thread (`decode_ms`) and in the model (`model_ms`); `error` if something failed, else None.
    """
    try:
        from transformers.utils import logging

        from gve import load_demo

        logging.disable_progress_bar()
        options = {"model_kwargs": {"dtype": "bfloat16"}} if device == "cuda" else {}
        model = load_demo(device=device, **options)
        found = {"attention": model.transformers_model.config._attn_implementation}
        found["precision"] = str(model.transformers_model.dtype).removeprefix("torch.")
        return found | (_speed(model, seconds) if seconds else {}) | {"error": None}
    except Exception as error:  # whatever it is, it is what the user must see
        return {"error": printable(f"{type(error).__name__}: {error}")[:200]}


def _speed(model: Any, seconds: float) -> dict[str, float]:
    import numpy as np

    from gve import read_video
    from gve.encoding.prefetching import EncodeStatistics
    from gve.hub_datasets.world.spec import sample_clip
    from gve.hub_datasets.world.video import video_bytes

    rng = np.random.default_rng(0)
    clips = [{"video": video_bytes((sample_clip(rng, "seen"),), size=CLIP_SIZE)} for _ in range(CLIPS)]
    model.encode(clips[:2], show_progress_bar=False)  # the first call is slower
    start, spent = time.perf_counter(), EncodeStatistics()
    for clip in clips:
        read_video(clip["video"], model.processor.video_processor.num_frames)
    decode = (time.perf_counter() - start) / CLIPS
    while not spent.rows or time.perf_counter() - start < seconds:
        model.encode(clips, show_progress_bar=False, statistics=spent)
    rate, model_ms = spent.rows / spent.seconds, spent.model / spent.rows * 1e3
    return {
        "videos_per_second": round(rate, 1),
        "decode_ms": round(decode * 1e3, 2),
        "model_ms": round(model_ms, 2),
    }


def broken(facts: Mapping[str, Any]) -> list[str]:
    """What keeps the commands from working."""
    problems = [f"{name} is not installed" for name, number in facts["versions"].items() if number is None]
    if facts["torchvision"]["state"] == "broken":
        problems.append(
            f"torchvision cannot be imported, and transformers fails with it ({facts['torchvision']['error']})"
        )
    if facts.get("model", {}).get("error"):
        problems.append(f"the model that ships does not run ({facts['model']['error']})")
    return problems


def changes(facts: Mapping[str, Any]) -> list[str]:
    """What to change, a line each with its command."""
    missing = [name for name, number in facts["versions"].items() if number is None and name != "ffmpeg"]
    advice = [f"install what is missing: pip install {' '.join(missing)}"] if missing else []
    for name in environment.OPTIONAL:
        if facts[name]["state"] == "broken":
            advice.append(f"remove {name}, which gve does not need: pip uninstall {name}")
    if facts.get("model", {}).get("error"):
        advice.append(
            "install gve anew, and report this output if that does not help: pip install --force-reinstall gve"
        )
    if missing:
        return advice
    hub, cache = facts["hub"], facts["cache"]
    if facts["device"]["unused_gpu"]:
        advice.append(
            "torch does not see the GPU; install a build for its driver: pip install --force-reinstall torch"
        )
    if hub["state"] == "offline":
        advice.append("only downloaded models open; to reach the Hub: unset HF_HUB_OFFLINE")
    elif hub["state"] == "unreachable":
        advice.append("the Hub does not answer; if you work offline, fail at once: export HF_HUB_OFFLINE=1")
    elif not hub["token"]:
        advice.append("there is no token; gated and private models need one: hf auth login")
    if cache["free_gb"] < LEAST_DISK_GB:
        advice.append(f"{cache['free_gb']} GB are free for models; use another disk: export HF_HOME=FOLDER")
    return advice


def lines(facts: Mapping[str, Any]) -> list[str]:
    """The facts as aligned lines."""
    rows = {name: number or "missing" for name, number in facts["versions"].items()}
    for name in environment.OPTIONAL:
        rows[name] = " ".join(filter(None, (facts[name]["version"], facts[name]["state"])))
    if "device" in facts:
        device, hub, cache = facts["device"], facts["hub"], facts["cache"]
        rows["device"] = f"{device['type']}, {device['count']} x {device['name']}, {device['memory_gb']} GB"
        rows["Hub"] = f"{hub['endpoint']} {hub['state']}" + (f" ({hub['error']})" if hub["error"] else "")
        rows["Hub token"] = "set" if hub["token"] else "none"
        rows["cache"] = f"{cache['folder']}, {cache['free_gb']} GB free"
    model = facts.get("model", {})
    if "attention" in model:
        rows["attention"], rows["precision"] = model["attention"], model["precision"]
    if "decode_ms" in model:
        rows["speed"] = (
            f"{model['videos_per_second']} videos/s of {CLIP_SIZE} x {CLIP_SIZE} with the demo's model; a video: "
            f"{model['decode_ms']} ms to decode in one thread, {model['model_ms']} ms in the model"
        )
    return [f"{name:<22}{printable(value)}" for name, value in rows.items()]
