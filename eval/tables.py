"""Rows of text as Markdown and as aligned columns."""

from collections.abc import Collection, Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    Args:
        header: Titles of the columns.
        rows: Cells; a bar in one is escaped.

    Returns:
        Lines without an end of line after the last.
    """
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines)


def aligned_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Collection[str]) -> str:
    """Columns padded to their widest cell.

    Args:
        header: Titles of the columns.
        rows: Cells.
        numbers: Titles of the columns that are set to the right.

    Returns:
        Lines that each end in a newline.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for cells in (header, *rows):
        padded = [
            cell.rjust(width) if title in numbers else cell.ljust(width)
            for title, cell, width in zip(header, cells, widths, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"
