"""Makes the checkpoint that ships with the package: `gve demo && python tests/make_checkpoint.py gve-demo COMMIT`.

The weights of a finished demo in bfloat16, its configuration without the copied code and chat template (the package has
both), scores of exactly these weights, and the card.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from gve.eval.benchmark import run_benchmark
from gve.eval.models import load_encoder, weights_fingerprint
from gve.hub_datasets.files import write_text
from gve.model_cards.card_command import render_model_card
from gve.model_cards.demo import read_demo
from gve.sentence_gve import write_json
from gve.tiny.demo import CHECKPOINT

NAME = "gve-demo"
MADE = """
This copy ships with the package: `gve.load_demo()` opens it, and `gve demo --quick` shows it at work. `gve demo`
({minutes:g} minutes, seed {seed}, commit {commit}) trained it; `python tests/make_checkpoint.py gve-demo {commit}` stored it in
bfloat16, scored that copy and wrote this card. The examples below need a copy under its own name:
`gve.load_demo().save("gve-demo")`.
"""


def without_code(content):
    """A configuration that names no files of code, since none lie beside it."""
    if not isinstance(content, dict):
        return content
    return {key: without_code(value) for key, value in content.items() if key != "auto_map"}


def main(folder, commit):
    demo = read_demo(Path(folder))
    shutil.rmtree(CHECKPOINT, ignore_errors=True)
    CHECKPOINT.mkdir()
    for path in demo.model.glob("*.json"):
        write_json(CHECKPOINT / path.name, without_code(json.loads(path.read_text(encoding="utf-8"))))
    weights = load_file(demo.model / "model.safetensors")
    small = {name: value.to(torch.bfloat16) for name, value in weights.items()}
    save_file(small, CHECKPOINT / "model.safetensors", metadata={"format": "pt"})
    (CHECKPOINT / "model.safetensors").chmod(0o644)
    encoder, fingerprint = load_encoder(str(CHECKPOINT)), weights_fingerprint(CHECKPOINT)
    report = run_benchmark(encoder, demo.root / "data" / "uvrb", split="unseen", fingerprint=fingerprint)
    report["source"] = f"{NAME}/data/uvrb"
    card = render_model_card(CHECKPOINT, report, demo=demo, name=NAME, license="apache-2.0", training=demo.training)
    seed = json.loads((demo.root / "demo.json").read_text(encoding="utf-8"))["seed"]
    head, title, rest = card.partition(f"# {NAME}\n")
    made = MADE.format(minutes=demo.minutes, seed=seed, commit=commit)
    write_text(CHECKPOINT / "README.md", f"{head}{title}{made}{rest}")


if __name__ == "__main__":
    main(*sys.argv[1:])
