"""Order and times of frames where the file stores neither, or its clock restarts, jumps and runs backwards."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_videos import h264, hevc, make, old, packed, remux, retimed, vp
from whole_video import PLANS, check

from gve.container_gve import Clock
from gve.video_gve import read_video, video_info

WITHOUT_ORDER = {
    "h264.avi": lambda: make(h264("avi", 250, total=40)),
    "h264_open.avi": lambda: make(h264("avi", 10, "bframes=3:b-adapt=0:open-gop=1", total=40)),
    "h264_no_b.avi": lambda: make(h264("avi", 12, "bframes=0")),
    "h264.asf": lambda: make(h264("asf")),
    "packed.avi": packed,
    "mpeg4.avi": lambda: make(old("mpeg4", "avi", 12, 2)),
    "mpeg4_raw.m4v": lambda: make(old("mpeg4", "m4v", 12, 2)),
}
COUNTS = {"h264.avi": 40, "h264_open.avi": 40, "packed.avi": 13}


def tenths(count):
    return [place / 10 for place in range(count)]


@pytest.mark.parametrize("name", WITHOUT_ORDER)
def test_frames_come_in_the_order_of_the_decoder(name):
    data = WITHOUT_ORDER[name]()
    used = check(data, data, PLANS, name=name, times=tenths(COUNTS.get(name, 30)))
    assert used == ({"scan"} if name.startswith("mpeg4") else {"sequential"})


@pytest.mark.parametrize("maker", [h264, hevc])
def test_raw_streams_have_the_usual_rate(maker):
    data = make(maker(maker.__name__, total=40))
    assert check(data, data, PLANS, times=[place / 25 for place in range(40)]) == {"sequential"}


def test_a_missing_table_of_delays_does_not_change_the_order():
    """Some writers of MP4 leave out when frames are shown, which then look as if that were when they are decoded."""
    source, target = io.BytesIO(make(h264("mp4", total=20))), io.BytesIO()
    with av.open(source) as old_file, av.open(target, "w", format="mp4") as output:
        stream = output.add_stream_from_template(old_file.streams.video[0])
        packets = [packet for packet in old_file.demux(video=0) if packet.size]
        first = packets[0].dts
        for packet in packets:
            packet.dts -= first
            packet.pts, packet.stream = packet.dts, stream
            output.mux(packet)
    data = target.getvalue()
    assert check(data, data, PLANS, times=tenths(20)) == {"sequential"}


def clips(container, maker=h264, **kwargs):
    """Two recordings of 20 and 15 frames, a tenth of a second each."""
    return [make(maker(container, 12, total=total, **kwargs)) for total in (20, 15)]


def mpeg2(container, gop=12, **kwargs):
    return old("mpeg2video", container, gop, 2, **kwargs)


def flv(first, second):
    return first + second[13:]  # without the second header


def later(seconds):
    return lambda first, second: first + remux(second, "mpegts", shift=90_000 * seconds)


def earlier(seconds):
    return lambda first, second: remux(first, "mpegts", shift=90_000 * seconds) + second


JOINED = {
    "h264.ts": ("mpegts", h264, bytes.__add__),
    "hevc.ts": ("mpegts", hevc, bytes.__add__),
    "mpeg2.ts": ("mpegts", mpeg2, bytes.__add__),
    "later.ts": ("mpegts", h264, later(1000)),
    "a_day_later.ts": ("mpegts", mpeg2, later(80_000)),
    "earlier.ts": ("mpegts", h264, earlier(1000)),
    "h264.flv": ("flv", h264, flv),
    "h264.webm": ("matroska", h264, bytes.__add__),
    "vp8.webm": ("webm", lambda container, gop, **kwargs: vp("libvpx", gop, live=True, **kwargs), bytes.__add__),
    "h264.h264": ("h264", h264, bytes.__add__),
    "mpeg2.vob": ("vob", mpeg2, bytes.__add__),
    "mpeg2.mpg": ("mpeg", mpeg2, bytes.__add__),
}


@pytest.mark.parametrize("name", JOINED)
def test_recordings_that_were_joined_have_one_clock(name):
    container, maker, join = JOINED[name]
    data = join(*clips(container, maker))
    times = [place / 25 for place in range(35)] if name == "h264.h264" else tenths(35)
    # the packet at a joint of MPEG-TS is marked as damaged
    damaged = read_video(data).damaged
    assert damaged <= name.endswith(".ts")
    used = check(data, data, PLANS, name=name, times=times, damaged=damaged)
    assert used <= {"scan", "sequential"}
    clip = read_video(data, 35)
    assert clip.duration == pytest.approx(times[-1] + times[1])
    window = read_video(data, 4, start=times[18], end=times[23])
    assert window.indices == [18, 19, 21, 22]


@pytest.mark.parametrize("container", ["mpegts", "flv"])
@pytest.mark.parametrize("seconds", [3600, -1, -100])
def test_a_clock_that_jumps_within_a_recording(container, seconds):
    """Without a keyframe at the place, as where a signal was lost."""
    plain = make(h264(container, 30, "bframes=0", total=30, start=1000))
    ticks = seconds * (90_000 if container == "mpegts" else 1000)
    parts = retimed(plain, container, part=slice(17)), retimed(plain, container, lambda t: t + ticks, slice(17, None))
    jumped = flv(*parts) if container == "flv" else b"".join(parts)
    used = check(jumped, jumped, PLANS, times=tenths(30), damaged=read_video(jumped).damaged)
    assert used <= {"scan", "sequential"}


def test_a_clock_that_stands_still():
    """Every frame at one time, and a keyframe, which might be as many recordings."""
    data = make(h264("flv", 1, "bframes=0", total=30))
    more = [flv(b"", retimed(data, "flv", lambda tick: 0, slice(place, place + 1))) for place in range(5)]
    still = b"".join([data, *more])
    assert check(still, still, PLANS, times=tenths(35)) <= {"scan", "sequential"}


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_picture_that_is_held_is_no_jump(container):
    """A slide show may show one for hours."""
    scale = 10_240 if container == "mp4" else 1000
    plain = make(h264(container, 30, "bframes=0", total=20))
    held = retimed(plain, container, lambda tick: tick + (7200 * scale if tick >= scale else 0))
    times = [place / 10 + 7200 * (place >= 10) for place in range(20)]
    check(held, held, {"8": PLANS["8"], "48": PLANS["48"], "rate": {"num_frames": 9, "fps": 0.01}})
    assert read_video(held, 20).timestamps == pytest.approx(times)
    assert read_video(held, timestamps=[3600.0]).indices == [9]
    assert video_info(held).duration == pytest.approx(7202)


def test_slides_in_a_container_whose_clock_may_jump():
    slides = retimed(make(h264("flv", 30, "bframes=0", total=20)), "flv", lambda tick: tick * 50)
    assert read_video(slides, 20).timestamps == pytest.approx([place * 5.0 for place in range(20)])


ticks = st.lists(st.none() | st.integers(-(10**6), 10**6), min_size=1, max_size=60)


@given(ticks, st.integers(1, 1000), st.sampled_from([50, 5000, float("inf")]))
def test_time_always_goes_on(stamps, usual, leap):
    clock = Clock(Fraction(1, 1000), usual, leap)
    elapsed, stored = clock.continuous(stamps)
    assert elapsed.tolist() == [time for time, _ in clock.elapse((tick, None) for tick in stamps)]
    assert elapsed[0] == 0 and (np.diff(elapsed) > 0).all() and np.diff(elapsed).max(initial=0) <= max(leap, usual)
    if stored and None not in stamps:
        assert elapsed.tolist() == [tick - stamps[0] for tick in stamps]
    known = [tick for tick in stamps if tick is not None]
    if known:
        array, _ = clock.continuous(np.asarray(known))
        assert array.tolist() == clock.continuous(known)[0].tolist()


def test_the_clock_by_hand():
    clock = Clock(Fraction(1, 10), 2, 50)
    assert clock.continuous([7, 9, 11])[0].tolist() == [0, 2, 4]
    assert clock.continuous([7, None, None, 13])[0].tolist() == [0, 2, 4, 6]
    assert clock.continuous([7, 9, 0, 3])[0].tolist() == [0, 2, 4, 7]  # restarts
    assert clock.continuous([7, 9, 99, 102])[0].tolist() == [0, 2, 4, 7]  # leaps
    assert clock.continuous([7, 9, 59, 61])[0].tolist() == [0, 2, 52, 54]  # is held
    times, duration = clock.seconds(np.asarray([0, 2, 4]), 3)
    assert times.tolist() == [0.0, 0.2, 0.4] and duration == pytest.approx(0.7)
