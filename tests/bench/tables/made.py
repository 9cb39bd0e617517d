"""Made-up runs for the tests of tables."""

from bench.records import load_run, open_run
from tests.bench.runs import make_header, make_record, make_run

GOOD, BAD = [100.0] * 8 + [0.0] * 2, [100.0] * 2 + [0.0] * 8
TARGETS = ("a sketch of a star", "a black bar")  # of the mini suite


def vlm_run(place, encoder, scores, dataset="mini-vqa", **changes):
    return make_run(place / f"{encoder}-{dataset}", scores, encoder=encoder, dataset=dataset, **changes)


def stealth_run(place, encoder, said: dict[float, list[str]], **changes):
    """Samples s0, s1, ... have the suite's targets in turn; `said` holds what each said at a radius."""
    records = [
        make_record(
            f"s{i}",
            "apgd" if eps else "clean",
            eps,
            100.0 * (TARGETS[i % 2] in text),
            prediction=text,
            group=f"g{i}",
        )
        for eps, texts in said.items()
        for i, text in enumerate(texts)
    ]
    header = make_header(
        **{
            "encoder": encoder,
            "task": "stealth",
            "dataset": "mini-stealth",
            "worst": "max",
            "radii": (4.0,),
            "metric": "attack success rate (%)",
            "n_samples": len(said[0.0]),
        }
        | changes
    )
    with open_run(place, header) as store:
        store.append(records)
        store.finish("complete")
    return load_run(place)
