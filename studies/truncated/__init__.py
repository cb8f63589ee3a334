"""Try paths that begin above zero: what they explain, what they miss of it, and what they do to maps.

A path lambda z from lambda = `lambda_min` to 1 explains F(z) - F(lambda_min z). `paths` measures, `tables` reads the
results, `drawing` draws them.
"""

from studies.truncated.drawing import draw_example, draw_gaps, draw_layers, draw_profile
from studies.truncated.paths import (
    count_costs,
    follow_paths,
    list_paths,
    measure_paths,
    name_path,
    read_prompts,
)
from studies.truncated.tables import (
    TASKS,
    add_relative,
    choose_paths,
    compare_chosen,
    count_wins,
    summarise_paths,
    tabulate_at,
    tabulate_sums,
)

__all__ = [
    "TASKS",
    "add_relative",
    "choose_paths",
    "compare_chosen",
    "count_costs",
    "count_wins",
    "draw_example",
    "draw_gaps",
    "draw_layers",
    "draw_profile",
    "follow_paths",
    "list_paths",
    "measure_paths",
    "name_path",
    "read_prompts",
    "summarise_paths",
    "tabulate_at",
    "tabulate_sums",
]
