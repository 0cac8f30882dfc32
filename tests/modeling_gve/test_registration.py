"""The auto classes open our folders whatever was imported first, and say so where torchvision stops them."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

AFTERWARDS = """
import sys
folder, video = sys.argv[1:]
sys.modules["torchvision"] = None  # it is not there
import gve
assert "transformers" not in sys.modules
from importlib.util import find_spec
spec = find_spec("transformers.models.auto.modeling_auto")  # as tools do, before anything has been loaded
assert "MODEL_MAPPING_NAMES" in spec.loader.get_source(spec.name) and spec.origin.endswith("modeling_auto.py")
import transformers
from transformers import Qwen3VLModel  # its file imports AutoModel before it defines this class
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer, Trainer, pipeline
from transformers.models.auto import configuration_auto, modeling_auto, processing_auto, video_processing_auto
assert "gve.modeling_gve" not in sys.modules
for module in (configuration_auto, modeling_auto, processing_auto, video_processing_auto):
    assert type(module.__loader__).__name__ == type(module.__spec__.loader).__name__ == "SourceFileLoader"
config = AutoConfig.for_model("gve_qwen3_vl")
assert type(config) is gve.GVEQwen3VLConfig
assert modeling_auto.MODEL_MAPPING[type(config)] is gve.GVEQwen3VLModel
assert processing_auto.PROCESSOR_MAPPING[type(config)] is gve.GVEQwen3VLProcessor
assert type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
assert type(AutoConfig.for_model("qwen3_vl")) is transformers.Qwen3VLConfig
assert processing_auto.processor_class_from_name("Qwen3VLProcessor") is transformers.Qwen3VLProcessor
assert type(AutoConfig.from_pretrained(folder)) is gve.GVEConfig
assert type(AutoModel.from_pretrained(folder)) is gve.GVEModel
assert type(AutoProcessor.from_pretrained(folder)) is gve.GVEProcessor
assert type(video_processing_auto.AutoVideoProcessor.from_pretrained(folder)) is gve.GVEVideoProcessor
assert type(AutoTokenizer.from_pretrained(folder)).__name__ == "Qwen2Tokenizer"
import importlib
import pickle
from sentence_transformers import SentenceTransformer
inside = SentenceTransformer(folder, device="cpu")
assert type(inside[0].model) is gve.GVEModel and inside.encode([video]).shape == (1, 128)
assert pickle.loads(pickle.dumps(modeling_auto.MODEL_MAPPING))[gve.GVEConfig] is gve.GVEModel
importlib.reload(gve)
assert type(importlib.reload(modeling_auto).AutoModel.from_pretrained(folder)) is gve.GVEModel
assert sum(type(finder).__name__ == "AutoFinder" for finder in sys.meta_path) == 1
"""
BEFORE = """
import sys
folder, _ = sys.argv[1:]
from transformers import AutoConfig, AutoModel
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
import gve
assert "gve.modeling_gve" not in sys.modules
assert type(AutoModel.from_pretrained(folder)) is gve.GVEModel
assert type(AutoVideoProcessor.from_pretrained(folder)) is gve.GVEVideoProcessor
from transformers import AutoProcessor  # its module comes after gve
assert type(AutoProcessor.from_pretrained(folder)) is gve.GVEProcessor
"""
WORKING = {
    "__init__.py": "",
    "transforms/__init__.py": "from enum import Enum\n\nInterpolationMode = Enum('InterpolationMode', "
    "'NEAREST NEAREST_EXACT BOX BILINEAR HAMMING BICUBIC LANCZOS')\n",
    "transforms/functional.py": "def pil_to_tensor(picture):\n    raise NotImplementedError\n",
    "transforms/v2/__init__.py": "",
    "transforms/v2/functional.py": "",
    "io/__init__.py": "",
}
"""What transformers imports of a torchvision that works."""


def run(*words, path=()):
    """A fresh process of Python, in which `path` goes before everything else."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=environment)


def torchvision(folder, files):
    """A package of that name with the metadata that transformers asks for."""
    for name, text in files.items():
        (folder / "torchvision" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "torchvision" / name).write_text(text)
    (folder / "torchvision-0.28.0.dist-info").mkdir()
    (folder / "torchvision-0.28.0.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 0.28.0\n")
    return folder


@pytest.mark.parametrize("code", [AFTERWARDS, BEFORE], ids=["after", "before"])
def test_auto_classes_open_a_folder(code, folder, media):
    done = run("-c", code, folder, media / "a.mp4")
    assert done.returncode == 0, done.stderr[-3000:]


USE = """
import sys
folder, video = sys.argv[1:]
import gve
gve.read_video, gve.GVEConfig
from transformers import AutoModel, AutoProcessor
model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
print(model(**processor.prepare([video])).embeddings.tolist())
"""


def test_a_working_torchvision_changes_nothing(folder, media, model, processor, tmp_path):
    done = run("-c", USE, folder, media / "a.mp4", path=[torchvision(tmp_path, WORKING)])
    assert done.returncode == 0, done.stderr[-3000:]
    (expected,) = model(**processor.prepare([str(media / "a.mp4")])).embeddings.tolist()
    assert json.loads(done.stdout) == [pytest.approx(expected, abs=1e-4)]


WAYS = """
import sys
folder, cause = sys.argv[1:]
import gve
gve.read_video, gve.GVEConfig  # these need nothing that needs torchvision
for way in (
    "gve.GVEModel",
    "from transformers import AutoModel; AutoModel.from_pretrained(folder)",
    "from transformers import AutoProcessor",
    "from sentence_transformers import SentenceTransformer",
    "gve.GVESentenceTransformer",
):
    try:
        exec(way)
    except ImportError as error:
        assert str(error).startswith(f"torchvision is installed but cannot be imported ({cause}"), way
        assert "pip uninstall torchvision" in str(error)
    else:
        raise AssertionError(way)
"""


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ({"__init__.py": "raise RuntimeError('operator torchvision::nms')"}, "operator torchvision::nms"),
        pytest.param(
            {"io/__init__.py": ""},  # what is left of half an uninstallation
            "No module named 'torchvision.transforms'",
            marks=pytest.mark.skipif(find_spec("torchvision") is not None, reason="a whole torchvision comes first"),
        ),
    ],
)
def test_a_broken_torchvision_is_named(files, cause, folder, tmp_path):
    done = run("-c", WAYS, folder, cause, path=[torchvision(tmp_path, files)])
    assert done.returncode == 0, done.stderr[-3000:]


def test_other_failures_stay_what_they_are(tmp_path):
    """The watched modules of transformers fail as they would without us."""
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text("raise RuntimeError('no pictures')")
    done = run("-c", "import gve; from transformers import image_utils", path=[tmp_path])
    assert "no pictures" in done.stderr and "torchvision" not in done.stderr.splitlines()[-1]
