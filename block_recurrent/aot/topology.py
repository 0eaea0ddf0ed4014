"""TPU slices by name, without a TPU: libtpu describes their devices to jax on any Linux machine."""

import ctypes
import dataclasses
import math
import os
import re
from typing import Any

from block_recurrent.errors import InputError
from block_recurrent.parallel.chips import CHIPS, Chip

# For this process alone, before libtpu is loaded: ask no metadata server, belong to no real slice.
_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v4-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
# M_ARENA_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h.
_MALLOC_OPTIONS = {-8: 1, -3: 1 << 17, -1: 1 << 17}
_NAME = re.compile(r"(?P<chip>\w+):(?P<shape>\d+(x\d+){1,2})")


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice.

    Attributes:
        name: such as `v4:2x2x4`.
        chip: what it is made of.
        num_chips: how many.
    """

    name: str
    chip: Chip
    num_chips: int

    @classmethod
    def parse(cls, name: str) -> "Topology":
        """Reads a name.

        Raises:
            InputError: it is not CHIP:AxB or CHIP:AxBxC with a known chip.
        """
        match = _NAME.fullmatch(name)
        chips = {chip.name: chip for chip in CHIPS}
        if match is None or match["chip"] not in chips:
            allowed = f"CHIP:AxB or CHIP:AxBxC, such as v4:2x2x4 or v5e:4x8, with a chip of {', '.join(chips)}"
            raise InputError(f"--topology {name}: must be {allowed}")
        return cls(name, chips[match["chip"]], math.prod(map(int, match["shape"].split("x"))))

    def devices(self) -> list[Any]:
        """The slice's devices, to compile for and not to run on.

        Raises:
            InputError: libtpu is not installed, or knows no such slice.
        """
        os.environ.update(_ENVIRONMENT)
        _give_memory_back()
        import jax
        from jax.experimental import topologies

        jax.config.update("jax_platforms", "cpu")  # no search for chips: the slice is only described

        options = {"chip_config_name": "megacore"} if self.chip.name == "v4" else {}
        try:
            return list(topologies.get_topology_desc(self.name, platform="tpu", **options).devices)
        except ModuleNotFoundError:
            raise InputError("compile: libtpu is not installed; pip install 'block-recurrent[tpu]'") from None
        except Exception as error:  # jaxlib's own error class
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"--topology {self.name}: libtpu refuses it: {reason}") from None


def _give_memory_back() -> None:
    """Lets this process use again, or return, what it frees: glibc would keep an eighth, for threads and small pieces.

    One arena: with two, what one thread frees the other cannot use; Rec:lstm:dual took 4.99 or 5.17 GB by chance, and
    takes 4.99 with one.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc alone
    if set_option is not None:
        for option, value in _MALLOC_OPTIONS.items():
            set_option(option, value)
