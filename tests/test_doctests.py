"""The examples in docstrings are true; the modules listed have some."""

import doctest
from importlib import import_module

import pytest

WITH_EXAMPLES = [
    "attacks.apgd",
    "attacks.checks",
    "attacks.objective",
    "attacks.pgd",
    "attacks.threat",
    "tasks.metrics.cider",
    "tasks.metrics.contains",
    "tasks.metrics.ptb",
    "tasks.metrics.vqa_accuracy",
]


@pytest.mark.parametrize("name", [*WITH_EXAMPLES, "bench.api"])
def test_examples_are_true(name):
    found = doctest.testmod(import_module(name), verbose=False, optionflags=doctest.ELLIPSIS)
    assert found.failed == 0
    assert found.attempted > 0 or name not in WITH_EXAMPLES
