"""Packages that only some options need, each an extra of the package's installation."""

from importlib.util import find_spec

from gve.hub_datasets.vsynflow.stages import SetupError


class MissingExtraError(SetupError, ImportError):
    """An option needs a package that is not installed; it ends the run as a wrong setup does."""


def need(option: str, extra: str, modules: tuple[str, ...]) -> None:
    """Make sure that the packages of an option are there, before anything is computed.

    Args:
        option: The option, as the configuration names it.
        extra: The extra that brings the packages.
        modules: Names that are imported.

    Raises:
        MissingExtraError: If one of them is not.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f'{option}: needs {", ".join(missing)}, which is not installed; run pip install "gve[{extra}]", '
            "or leave the option out"
        )
