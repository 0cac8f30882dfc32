"""The state of the random numbers before a forward, for dropout to drop the same when it runs again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class RandomState:
    """A copy of what the random numbers on the CPU, and on the device of the model, follow from.

    Args:
        device: Where the model runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.devices = [] if device.type == "cpu" else [device]
        self.kind = device.type
        self.cpu = torch.get_rng_state()
        module = None if device.type == "cpu" else torch.get_device_module(device)
        self.others = [module.get_rng_state(device) for device in self.devices]

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Within it random numbers are those that followed the copy; after it they go on as if nothing had been drawn."""
        with torch.random.fork_rng(devices=self.devices, device_type="cuda" if self.kind == "cpu" else self.kind):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.others, strict=True):
                torch.get_device_module(device).set_rng_state(state, device)
            yield
