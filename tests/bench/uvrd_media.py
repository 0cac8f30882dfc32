"""Where the media of a UVRD of seven tasks should lie: in the rows, or once beside them, and how training reads them.

`embed`: bytes in the rows. `once, Arrow`: a configuration of media, looked up in the Arrow file that `datasets` makes of
it. `once, files`: the same, unpacked by `load_pairs`. `once, groups of N`: parquet with N media in a row group, read there.
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import head, in_child, make_parser, quiet, say

sys.path.insert(0, str(Path(__file__).parents[1]))
FOLDERS = {
    "embed": "embed",
    "once, Arrow": "once",
    "once, files": "once",
    "once, groups of 16": "groups-16",
    "once, groups of 1": "groups-1",
}
DRAWS = 3000


def build(root, videos, pad):
    """Raw videos of the rendered world through V-SynFlow, written in every layout; returns rows and mentions of media."""
    from synth_stages import Colours, record_of

    from gve.hub_datasets.schema import TASKS
    from gve.hub_datasets.vsynflow import uvrd, uvrd_store
    from gve.hub_datasets.vsynflow.engines import InlineEngine
    from gve.hub_datasets.vsynflow.enrichment import Enrichment
    from gve.hub_datasets.vsynflow.extension.compositions import Compositions
    from gve.hub_datasets.vsynflow.extension.mining import Mining
    from gve.hub_datasets.vsynflow.extension.references import References
    from gve.hub_datasets.vsynflow.flow import Flow
    from gve.hub_datasets.vsynflow.runner import run_flow
    from gve.hub_datasets.vsynflow.shards import make_plan
    from gve.hub_datasets.vsynflow.status import read_table
    from gve.hub_datasets.vsynflow.truth import TRUTH_NAME, TruthCaptioner
    from gve.hub_datasets.world.raw import write_raw_videos, write_titles

    write_raw_videos(root / "raw", videos, 3, 0, videos)
    write_titles(root / "raw", videos, 3)
    noise = np.random.default_rng(0)
    for path in (root / "raw" / "videos").iterdir() if pad else ():
        path.write_bytes(
            path.read_bytes() + (pad + 8).to_bytes(4) + b"free" + noise.bytes(pad)
        )  # players skip the box
    lines = (line.split(",", 1) for line in (root / "raw" / "titles.csv").read_text().splitlines()[1:])
    records = (record_of(root / "raw" / "videos" / name, Path(name).stem, title) for name, title in lines)
    make_plan(root / "run", records, {"name": "bench"})
    stages = (
        Enrichment(TRUTH_NAME, encoder="c", num_frames=4),
        References(0.5),
        Compositions(TRUTH_NAME, num_frames=4),
    )
    captioner = partial(TruthCaptioner, root / "raw")
    run_flow(
        root / "run", Flow((*stages, Mining("c", num_frames=4)), encoder=Colours, captioner=captioner), InlineEngine()
    )
    kept = list(read_table(root / "run", "kept"))
    for folder, block in (("embed", None), ("once", uvrd_store.BLOCK_ROWS), ("groups-16", 16), ("groups-1", 1)):
        uvrd_store.BLOCK_ROWS = block or uvrd_store.BLOCK_ROWS
        facts = uvrd.UvrdFacts(captioner=TRUTH_NAME, local=True, media="once" if block else "embed")
        uvrd.write_uvrd(kept, root / "run", root / folder, facts=facts, quotas=dict.fromkeys(TASKS, 1))
    return facts.rows


def size_of(folder, pattern="*"):
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file() and not path.is_symlink())


def measure(layout, folder):
    """Load in a fresh cache, then read random rows with all their media."""
    from datasets import load_dataset
    from pyarrow import parquet as pq

    from gve.hub_datasets.pair_media import _media_of, load_pairs
    from gve.hub_datasets.schema import TASKS

    start = time.perf_counter()
    if layout == "once, files":
        tasks = load_pairs(folder, TASKS)
    else:
        tasks = {task: load_dataset(folder, task, split="train") for task in TASKS}
    read = {"embed": lambda one: one["bytes"], "once, files": lambda one: Path(one["path"]).read_bytes()}.get(layout)
    if layout == "once, Arrow":
        media = load_dataset(folder, "media", split="train")
        places = {name: place for place, name in enumerate(media["name"])}

        def read(one):
            row = media[places[one["path"]]]
            return (row["image"] or row["video"])["bytes"]
    elif read is None:
        files = [pq.ParquetFile(path) for path in sorted(Path(folder, "media").iterdir())]
        groups = ((file, group) for file in files for group in range(file.num_row_groups))
        names = (([*file.read_row_group(group, ["name"])["name"].to_pylist()], file, group) for file, group in groups)
        places = {name: (file, group, place) for found, file, group in names for place, name in enumerate(found)}

        def read(one):
            file, group, place = places[one["path"]]
            row = file.read_row_group(group).slice(place, 1).to_pylist()[0]
            return (row["image"] or row["video"])["bytes"]

    loaded, rng = time.perf_counter() - start, np.random.default_rng(0)
    start, count, total = time.perf_counter(), 0, 0
    for number in range(DRAWS):
        rows = tasks[TASKS[number % len(TASKS)]]
        for one in _media_of(rows[int(rng.integers(len(rows)))]):
            count, total = count + 1, total + len(read(one))
    spent = (time.perf_counter() - start) / count * 1e6
    return {"load": loaded, "cache": size_of(Path(os.environ["HF_HOME"])), "microseconds": spent, "read": total}


def stream(repo, configs):
    """Every row of some configurations by streaming."""
    from datasets import load_dataset

    start = time.perf_counter()
    for config in configs.split(","):
        for _ in load_dataset(repo, config, split="train", streaming=True):
            pass
    return {"seconds": time.perf_counter() - start}


def streamed(hub, repo, configs, home):
    """Seconds, requests and bytes of a stream in a fresh process."""
    hub.log.clear()
    hub.sent = 0
    found, failure = in_child(__file__, "stream", repo, configs, env=hub.environment(home))
    if failure:
        return failure
    return f"{found['seconds']:.1f} s, {len(hub.log)} requests, {hub.sent / 1e6:.1f} MB"


def main():
    """Print a Markdown table."""
    if sys.argv[1:2] in (["measure"], ["stream"]):
        quiet()
        return say(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
    parser = make_parser(__doc__, videos=400)
    parser.add_argument("--pad", type=int, default=0, help="bytes to add to each raw video, to make it of usual size")
    arguments = parser.parse_args()
    import hub_server

    send = hub_server._Handler._send

    def counted(handler, answer):
        handler.server_of.sent += (
            len(answer.body) if handler.command == "GET" and "Range" not in handler.headers else 0
        )
        wanted = (handler.headers["Range"] or "").removeprefix("bytes=").split("-")
        if len(wanted) == 2:
            handler.server_of.sent += min(int(wanted[1] or len(answer.body)) + 1, len(answer.body)) - int(wanted[0])
        send(handler, answer)

    hub_server._Handler._send = counted
    with TemporaryDirectory() as place, hub_server.HubServer() as hub:
        root, hub.sent = Path(place), 0
        os.environ |= hub.environment(root / "home")  # before huggingface_hub reads it
        rows = build(root, arguments.videos, arguments.pad)
        from huggingface_hub import HfApi

        from gve.hub_datasets.schema import TASKS

        say(f"{arguments.videos} videos, {arguments.pad} bytes added to each, {sum(rows.values())} pairs\n")
        say(
            head(
                "| layout | bytes a pair | first load | cache, bytes a pair | a random medium | all tasks streamed | t2v streamed |"
            )
        )
        api = HfApi(endpoint=hub.url, token=hub_server.WRITER)
        for number, (layout, name) in enumerate(FOLDERS.items()):
            home, folder = root / f"home-{number}", root / name
            found, failure = in_child(
                __file__, "measure", layout, folder, env={"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
            )
            repo = f"org/{name}"
            api.create_repo(repo, repo_type="dataset", exist_ok=True)
            api.upload_folder(repo_id=repo, repo_type="dataset", folder_path=folder, ignore_patterns=["facts.json"])
            more = [] if name == "embed" else ["media"]
            spans = [streamed(hub, repo, ",".join([*tasks, *more]), home) for tasks in (TASKS, ["t2v"])]
            pairs = sum(rows.values())
            cells = (
                [failure]
                if failure
                else [f"{found['load']:.1f} s", f"{found['cache'] / pairs:,.0f}", f"{found['microseconds']:.0f} us"]
            )
            say(f"| {layout} | {size_of(folder, '*.parquet') / pairs:,.0f} | {' | '.join([*cells, *spans])} |")
    return None


if __name__ == "__main__":
    main()
