import re

import pandas as pd

from studies.table1.harness import PROPERTIES, THRESHOLDS
from studies.table1.tables import write_disagreements, write_marks, write_numbers


def make_table():
    rows = []
    for system, mark in (("NIB", "◐"), ("Hossain et al.", "✗")):
        for property in PROPERTIES:
            full, none = THRESHOLDS[property]
            paper = "✓" if system == "NIB" else "not stated"
            row = dict(system=system, property=property, measure="m", number=0.5, low=0.4, high=0.6)
            rows.append(row | dict(full=full, none=none, mark=mark, paper=paper, evidence="e"))
    return pd.DataFrame(rows)


def test_every_mark_links_to_a_number():
    table = make_table()
    links = re.findall(r"\(#([^)]+)\)", write_marks(table))
    assert len(links) == 12
    assert sorted(links) == sorted(re.findall(r'id="([^"]+)"', write_numbers(table)))


def test_numbers_have_interval_and_thresholds():
    line = next(line for line in write_numbers(make_table()).splitlines() if "nib-no-info-loss" in line)
    assert "| ◐ | 0.5 [0.4, 0.6] | 0.95 | 0.2 |" in line


def test_only_stated_marks_can_disagree():
    lines = write_disagreements(make_table()).splitlines()
    assert len(lines) == 6
    assert all(line.startswith("- **NIB") for line in lines)
