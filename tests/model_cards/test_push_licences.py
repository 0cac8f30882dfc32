import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from uvrb_folder import make_tables, write_uvrb

from gve.hub_datasets.pair_media import media_name
from gve.hub_datasets.schema import media
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.vsynflow.uvrd import uvrd_features
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.sets import Sizes
from gve.model_cards.push_checks import KINDS, collect
from gve.model_cards.push_licences import FREE, check_data, same_video
from gve.video_writer import encode_mp4

SMALL = Sizes(base=3, groups=1, programs=2, themes=2, longs=2, composed=2)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    build_world(root, seed=5, pairs={"t2v": 3, "t2t": 2}, raw=0, workers=1, progress=False, sizes=SMALL)
    return root


@pytest.fixture
def world(rendered, tmp_path):
    return shutil.copytree(rendered, tmp_path / "world")


def check(folder, kind):
    return check_data(collect(KINDS[kind], folder))


def change(path, column, change_rows):
    table = pq.read_table(path)
    rows = change_rows(table.column(column).to_pylist())
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, table.field(place), pa.array(rows, type=table.field(place).type)), path)


def test_public_clips_are_refused_by_name(tmp_path):
    folder = write_uvrb(tmp_path / "uvrb", {name: make_tables(name) for name in ("MSRVTT", "MS-TI")}, "test")
    with pytest.raises(ValueError, match="may not be hosted again: ") as caught:
        check(folder, "uvrb")
    for name in ("MSRVTT", "MS-TI"):
        source = SETS[name].source
        assert f"{name} ({source.name}: {source.may_rehost} may be hosted, {source.reason})" in str(caught.value)


def test_the_worlds_note_alone_is_no_proof(world, tmp_path):
    public = write_uvrb(tmp_path / "public", {"MSRVTT": make_tables("MSRVTT")})
    shutil.rmtree(world / "uvrb")
    shutil.copytree(public, world / "uvrb")
    with pytest.raises(ValueError, match=r"msrvtt-queries.*, and clips of MSRVTT \(MSR-VTT\) may not be hosted again"):
        check(world / "uvrb", "uvrb")


def test_foreign_rows_among_the_worlds(world):
    assert {"default", "msrvtt", "msrvtt-queries", "ms-ti-top_ranked"} <= set(check(world / "uvrb", "uvrb"))
    assert check(world / "uvrd", "uvrd") == ["t2t", "t2v"]
    clip = encode_mp4(np.random.default_rng(0).integers(0, 255, (16, 48, 48, 3), dtype=np.uint8), 8)
    path = world / "uvrb" / "cmrb-corpus" / "unseen.parquet"
    change(path, "video", lambda rows: [*rows[:-1], {"bytes": clip, "path": None}])
    with pytest.raises(ValueError, match=r"cmrb-corpus/unseen.parquet: video .* is not the one that the world draws"):
        check(world / "uvrb", "uvrb")
    shutil.copy(world / "uvrb/msrvtt-qrels/seen.parquet", world / "uvrb/msrvtt-qrels/a.parquet")
    with pytest.raises(ValueError, match="split 'a' is not the world's"):
        check(world / "uvrb", "uvrb")
    (path,) = (world / "uvrd" / "t2v").glob("*.parquet")
    change(path, "id", lambda rows: ["other", *rows[1:]])
    with pytest.raises(ValueError, match="row 0 is not the one that the world draws"):
        check(world / "uvrd", "uvrd")
    (world / "world.json").write_text("{")
    with pytest.raises(ValueError, match=r"world.json: cannot be read .* with `gve world`"):
        check(world / "uvrb", "uvrb")


def test_other_bytes_of_the_same_frames():
    frames = np.random.default_rng(1).integers(0, 255, (4, 2, 2, 3), dtype=np.uint8).repeat(24, 1).repeat(24, 2)
    assert same_video(encode_mp4(frames, 8), encode_mp4(frames, 4))
    assert not same_video(encode_mp4(frames, 8), encode_mp4(frames[::-1].copy(), 8))
    assert not same_video(b"none", encode_mp4(frames, 8)) and not same_video(None, b"")


def write_uvrd(folder, licences, source="films", facts=None):
    """A UVRD as V-SynFlow writes it, as far as the gate looks."""
    row = dict.fromkeys(uvrd_features()) | {"task": "t2v", "kind": "caption", "source": source}
    row |= {"instruction": "Find it.", "query": media(text="a square"), "target": media(video=b"clip")}
    row |= {"negatives": [], "query_facts": [], "target_facts": []}
    rows = [row | {"id": str(number), "licence": licence} for number, licence in enumerate(licences)]
    (folder / "t2v").mkdir(parents=True)
    Dataset.from_list(rows, features=uvrd_features()).to_parquet(folder / "t2v" / "train-00000-of-00001.parquet")
    head = "---\nlicense: cc0-1.0\nconfigs:\n- config_name: t2v\n  data_files:\n  - split: train\n    path: t2v/train-*.parquet\n---\n"
    (folder / "README.md").write_text(head)
    told = {"media": "embed", "local": False, "decontamination": {"passed": True}, "rows": {"t2v": len(rows)}}
    (folder / "facts.json").write_text(json.dumps(told | (facts or {})))
    return folder


def test_every_row_needs_a_free_licence(tmp_path):
    assert check(write_uvrd(tmp_path / "free", ["CC0-1.0", "CC-BY-4.0"]), "uvrd") == ["t2v"]
    assert all(licence == licence.lower() for licence in FREE)
    with pytest.raises(ValueError, match=r"row '1' from 'films' must be one of .*cc0-1.0.*, got 'CC-BY-NC-4.0'"):
        check(write_uvrd(tmp_path / "other", ["CC0-1.0", "CC-BY-NC-4.0"]), "uvrd")
    with pytest.raises(ValueError, match="row '0' comes from MSR-VTT, which may not be hosted again"):
        check(write_uvrd(tmp_path / "public", ["CC0-1.0"], source="msr-vtt"), "uvrd")
    not_published = ({"decontamination": None}, {"decontamination": {"passed": False}}, {"media": "reference"})
    for place, facts in enumerate((*not_published, {"local": True})):
        with pytest.raises(ValueError, match=r"folder: .*gve synth build"):
            check(write_uvrd(tmp_path / str(place), ["CC0-1.0"], facts=facts), "uvrd")


def test_stored_media_have_the_licence_of_a_row(tmp_path):
    folder, name = write_uvrd(tmp_path, ["CC0-1.0"], facts={"media": "once"}), media_name(b"clip", ".mp4")
    card = folder / "README.md"
    card.write_text(card.read_text().replace("t2v/train-*.parquet", "'*/train-*.parquet'"))
    (folder / "media").mkdir()
    stored = {"name": [name], "image": [None], "video": [{"bytes": b"clip", "path": None}]}
    pq.write_table(pa.table(stored), folder / "media" / "train-0.parquet")
    with pytest.raises(ValueError, match=f"media: '{name}': no row names it, so it has no licence"):
        check(folder, "uvrd")
    change(
        next((folder / "t2v").iterdir()), "target", lambda rows: [media() | {"video": {"bytes": None, "path": name}}]
    )
    assert check(folder, "uvrd") == ["t2v"]
    (folder / "media" / "train-0.parquet").unlink()
    with pytest.raises(ValueError, match=f"'{name}': rows name it, and media does not hold it"):
        check(folder, "uvrd")


def test_cards_that_lack_something(world):
    card = world / "uvrb" / "README.md"
    text = card.read_text()
    for old, new, message in (
        ("license: apache-2.0\n", "", "states no licence"),
        (text, "---\nlicense: mit\n---\n", "has no configs"),
        ("msrvtt-corpus/seen.parquet", "videos/a.mp4", "which is not uploaded"),
        ("path: ms-ti-top_ranked/", "path: ms-tv-top_ranked/", "ms-ti-top_ranked/.*: no conf"),
    ):
        card.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=message):
            check(world / "uvrb", "uvrb")
