"""Tensors of a TorchScript archive, such as OpenAI's own files, read as data.

`torch.jit.load` is never called: an archive holds code, and parts of it may run while it is loaded. Here the archive's
pickle is read with a table of a few names that build tensors and lists; whatever else it names becomes an object that
holds attributes and does nothing.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive; a state dict's archive has no constants.pkl."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive by their names in a state dict.

    Raises:
        Exception: of any kind, if the archive is damaged or names what it may not.
    """
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
        with archive.open(name) as file:
            found = _Reader(file, archive, name.removesuffix("data.pkl")).load()
    return dict(_tensors(found, ""))


class _Module:
    """Stands for an object of the archive: its attributes, and none of its code."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a module whose state is no table")
        self.__dict__.update({str(key): value for key, value in state.items()})


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        """What a name of the pickle stands for."""
        if module.split(".")[0] == "__torch__":
            return _Module
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch.jit._pickle", "restore_type_tag"): _first,
            **{("torch.jit._pickle", kind): _first for kind in _LISTS},
            **{("torch", kind): dtype for kind, dtype in _DTYPES.items()},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not read")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers that a tensor is a view of."""
        kind, dtype, key, _, count = pid
        entry = self.archive.getinfo(f"{self.folder}data/{key}")
        if kind != "storage" or entry.compress_type != zipfile.ZIP_STORED or entry.file_size != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"{entry.filename} does not hold what is said of it")
        if not count:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(self.archive.read(entry)), dtype=dtype)


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    if math.prod(size) > max(1, storage.numel()):
        raise pickle.UnpicklingError("a tensor is larger than what it is a view of")
    return storage.as_strided(size, stride, offset).clone()


def _first(value: Any, *rest: Any) -> Any:
    return value


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Module):
        for key, inner in vars(value).items():
            yield from _tensors(inner, f"{name}.{key}" if name else key)
