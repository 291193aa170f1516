"""Other ways to run a call come back only if they give what the eager call gives."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from peftlab.errors import SettingsError
from peftlab.timing import cost
from peftlab.timing.clock import clock
from peftlab.timing.variants import compiled, graphed

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def network(device="cpu"):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).to(device)


def doubled(graph, inputs):
    """A compiler that gets the result wrong: twice what it should be."""
    return lambda *given: tuple(2 * out for out in graph(*given))


class Step:
    """A training step: loss and gradients, and with a rate a new weight as well."""

    def __init__(self, device="cpu", rate=0.0):
        self.model = network(device)
        self.batch = torch.randn(5, 8, device=device)
        self.rate = rate

    def __call__(self):
        for parameter in self.model.parameters():
            parameter.grad = None
        loss = self.model(self.batch).square().mean()
        loss.backward()
        if self.rate:
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter -= self.rate * parameter.grad
        return {"loss": loss}

    @property
    def gradients(self):
        return dict(self.model.named_parameters())


# --- torch.compile -------------------------------------------------------------------------------


def test_compiled_code_that_agrees_is_returned():
    model, batch = network(), torch.randn(5, 8)
    fast = compiled(model, batch, backend="eager")
    assert torch.equal(fast(), model(batch))


@pytest.mark.slow
def test_the_compiler_of_torch_agrees():
    step = Step()
    fast = compiled(step, gradients=step.gradients)
    assert torch.allclose(fast()["loss"], step()["loss"])


def test_a_module_in_a_call_is_compiled_in_place():
    step, calls = Step(), []

    def counted(graph, inputs):
        calls.append(None)
        return graph

    fast = compiled(step, module=step.model, gradients=step.gradients, backend=counted)
    assert len(calls) == 1
    assert fast()["loss"] == step()["loss"]
    with pytest.raises(SettingsError, match="compiled code differs"):
        compiled(step, module=step.model, gradients=step.gradients, backend=doubled)


def test_outputs_are_compared_where_they_are_alike():
    mode = ["drawn"]
    seen = []

    @contextmanager
    def alike():
        mode[0] = "alike"
        yield
        mode[0] = "drawn"

    def call(x):
        seen.append(mode[0])
        return x if mode[0] == "alike" else x * len(seen)

    compiled(call, torch.ones(3), alike=alike, backend="eager")
    assert seen[0] == "alike"
    assert seen[-1] == "drawn"  # called once as it will be timed
    with pytest.raises(SettingsError, match="differs"):
        compiled(call, torch.ones(3), backend="eager")


def test_compiled_code_with_another_output_is_refused():
    with pytest.raises(SettingsError) as error:
        compiled(network(), torch.randn(5, 8), backend=doubled)
    assert str(error.value).startswith(
        "The output of the compiled code differs from the eager one by up to 1 of the largest "
        "value, and 0.001 is allowed: "
    )


def test_compiled_code_with_other_gradients_is_refused():
    step = Step()

    def silent():
        step()

    with pytest.raises(SettingsError, match="gradient of .* differs .* by up to 1 of the largest"):
        compiled(silent, gradients=step.gradients, backend=doubled)


def test_the_largest_difference_is_named():
    calls = []

    def call(x):
        calls.append(None)
        late = len(calls) > 1
        return {"same": x, "nearly": x + 1e-4 * late, "other": [x, x + late]}

    with pytest.raises(SettingsError, match=r"The output\['other'\]\[1\] of .* by up to 0\.5 of"):
        compiled(call, 2 * torch.ones(3), backend="eager")


def test_the_tolerance_decides():
    calls = []

    def call(x):
        calls.append(None)
        return x + 1e-2 * (len(calls) > 1)

    with pytest.raises(SettingsError, match="by up to 0.01 of"):
        compiled(call, torch.ones(3), backend="eager")
    calls.clear()
    assert compiled(call, torch.ones(3), tolerance=0.02, backend="eager")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_never_agrees(wrong):
    calls = []

    def call(x):
        calls.append(None)
        return [x, x * (wrong if len(calls) > 1 else 1.0)]

    with pytest.raises(SettingsError, match=r"output\[1\] of .* by up to inf"):
        compiled(call, torch.ones(3), backend="eager")


def test_other_tensors_or_shapes_never_agree():
    calls = []

    def call(more, x):
        calls.append(None)
        late = len(calls) > 1
        return {"x": x.repeat(2) if late and not more else x} | ({"y": x} if late and more else {})

    with pytest.raises(SettingsError, match=r"do not give the same tensors \(output\['y'\]\)"):
        compiled(call, True, torch.ones(3), backend="eager")
    calls.clear()
    with pytest.raises(SettingsError, match="by up to inf"):
        compiled(call, False, torch.ones(3), backend="eager")


def test_a_call_that_changes_weights_needs_its_state_named():
    step = Step(rate=0.5)
    before = [p.detach().clone() for p in step.model.parameters()]
    with pytest.raises(SettingsError, match="name what the call changes in state"):
        compiled(step, backend="eager")
    for parameter, value in zip(step.model.parameters(), before, strict=True):
        parameter.data.copy_(value)
    compiled(step, state=list(step.model.parameters()), backend="eager")
    for parameter, value in zip(step.model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


def test_both_runs_draw_the_same_random_numbers():
    x = torch.ones(1000)
    assert compiled(lambda: nn.functional.dropout(x), backend="eager")


def test_a_call_that_leaves_nothing_cannot_be_checked():
    with pytest.raises(SettingsError, match="returns no tensor and leaves no gradient"):
        compiled(lambda: None)


def test_a_failing_compiler_is_one_sentence():
    def broken(graph, inputs):
        raise ValueError("no such instruction\nand a long trace")

    with pytest.raises(SettingsError) as error:
        compiled(network(), torch.randn(5, 8), backend=broken)
    assert "no such instruction" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_error_of_the_call_itself_stays_what_it_is():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        compiled(network(), torch.randn(5, 7))


def test_full_memory_stays_what_it_is():
    calls = []

    def call(x):
        calls.append(None)
        if len(calls) > 1:
            raise torch.OutOfMemoryError("full")
        return x

    with pytest.raises(torch.OutOfMemoryError):
        compiled(call, torch.ones(1), backend="eager")


# --- CUDA graphs ---------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_graph_needs_a_gpu():
    with pytest.raises(SettingsError, match="A CUDA graph needs a GPU, and there is none here"):
        graphed(network(), torch.randn(5, 8))


def test_a_graph_of_work_on_the_cpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: torch.inference_mode(False))
    with pytest.raises(SettingsError, match="the output of this call is on the CPU"):
        graphed(network(), torch.randn(5, 8))


@pytest.mark.gpu
@needs_gpu
def test_a_graph_replays_a_forward_pass_on_new_values():
    model, batch = network("cuda").eval(), torch.randn(5, 8, device="cuda")
    replay = graphed(model, batch)
    batch.copy_(torch.randn(5, 8, device="cuda"))
    assert torch.allclose(replay(), model(batch), atol=1e-6)


@pytest.mark.gpu
@needs_gpu
def test_a_graph_replays_a_training_step_beside_the_eager_one():
    step = Step("cuda", rate=0.1)
    state = list(step.model.parameters())
    replay = graphed(step, gradients=step.gradients, state=state)
    expected = step()["loss"].item()
    before = [p.detach().clone() for p in state]
    assert replay()["loss"].item() < expected  # the eager step was one, the replay the next
    assert not torch.equal(before[0], state[0])


@pytest.mark.gpu
@needs_gpu
def test_dropout_in_a_graph_draws_what_the_eager_call_draws():
    x = torch.ones(1000, device="cuda")
    assert graphed(lambda: nn.functional.dropout(x))


@pytest.mark.gpu
@needs_gpu
def test_a_graph_that_misses_what_python_does_is_refused():
    x, calls = torch.ones(3, device="cuda"), []

    def call():
        calls.append(None)
        return x * len(calls)

    with pytest.raises(SettingsError, match="The output of the CUDA graph differs"):
        graphed(call)


@pytest.mark.gpu
@needs_gpu
def test_what_waits_for_the_gpu_cannot_be_captured_and_harms_nothing():
    x, stream = torch.ones(3, device="cuda"), torch.cuda.current_stream()
    with pytest.raises(SettingsError, match="cannot be captured in a CUDA graph"):
        graphed(lambda: x * x.sum().item())
    assert torch.cuda.current_stream() == stream
    assert (x + 1).sum().item() == 6
    assert torch.rand(1000, device="cuda").unique().numel() > 900


@pytest.mark.gpu
@needs_gpu
def test_a_capture_that_failed_gives_its_memory_back():
    x = torch.ones(2**24, device="cuda")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    with pytest.raises(SettingsError, match="cannot be captured in a CUDA graph"):
        graphed(lambda: (x * 2) * x.sum().item())
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < before + x.nbytes


@pytest.mark.gpu
@needs_gpu
def test_a_graph_of_many_small_kernels_is_not_launch_bound():
    x = torch.ones(16, device="cuda")

    def many():
        y = x
        for _ in range(200):
            y = y + 1
        return y

    found = cost({"eager": many, "graph": graphed(many)}, clock=clock("cuda"))
    assert found.ratio("graph").high < 0.8
