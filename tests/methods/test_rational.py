"""The rational activation: its formula, its derivatives, its starts, and large numbers."""

from __future__ import annotations

import pytest
import torch

import peftlab as pl
from peftlab.errors import SettingsError, UnknownNameError
from peftlab.methods.parts.activations import activation
from peftlab.methods.parts.rational import EXACT, FITTED, RATIONALS, STARTS, Rational, rational
from peftlab.training.loop import optimiser_for

VERSIONS = ("A", "B")


def formula(x, a, b, version):
    """R(x) as the paper's code writes it, power by power."""
    terms = [b[k - 1] * x**k for k in range(1, 5)]
    below = sum(term.abs() for term in terms) if version == "A" else sum(terms).abs()
    return sum(a[j] * x**j for j in range(6)) / (1 + below)


def moved(start, version):
    """A rational in fp64 whose coefficients are all other than 0."""
    made = Rational(start, version).double()
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("start", STARTS)
def test_formula_and_finite_differences(start, version):
    made = moved(start, version)
    x = torch.linspace(-20, 20, 60, dtype=torch.float64, requires_grad=True)  # not at 0
    wanted = formula(x, made.numerator, made.denominator, version)
    assert torch.allclose(made(x), wanted, rtol=1e-12, atol=1e-12)

    def call(x, a, b):
        return torch.func.functional_call(made, {"numerator": a, "denominator": b}, (x,))

    assert torch.autograd.gradcheck(call, (x, made.numerator, made.denominator))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("start", STARTS)
def test_large_numbers_in_bf16(start, version):
    size = torch.cat([torch.linspace(0, 1e4, 1000), torch.logspace(-4, 4, 200)])
    for made in (Rational(start, version), Rational(start, version).bfloat16()):
        x = torch.cat([-size, size]).bfloat16().requires_grad_()
        y = made(x)
        assert y.dtype == torch.bfloat16
        y.float().sum().backward()
        for tensor in (y, x.grad, made.numerator.grad, made.denominator.grad):
            assert tensor.isfinite().all()
        exact = formula(
            x.detach().double(), made.numerator.double(), made.denominator.double(), version
        )
        assert torch.allclose(y.double(), exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("version", VERSIONS)
def test_exact_starts(version):
    x = torch.tensor([-1e4, -3.0, -1e-3, 0.0, 0.5, 7.0, 1e4])
    assert torch.allclose(Rational("one", version)(x), torch.ones_like(x), rtol=1e-6)
    assert torch.allclose(Rational("identity", version)(x), x, rtol=1e-6)


# The kinks of the ReLUs set the limit there.
LARGEST = {"relu": 0.04, "leaky_relu": 0.04, "leaky_relu_0.1": 0.035, "gelu": 3e-3} | dict.fromkeys(
    ("swish", "tanh", "sigmoid"), 1e-5
)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("start", FITTED)
def test_fitted_starts(start, version):
    x = torch.linspace(-3, 3, 1001)
    assert (Rational(start, version)(x) - FITTED[start](x)).abs().max() < LARGEST[start]


def test_our_gelu_is_no_worse_than_the_released_coefficients():
    a = torch.tensor([-0.00124236, 0.50804971, 0.41586363, 0.13022719, 0.02435590, 0.00290284])
    b = torch.tensor([-0.06675016, 0.17927646, 0.03746683, 1.656e-10])
    x = torch.linspace(-3, 3, 1001)
    y = torch.nn.functional.gelu(x)
    theirs, ours = formula(x, a, b, "A") - y, Rational("gelu")(x) - y
    assert theirs.abs().max() < 5e-3
    assert ours.square().mean() < theirs.square().mean()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("start", EXACT)
def test_a_denominator_of_one_can_leave_it(start, version):
    """PyTorch's derivative of |b| at 0 would keep it there; see the docstring of Rational."""
    made = Rational(start, version)
    made(torch.linspace(0.5, 2, 9)).sum().backward()
    assert (made.denominator.grad < 0).all()  # it falls where the denominator grows
    b = torch.zeros(4, requires_grad=True)
    formula(torch.linspace(0.5, 2, 9), made.numerator.detach(), b, version).sum().backward()
    assert not b.grad.any()


def test_at_one_nothing_reaches_what_is_below():
    """R = 1 is flat: the first step moves the coefficients and not the map before them."""
    x = torch.randn(5, requires_grad=True)
    made = Rational("one")
    made(x).square().sum().backward()
    assert not x.grad.any()
    assert made.numerator.grad.all()


def test_names():
    assert activation("rational:one").numerator.tolist() == [1, 0, 0, 0, 0, 0]
    assert activation("rational:gelu:B").version == "B"
    assert len(RATIONALS) == 2 * len(STARTS)
    assert sum(p.numel() for p in rational("rational:tanh").parameters()) == 10
    with pytest.raises(UnknownNameError, match="did you mean 'rational:gelu'"):
        pl.Adapter(activation="rational:gelo")
    with pytest.raises(SettingsError, match="version is 'C'"):
        Rational("one", "C")


def test_an_adapter_trains_it_at_its_own_rate(make_encoder, toy_task):
    model = pl.model(make_encoder(), toy_task, pl.Adapter(activation="rational:one"))
    groups = optimiser_for(model, pl.TrainSettings(learning_rate=1e-4)).param_groups
    own = [p for group in groups if group.get("peak") == 0.01 for p in group["params"]]
    assert sum(p.numel() for p in own) == 3 * 10


def test_it_is_the_same_on_the_meta_device():
    with torch.device("meta"):
        made = Rational("swish")
    assert made.numerator.is_meta
    assert not Rational("swish").numerator.is_meta
