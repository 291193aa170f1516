"""A device that works behind the program's back, in simulated time: to try clocks on."""

from __future__ import annotations


class Device:
    """Host and device each have a clock; work that is queued runs after what was queued before.

    Args:
        launch: Seconds of the host to queue a kernel.
        kernel: Seconds of the device to run it.
        wait: Seconds of the host that a synchronisation costs by itself.
    """

    def __init__(self, launch: float = 1e-4, kernel: float = 5e-3, wait: float = 1e-4) -> None:
        self.launch, self.kernel, self.wait = launch, kernel, wait
        self.host = self.done = 0.0

    def now(self) -> float:
        """Read the host's clock."""
        return self.host

    def call(self, kernels: int = 1) -> None:
        """Queue kernels; return when they are queued."""
        for _ in range(kernels):
            self.host += self.launch
            self.done = max(self.done, self.host) + self.kernel

    def synchronize(self) -> None:
        """Let the host wait until the device has no work left."""
        self.host = max(self.host, self.done) + self.wait
