"""Where `gve demo` left what a card needs, and what it says of itself."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gve.eval.console import fail

STATE_FILE, SCHEMA = "demo.json", "gve-demo/1"
LAST_STAGE = "queries"


@dataclass(frozen=True)
class DemoFacts:
    """A finished demo.

    Attributes:
        root: Its folder.
        minutes: Its budget.
        seed: Of everything random.
        seconds: By stage.
        facts: What the stages found, such as `lessons`.
    """

    root: Path
    minutes: float
    seed: int
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
        """The report of its model."""
        return self.root / "report.json"


def read_demo(folder: Path) -> DemoFacts | None:
    """Read a demo's folder.

    Args:
        folder: Any folder.

    Returns:
        The demo, or None for a folder of something else.

    Raises:
        ValueError: If the demo is not finished or of another version.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        state = {}
    if state.get("schema") != SCHEMA:
        fail(f"MODEL_DIR: {str(path)!r} is not of {SCHEMA}; a demo of this version is accepted; make it again")
    if LAST_STAGE not in state["stages"]:
        fail(f"MODEL_DIR: the demo in {str(folder)!r} is not finished; go on with `gve demo --out ... --resume`")
    return DemoFacts(folder, state["minutes"], state["seed"], state["stages"], state["facts"])
