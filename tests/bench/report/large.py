"""A run of more samples than fit on a page, for the tests of its pages."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from bench.records import Run, load_run, open_run
from bench.records.images import FOLDER, TENSOR, path_of
from bench.records.samples import Asked, write_samples
from bench.report.paging import MOST_SAMPLES
from tests.bench.report.site import HOSTILE, SCRIPT
from tests.bench.runs import make_header, make_record

SAMPLES = 2 * MOST_SAMPLES + 300  # three pages
BROKEN = range(MOST_SAMPLES, MOST_SAMPLES + 70)  # all on the second page
ERROR = SAMPLES - 2  # on the third
PLANTED = {5: SCRIPT, MOST_SAMPLES + 3: HOSTILE, SAMPLES - 5: f"images/{SCRIPT}"}  # one a page


def name_of(k: int) -> str:
    """The id of sample k."""
    return PLANTED.get(k, f"s{k}")


def make_large(directory: Path) -> Run:
    """A run whose broken samples are all on its second page, with the image of one of them."""
    clean = [make_record(name_of(k), prediction=name_of(k), group="one") for k in range(SAMPLES)]
    attacked = [
        make_record(name_of(k), "apgd", 4.0, 100.0 * (k not in BROKEN), group="one", prediction=f"a bar, number {k}")
        for k in range(SAMPLES)
    ]
    attacked[ERROR] = make_record(name_of(ERROR), "apgd", 4.0, None, group="one", error="out of memory")
    with open_run(directory, make_header(radii=(4.0,), n_samples=SAMPLES)) as store:
        store.append([*clean, *attacked])
        store.finish("complete")
    write_samples(directory, [Asked(name_of(k), f"What is in picture {k}?", ("a", "b")) for k in range(SAMPLES)])
    for radius in (0.0, 4.0):
        path = path_of(directory / FOLDER, name_of(BROKEN[1]), radius)
        path.parent.mkdir(parents=True)
        save_file({TENSOR: np.full((3, 8, 8), 0.5 + radius / 255, np.float32)}, path)
    return load_run(directory)
