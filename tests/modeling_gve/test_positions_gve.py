import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2_5_VLModel

from gve.positions_gve import mrope_positions


def slow_positions(row, merge, tokens_per_second):
    """Qwen2.5-VL's rule in words: one segment after another, each from the largest position so far plus one."""
    out, start = [], 0
    for segment in row:
        if segment[0] == "text":
            new = [(start + i,) * 3 for i in range(segment[1])]
        else:
            _, (frames, height, width), seconds = segment
            step = np.float32(tokens_per_second) * np.float32(seconds) if segment[0] == "video" else np.float32(1)
            new = [
                (start + int(np.float32(t) * step), start + h, start + w)
                for t in range(frames)
                for h in range(height // merge)
                for w in range(width // merge)
            ]
        out += new
        start = max(max(p) for p in out) + 1 if out else 0
    return np.array(out).T.reshape(3, -1)


sides = (st.sampled_from([2, 4, 6]), st.sampled_from([2, 4]))
segments = st.one_of(
    st.tuples(st.just("text"), st.integers(1, 6)),
    st.tuples(st.just("image"), st.tuples(st.just(1), *sides), st.just(1.0)),
    st.tuples(st.just("video"), st.tuples(st.integers(1, 5), *sides), st.floats(0, 12, width=32)),
)
# every image or video stands between its start and end tokens
batches = st.lists(st.lists(segments, min_size=1, max_size=3), min_size=1, max_size=4)


def batch_of(rows, left):
    """Types, mask, grids, seconds and rows with separators of a batch; the rows in `left` are padded on the left."""
    spaced = [[("text", 1), *(part for s in row for part in (s, ("text", 1)))] for row in rows]
    images = [s[1] for row in spaced for s in row if s[0] == "image"]
    videos = [s[1] for row in spaced for s in row if s[0] == "video"]
    seconds = [s[2] for row in spaced for s in row if s[0] == "video"]
    types = []
    for row in spaced:
        types.append([])
        for s in row:
            size = s[1] if s[0] == "text" else s[1][0] * s[1][1] * s[1][2] // 4
            types[-1] += [{"text": 0, "image": 1, "video": 2}[s[0]]] * size
    width = max(map(len, types)) + 1
    padded, mask = np.zeros((2, len(types), width), np.int64)
    for i, row in enumerate(types):
        place = slice(width - len(row), width) if i in left else slice(0, len(row))
        padded[i, place], mask[i, place] = row, 1
    return padded, mask, images, videos, seconds, spaced


@settings(max_examples=150, deadline=None)
@given(batches, st.sets(st.integers(0, 3)))
def test_positions_follow_the_rule(rows, left):
    types, mask, images, videos, seconds, spaced = batch_of(rows, left)
    positions, deltas = mrope_positions(
        types, mask, image_grids=images, video_grids=videos, seconds=seconds, merge=2, tokens_per_second=2
    )
    for i, row in enumerate(spaced):
        expected = slow_positions(row, 2, 2)
        assert np.array_equal(positions[:, i, mask[i] == 1], expected)
        assert (positions[:, i, mask[i] == 0] == 0).all()
        assert deltas[i] == expected.max() + 1 - mask[i].sum()


def call(model, rows):
    types, mask, images, videos, seconds, _ = batch_of(rows, range(len(rows)))
    media = [torch.tensor(values) if values else None for values in (images, videos, seconds)]
    return torch.tensor(types), torch.tensor(types), *media, torch.tensor(mask)


@settings(max_examples=40, deadline=None)
@given(batches)
def test_short_videos_agree_with_the_installed_transformers(model, rows):
    # the two rules differ only where the time axis is the longest
    rows = [[s if s[0] != "video" else ("video", s[1], 0.0) for s in row] for row in rows]
    rows = [[s for s in row if s[0] == "text" or s[1][1] >= 2] for row in rows]
    args = call(model, rows)
    ours = model.get_rope_index(*args)
    stock = Qwen2_5_VLModel.get_rope_index(model, *args)
    assert torch.equal(ours[0], stock[0]) and torch.equal(ours[1], stock[1])


def test_text_after_a_long_video_goes_on_after_its_last_moment(model):
    args = call(model, [[("video", (4, 6, 6), 5.0)]])
    ours, stock = model.get_rope_index(*args)[0], Qwen2_5_VLModel.get_rope_index(model, *args)[0]
    last = args[-1][0].nonzero().max()
    assert ours[0, 0].tolist()[-1] == 1 + 30 + 1
    assert stock[:, 0, last].tolist() == [1 + 3] * 3


def test_a_grid_that_does_not_fit_is_refused():
    types, mask = np.array([[0, 2, 2, 2, 0]]), np.ones((1, 5))
    with pytest.raises(ValueError, match="video_grid_thw: 4 tokens expected where input_ids hold 3"):
        mrope_positions(
            types, mask, image_grids=[], video_grids=[(1, 4, 4)], seconds=None, merge=2, tokens_per_second=2
        )
