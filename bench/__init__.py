"""Robustness benchmarks for CLIP encoders and the vision-language models built on them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import Result, run, run_all

    __version__: str

__all__ = ["Result", "__version__", "run", "run_all"]


def __getattr__(name: str) -> Any:
    """Load the library on first use, so that the command line answers at once."""
    if name == "__version__":
        from importlib.metadata import version

        return version("robust-vlm-bench")
    if name in __all__:
        from bench import api

        return getattr(api, name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
