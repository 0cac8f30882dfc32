import hashlib
import json

import numpy as np
import pytest

from gve.hub_datasets.world.attributes import ATTRIBUTES, clip_labels
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.captions import CLIP_KINDS, caption, clip_facts, fact
from gve.hub_datasets.world.counterfactuals import true_facts
from gve.hub_datasets.world.raw import raw_videos
from gve.hub_datasets.world.render import frame_times, render
from gve.hub_datasets.world.rows import stream
from gve.hub_datasets.world.sets import Sizes, build_sets
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.world_command import main
from gve.hub_datasets.world.worlds import WORLDS, seed_of
from gve.model_cards.push_checks import KINDS, collect
from gve.model_cards.push_licences import check_data

SMALL = Sizes(base=3, groups=1, programs=2, themes=2, longs=2, composed=2)


def drawn(seed, count):
    rng = stream(seed, "golden")
    return [sample_clip(rng, ("seen", "unseen")[number % 2]) for number in range(count)], rng


def test_the_default_world_draws_what_it_always_drew():
    clips, rng = drawn(0, 300)
    told = [caption(clip, kind, rng) for clip in clips for kind in CLIP_KINDS]
    every = [clips, [(one.text, sorted(one.facts)) for one in told], [clip_labels(clip) for clip in clips]]
    every.append([sorted(true_facts(clip)) for clip in clips])
    assert hashlib.sha256(repr(every).encode()).hexdigest()[:16] == "f68a046087c9c0db"
    means = [round(float(render(clip, frame_times(4)).mean()), 1) for clip in clips[:6]]
    assert means == pytest.approx([75.0, 65.6, 181.2, 178.4, 104.0, 134.1], abs=0.2)
    assert stream(0, "a", 1).random() == np.random.default_rng([0, 3904355907, 1]).random()


def test_worlds_share_sizes_but_no_shape_action_or_word():
    first, second = WORLDS.values()
    for table in ("shapes", "actions"):
        assert len(getattr(first, table)) == len(getattr(second, table))
    names = [name for world in WORLDS.values() for name in (*world.shapes, *world.actions)]
    words = [word for world in WORLDS.values() for options in world.shapes.values() for word in options]
    words += [
        word for world in WORLDS.values() for told, keyword in world.actions.values() for word in (*told, keyword)
    ]
    assert len(set(names)) == len(names) and len(set(words)) == len(words)
    clips, _ = drawn(seed_of(0, "held-out"), 400)
    assert {thing.shape for clip in clips for thing in clip.things} == set(second.shapes)
    assert {action for clip in clips for _, action in clip.events} == set(second.actions)
    places = {name: place for place, name in enumerate(second.actions)}
    for clip in clips:
        labels = dict(zip(ATTRIBUTES, clip_labels(clip), strict=True))
        assert [labels["first_action"], labels["second_action"]] == [places[action] for _, action in clip.events]
    common = set().union(*map(clip_facts, drawn(0, 400)[0])) & set().union(*map(clip_facts, clips))
    shared = {("scene", clip.scene) for clip in clips} | {("style", clip.style) for clip in clips}
    assert common <= {fact(*parts) for parts in shared | {("camera", *clip.camera) for clip in clips}}
    with pytest.raises(ValueError, match="world must be one of default, held-out, got 'other'"):
        seed_of(0, "other")


def test_the_command_builds_the_held_out_world_of_which_every_part_shows_its_own(tmp_path, capsys):
    options = {"pairs": {"t2v": 3}, "raw": 2, "workers": 1, "progress": False, "sizes": SMALL}
    one, two = (build_world(tmp_path / world, world=world, **options) for world in WORLDS)
    assert one["sets"] == two["sets"] and one["arguments"] | {"world": "held-out"} == two["arguments"]
    folder = tmp_path / "held-out"
    common = {path.read_bytes() for path in (tmp_path / "default").rglob("*.mp4")}
    videos = [path.read_bytes() for path in folder.rglob("*.mp4")]
    assert len(videos) == len(list((tmp_path / "default").rglob("*.mp4"))) and not common & set(videos)
    assert "seed 0 from the world `held-out`." in (folder / "uvrb" / "README.md").read_text()
    assert check_data(collect(KINDS["uvrd"], folder / "uvrd")) == ["t2v"], "drawn again from the world's note"
    assert "msrvtt" in check_data(collect(KINDS["uvrb"], folder / "uvrb"))
    with pytest.raises(ValueError, match="built with other arguments"):
        build_world(folder, **options)
    shown = {thing.shape for video in raw_videos(40, seed_of(0, "held-out")) for thing in video.clip.things}
    assert shown == set(WORLDS["held-out"].shapes)
    argv = ["--world", "held-out", "--pairs-scale", "0", "--raw", "1", "--no-sets", "--workers", "1", "--quiet"]
    assert main([str(tmp_path / "command"), *argv]) == 0
    assert json.loads(capsys.readouterr().out)["arguments"]["world"] == "held-out"
    truth = json.loads((tmp_path / "command" / "raw" / "truth.jsonl").read_text())
    assert truth["clip"]["things"][0]["shape"] in WORLDS["held-out"].shapes
    assert build_sets("seen", 0, SMALL) != build_sets("seen", seed_of(0, "held-out"), SMALL), "cached apart"
