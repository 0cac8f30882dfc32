"""What may be wrong with a captioner as a whole: it sees no pictures, writes another language, or the same for all."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from gve.hub_datasets.vsynflow.captioner import Request, Response, Turn, answer_once
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.prompts import IMAGE_QUERY
from gve.hub_datasets.vsynflow.stages import SetupError
from gve.hub_datasets.vsynflow.stills import jpeg
from gve.hub_datasets.vsynflow.validation import Violation

logger = logging.getLogger(__name__)

WINDOW = 32  # answers in a row that are looked at together
_REFUSALS = ("http-400", "http-404", "http-415", "http-422", "http-500", "http-501", "server-error")
_SIDE = 64  # pixels


def check_sight(captioner: EndpointCaptioner, journal: Journal) -> None:
    """Reject a server that takes no pictures, by three requests for one token each, which the journal keeps.

    Some servers leave pictures out without a word, others read their bytes as text. So two pictures of one size must
    take as many tokens as each other, and more than none.

    Raises:
        SetupError: If the model does not see. A server that is away, or counts no tokens, passes.
    """
    noise = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3))
    shown = [(), *((jpeg(pixels.astype(np.uint8)),) for pixels in (np.full_like(noise, 128), noise))]
    turns = [Turn("user", "What colour is it?", images) for images in shown]
    asked = [Request("", "sight/1", (turn,), IMAGE_QUERY.schema, 0, max_tokens=1) for turn in turns]
    none, plain, noisy = answer_once(replace(captioner, retries=1), asked, journal)
    if plain.error.startswith(_REFUSALS) and not none.error:
        why = plain.error
    elif all(response.input_tokens for response in (none, plain, noisy)):
        more, apart = plain.input_tokens - none.input_tokens, abs(noisy.input_tokens - plain.input_tokens)
        if apart < more:
            return
        why = f"a picture takes {more} tokens, and another of the same size {apart} more or fewer"
    else:
        return
    raise SetupError(
        f"captioner: {captioner.model} at {captioner.urls[0]} takes no pictures ({why}). Serve a model that does, and "
        "name this one as writer if you like. With captioner.media: frames this check is skipped."
    )


class Watch:
    """Looks at first answers to requests for captions, WINDOW at a time, and warns once of what repairs do not mend."""

    def __init__(self, name: str) -> None:
        self.name, self.warned = name, False
        self._texts, self._foreign = Counter[str](), 0

    def see(self, answers: Iterable[tuple[Response, Iterable[Violation]]]) -> None:
        """Look at answers, with the rules that they break."""
        for response, violations in answers:
            if response.error:
                continue
            self._texts[response.text] += 1
            self._foreign += any(violation.code == "english" for violation in violations)
            if self._texts.total() == WINDOW:
                self._tell(self._texts.most_common(1)[0][1])
                self._texts, self._foreign = Counter(), 0

    def _tell(self, same: int) -> None:
        found = {"are not in English": self._foreign, "are the same: it may not see the pictures": same}
        for what, count in found.items():
            if 2 * count >= WINDOW and not self.warned:
                logger.warning(
                    "captioner %s: %d of %d answers in a row %s. Stop the run and look at `gve synth try`.",
                    *(self.name, count, WINDOW, what),
                )
                self.warned = True


@lru_cache(maxsize=8)
def watch_of(name: str) -> Watch:
    """The one watch of a process on the captioner of this name."""
    return Watch(name)
