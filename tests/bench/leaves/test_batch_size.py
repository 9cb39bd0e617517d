"""How many samples are worked on at once."""

from types import SimpleNamespace

import pytest
import torch

from bench.batch_size import BatchSize, within_memory


class Cuda(BatchSize):
    """A pretended device of which each sample takes one hundredth."""

    def __init__(self, fixed=None):
        super().__init__(fixed, SimpleNamespace(type="cuda"))
        self.held = 0

    def done(self, size):
        self.held = size
        super().done(size)

    def peak_share(self):
        return self.held / 1000


def test_the_batch_grows_while_memory_allows():
    batches = Cuda()
    sizes = []
    for _ in range(6):
        sizes.append(batches.size)
        batches.done(batches.size)
    assert sizes == [64, 128, 256, 512, 512, 512]


def test_a_ragged_last_batch_and_a_fixed_size_do_not_grow():
    batches, fixed = Cuda(), Cuda(8)
    batches.done(5)
    fixed.done(8)
    assert (batches.size, fixed.size) == (64, 8)


def test_out_of_memory_halves_and_never_grows_again(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    batches = Cuda()
    batches.out_of_memory(64)
    batches.done(32)
    assert batches.size == 32
    batches.out_of_memory(1)
    assert batches.size == 1


def test_large_images_go_in_small_batches_on_a_cpu():
    """There, what does not fit gets the process killed."""
    cpu = torch.device("cpu")
    assert [BatchSize(None, cpu, side).size for side in (48, 224)] == [256, 4]
    assert BatchSize(32, cpu, 224).size == 32


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                     "tried to allocate 400000000000000 bytes. Error code 12 (Cannot allocate memory)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: not enough memory: you tried to "),
        MemoryError(),
    ],
)  # fmt: skip
def test_running_out_of_memory_is_recognised_in_all_its_wordings(error):
    def work(batch):
        raise error

    assert within_memory(work, [1, 2]) is None


def test_a_real_allocation_that_fails_is_recognised():
    assert within_memory(lambda batch: torch.empty(10**15), [1]) is None


def test_any_other_error_is_passed_on():
    with pytest.raises(RuntimeError, match="illegal memory access"):
        within_memory(lambda batch: _raise(RuntimeError("CUDA error: an illegal memory access was encountered")), [1])


def _raise(error):
    raise error
