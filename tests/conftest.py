"""Set before NumPy and matplotlib are imported, for this process and those that tests start."""

import os

os.environ["MPLBACKEND"] = "agg"  # no screen

# The matrices of the tests are small: a second BLAS thread gains nothing, and on a busy machine the two wait
# for each other twenty times as long as they compute.
for library in ("OPENBLAS", "MKL", "OMP"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
