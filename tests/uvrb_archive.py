"""A look-alike of the official archives, made from the rendered world."""

import json
from pathlib import Path

from gve.hub_datasets.world.rows import Side
from gve.hub_datasets.world.sets import CORPUS_OF, Sizes, build_sets

SMALL = Sizes(base=4, groups=1, programs=2, themes=3, longs=3, composed=3)


def write_archives(source, *, names=None, seed=3, sizes=SMALL):
    """One folder a set, as the archives unpack; sets with the same corpus have copies of the same files."""
    source = Path(source)
    for name, mini in build_sets("unseen", seed, sizes).items():
        if names is None or name in names:
            write_archive(source / name / "UVRB" / name, name, mini)
    return source


def write_archive(folder, name, mini):
    """Videos in one folder, those of VDC in sub-folders, and those of CMRB as frames."""
    (folder / "jsonl").mkdir(parents=True)
    prefix = CORPUS_OF.get(name, name.lower())
    corpus = []
    for identity, clips in mini.corpus.items():
        stem = f"{prefix}-{identity.replace('/', '-')}"
        place = f"part{len(corpus) % 2}/{stem}.mp4" if name.startswith("VDC") else f"{stem}.mp4"
        save(folder / "videos" / place, Side(clips=clips).render()["video"]["bytes"])
        corpus.append({"id": identity, "video": place if name.startswith("VDC") else f"videos/{place}"})
    queries = []
    for identity, side in mini.queries.items():
        rendered, query = side.render(), {"id": identity}
        if rendered["text"] is not None:
            query["text"] = rendered["text"]
        for kind, place in (("image", f"images/{identity}.png"), ("video", f"videos/query-{identity}.mp4")):
            if rendered[kind] is not None:
                save(folder / place, rendered[kind]["bytes"])
                query[kind] = place.removeprefix("images/")
        queries.append(query)
    instances = []
    for identity, answers in mini.positives.items():
        for answer in answers:  # one line a positive, as "one or more lines a query"
            line = {"qid": identity, "pos": [answer]}
            if mini.pools is not None:
                line["neg"] = [one for one in mini.pools[identity] if one not in answers]
            instances.append(line)
    for table, rows in (("corpus", corpus), ("queries", queries), ("instances", instances)):
        write_jsonl(folder, table, rows)


def read_jsonl(folder, table):
    return [json.loads(line) for line in (folder / "jsonl" / f"{table}.jsonl").read_text().splitlines()]


def write_jsonl(folder, table, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "jsonl" / f"{table}.jsonl").write_text(text)


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
