"""Five action data sets as retrieval: a video is the query, and the text of its class is the one answer among all."""

from dataclasses import dataclass

from gve.hub_datasets.uvrb.sources import Origin


@dataclass(frozen=True)
class ClassificationTask:
    """How a data set of labelled videos is queried and scored; it counts towards no ability of UVRB."""

    name: str
    instruction: str
    template: str  # {label} becomes the words of the class name
    num_classes: int
    source: Origin
    abilities: tuple[str, ...] = ()
    query_modalities: tuple[str, ...] = ("video",)
    corpus_modality: str = "text"
    metric: str = "precision@1"  # accuracy, by its retrieval name

    @property
    def slug(self) -> str:
        """Lower-case name, for commands and folders."""
        return self.name.lower()


_KINETICS = Origin(
    name="Kinetics-700",
    homepage="https://github.com/cvdfoundation/kinetics-dataset",
    paper="arXiv:1907.06987",
    annotations_licence="CC-BY-4.0",
    videos_licence="web videos of their uploaders, many of them gone",
    may_rehost="annotations",
    reason="the licence covers the annotations only",
)
_UCF101 = Origin(
    name="UCF101",
    homepage="https://www.crcv.ucf.edu/data/UCF101.php",
    paper="arXiv:1212.0402",
    annotations_licence="not specified",
    videos_licence="web videos, not specified",
    may_rehost="nothing",
    reason="neither labels nor videos carry a licence",
)
_HMDB51 = Origin(
    name="HMDB51",
    homepage="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
    paper="ICCV 2011",
    annotations_licence="CC-BY-4.0",
    videos_licence="clips of films and web videos, which are their owners'",
    may_rehost="annotations",
    reason="most clips are from films, which are not the authors' to license",
)
_SSV2 = Origin(
    name="Something-Something V2",
    homepage="https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
    paper="arXiv:1706.04261",
    annotations_licence="the publisher's own, not verified; to be accepted before the download",
    videos_licence="the same",
    may_rehost="nothing",
    reason="its licence has not been read; see its page before anything else",
)
_BREAKFAST = Origin(
    name="Breakfast",
    homepage="https://serre-lab.clps.brown.edu/resource/breakfast-actions-dataset/",
    paper="CVPR 2014",
    annotations_licence="not verified",
    videos_licence="not verified; recordings of 52 persons",
    may_rehost="nothing",
    reason="its licence has not been read, and the videos show persons at home",
)

_TABLE = (
    ClassificationTask(
        "K700", "Find the human action that is performed in the video.", "A video of {label}.", 700, _KINETICS
    ),
    ClassificationTask(
        "UCF101", "Find the action or sport that the video shows.", "A video of {label}.", 101, _UCF101
    ),
    ClassificationTask(
        "HMDB51",
        "Find the movement that the persons in the video make.",
        "A video of the action: {label}.",
        51,
        _HMDB51,
    ),
    ClassificationTask(
        "SSV2", "Find the sentence that tells what is done with the objects in the video.", "{label}.", 174, _SSV2
    ),
    ClassificationTask(
        "Breakfast",
        "Find the dish or drink that is prepared in the video.",
        "A video of preparing {label}.",
        10,
        _BREAKFAST,
    ),
)

CLASSIFICATION: dict[str, ClassificationTask] = {task.name: task for task in _TABLE}
"""The tasks by name."""
