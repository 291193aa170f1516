"""The largest batch: the search on simulated memories, the line by hand, both on a GPU."""

from __future__ import annotations

import gc
import weakref
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from peftlab.errors import SettingsError, TimingError
from peftlab.timing.capacity import Line, budget, largest_batch, out_of_memory, release
from peftlab.timing.memory import split

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 EB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_full_memory_is_known_by_its_errors(error):
    assert out_of_memory(error)


def test_an_allocation_that_is_too_large_is_one():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.int8)
    assert out_of_memory(caught.value)


def test_other_errors_are_not_about_memory():
    assert not out_of_memory(RuntimeError("a shape is wrong"))


def test_memory_of_a_failed_pass_is_released():
    kept = []

    def failing():
        activations = torch.zeros(3)
        kept.append(weakref.ref(activations))
        raise FULL

    try:
        failing()
    except RuntimeError as error:
        assert kept[0]() is not None
        release(error)
        assert kept[0]() is None


@given(most=st.integers(0, 3000), start=st.integers(1, 200), limit=st.integers(200, 2000))
def test_the_search_finds_the_largest(most, start, limit):
    tried = []

    def fits(batch):
        tried.append(batch)
        return batch <= most

    with mock.patch.object(gc, "collect"):  # takes long in a process that holds much
        assert largest_batch(fits, start, limit) == min(most, limit)
    assert max(tried) <= limit
    assert len(tried) == len(set(tried)) <= 24


def test_full_memory_means_no_and_is_cleaned_up():
    kept = []

    def step(batch):
        assert all(activations() is None for activations in kept)
        activations = torch.zeros(batch)
        kept.append(weakref.ref(activations))
        if batch > 37:
            raise FULL
        return True

    assert largest_batch(step) == 37


def test_what_a_guess_leaves_in_cycles_is_gone_at_the_next():
    kept = []

    def step(batch):
        assert all(cycle() is None for cycle in kept)
        cycle = nn.Linear(1, 1)
        cycle.itself = [cycle]
        kept.append(weakref.ref(cycle))
        return batch <= 3

    assert largest_batch(step) == 3


def test_other_errors_end_the_search():
    def broken(batch):
        raise RuntimeError("a shape is wrong")

    with pytest.raises(RuntimeError, match="a shape is wrong"):
        largest_batch(broken)


def test_a_search_begins_within_its_limit():
    with pytest.raises(SettingsError, match="begins at 9: choose a batch from 1 to 8"):
        largest_batch(bool, start=9, limit=8)


def test_the_line_by_hand():
    line = Line.through({4: 1400, 2: 1200, 8: 1800})
    assert line == Line(fixed=1000, each=100)
    assert line.bytes(50) == 6000
    assert line.largest(6000) == 50
    assert line.largest(6099) == 50
    assert line.largest(900) == 0


def test_search_and_line_agree_on_a_simulated_memory():
    def needed(batch):  # in blocks, as an allocator has them
        return 3_000_000 + 512 * -(-70_001 * batch // 512)

    size = 15_000_000
    line = Line.through({batch: needed(batch) for batch in (8, 16, 32)})
    found = largest_batch(lambda batch: needed(batch) <= size)
    assert line.largest(size) == pytest.approx(found, rel=0.01)


def test_a_line_that_misses_its_check_is_refused():
    # below batch 8 the optimiser's step needs more than the activations
    measured = {batch: max(1800, 1000 + 100 * batch) for batch in (2, 4, 16)}
    with pytest.raises(TimingError, match="2 and 4 foretells that of 16 with an error of -31 %"):
        Line.through(measured)
    with pytest.raises(TimingError, match="batch 4 is not above that of 2"):
        Line.through({2: 1800, 4: 1800, 6: 1800})
    with pytest.raises(SettingsError, match="measure at least three"):
        Line.through({2: 1800, 4: 1800})


def test_only_the_memory_of_a_gpu_is_bounded():
    with pytest.raises(SettingsError, match="bounded on 'cpu'"), budget(1e9, "cpu"):
        pass


@pytest.mark.gpu
@needs_gpu
class TestGpu:
    LENGTH, WIDTH = 256, 512

    def step(self, batch):
        """Two steps of a net whose activations are most of its memory."""
        net = nn.Sequential(
            *(m for _ in range(6) for m in (nn.Linear(self.WIDTH, self.WIDTH), nn.GELU()))
        ).cuda()

        def forward():
            return net(torch.randn(batch, self.LENGTH, self.WIDTH, device="cuda")).sum()

        return split(forward, torch.optim.AdamW(net.parameters()), net).total

    def test_search_and_line_agree(self):
        size = 4e9
        line = Line.through({batch: self.step(batch) for batch in (8, 16, 32)})
        with budget(size):
            found = largest_batch(lambda batch: self.step(batch) > 0)
        assert found > 200
        assert line.largest(size) == pytest.approx(found, rel=0.15)

    def test_a_budget_ends_with_its_block(self):
        with budget(1e8), pytest.raises(torch.OutOfMemoryError):
            torch.empty(2 * 10**8, dtype=torch.int8, device="cuda")
        torch.empty(2 * 10**8, dtype=torch.int8, device="cuda")

    def test_a_budget_beyond_the_gpu_is_refused(self):
        with pytest.raises(SettingsError, match="choose a budget that it has"), budget(1e15):
            pass
