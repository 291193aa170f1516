import pytest

from peftlab.timing import Phases


class Clock:
    """A clock that goes on when it is told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_phases_add_up_to_the_total(clock):
    phases = Phases(clock=clock)
    clock.now += 1
    with phases("load"):
        clock.now += 2
        with phases("tokenise"):
            clock.now += 4
        clock.now += 8
    with phases("load"):
        clock.now += 16
    clock.now += 32
    assert phases.seconds() == {"other": 33, "load": 26, "tokenise": 4, "total": 63}


def test_time_in_a_failing_phase_counts(clock):
    phases = Phases(clock=clock)
    with pytest.raises(RuntimeError), phases("train"):
        clock.now += 3
        raise RuntimeError
    clock.now += 1
    assert phases.seconds() == {"train": 3, "other": 1, "total": 4}


def test_synchronises_at_both_edges(clock):
    edges = []
    phases = Phases(synchronize=lambda: edges.append(clock.now), clock=clock)
    clock.now += 1
    with phases("train"):
        clock.now += 2
    assert edges == [101, 103]


def test_total_is_no_phase():
    with pytest.raises(ValueError, match="total"), Phases()("total"):
        pass
