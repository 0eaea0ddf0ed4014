"""TPU slices by name, without a TPU: libtpu describes their devices on any Linux machine."""

import ctypes
import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

from block_recurrent.errors import InputError, first_line, install_command
from block_recurrent.parallel.chips import CHIPS, Chip

# Set before libtpu is loaded: query no metadata server and belong to no real slice.
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
    """A TPU slice.

    Attributes:
        name: such as `v4:2x2x4`.
        chip: its chips' generation.
        num_chips: number of chips.
    """

    name: str
    chip: Chip
    num_chips: int

    @classmethod
    def parse(cls, name: str) -> "Topology":
        """Parses the name of a slice.

        Raises:
            InputError: the name is not CHIP:AxB or CHIP:AxBxC with a known chip.
        """
        match = _NAME.fullmatch(name)
        chips = {chip.name: chip for chip in CHIPS}
        if match is None or match["chip"] not in chips:
            allowed = f"CHIP:AxB or CHIP:AxBxC, such as v4:2x2x4 or v5e:4x8, with a chip of {', '.join(chips)}"
            raise InputError(f"--topology {name}: must be {allowed}")
        return cls(name, chips[match["chip"]], math.prod(map(int, match["shape"].split("x"))))

    def devices(self) -> list[Any]:
        """Returns the slice's devices; programs can be compiled for them but not run.

        Raises:
            InputError: libtpu is not installed or does not know the slice.
        """
        if importlib.util.find_spec("libtpu") is None:
            raise InputError(f"compile: libtpu is not installed; {install_command('tpu')}")
        os.environ.update(_ENVIRONMENT)
        _return_freed_memory()
        import jax
        from jax.experimental import topologies

        jax.config.update("jax_platforms", "cpu")  # do not search for attached chips

        options = {"chip_config_name": "megacore"} if self.chip.name == "v4" else {}
        try:
            return list(topologies.get_topology_desc(self.name, platform="tpu", **options).devices)
        except Exception as error:  # jaxlib's own error class
            raise InputError(f"--topology {self.name}: libtpu rejects it: {first_line(error)}") from None


def _return_freed_memory() -> None:
    """Makes malloc reuse or return freed memory; glibc's defaults retain about an eighth of it.

    A single arena lets every thread reuse what another one has freed: compiling Rec:lstm:dual takes 4.99 GB. With two
    arenas it took 4.99 or 5.17 GB, depending on timing.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if set_option is not None:
        for option, value in _MALLOC_OPTIONS.items():
            set_option(option, value)
