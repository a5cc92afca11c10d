"""Allocation by damage beside other ways to give out widths; see :mod:`benchmarks.allocation.__main__`."""
