import io

import numpy as np
import PIL.Image
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gve import Frames, GVEVideoProcessor, read_video
from gve.frames_gve import flatten_videos


@pytest.fixture(scope="module")
def reader():
    return GVEVideoProcessor()


def noise(frames, height=56, width=84, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (frames, height, width, 3), dtype=np.uint8)


def test_an_image_twice_is_the_patches_of_that_image(reader):
    """Order and arithmetic of the patches against transformers' image processor."""
    image = noise(1)[0]
    expected = Qwen2VLImageProcessorPil()(PIL.Image.fromarray(image), return_tensors="pt")
    out = reader(np.stack([image, image]))
    assert out["video_grid_thw"].tolist() == expected["image_grid_thw"].tolist() == [[1, 4, 6]]
    assert torch.allclose(out["pixel_values_videos"], expected["pixel_values"], atol=1e-6)


def test_budgets_follow_the_patch_size(reader):
    assert reader.size == {"shortest_edge": 4 * 28**2, "longest_edge": 200 * 28**2}
    assert GVEVideoProcessor(patch_size=8).size == {"shortest_edge": 4 * 16**2, "longest_edge": 200 * 16**2}
    _, height, width = reader(noise(2, 1080, 1920))["video_grid_thw"][0].tolist()
    assert 150 < height * width / 4 <= 200


def test_clocks(reader, encoded):
    """Seconds of two frames: from a rate, else one frame a second, else from the length of the file."""
    # as transformers has it: 8 frames taken out of 10 seconds
    sampled = {"fps": 30.0, "total_num_frames": 300, "frames_indices": range(8)}
    slow = [0, 100, 200, 300, 400, 500, 600, 9000]
    for video, seconds in (
        *(({"array": noise(8), "video_metadata": {"fps": fps}}, 2 / fps) for fps in (1.0, 4.0, 0.5)),
        ({"array": noise(8), "video_metadata": sampled}, 2.5),
        *((noise(8), 2.0), (noise(16), 4.0)),  # 8 taken out of 16 seconds
        *((encoded(total=16, rate=8), 0.5), (encoded(total=3, rate=8), 3 / 8 / 8 * 2)),
    ):
        assert reader(video)["second_per_grid_ts"].tolist() == [pytest.approx(seconds)]
    assert reader(encoded(total=8, times=slow))["second_per_grid_ts"][0] > 2.2
    assert GVEVideoProcessor(seconds_per_frame=0.25)(noise(8))["second_per_grid_ts"].tolist() == [0.5]


def test_kept_frames_give_what_the_file_gives(reader, encoded):
    data = encoded()
    clip = read_video(data)
    expected = reader(data)
    kept = {"frames": clip.frames, "timestamps": clip.timestamps, "duration": clip.duration}
    for video in (clip, kept):
        out = reader(video)
        assert all(torch.equal(out[key], expected[key]) for key in expected)
    del kept["duration"]
    assert reader(kept)["second_per_grid_ts"].tolist() == [pytest.approx(1.875 / 7 * 2)]


def test_every_form_of_frames(reader, tmp_path):
    frames = noise(8)
    expected = reader(frames)
    for index, frame in enumerate(frames):
        PIL.Image.fromarray(frame).save(tmp_path / f"{index}.png")
    paths = sorted(tmp_path.iterdir())
    tensor = torch.from_numpy(frames)
    forms = [
        *(tensor, tensor.permute(0, 3, 1, 2), frames.transpose(0, 3, 1, 2)),
        *(frames / 255, (frames / 255).astype(np.float16), tensor / 255, tensor.permute(0, 3, 1, 2).float() / 255),
        *(list(frames), tuple(frames), [frame.transpose(2, 0, 1) for frame in frames], list(tensor)),
        [PIL.Image.fromarray(frame) for frame in frames],
        *(paths, [str(path) for path in paths], [{"bytes": None, "path": str(path)} for path in paths]),
        [PIL.Image.fromarray(frames[0]), paths[1], *frames[2:]],
        {"array": frames, "video_metadata": None},
        *({"frames": frames}, {"frames": list(frames)}, {"frames": tuple(frames), "fps": 1.0}),
        *({"frames": tensor, "layout": "THWC"}, {"frames": tensor.permute(0, 3, 1, 2), "layout": "TCHW"}),
        {"frames": frames, "timestamps": list(range(8)), "duration": 8.0},
        {"frames": frames, "timestamps": np.arange(8)},
        Frames(frames, list(range(8)), 8.0),
    ]
    for form in forms:
        out = reader([form])
        assert torch.equal(out["pixel_values_videos"], expected["pixel_values_videos"])
        assert out["second_per_grid_ts"].tolist() == [2.0]
    grey = frames[..., :1]
    assert torch.equal(reader(grey)["pixel_values_videos"], reader(np.repeat(grey, 3, -1))["pixel_values_videos"])
    dark = [torch.zeros(2, 8, 8, 3, dtype=torch.bfloat16), np.zeros((2, 8, 8, 3), np.uint8)]
    assert torch.equal(*(reader(frames)["pixel_values_videos"] for frames in dark))


def test_only_the_sampled_frames_are_opened(reader, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(50)]
    for index in np.linspace(0, 49, 4).round().astype(int):
        PIL.Image.new("RGB", (32, 32), (int(index), 0, 0)).save(paths[index])
    clip = reader.load(paths, num_frames=4)
    assert clip.frames[:, 0, 0, 0].tolist() == [0, 16, 33, 49] and clip.times == [0, 16, 33, 49]
    assert clip.interval == 12.5
    broken = np.zeros((50, 8, 8, 3))
    broken[1] = np.nan
    assert len(reader.load(broken, num_frames=4).frames) == 4


def test_a_layout_that_is_told(reader):
    array = np.random.default_rng(0).integers(0, 255, (3, 3, 64, 3), dtype=np.uint8)
    clips = [reader.load({"frames": array, "layout": layout}).frames for layout in ("THWC", "TCHW")]
    assert clips[0].shape == (3, 3, 64, 3) and clips[1].shape == (3, 64, 3, 3)
    assert np.array_equal(clips[0], array) and np.array_equal(clips[1], array.transpose(0, 2, 3, 1))
    listed = reader.load({"array": list(array), "layout": "TCHW"}).frames
    assert np.array_equal(listed, clips[1])
    assert np.array_equal(reader.load(Frames(array, [0.0, 1.0, 2.0], 3.0)).frames, array)


def test_upright_frames(reader, tmp_path):
    image = PIL.Image.new("RGB", (40, 20))
    image.getexif()[0x0112] = 6
    image.save(tmp_path / "f.jpg", exif=image.getexif())
    assert reader.load([tmp_path / "f.jpg"] * 2).frames.shape == (2, 40, 20, 3)


def test_sampling_can_be_turned_off(reader):
    assert reader(noise(12))["video_grid_thw"][0, 0] == 4
    assert reader(noise(12), do_sample_frames=False)["video_grid_thw"][0, 0] == 6
    assert reader(noise(12), num_frames=6)["video_grid_thw"][0, 0] == 3
    assert reader(noise(5))["video_grid_thw"][0, 0] == 3  # the last frame twice


def test_flatten_never_splits_a_list_of_frames():
    frames = [PIL.Image.new("RGB", (8, 8))] * 3
    assert flatten_videos([[frames], None, ["a.mp4", b"x"]]) == [frames, "a.mp4", b"x"]
    assert flatten_videos(frames) == [frames]
    assert len(flatten_videos(np.zeros((2, 3, 8, 8, 3)))) == 2
    assert flatten_videos(io.BytesIO())[0].read() == b""


MIXED = [np.zeros((3, 8, 9), np.uint8), np.zeros((8, 9, 3), np.uint8)]
PICTURE = PIL.Image.new("RGB", (8, 8))


@pytest.mark.parametrize(
    ("video", "match"),
    [
        (np.zeros((2, 5, 5, 4), np.uint8), r"shape \(2, 5, 5, 4\); accepted are 1 or 3 channels"),
        (np.zeros((3, 3, 64, 3), np.uint8), r"reads as THWC and as TCHW; .*\{'frames': x, 'layout': 'TCHW'\}"),
        ({"frames": np.zeros((3, 3, 64, 8)), "layout": "THWC"}, "accepted are 1 or 3 channels"),
        ({"frames": np.zeros((3, 3, 64, 8)), "layout": "CHWT"}, "layout: got 'CHWT'"),
        (np.zeros((5, 5), np.uint8), r"shape \(5, 5\); accepted are THWC and TCHW"),
        (np.zeros((0, 5, 5, 3), np.uint8), "zero frames"),
        ({"frames": []}, "zero frames"),
        (Frames(np.zeros((0, 5, 5, 3), np.uint8), [], 0.0), "zero frames"),
        (np.zeros((2, 0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((2, 5, 5, 3), np.int32), "of type int32; accepted are uint8 and floats"),
        (np.full((2, 5, 5, 3), 1.5), "floats from 1.5 to 1.5"),
        (np.full((2, 5, 5, 3), -np.inf, np.float32), "NaN or infinite"),
        (MIXED, r"\(H, W, C\) and \(C, H, W\) in one list"),
        ([PICTURE, PIL.Image.new("RGB", (9, 8))], r"different sizes, \(8, 8\) and \(9, 8\)"),
        ({"frames": [PICTURE, b"x"]}, "got bytes as frame 1"),
        ({"frames": [np.zeros((2, 2))]}, r"got ndarray of shape \(2, 2\) as frame 0"),
        ({"frames": [PICTURE, "gone.png"]}, "frame 1: got 'gone.png'"),
        ({"frames": 3}, "frames of type int"),
        ({"frames": [PICTURE], "rate": 3}, r"a dict of \['frames', 'rate'\]"),
        ({"bytes": None, "path": None}, "one of them must be set"),
        (3, r"videos\[0\]: got int"),
        (np.zeros((2, 1000, 4, 3), np.uint8), "4 x 1000 pixels"),
        ({"frames": [PICTURE] * 2, "timestamps": [0.0]}, "timestamps: got 1 for 2 frames"),
        ({"frames": [PICTURE] * 2, "timestamps": [1.0, 0.5]}, r"timestamps: got \[1.0, 0.5\]; .*never decrease"),
        ({"frames": [PICTURE] * 2, "timestamps": [0.0, float("nan")]}, "accepted are finite seconds"),
        ({"frames": [PICTURE] * 2, "timestamps": [0, 1], "fps": 1.0}, "got timestamps and fps"),
        ({"frames": [PICTURE] * 2, "timestamps": [0, 1], "duration": -1.0}, "duration: got -1.0"),
        ({"frames": [PICTURE] * 2, "fps": 0}, "fps: got 0; accepted are numbers above 0"),
        ({"frames": [PICTURE] * 2, "fps": "2"}, "fps: got '2'"),
        ({"array": noise(2), "video_metadata": {"fps": float("nan")}}, "fps: got nan"),
        (Frames(noise(2), [0.0], 1.0), "timestamps: got 1 for 2 frames"),
    ],
)
def test_refused_forms(reader, video, match):
    error = FileNotFoundError if "gone" in match else ValueError
    with pytest.raises(error, match=match):
        reader([video])


def test_images_are_no_videos(reader, media, tmp_path):
    data = (media / "i.png").read_bytes()
    (tmp_path / "named.mp4").write_bytes(data)
    stored = {"bytes": data, "path": None}
    for video in (media / "i.png", str(media / "i.png"), data, io.BytesIO(data), tmp_path / "named.mp4", stored):
        with pytest.raises(ValueError, match=r"got the image .* accepted is a video"):
            reader.load(video)
    with pytest.raises(ValueError, match="video: got an image; accepted is a video"):
        reader.load(PICTURE)
    PICTURE.save(tmp_path / "a.gif", save_all=True, append_images=[PIL.Image.new("RGB", (8, 8), "red")], duration=500)
    assert reader.load(tmp_path / "a.gif", num_frames=2).frames.shape == (2, 8, 8, 3)
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        reader.load("gone.mp4")


def test_refused_settings(reader):
    for count in (0, -1, 2.5, True, "8"):
        with pytest.raises(ValueError, match=f"num_frames: got {count!r}"):
            reader.load(noise(2), num_frames=count)
        with pytest.raises(ValueError, match="num_frames: got"):
            GVEVideoProcessor(num_frames=count)
    for size, match in (
        ({"shortest_edge": 3136, "longest_edge": 1000}, "shortest_edge 3136 and longest_edge 1000"),
        ({"shortest_edge": 1, "longest_edge": 783}, "longest_edge 783; accepted is at least one token, 784 pixels"),
        ({"longest_edge": 1000}, "pass both"),
        ({"height": 28, "width": 28}, "pass both"),
        ({"shortest_edge": 784.0, "longest_edge": 1e4}, "pass both"),
    ):
        with pytest.raises(ValueError, match=match):
            reader(noise(2), size=size)
        with pytest.raises(ValueError, match=match):
            GVEVideoProcessor(size=size)
    for video, options, match in (
        ([noise(2)] * 2, {"video_metadata": [None]}, "got 1 entries for 2 videos"),
        (noise(2), {"fps": 2.0}, "fps: got 2.0 for videos; accepted are num_frames"),
        (noise(2), {"do_resize": False}, "do_resize: got False"),
        ([], {}, "videos: got an empty list"),
    ):
        with pytest.raises(ValueError, match=match):
            reader(video, **options)
