"""How many tokens a run works on in a second, and how many of those that it computes are padding.

Shapes: scalars only; sums stay on the device until the log asks for them, so that no step waits.
"""

import time

from torch import Tensor

from gve.trainers.watching.meters import TaskMeters


class LossMeters(TaskMeters):
    """What a loss measures, with the tokens of the language model.

    Attributes:
        tokens: Attended tokens since the last `pop`.
        computed: Tokens computed for them, padding included; those of the second pass are not counted.
        since: Seconds of the clock at the last `pop`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tokens: int | Tensor = 0
        self.computed: int | Tensor = 0
        self.since = time.perf_counter()

    def count(self, tokens: int | Tensor, computed: int | Tensor) -> None:
        """Take the tokens of one forward.

        Args:
            tokens: Attended ones.
            computed: All that the model works on.
        """
        self.tokens = self.tokens + tokens
        self.computed = self.computed + computed

    def pop(self) -> dict[str, float]:
        """Means since the last call, as `TaskMeters` gives them; empties the sums.

        Returns:
            Also `padding_waste`, the share of padding in the tokens computed, and `tokens_per_second`, attended tokens
            by the time that passed, whatever it was spent on; both are missing where no token was counted.
        """
        now = time.perf_counter()
        tokens, computed, speed = int(self.tokens), int(self.computed), {}
        if computed:
            speed = {
                "padding_waste": 1 - tokens / computed,
                "tokens_per_second": tokens / max(now - self.since, 1e-9),
            }
        self.tokens, self.computed, self.since = 0, 0, now
        return super().pop() | speed
