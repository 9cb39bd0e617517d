"""Where there is room for runs: slots of processes, and the memory of the devices that they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

SHARING = 4  # runs on one device at most: beyond that they only wait for each other


@dataclass(frozen=True)
class Device:
    """An accelerator: its name for torch, and its memory in bytes."""

    name: str
    memory: int


class Place(NamedTuple):
    """What one run holds while it is carried out.

    Attributes:
        slot: number of its process, from 0.
        device: for torch; None to leave it to the run.
        memory: bytes of the device that it holds.
        share: of the device's memory.
    """

    slot: int
    device: str | None = None
    memory: int = 0
    share: float = 1.0


class Places:
    """Room for so many runs at once, on devices if there are any.

    A run holds what it needs of a device's memory, and at least a `SHARING`-th; one whose need is not known, or is more
    than any device has, gets a device for itself.
    """

    def __init__(self, slots: int, devices: Sequence[Device] = (), sharing: int = SHARING) -> None:
        self.slots, self.sharing = slots, sharing
        self._free = list(reversed(range(slots)))
        self._left = {device: device.memory for device in devices}

    def take(self, need: int | None) -> Place | None:
        """A place for a run that needs so many bytes; None while there is no room for it."""
        if not self._free:
            return None
        if not self._left:
            return Place(self._free.pop())
        device = max(self._left, key=lambda one: self._left[one])
        wanted = self._wanted(need, device)
        if wanted > self._left[device]:
            return None
        self._left[device] -= wanted
        return Place(self._free.pop(), device.name, wanted, wanted / device.memory)

    def _wanted(self, need: int | None, device: Device) -> int:
        if need is None or need > max(one.memory for one in self._left):
            return device.memory
        return max(need, device.memory // self.sharing)

    def leave(self, place: Place) -> None:
        """Give a place back."""
        self._free.append(place.slot)
        for device in self._left:
            if device.name == place.device:
                self._left[device] += place.memory
