"""The memory of a step against sums by hand; what a GPU says where there is one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from peftlab.timing import memory
from peftlab.timing.memory import Memory, Peak, saved, split

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

ROWS, INPUTS, HIDDEN, OUTPUTS = 4, 3, 5, 2
BYTES = 4
# by hand: 5·3 + 5 and 2·5 + 2
PARAMETERS = 20 + 12


def mlp(activation: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(INPUTS, HIDDEN), activation or nn.ReLU(), nn.Linear(HIDDEN, OUTPUTS)
    )


def rows() -> torch.Tensor:
    return torch.randn(ROWS, INPUTS)


class TestSaved:
    @pytest.mark.parametrize(
        ("activation", "numbers"),
        [
            # ReLU keeps its output, which is what the second layer keeps as its input: one tensor
            (nn.ReLU(), ROWS * HIDDEN),
            # GELU keeps its input, and the second layer the output
            (nn.GELU(), 2 * ROWS * HIDDEN),
        ],
    )
    def test_activations_of_two_layers(self, activation, numbers):
        net, x = mlp(activation), rows()
        assert saved(lambda: net(x).sum(), [*net.parameters(), x]) == BYTES * numbers

    def test_what_is_not_given_counts(self):
        net, x = mlp(), rows()
        # the input for the first weight's gradient, the second weight for the hidden gradient
        more = ROWS * INPUTS + HIDDEN * OUTPUTS
        assert saved(lambda: net(x).sum()) == BYTES * (ROWS * HIDDEN + more)

    def test_a_frozen_layer_keeps_nothing(self):
        net, x = mlp(nn.GELU()), rows()
        net[0].requires_grad_(False)
        given = [*net.parameters(), x]
        assert saved(lambda: net(x).sum(), given) == BYTES * ROWS * HIDDEN
        net.requires_grad_(False)
        assert saved(lambda: net(x).sum(), given) == 0

    def test_nothing_is_kept_without_gradients(self):
        net, x = mlp(), rows()
        with torch.no_grad():
            assert saved(lambda: net(x).sum()) == 0

    def test_a_graph_that_is_dropped_during_the_call_does_not_count(self):
        net, x = mlp(), rows()

        def call():
            net(x).exp().sum()
            return net(x).sum()

        assert saved(call, [*net.parameters(), x]) == BYTES * ROWS * HIDDEN

    def test_views_share_a_storage_and_keep_all_of_it(self):
        weight = torch.ones(3, requires_grad=True)

        def call():
            large = torch.randn(10, 3)
            return ((large[:2] * weight) + (large[5:7] * weight)).sum()

        assert saved(call, [weight]) == BYTES * 30

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_a_checkpointed_region_keeps_only_its_input(self, reentrant):
        first, region = nn.Linear(INPUTS, HIDDEN), nn.Sequential(nn.Linear(HIDDEN, 50), nn.GELU())
        x = rows()

        def call(recompute):
            hidden = first(x)
            out = (
                checkpoint(region, hidden, use_reentrant=reentrant) if recompute else region(hidden)
            )
            return out.sum()

        given = [*first.parameters(), *region.parameters(), x]
        assert saved(lambda: call(False), given) == BYTES * ROWS * (HIDDEN + 50)
        # the non-reentrant kind holds on to an empty tensor besides
        assert saved(lambda: call(True), given) == BYTES * ROWS * HIDDEN

    def test_gradients_are_those_of_an_unwatched_pass(self):
        net, x = mlp(nn.GELU()), rows()
        net(x).square().sum().backward()
        wanted = [p.grad.clone() for p in net.parameters()]
        net.zero_grad()
        losses = []
        saved(lambda: losses.append(net(x).square().sum()) or losses[0])
        losses[0].backward()
        assert all(torch.equal(p.grad, w) for p, w in zip(net.parameters(), wanted, strict=True))


class TestSplit:
    def split(self, net, optimiser=None) -> Memory:
        x = rows()
        optimiser = optimiser or torch.optim.AdamW(p for p in net.parameters() if p.requires_grad)
        return split(lambda: net(x).sum(), optimiser, net, [x])

    def test_adam_by_hand(self):
        net = mlp()
        found = self.split(net)
        assert found.weights == BYTES * PARAMETERS
        assert found.gradients == BYTES * PARAMETERS
        # two moments; and for each of the four tensors the number of its steps
        assert found.optimiser == 2 * BYTES * PARAMETERS + 4 * BYTES
        assert found.activations == BYTES * ROWS * HIDDEN
        assert found.total == (
            found.weights + found.gradients + found.optimiser + found.activations
        )
        assert all(p.grad is None for p in net.parameters())

    def test_sgd_has_no_state(self):
        net = mlp()
        assert self.split(net, torch.optim.SGD(net.parameters(), lr=0.1)).optimiser == 0

    def test_frozen_parameters_have_neither_gradient_nor_state(self):
        net = mlp()
        net[0].requires_grad_(False)
        found = self.split(net)
        assert found.weights == BYTES * PARAMETERS
        assert found.gradients == BYTES * 12
        assert found.optimiser == 2 * BYTES * 12 + 2 * BYTES

    def test_tied_parameters_and_views_count_once(self):
        net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
        net[2].weight = net[0].weight
        net.register_buffer("view", net[0].weight.detach()[:2])
        net.register_buffer("other", torch.zeros(3))
        x = torch.randn(ROWS, 4)
        found = split(lambda: net(x).sum(), torch.optim.SGD(net.parameters()), net, [x])
        assert found.weights == BYTES * (16 + 3)
        assert found.gradients == BYTES * 16

    def test_a_rate_of_0_moves_nothing(self):
        net = mlp()
        before = [p.detach().clone() for p in net.parameters()]
        self.split(net, torch.optim.AdamW(net.parameters(), lr=0.0))
        assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))

    def test_resident_peaks_are_those_of_their_phases(self):
        net, x = mlp(), rows()
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
        mib = 96

        def forward():
            torch.zeros(mib * 2**18).add_(1)  # written to, and gone after the forward pass
            return net(x).sum()

        peaks = split(forward, optimiser, net).peaks
        assert list(peaks) == ["forward", "backward", "optimiser"]
        if peaks["forward"].resident is None:
            pytest.skip("the system does not tell")
        assert peaks["forward"].resident > peaks["optimiser"].resident + 0.8 * mib * 2**20

    def test_no_peaks_where_the_system_does_not_tell(self, monkeypatch, tmp_path):
        monkeypatch.setattr(memory, "PROCESS", tmp_path / "nowhere")
        assert set(self.split(mlp()).peaks.values()) == {Peak()}


def test_the_peak_resident_set_is_read():
    assert memory.resident("Name:\tpython\nVmHWM:\t    8784 kB\nVmRSS:\t  10 kB\n") == 8784 * 1024
    assert memory.resident("Name:\tpython\n") is None


def test_as_dict_is_flat_and_leaves_out_what_is_not_known():
    peaks = {"forward": Peak(allocated=7, reserved=9), "backward": Peak()}
    found = Memory(1, 2, 3, 4, peaks)
    assert found.as_dict() == {
        "weights": 1,
        "gradients": 2,
        "optimiser": 3,
        "activations": 4,
        "total": 7,
        "forward_allocated": 7,
        "forward_reserved": 9,
    }
    assert found.total == 7


@pytest.mark.gpu
@needs_gpu
class TestGpu:
    WIDTH, BATCH = 1024, 512

    def test_activations_agree_with_what_autograd_saves(self):
        net = nn.Sequential(
            *(m for _ in range(8) for m in (nn.Linear(self.WIDTH, self.WIDTH), nn.GELU()))
        ).cuda()
        x = torch.randn(self.BATCH, self.WIDTH, device="cuda")
        optimiser = torch.optim.AdamW(net.parameters(), lr=0.0)
        found = split(lambda: net(x).sum(), optimiser, net, [x])
        kept = saved(lambda: net(x).sum(), [*net.parameters(), x])
        parameters = 8 * (self.WIDTH + 1) * self.WIDTH
        assert found.weights == found.gradients == BYTES * parameters
        assert found.optimiser == 2 * BYTES * parameters  # the numbers of steps are on the CPU
        # every layer keeps its input, every GELU its own; the first input is given
        assert kept == BYTES * 15 * self.BATCH * self.WIDTH
        # besides: the last output, which nothing keeps, and blocks of 512 bytes
        assert kept <= found.activations <= 1.1 * kept

    def test_peaks_hold_the_parts_and_not_what_else_is_there(self):
        net = mlp().cuda()
        x = torch.randn(1000, INPUTS, device="cuda")
        optimiser = torch.optim.AdamW(net.parameters(), lr=0.0)
        alone = split(lambda: net(x).sum(), optimiser, net, [x])
        other = torch.zeros(2**26, device="cuda")
        beside = split(lambda: net(x).sum(), optimiser, net, [x])
        assert alone.as_dict().keys() >= {"forward_allocated", "optimiser_reserved"}
        for phase, peak in beside.peaks.items():
            assert peak.allocated == alone.peaks[phase].allocated
            assert peak.resident is None
            assert peak.reserved >= peak.allocated
        forward = beside.peaks["forward"].allocated
        assert forward == beside.weights + beside.optimiser + beside.activations
        assert forward < other.nbytes
