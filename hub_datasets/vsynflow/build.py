"""From a finished run to a UVRD folder: `gve synth build`."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from gve.hub_datasets.vsynflow.decontamination import gate_report
from gve.hub_datasets.vsynflow.files import read_json
from gve.hub_datasets.vsynflow.runner import RUN
from gve.hub_datasets.vsynflow.uvrd import Report, write_uvrd
from gve.hub_datasets.vsynflow.verify import read_table, verify_run


def build_uvrd(
    work: Path,
    folder: Path,
    *,
    media: str = "embed",
    local: bool = False,
    quotas: Mapping[str, int] | None = None,
    total: int | None = None,
) -> Report:
    """Write the UVRD of a run that `verify` finds whole.

    Args:
        work: The run's folder.
        folder: Where UVRD goes.
        media: One of settings.LAYOUTS.
        local: Whether the set is for this machine alone; any other asks for a run that passed the gate.
        quotas: Proportions of the tasks; None for the paper's.
        total: Rows in all; None for as many as possible.

    Returns:
        What was written.

    Raises:
        ValueError: If the run is not whole, had no captioner, or may not be published.
    """
    verdict = verify_run(work)
    if verdict.errors:
        raise ValueError(f"work: {verdict.errors[0]}; a whole run is accepted; run it to its end, then verify it")
    described = read_json(work / RUN)
    if "mining" not in described["stages"]:
        raise ValueError(
            f"work: the run's stages are {', '.join(described['stages'])}; those of enrichment and extension are "
            "needed; name a captioner and run again"
        )
    report = Report(
        rejected=_counts(work, "rejected"),
        failed=_counts(work, "failed"),
        limits={name: stage["limits"] for name, stage in described["stages"].items() if stage["limits"]},
        captioner=described["stages"]["enrichment"]["params"]["captioner"],
        decontamination=gate_report(work),
        seed=described["seed"],
        media=media,
        local=local,
    )
    return write_uvrd(list(read_table(work, "kept")), work, folder, report=report, quotas=quotas, total=total)


def _counts(work: Path, table: str) -> dict[str, int]:
    """Records of a table by the stage and the code that ended them, most first."""
    counts = Counter(f"{row['stage']}: {row['code']}" for row in read_table(work, table))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
