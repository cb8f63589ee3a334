"""Run every system of the paper's Table 1, and measure its six properties.

One file a system: `cocoa`, `textspan`, `exemplars`, `falcon`, `lico`. `systems` gives all of them one form,
`structures` builds the models that they are run on, `harness` measures, and `plots` draws the table.
"""
