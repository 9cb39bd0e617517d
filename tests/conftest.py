"""One thread a process: the models are small, and pytest-xdist runs a process a core."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
