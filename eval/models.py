"""Loads a saved embedder for the commands."""

from pathlib import Path

from gve.eval.encode import Encoder


def load_encoder(model: str) -> Encoder:
    """Open a model by sentence-transformers; `import gve` has registered its classes.

    Args:
        model: A folder written by training or export, or the name of a Hub repository.

    Returns:
        The encoder.

    Raises:
        ValueError: When there is no such model, or the folder would be read as something else.
    """
    folder = Path(model)
    if folder.is_dir() and not (folder / "modules.json").is_file():
        raise ValueError(
            f"--model: {model!r} has no modules.json; without it the pooling would be guessed; "
            "give a folder written by `gve train` or save_embedder"
        )
    from sentence_transformers import SentenceTransformer  # takes seconds to import

    try:
        return SentenceTransformer(model)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"--model: cannot load {model!r} ({reason}); a model folder or Hub name is accepted; check it"
        ) from error
