"""Protection against a version of jaxlib whose matrix products on CPU are wrong."""

import os
import sys
import warnings
from importlib import metadata

# The YNN fusions of jaxlib 0.10.2 compute wrong numbers for a product with a constant operand that is squared and
# summed (jax-ml/jax#39103). The requirements of this package exclude the version; an environment may have it still.
WRONG_VERSION = "0.10.2"
_FLAG = "--xla_cpu_experimental_ynn_fusion_type="


def switch_off_wrong_fusions() -> None:
    """Switches the wrong fusions off, if this jaxlib has them; other versions are left as they are.

    Adds a flag to the user's own `XLA_FLAGS`; a value that the user gave for the flag stays. XLA reads the variable
    when its backend starts, so this runs when the package is imported. After that there is only a warning.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if metadata.version("jaxlib") != WRONG_VERSION or _FLAG in flags:
        return
    os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}".strip()
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        warnings.warn(
            f"jaxlib {WRONG_VERSION} computes wrong matrix products on CPU, and JAX was started before the import of "
            f"block_recurrent. Install another version (pip install 'jax!={WRONG_VERSION}'), or begin the program "
            f"with: import os; os.environ['XLA_FLAGS'] = '{_FLAG}'",
            stacklevel=3,
        )
