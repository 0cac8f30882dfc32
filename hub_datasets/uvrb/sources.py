"""Sources of UVRB's sixteen sets: homepages, licences, and what may be hosted again."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Origin:
    """A data set as its authors published it; "not specified" where they name no licence."""

    name: str
    homepage: str
    paper: str
    annotations_licence: str
    videos_licence: str
    may_rehost: Literal["nothing", "annotations", "annotations and some videos"]  # the most we may publish
    reason: str  # why no more


MSR_VTT = Origin(
    name="MSR-VTT",
    homepage="https://www.microsoft.com/en-us/research/publication/"
    "msr-vtt-a-large-video-description-dataset-for-bridging-video-and-language/",
    paper="CVPR 2016, test split 1k-A of arXiv:1808.02559",
    annotations_licence="not specified",
    videos_licence="clips of web videos, many of them gone",
    may_rehost="nothing",
    reason="neither the captions nor the clips carry a licence; ids alone are free",
)
MSR_VTT_I2V = Origin(
    name="MSRVTT-I2V",
    homepage="https://huggingface.co/datasets/dukesun99/MSRVTT-I2V",
    paper="arXiv:2510.27571",
    annotations_licence="not specified",
    videos_licence="MSR-VTT's",
    may_rehost="nothing",
    reason="its images and clips are MSR-VTT's, which carry no licence",
)
DIDEMO = Origin(
    name="DiDeMo",
    homepage="https://github.com/LisaAnne/LocalizingMoments",
    paper="arXiv:1708.01641",
    annotations_licence="BSD-2-Clause",
    videos_licence="Creative Commons, one licence a video (data/video_licenses.txt of the repository)",
    may_rehost="annotations and some videos",
    reason="2,640 of its 10,464 videos are CC BY or BY-SA, free with attribution; the others are NC or ND",
)
CAREBENCH = Origin(
    name="CaReBench",
    homepage="https://huggingface.co/datasets/MCG-NJU/CaReBench",
    paper="arXiv:2501.00513",
    annotations_licence="MIT as MTEB records it; its code repository has no licence file",
    videos_licence="web videos, not specified",
    may_rehost="annotations",
    reason="the authors do not hold the videos",
)
VDC = Origin(
    name="VDC",
    homepage="https://github.com/rese1f/aurora",
    paper="arXiv:2410.03051",
    annotations_licence="Apache-2.0, subject to the licences of the data used",
    videos_licence="each collection's own",
    may_rehost="nothing",
    reason="each collection's own terms apply and they differ",
)
CAMERABENCH = Origin(
    name="CameraBench",
    homepage="https://github.com/sy77777en/CameraBench",
    paper="arXiv:2504.15376",
    annotations_licence="CC-BY-4.0",
    videos_licence="web videos, not specified",
    may_rehost="annotations",
    reason="the licence covers the annotations only",
)
DREAM_1K = Origin(
    name="DREAM-1K",
    homepage="https://github.com/bytedance/tarsier",
    paper="arXiv:2407.00634",
    annotations_licence="Apache-2.0 for the code; none found for the data",
    videos_licence="films, animation, stock and web videos, not specified",
    may_rehost="nothing",
    reason="no licence covers the texts or the clips",
)
LOVR = Origin(
    name="LoVR",
    homepage="https://github.com/TechNomad-ds/LoVR-benchmark",
    paper="arXiv:2505.13928",
    annotations_licence="MIT",
    videos_licence="LongVideoBench's: CC-BY-NC-SA-4.0, published as an index only",
    may_rehost="nothing",
    reason="LongVideoBench lets nobody host its videos; MTEB withdrew a copy for that",
)
PE_VIDEO = Origin(
    name="PE-Video",
    homepage="https://huggingface.co/datasets/facebook/PE-Video",
    paper="arXiv:2504.13181",
    annotations_licence="not verified",
    videos_licence="not verified; held by Meta",
    may_rehost="nothing",
    reason="its licence has not been read; see its card before anything else",
)
MOMENTSEEKER = Origin(
    name="MomentSeeker",
    homepage="https://github.com/yhy-2000/MomentSeeker",
    paper="arXiv:2502.12558",
    annotations_licence="CC-BY-NC-SA-4.0, research only",
    videos_licence="degraded copies of films and others; the authors hold no rights in them",
    may_rehost="annotations",
    reason="under the same licence and not for commercial use; the videos are not the authors' to license",
)
