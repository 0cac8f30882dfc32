import io

import numpy as np
import PIL.Image
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gve import Frames, GVEVideoProcessor, read_video
from gve.video_processing_gve import flatten_videos


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


def test_patches_of_two_frames_by_hand():
    small = GVEVideoProcessor(
        patch_size=2, size={"shortest_edge": 1, "longest_edge": 10**6}, image_mean=[0] * 3, image_std=[1] * 3
    )
    frames = np.arange(2 * 4 * 8 * 3, dtype=np.uint8).reshape(2, 4, 8, 3)
    pixels = small(frames)["pixel_values_videos"] * 255
    assert pixels.shape == (8, 3 * 2 * 2 * 2)
    # second patch of the first merged block: rows 0-1, columns 2-3; channel, frame, row, column within it
    expected = frames[:, :2, 2:4].transpose(3, 0, 1, 2).reshape(-1)
    assert torch.allclose(pixels[1], torch.from_numpy(expected).float(), atol=1e-4)


def test_budgets_follow_the_patch_size():
    assert GVEVideoProcessor().size == {"shortest_edge": 4 * 28**2, "longest_edge": 200 * 28**2}
    assert GVEVideoProcessor(patch_size=8).size == {"shortest_edge": 4 * 16**2, "longest_edge": 200 * 16**2}


def test_frames_stay_below_200_tokens(reader):
    _, height, width = reader(noise(2, 1080, 1920))["video_grid_thw"][0].tolist()
    assert 150 < height * width / 4 <= 200


@pytest.mark.parametrize(("fps", "seconds"), [(1.0, 2.0), (4.0, 0.5), (0.5, 4.0)])
def test_clock_of_arrays_with_a_rate(reader, fps, seconds):
    video = {"array": noise(8), "video_metadata": {"fps": fps, "total_num_frames": 8}}
    assert reader(video)["second_per_grid_ts"].tolist() == [seconds]
    # as transformers' own: 8 frames taken out of 10 seconds
    video = {"array": noise(8), "video_metadata": {"fps": 30.0, "total_num_frames": 300, "frames_indices": range(8)}}
    assert reader(video)["second_per_grid_ts"].tolist() == [2.5]


def test_clock_of_bare_arrays_is_one_frame_a_second(reader):
    assert reader(noise(8))["second_per_grid_ts"].tolist() == [2.0]
    assert reader(noise(16))["second_per_grid_ts"].tolist() == [4.0]  # 8 taken out of 16 seconds
    assert GVEVideoProcessor(seconds_per_frame=0.25)(noise(8))["second_per_grid_ts"].tolist() == [0.5]


def test_clock_of_files_is_their_length(reader, encoded):
    assert reader(encoded(total=16, rate=8))["second_per_grid_ts"].tolist() == [0.5]
    assert reader(encoded(total=3, rate=8))["second_per_grid_ts"].tolist() == [pytest.approx(3 / 8 / 8 * 2)]
    slow = encoded(total=8, times=[0, 100, 200, 300, 400, 500, 600, 9000])
    assert reader(slow)["second_per_grid_ts"][0] > 2.2


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


def test_every_form_of_frames(reader):
    frames = noise(8)
    expected = reader(frames)["pixel_values_videos"]
    forms = [
        torch.from_numpy(frames),
        frames.transpose(0, 3, 1, 2),
        list(frames),
        [PIL.Image.fromarray(frame) for frame in frames],
        {"array": frames, "video_metadata": None},
    ]
    for form in forms:
        assert torch.equal(reader(form)["pixel_values_videos"], expected)
    grey = frames[..., :1]
    assert torch.equal(reader(grey)["pixel_values_videos"], reader(np.repeat(grey, 3, -1))["pixel_values_videos"])


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


def test_refused_forms(reader):
    with pytest.raises(ValueError, match=r"shape \(2, 5, 5, 4\)"):
        reader(np.zeros((2, 5, 5, 4), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        reader(np.zeros((2, 5, 5, 3)))
    with pytest.raises(ValueError, match="got 1 entries for 2 videos"):
        reader([noise(2), noise(2)], video_metadata=[None])
    with pytest.raises(ValueError, match="timestamps: got 1 for 2 frames"):
        reader(Frames(noise(2), [0.0], 1.0))
    with pytest.raises(ValueError, match="video: got int"):
        reader(3)
    with pytest.raises(TypeError, match="fps"):
        reader(noise(2), fps=2.0)


def test_round_trip(tmp_path):
    GVEVideoProcessor(num_frames=4, patch_size=8, seconds_per_frame=0.5).save_pretrained(tmp_path)
    again = GVEVideoProcessor.from_pretrained(tmp_path)
    assert (again.num_frames, again.patch_size, again.seconds_per_frame) == (4, 8, 0.5)
    assert again.size["longest_edge"] == 200 * 16**2
