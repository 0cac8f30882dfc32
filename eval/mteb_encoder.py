"""An encoder of ours in the form that MTEB evaluates.

Shapes: n rows, D width, T frames, C channels, H height, W width.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType
from tqdm import tqdm

from gve.eval.encode import EmbeddingCache, Encoder, encode_rows
from gve.eval.inputs import MODALITIES
from gve.media_gve import shown


class MTEBEncoder(AbsEncoder):
    """Hands MTEB's batches to an encoder; keeps all vectors, so that tasks with one corpus encode it once."""

    def __init__(self, encoder: Encoder, *, name: str, revision: str | None = None, num_frames: int = 8) -> None:
        self.model = encoder
        self.num_frames = num_frames
        self._cache = EmbeddingCache()
        known = {
            "name": name,
            "modalities": ["text", "image", "video"],
            "similarity_fn_name": ScoringFunction.COSINE,
            "use_instructions": True,
        }
        self.mteb_model_meta = ModelMeta.create_empty(
            overwrites=known if revision is None else known | {"revision": revision}
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, list[Any]]],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        show_progress_bar: bool = False,
        **kwargs: Any,
    ) -> np.ndarray:
        """Embed MTEB's batches: (n, D) float32.

        Args:
            inputs: Dicts of equally long lists under text, image and video; videos are uint8 (T, C, H, W), paths,
                {"bytes", "path"} or torchcodec decoders; images likewise or of PIL.
            task_metadata: Its prompt is the instruction of the queries.
            prompt_type: Documents get no instruction; anything else is a query.
        """
        is_document = prompt_type == PromptType.document
        instruction = None if is_document else self.get_instruction(task_metadata, prompt_type)
        role = "document" if is_document else "query"
        vectors = []
        for batch in tqdm(inputs, desc=f"{task_metadata.name} {role}", disable=not show_progress_bar):
            rows = list(self._rows(batch))
            vectors.append(
                encode_rows(
                    self.model,
                    rows,
                    role=role,
                    instruction=instruction,
                    batch_size=len(rows),
                    cache=self._cache,
                    progress=False,
                )
            )
        return np.concatenate(vectors)  # (n, D)

    def _rows(self, batch: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
        present = [key for key in MODALITIES if key in batch]
        if not present:
            raise ValueError(f"inputs: a batch of {shown(sorted(batch))}. It must have text, image or video.")
        for values in zip(*(batch[key] for key in present), strict=True):
            row = dict(zip(present, values, strict=True))
            if "video" in row:
                row["video"] = _frames(row["video"], self.num_frames)
            if "text" in row and all(value is None for value in row.values()):
                row["text"] = ""  # public sets have such rows; the bare template keeps the task going
            yield row


def _frames(video: Any, num_frames: int) -> Any:
    """Frames (T, C, H, W) of a torchcodec decoder, evenly spaced with both ends; any other video unchanged."""
    if type(video).__module__.partition(".")[0] != "torchcodec":
        return video
    total = video.metadata.num_frames
    places = np.linspace(0, total - 1, min(num_frames, total)).round().astype(int)
    return video.get_frames_at(indices=places.tolist()).data
