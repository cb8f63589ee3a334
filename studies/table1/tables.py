"""Write Table 1 as text: marks that link to their numbers, and where they disagree with the paper's.

Exports `write_marks`, `write_numbers` and `write_disagreements`; all return Markdown.
"""

import pandas as pd

from studies.table1.harness import PROPERTIES


def write_marks(table: pd.DataFrame) -> str:
    """Return the matrix of marks, as measured / in the paper's text; each links to its row of `write_numbers`.

    Args:
        table: as `harness.measure` returns it.
    """
    found = table.set_index(["system", "property"])
    lines = ["| | " + " | ".join(PROPERTIES) + " |", "|---" * (len(PROPERTIES) + 1) + "|"]
    for system in dict.fromkeys(table["system"]):
        cells = []
        for property in PROPERTIES:
            row = found.loc[(system, property)]
            cells.append(f"[{row['mark']}](#{_anchor(system, property)}) / {row['paper']}")
        lines.append(f"| **{system}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_numbers(table: pd.DataFrame) -> str:
    """Return one line a system and property: mark, number with its interval, thresholds and evidence."""
    lines = ["| system | property | mark | number | ✓ from | ✗ from | evidence |", "|---|---|---|---|---|---|---|"]
    for row in table.itertuples():
        interval = f" [{row.low:.3g}, {row.high:.3g}]" if row.low < row.high else ""  # none of equal values, or of NaN
        place = f'<a id="{_anchor(row.system, row.property)}"></a>{row.system}'
        number = f"{row.number:.3g}{interval}"
        cells = [place, row.property, row.mark, number, f"{row.full:.3g}", f"{row.none:.2g}", row.evidence]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_disagreements(table: pd.DataFrame) -> str:
    """Return one bullet for each mark that differs from the one that the paper's text states."""
    other = table[(table["paper"] != "not stated") & (table["paper"] != table["mark"])]
    lines = [
        f"- **{row.system}, {row.property}**: the paper {row.paper}, here {row.mark} ({row.measure}: {row.number:.3g};"
        f" {row.evidence})"
        for row in other.itertuples()
    ]
    return "\n".join(lines) or "There is none."


def _anchor(system: str, property: str) -> str:
    return f"{system} {property}".lower().replace(" ", "-").replace(".", "").replace(",", "")
