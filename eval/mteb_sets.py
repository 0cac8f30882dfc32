"""The UVRB sets as MTEB retrieval tasks."""

from typing import Any

from datasets import Dataset, Image, Video
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from gve.hub_datasets.uvrb import EvaluationSet, RetrievalSet

PAPER = "https://arxiv.org/abs/2510.27571"


class UVRBTask(AbsTaskRetrieval):
    """One set; `make_task` subclasses it with the set's metadata and data."""

    k_values = (1, 5, 10)  # UVRB's cutoffs; MTEB's go to 1,000 and take minutes for 10,000 queries
    data: EvaluationSet
    decode_videos: bool  # torchcodec decoders instead of encoded files

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Give MTEB the set in its form; `data` stays for loading again."""
        if self.data_loaded:
            return
        data, parts = self.data, self.data.task.query_modalities
        queries = data.queries.select_columns(["id", *parts])  # null in another column would stop MTEB
        if "image" in parts:
            queries = queries.cast_column("image", Image())  # MTEB's models take images of PIL
        relevant = {
            query: {data.corpus_ids[row]: 1 for row in rows}
            for query, rows in zip(data.query_ids, data.positives, strict=True)
        }
        pools = None
        if data.pools is not None:
            pools = {
                query: [data.corpus_ids[row] for row in rows]
                for query, rows in zip(data.query_ids, data.pools, strict=True)
            }
        split = RetrievalSplitData(
            corpus=self._videos(data.corpus), queries=self._videos(queries), relevant_docs=relevant, top_ranked=pools
        )
        self.dataset = {data.task.slug: {self.metadata.eval_splits[0]: split}}
        self.data_loaded = True

    def _videos(self, rows: Dataset) -> Dataset:
        if not self.decode_videos or "video" not in rows.column_names:
            return rows
        return rows.cast_column("video", Video())


def make_task(data: EvaluationSet, source: str, split: str, *, decode_videos: bool = False) -> UVRBTask:
    """A set as the task "UVRB-<name>"; `source` and `split` record its origin."""
    name = f"UVRB-{data.task.name}"
    metadata = task_metadata(data.task, source, split)
    members = {"metadata": metadata, "data": data, "decode_videos": decode_videos}
    return type(name, (UVRBTask,), members)()


def task_metadata(task: RetrievalSet, source: str, split: str) -> TaskMetadata:
    """A set's metadata in MTEB, with its instruction as the queries' prompt.

    The slug stands where MTEB keeps languages, since its loader puts it before "-corpus", "-queries" and the others.
    """
    metric, cutoff = task.metric.split("@")
    modalities = dict.fromkeys([*task.query_modalities, task.corpus_modality])
    letters = "".join(sorted(modality[0] for modality in task.query_modalities))
    # MTEB writes i before t, and v after t only in the corpus: it2v, vt2v
    asked = {"tv": "vt"}.get(letters, letters)
    return TaskMetadata(
        name=f"UVRB-{task.name}",
        description=f"{task.name} of UVRB, drawn from {task.source.name}: {', '.join(task.query_modalities)} to video.",
        reference=PAPER,
        dataset={"path": source, "revision": "main"},
        type="Any2AnyRetrieval",
        category=f"{asked}2{task.corpus_modality[0]}",
        modalities=list(modalities),
        eval_splits=[split],
        eval_langs={task.slug: ["eng-Latn"]},
        main_score=f"{metric}_at_{cutoff}",
        prompt={"query": task.instruction},
        bibtex_citation="",
    )
