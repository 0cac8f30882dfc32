"""What to keep, what to remove and what to look at."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gve.eval.copies.matching import Copy, find_pairs
from gve.eval.copies.neighbours import add_neighbours
from gve.eval.copies.pictures import agree
from gve.eval.copies.tracks import Track, View, read_tracks
from gve.eval.index.table import Index

REMOVE, CHECK = "remove", "check"


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What to do with one file, and why.

    Attributes:
        kind: "exact" (the same bytes), "re-encoded" (the same pictures), "changed" (cropped, mirrored, at another
            speed, or different in places) or "partial".
        verdict: REMOVE or CHECK.
        of: The file that it repeats.
        copy: How; None for the same bytes.
        first: Whether `track` is the copy's `first`.
    """

    track: Track
    of: Track
    kind: str
    verdict: str
    copy: Copy | None = None
    first: bool = True


@dataclass(frozen=True, kw_only=True)
class Group:
    """A file to keep, and those that repeat it or a part of it."""

    keep: Track
    suggestions: list[Suggestion]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The copies among some files; `unread` says why files were left out, `links` are further names of the same file."""

    files: int
    groups: list[Group]
    unread: Mapping[str, str]
    links: Mapping[str, str]

    @property
    def freed(self) -> int:
        """Bytes of the files to remove."""
        return sum(one.track.bytes for group in self.groups for one in group.suggestions if one.verdict == REMOVE)


def find_copies(paths: Sequence[str | Path], *, least: float, index: Index | None = None) -> Findings:
    """Find copies among files, by their hashes and, given an index that holds them, by its vectors.

    Args:
        least: Seconds that two files must share, or most of the shorter one.
    """
    tracks, unread, links = read_tracks(paths)
    tracks.sort(key=_worth)
    alone = list({track.digest: track for track in reversed(tracks)}.values())[::-1]  # the first of the same bytes
    found = find_pairs(alone, least=least)
    if index is not None:
        add_neighbours(index, alone, found, least=least)
    same: dict[str, list[Track]] = {}
    for track in tracks:
        same.setdefault(track.digest, []).append(track)
    groups = _groups(alone, found)
    suggested = {keep: _exact(same[alone[keep].digest]) for keep in groups}
    for keep, members in groups.items():
        for member in members:
            suggested[keep] += [_suggestion(alone, member, keep, found), *_exact(same[alone[member].digest])]
    for (better, worse), copy in sorted(found.items()):
        if not copy.whole and better in groups and worse in groups:
            # under the longer file, which may stand for the shorter one
            short, long = sorted((better, worse), key=lambda number: alone[number].duration)
            suggested[long].append(_judged(alone, short, long, copy))
    listed = [Group(keep=alone[keep], suggestions=those) for keep, those in suggested.items() if those]
    listed.sort(key=lambda group: -sum(one.track.bytes for one in group.suggestions if one.verdict == REMOVE))
    return Findings(files=len(tracks), groups=listed, unread=unread, links=links)


def _worth(track: Track) -> tuple[Any, ...]:
    """The order of preference: most picture, longest, most bytes, oldest."""
    pixels = track.width * track.height * track.picture
    size = round(4 * math.log2(max(pixels, 1)))  # bars are measured within a few pixels
    return -size, track.picture < 1, -round(track.duration, 1), -track.bytes, track.changed, track.path


def _groups(tracks: Sequence[Track], found: Mapping[tuple[int, int], Copy]) -> dict[int, list[int]]:
    """Numbers of files to keep, and of all that repeat each as a whole, directly or through others."""
    keeper = list(range(len(tracks)))
    for first, second in sorted(pair for pair, copy in found.items() if copy.whole):
        low, high = sorted((keeper[first], keeper[second]))
        keeper = [low if one == high else one for one in keeper] if low != high else keeper
    groups: dict[int, list[int]] = {}
    for number, keep in enumerate(keeper):
        groups.setdefault(keep, [])
        if number != keep:
            groups[keep].append(number)
    return groups


def _suggestion(tracks: Sequence[Track], member: int, keep: int, found: Mapping[tuple[int, int], Copy]) -> Suggestion:
    """What to do with a member of a group; one that repeats the kept file only through others is to be looked at."""
    if (keep, member) in found:
        return _judged(tracks, member, keep, found[keep, member])
    whole = [pair for pair, copy in found.items() if member in pair and copy.whole]
    other = min(number for pair in whole for number in pair if number != member)
    told = _judged(tracks, member, other, found[min(other, member), max(other, member)])
    return replace(told, verdict=CHECK)


def _judged(tracks: Sequence[Track], member: int, other: int, copy: Copy) -> Suggestion:
    plain = copy.view == View() and copy.speed == 1
    if not copy.whole:
        kind = "partial"
    else:
        kind = "re-encoded" if plain and agree(tracks[copy.first], tracks[copy.second], copy) else "changed"
    verdict = REMOVE if kind == "re-encoded" else CHECK
    first = copy.first == member
    return Suggestion(track=tracks[member], of=tracks[other], kind=kind, verdict=verdict, copy=copy, first=first)


def _exact(same: Sequence[Track]) -> list[Suggestion]:
    return [Suggestion(track=track, of=same[0], kind="exact", verdict=REMOVE) for track in same[1:]]
