import io

import numpy as np
import PIL.Image

from gve.hub_datasets.world.sets import build_sets
from gve.hub_datasets.world.variants import leading_thing
from gve.trainers.demo.queries import Hit, also_right, corpus_clips, draw_sheet, film_strip
from gve.video_writer import encode_mp4


def test_film_strip_shows_first_and_last_frame():
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    strip = film_strip(frames, 3)
    assert strip.shape == (2, 9, 3)
    assert strip[0, ::3, 0].tolist() == [0, 4, 8]


def test_sheet_marks_right_answers_green(tmp_path):
    grey = np.full((8, 16, 16, 3), 128, np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(grey[0]).save(buffer, format="PNG")
    query = {"text": "a red ring", "image": buffer.getvalue(), "video": encode_mp4(grey, 8)}
    greens = []
    for right in (False, True):
        hits = [Hit("a", 0.5, right, grey), Hit("b", 0.25, False, grey)]
        draw_sheet("text query", query, hits, tmp_path / f"{right}.png")
        pixels = np.asarray(PIL.Image.open(tmp_path / f"{right}.png").convert("RGB")).astype(int)
        greens.append(int(((pixels[..., 1] - pixels[..., 0] > 60) & (pixels[..., 1] - pixels[..., 2] > 60)).sum()))
    assert greens[0] == 0 and greens[1] > 500


def test_every_video_that_shows_what_a_query_asks_for_is_right():
    shown = corpus_clips(build_sets("unseen", 0))
    several = 0
    for one in (name for name in shown if name.startswith("msrvtt")):
        clip = shown[one][0]
        things = {thing.name for thing in clip.things}
        right = also_right("MSRVTT", shown[one], shown)
        assert one in right and not any(name.startswith("lovr-v-") for name in right)
        assert all({t.name for t in shown[x][0].things} == things and shown[x][0].scene == clip.scene for x in right)
        several += len(right) > 1
        going = also_right("MS-TI", shown[one], shown)
        assert one in going and all(
            (other.scene, leading_thing(clip).name, clip.events[0][1])
            in {(clip.scene, other.things[index].name, action) for index, action in other.events}
            for other in (shown[x][0] for x in going)
        )
        assert also_right("LoVR-C2V", shown[one], shown) == set()
    assert several > 20, "two things and a scene are shown by clips of other sets too"
