"""What a captioner costs: tokens and money so far, and a budget that all processes of a run share.

Money is reserved for the dearest answer before a call, and what the server reports is booked after it. A call that may have
been billed without a report, since it timed out or its process was killed, is booked at what was reserved.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from gve.hub_datasets.vsynflow.captioner import Request, Response, token_count
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.stages import SetupError

COSTS = "costs.json"
PRICES = ("input", "output")  # money per million tokens
IMAGE_TOKENS = 1500  # more than any known model takes for a picture of 200 x 28 x 28 pixels
SECOND_TOKENS = 1500  # of a video that is sent whole
_TOKENS = ("input_tokens", "output_tokens")
_BYTES = 512  # of the file, which is written in one call, so that a killed process leaves it whole


class BudgetError(SetupError):
    """The next call could exceed the budget; ends the run."""


def check_prices(prices: Mapping[str, float] | None, budget: float | None) -> None:
    """Reject prices and budgets that cannot be kept to (ValueError)."""
    if prices is not None:
        numbers = [prices.get(name) for name in PRICES] if isinstance(prices, Mapping) else [None]
        right = all(isinstance(number, (int, float)) and 0 <= number < math.inf for number in numbers)
        if not right or len(prices) != len(PRICES):
            raise ValueError(f"prices must give input and output per million tokens, from 0 on; got {prices!r}.")
    if budget is None:
        return
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 < budget < math.inf:
        raise ValueError(f"budget must be above 0, got {budget!r}. Raise it, or leave it out for none.")
    if prices is None or not any(prices.values()):
        raise ValueError(f"budget: got {budget!r} without prices. Add prices: {{input: ..., output: ...}} above 0.")


def cost(prices: Mapping[str, float] | None, input_tokens: int, output_tokens: int) -> float:
    """Money for so many tokens; 0 without prices."""
    return 0.0 if prices is None else (prices["input"] * input_tokens + prices["output"] * output_tokens) / 1e6


def most_tokens(request: Request) -> tuple[int, int]:
    """The most tokens that a call reads and writes: no token of a text is shorter than a byte."""
    read = sum(len(turn.text.encode()) + IMAGE_TOKENS * len(turn.images) + 16 for turn in request.turns)
    read += sum(int(SECOND_TOKENS * (turn.video.seconds + 1)) for turn in request.turns if turn.video)
    return read + len(json.dumps(dict(request.schema))), request.max_tokens


class Ledger:
    """The costs of a run, in one small file under a lock; `prices` are those of a captioner that has its own."""

    def __init__(self, path: Path, prices: Mapping[str, float] | None = None) -> None:
        self.path, self.prices = path, prices

    def start(self, prices: Mapping[str, float] | None, budget: float | None) -> None:
        """Begin or go on; no other runner may be at work. What killed calls had reserved counts as spent.

        A budget holds until another one is given.
        """
        if not self.path.exists():
            values = paid(self.path.parent)
            values |= {"spent": cost(prices, *(values[name] for name in _TOKENS)), "reserved": 0.0}
            values |= {"prices": None, "budget": None}
            self.path.write_bytes(_encoded(values))
        with self._locked() as values:
            values |= {"spent": values["spent"] + values["reserved"], "reserved": 0.0}
            values["prices"] = values["prices"] if prices is None else dict(prices)
            values["budget"] = values["budget"] if budget is None else budget

    def read(self) -> dict[str, Any]:
        """All numbers."""
        return json.loads(self.path.read_bytes())

    def reserve(self, request: Request) -> float | None:
        """Reserve money for a call; None if calls in flight must end first.

        Raises:
            BudgetError: If too little is left, whatever they cost.
        """
        with self._locked() as values:
            money, budget = cost(self.prices or values["prices"], *most_tokens(request)), values["budget"]
            if budget is not None and values["spent"] + money > budget:
                raise BudgetError(
                    f"budget: {values['spent']:.4g} of {budget:.4g} is spent, and the next call may cost {money:.2g}. All "
                    "answers are kept: raise --budget and run again to go on."
                )
            if budget is not None and values["spent"] + values["reserved"] + money > budget:
                return None
            values["reserved"] += money
            return money

    def settle(self, money: float, outcome: Response | str) -> None:
        """Book a call by its response, or by the name of what broke it."""
        counts = [getattr(outcome, name, 0) for name in _TOKENS]
        billed = outcome == "timeout" or (isinstance(outcome, Response) and not outcome.error)
        with self._locked() as values:
            prices = self.prices or values["prices"]
            values["reserved"] = max(0.0, values["reserved"] - money)
            values["calls"] += billed or any(counts)
            values["spent"] += cost(prices, *counts) if any(counts) else money if billed else 0.0
            for name, count in zip(_TOKENS, counts, strict=True):
                values[name] += count

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Any]]:
        lock = FileLock(self.path.with_suffix(".lock"), poll_interval=0.005)
        with lock, self.path.open("r+b", buffering=0) as file:
            values = json.loads(file.read())
            yield values
            file.seek(0)
            file.write(_encoded(values))


def _encoded(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode().ljust(_BYTES)


def paid(folder: Path) -> dict[str, Any]:
    """Calls and tokens of all answers in a run's journals."""
    counts: dict[str, Any] = dict.fromkeys(("calls", *_TOKENS), 0)
    for shard in sorted((folder / "journal").glob("*")):
        for _, response in Journal(shard).items():
            if isinstance(response, Mapping) and "text" in response:
                counts["calls"] += 1
                for name in _TOKENS:
                    counts[name] += token_count(response.get(name))
    return counts


def run_costs(folder: Path, prices: Mapping[str, float] | None, pairs: int | None) -> dict[str, Any]:
    """Calls, tokens and money so far, and for a thousand pairs once their number is known."""
    path = folder / COSTS
    found = Ledger(path).read() if path.exists() else {**paid(folder), "budget": None, "prices": prices}
    prices = found["prices"]
    spent = found.get("spent", cost(prices, *(found[name] for name in _TOKENS)))
    shown = {name: found[name] for name in ("calls", *_TOKENS)}
    shown |= {"cost": None if prices is None else round(spent, 6), "budget": found["budget"], "pairs": pairs}
    if pairs:
        names = [name for name in (*_TOKENS, "cost") if shown[name] is not None]
        shown["per_1000_pairs"] = {name: round(1000 * shown[name] / pairs, 4) for name in names}
    return shown
