"""Merging hits: what becomes one moment, how far it grows, and what stays apart."""

from itertools import pairwise

import pytest
from index_rows import make_hit

from gve.eval.index.moments import merge_hits


def hit(score, start, end, *, path="a.mp4", level="window"):
    return make_hit(path, start, end, score=score, level=level)


def merged(*hits, count=10):
    return [(moment.path, moment.start, moment.end, moment.score) for moment in merge_hits(hits, count)]


def test_near_scores_lengthen_a_moment():
    assert merged(hit(0.9, 3, 9), hit(0.85, 6, 12), hit(0.82, 0, 6)) == [("a.mp4", 0, 12, 0.9)]
    assert merged(hit(0.85, 6, 12), hit(0.9, 0, 6)) == [("a.mp4", 0, 12, 0.9)]  # they touch
    assert merged(hit(0.9, 0, 6), hit(0.85, 6.5, 12)) == [("a.mp4", 0, 6, 0.9), ("a.mp4", 6.5, 12, 0.85)]
    assert merged(hit(0.9, 0, 6), hit(0.85, 3, 9, path="b.mp4")) == [("a.mp4", 0, 6, 0.9), ("b.mp4", 3, 9, 0.85)]


def test_lower_scores_vanish_where_they_overlap():
    assert merged(hit(0.9, 3, 9), hit(0.5, 6, 12)) == [("a.mp4", 3, 9, 0.9)]
    assert merged(hit(0.9, 3, 9), hit(0.5, 9, 15)) == [("a.mp4", 3, 9, 0.9), ("a.mp4", 9, 15, 0.5)]
    assert merged(hit(-0.1, 3, 9), hit(-0.2, 6, 12), hit(-0.3, 20, 26)) == [
        ("a.mp4", 3, 9, -0.1),
        ("a.mp4", 20, 26, -0.3),
    ]


def test_no_chain_grows_over_a_whole_video():
    windows = [hit(0.9 - start / 1e4, start, start + 6) for start in range(0, 300, 3)]
    moments = merge_hits(windows, 1000)
    assert len(moments) > 20 and max(moment.end - moment.start for moment in moments) <= 18
    places = sorted((moment.start, moment.end) for moment in moments)
    assert places[0][0] == 0 and all(one[1] <= other[0] for one, other in pairwise(places))
    assert merge_hits(windows, 5) == moments[:5]


def test_levels_stay_apart_and_a_file_vanishes_in_its_moment():
    shot, window = hit(0.8, 0, 60, level="shot"), hit(0.79, 54, 62)
    assert merge_hits([shot, window], 10) == [shot]
    whole = [hit(0.7, 0, 90, level="file"), hit(0.6, None, None, path="b.png", level="file")]
    assert merge_hits([*whole, shot], 10) == [shot, whole[1]]  # the file says less than its moment
    better = hit(0.85, 0, 90, level="file")
    assert merge_hits([better, shot, whole[1]], 10) == [better, shot, whole[1]]
    assert merge_hits([], 3) == []
    with pytest.raises(ValueError, match="count: must be at least 1, got 0"):
        merge_hits([shot], 0)
