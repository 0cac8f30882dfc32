"""The optional filters: what a configuration says of them, and the stages that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gve.hub_datasets.vsynflow.quality.nsfw import Nsfw
from gve.hub_datasets.vsynflow.quality.pii import Pii, PiiRules, Redaction
from gve.hub_datasets.vsynflow.stages import Stage

WRITTEN = ("captions", "frame_captions", "image_query", "clip_query")
"""Columns of what a captioner wrote."""


@dataclass(frozen=True)
class Filters:
    """The filters that are asked for; None leaves one out.

    Attributes:
        nsfw: Frames that are not safe for work.
        pii: Personal data in texts.
    """

    nsfw: Nsfw | None = None
    pii: PiiRules | None = None

    def of_captions(self) -> list[Stage]:
        """Before captions are cleaned, which would tear addresses apart."""
        if self.pii is None:
            return []
        return [Pii(self.pii), *([Redaction(self.pii.threshold)] if self.pii.action == "redact" else [])]

    def of_videos(self) -> list[Stage]:
        """After the cheaper filters."""
        return [] if self.nsfw is None else [self.nsfw]

    def of_writing(self) -> list[Stage]:
        """After the captioner."""
        return [] if self.pii is None else [Pii(self.pii, WRITTEN, "pii_written", written=True)]


def make_filters(values: Mapping[str, Any]) -> Filters:
    """The filters of a configuration: {"nsfw": fields of Nsfw, "pii": fields of PiiRules}.

    Raises:
        ValueError: For an unknown filter or field, or a value that is not accepted.
        MissingExtraError: If a filter needs packages that are not installed.
    """
    kinds: dict[str, Any] = {"nsfw": Nsfw, "pii": PiiRules}
    unknown = sorted(set(values) - set(kinds))
    if unknown:
        raise ValueError(f"filters: got {unknown[0]!r}; {', '.join(kinds)} are accepted; remove or rename it")
    made = {}
    for name, given in values.items():
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise ValueError(
                f"filters.{name}: got {given!r}; a mapping of names to values is accepted, {{}} for defaults"
            )
        known = [one.name for one in fields(kinds[name])]
        strange = sorted(set(given) - set(known))
        if strange:
            raise ValueError(f"filters.{name}: got {strange[0]!r}; {', '.join(known)} are accepted")
        made[name] = kinds[name](**{key: tuple(v) if isinstance(v, list) else v for key, v in given.items()})
    return Filters(**made)
