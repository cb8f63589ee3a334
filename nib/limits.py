"""Sizes above which input is refused as a mistake; to allow more, set one: `nib.limits.pixels = 400_000_000`."""

pixels = 150_000_000  # of a picture
patches = 10_000  # of a picture as a model takes it: the time of attention grows with the square
aspect = 50  # of a picture: its longer side by its shorter one
nodes = 10_000  # of a path, or steps of an iteration
legendre = 1_000  # nodes of a Gauss-Legendre rule: the time to place them grows with the third power
pairs = 1_000_000  # pictures or captions of one call, which a list, a column or an iterator gives
samples = 1_000_000  # masks or draws of a method or metric, or rows at once
cells = 100_000_000  # drawn at once: masks times cells of each
