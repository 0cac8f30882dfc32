import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gve.hub_datasets.world.render import frame_times, inside, paint, render, render_long
from gve.hub_datasets.world.spec import CAMERAS, COLORS, SCENES, STYLES, Clip, Thing, sample_clip
from gve.hub_datasets.world.worlds import WORLDS


def plain(events=((0, "left"), (1, "grow")), camera=("static", "static"), style="clean", scene="meadow"):
    things = (Thing("red", "square", "small", 0.4, 0.4), Thing("blue", "circle", "small", 0.75, 0.75))
    return Clip(things, "left", events, camera, scene, style, seed=5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(8, 64), times=st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_any_time_and_size_gives_the_same_bytes_twice(seed, size, times):
    clip = sample_clip(np.random.default_rng(seed), "seen")
    frames = render(clip, times, size=size)
    assert frames.shape == (len(times), size, size, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames, render(clip, times, size=size))


def test_a_frame_does_not_depend_on_the_others_nor_a_clip_of_a_long_video():
    clip, night = plain(), plain(scene="night")
    together, alone = render(clip, frame_times(16)), [render(clip, [t])[0] for t in frame_times(16)]
    assert np.array_equal(together, np.stack(alone))
    assert np.array_equal(render_long([clip, night], 4, size=32)[4:], render(night, frame_times(4), size=32))


def test_paint_mixes_the_seen_frames_where_they_are_covered_and_leaves_the_rest():
    rng = np.random.default_rng(0)
    frames, cover = rng.uniform(0, 255, (3, 5, 6, 6)).astype(np.float32), np.zeros((2, 6, 6), np.float32)
    cover[:, 1:4, 2:5] = rng.uniform(0, 1, (2, 3, 3))
    colour, seen = np.array([200, 10, 90], np.float32), np.array([1, 4])
    expected = frames.copy()
    expected[:, seen] += (colour[:, None, None, None] - frames[:, seen]) * cover
    paint(frames, seen, cover, colour)
    assert np.array_equal(frames, expected) and not np.array_equal(frames[:, 1], frames[:, 0])


def centre(frame, color):
    y, x = np.nonzero(np.abs(frame.astype(int) - COLORS[color]).sum(-1) < 60)
    return x.mean() / frame.shape[1], y.mean() / frame.shape[0]


def test_things_stand_where_the_clip_says():
    frame = render(plain(), [0.0], size=96)[0]
    assert centre(frame, "red") == pytest.approx((0.4, 0.4), abs=0.02)
    assert centre(frame, "blue") == pytest.approx((0.75, 0.75), abs=0.02)
    frame = render(plain(events=((0, "vanish"), (1, "left"))), [0.9], size=96)[0]
    assert not (np.abs(frame.astype(int) - COLORS["red"]).sum(-1) < 60).any()


@pytest.mark.parametrize(("action", "dx", "dy"), [("left", -1, 0), ("right", 1, 0), ("up", 0, -1), ("down", 0, 1)])
def test_moves_go_their_way_in_their_half(action, dx, dy):
    frames = render(plain(events=((1, "blink"), (0, action))), [0.0, 0.5, 1.0], size=96)
    start, middle, end = (np.array(centre(frame, "red")) for frame in frames)
    assert np.abs(middle - start).max() < 0.01
    assert end - start == pytest.approx(0.25 * np.array([dx, dy]), abs=0.05)


def test_every_action_camera_scene_and_style_shows():
    times = frame_times(8)
    still = render(plain(events=((0, ""), (1, "")), camera=("static", "static")), times)
    for world in WORLDS.values():
        shown = [render(plain(events=((0, action), (1, ""))), times).tobytes() for action in world.actions]
        assert len({still.tobytes(), *shown}) == 1 + len(world.actions)
    for camera in CAMERAS[1:]:
        assert not np.array_equal(still, render(plain(events=((0, ""), (1, "")), camera=(camera, "static")), times))
    looks = {render(plain(style=style, scene=scene), [0.0]).tobytes() for style in STYLES for scene in SCENES}
    assert len(looks) == len(STYLES) * len(SCENES)


def test_shapes_hold_their_centre_or_not_and_never_the_far_corner():
    for shape in (shape for world in WORLDS.values() for shape in world.shapes):
        assert (inside(shape, np.zeros(1), np.zeros(1))[0] > 0) == (shape not in ("ring", "crescent", "horseshoe"))
        assert inside(shape, np.full(1, 1.2), np.full(1, 1.2))[0] < 0
