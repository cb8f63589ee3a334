"""Sizes beyond which input is refused, because it would only be asked for by mistake. Set them to raise them:

nib.limits.pixels = 400_000_000
"""

pixels = 150_000_000  # of a picture
aspect = 50  # of a picture: its longer side by its shorter one. A processor scales the shorter one to the model's
nodes = 10_000  # of a path, or steps of an iteration
samples = 1_000_000  # masks or draws of a method or metric
