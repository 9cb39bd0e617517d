"""One thread per process: the models are small, and pytest-xdist runs a process per core."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
