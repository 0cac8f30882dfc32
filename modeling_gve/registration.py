"""Puts our classes by name into the tables of transformers' auto classes, so that AutoModel and others open our folders.

transformers finds a class by its name, in a table by model type, and by its module, `transformers.models.<model type>`.
We add ours to both once transformers has run the module with the table, so `import gve` does not wait for transformers.
`AutoModel.register` would need the classes then, which costs time and is circular: the file of the Qwen3-VL model, for
one, imports AutoModel before it defines its own class.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

TABLES = {
    "transformers.models.auto.configuration_auto": "CONFIG_MAPPING",
    "transformers.models.auto.modeling_auto": "MODEL_MAPPING",
    "transformers.models.auto.processing_auto": "PROCESSOR_MAPPING",
    "transformers.models.auto.video_processing_auto": "VIDEO_PROCESSOR_MAPPING",
}
FIRST_TORCHVISION = "transformers.image_utils"
"""What imports torchvision first, on the way to any model or processor."""

VIDEO_PROCESSORS = {"torchvision": "GVEVideoProcessor"}  # by backend; this one is the default and needs no torchvision
FAMILIES = {
    "gve": {
        "CONFIG_MAPPING": "GVEConfig",
        "MODEL_MAPPING": "GVEModel",
        "PROCESSOR_MAPPING": "GVEProcessor",
        "VIDEO_PROCESSOR_MAPPING": VIDEO_PROCESSORS,
    },
    "gve_qwen3_vl": {
        "CONFIG_MAPPING": "GVEQwen3VLConfig",
        "MODEL_MAPPING": "GVEQwen3VLModel",
        "PROCESSOR_MAPPING": "GVEQwen3VLProcessor",
        "VIDEO_PROCESSOR_MAPPING": VIDEO_PROCESSORS,
    },
}
"""Names of the classes by model type and table."""


def register() -> None:
    """Add our names to the tables that are there already, and to the others when they come."""
    if not any(isinstance(finder, AutoFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, AutoFinder())
    for name in TABLES:
        if name in sys.modules:
            add_names(import_module(name))  # waits for a thread that is still running it


def add_names(module: ModuleType) -> None:
    """Add our names to the table of one auto module."""
    table = TABLES[module.__name__]
    for model_type, names in FAMILIES.items():
        sys.modules[f"transformers.models.{model_type}"] = sys.modules[__package__]
        getattr(module, f"{table}_NAMES")[model_type] = names[table]
        # the other tables are keyed by a config's class, and list the classes that exist when they are made
        if table != "CONFIG_MAPPING":
            getattr(module, table)._reverse_config_mapping[names["CONFIG_MAPPING"]] = model_type


class AutoFinder(MetaPathFinder):
    """Finds what the finders behind it find, and wraps the loaders of the watched modules of transformers."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Answer for the watched modules only."""
        if name not in TABLES and name != FIRST_TORCHVISION:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = WatchedLoader(spec.loader)
                return spec
        return None


class WatchedLoader(Loader):
    """A loader that adds our names after it has run its module, and says so when torchvision stops it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the loader inside does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module by its own loader, then add our names."""
        module.__loader__ = module.__spec__.loader = self.loader  # nothing of ours is left on it
        try:
            self.loader.exec_module(module)
        except Exception:
            check_torchvision()
            raise
        if module.__name__ in TABLES:
            add_names(module)

    def __getattr__(self, name: str) -> Any:
        """Anything else tools ask a loader for, such as its source."""
        return getattr(vars(self)["loader"], name)


def check_torchvision() -> None:
    """Raise ImportError, with what to do, for a torchvision that cannot be imported: transformers fails with it."""
    if find_spec("torchvision") is None:
        return
    try:
        import torchvision.transforms.functional  # noqa: F401 - what transformers imports of it
    except Exception as error:
        raise ImportError(
            f"torchvision is installed but cannot be imported ({error}); gve does not need it; uninstall it: "
            "pip uninstall torchvision"
        ) from error
