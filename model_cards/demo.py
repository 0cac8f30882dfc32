"""Facts of a `gve demo` folder for a card."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gve.eval.console import fail

STATE_FILE, SCHEMA = "demo.json", "gve-demo/1"
LAST_STAGE = "queries"


@dataclass(frozen=True)
class DemoFacts:
    """A finished demo: folder, budget in minutes, seconds by stage, and what the stages found."""

    root: Path
    minutes: float
    seconds: dict[str, float]
    facts: dict[str, Any]

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.root / "model"

    @property
    def training(self) -> Path:
        """Folder of the training."""
        return self.root / "training" / "checkpoints"

    @property
    def report(self) -> Path:
        """Report on its model."""
        return self.root / "report.json"


def read_demo(folder: Path) -> DemoFacts | None:
    """Read a demo's folder; None for any other folder, ValueError if the demo is not finished."""
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        state = {}
    if state.get("schema") != SCHEMA:
        fail(f"MODEL_DIR: {str(path)!r} is not of {SCHEMA}. Make the demo again with this version.")
    if LAST_STAGE not in state["stages"]:
        fail(f"MODEL_DIR: the demo in {str(folder)!r} is not finished. Go on with `gve demo --out ... --resume`.")
    return DemoFacts(folder, state["minutes"], state["stages"], state["facts"])
