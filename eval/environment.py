"""What a machine offers to the commands: versions, libraries, device, Hub and disk; each as plain values for JSON."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gve import __version__

PACKAGES = ("torch", "transformers", "sentence-transformers", "huggingface_hub", "peft", "av", "numpy")
"""What every command needs."""
OPTIONAL = {"torchvision": "torchvision.transforms.functional", "torchcodec": "torchcodec.decoders"}
"""Libraries that may be missing, and what transformers imports of them."""
IMPORT_SECONDS, HUB_SECONDS = 60, 3


def versions() -> dict[str, str | None]:
    """Versions of Python, gve, the packages it needs and FFmpeg; None for what is missing."""
    found: dict[str, str | None] = {"python": platform.python_version(), "gve": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    try:
        import av
    except ImportError:
        return found | {"ffmpeg": None}
    return found | {"ffmpeg": av.ffmpeg_version_info}


def library(name: str) -> dict[str, str | None]:
    """State of an OPTIONAL library: absent, working, or broken with the error; tried in a process of its own."""
    if find_spec(name) is None:
        return {"state": "absent", "version": None, "error": None}
    try:
        number = version(name)
    except PackageNotFoundError:
        number = None
    try:
        tried = subprocess.run(
            [sys.executable, "-c", f"import {OPTIONAL[name]}"], capture_output=True, text=True, timeout=IMPORT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"state": "broken", "version": number, "error": f"its import took over {IMPORT_SECONDS} s"}
    if tried.returncode == 0:
        return {"state": "working", "version": number, "error": None}
    lines = tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"]
    return {"state": "broken", "version": number, "error": lines[-1][:200]}


def device() -> dict[str, Any]:
    """The device that models run on and its memory in GB; `unused_gpu` if there is a GPU that torch cannot use."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found = {"type": "cuda", "name": torch.cuda.get_device_name(), "count": torch.cuda.device_count()}
        return found | {"memory_gb": _gb(total), "free_gb": _gb(free), "unused_gpu": False}
    apple = torch.backends.mps.is_available()
    kind, name = ("mps", "Apple GPU") if apple else ("cpu", platform.processor() or platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if os.name == "posix" else None
    found = {"type": kind, "name": name, "count": os.cpu_count()}
    return found | {"memory_gb": _gb(memory), "free_gb": None, "unused_gpu": shutil.which("nvidia-smi") is not None}


def hub() -> dict[str, Any]:
    """Whether the Hub answers, and whether there is a token, which is never shown."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import get_session

    found = {"endpoint": constants.ENDPOINT, "token": get_token() is not None}
    if constants.HF_HUB_OFFLINE:
        return found | {"state": "offline", "error": "HF_HUB_OFFLINE is set"}
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:  # by the session: no name, no route, a proxy, a certificate
        return found | {"state": "unreachable", "error": type(error).__name__}
    return found | {"state": "reachable", "error": None}


def cache() -> dict[str, Any]:
    """The folder of downloaded models, and the free disk there in GB."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return {"folder": str(folder), "free_gb": _gb(shutil.disk_usage(existing).free)}


def _gb(count: int | None) -> float | None:
    return None if count is None else round(count / 1e9, 1)
