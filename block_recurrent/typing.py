"""Notation of the whole package: axis letters and array aliases.

| letter | axis                                       |
|--------|--------------------------------------------|
| B      | batch: rows, each with a document          |
| T      | tokens of a segment, T = C * W             |
| C      | blocks of a segment                        |
| W      | window: tokens of a block                  |
| S      | state vectors of a recurrent layer         |
| Q, K   | queries, keys of an attention              |
| M      | slots of an external memory                |
| N      | attention heads                            |
| H      | head dimension                             |
| D      | model (embedding) dimension                |
| F      | hidden dimension of a feed-forward network |
| V      | vocabulary                                 |

The aliases annotate arguments and results; pytest checks them at every call.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from jaxtyping import Key as Keys

# Nested dictionaries of arrays, one leaf per parameter; see `init_params`.
Params: TypeAlias = Mapping[str, Any]
Key: TypeAlias = PRNGKeyArray
RowKeys: TypeAlias = Keys[Array, "B"]

Tokens: TypeAlias = Int[Array, "B T"]
RowMask: TypeAlias = Bool[Array, "B"]
Activations: TypeAlias = Float[Array, "B T D"]
Logits: TypeAlias = Float[Array, "B T V"]
States: TypeAlias = Float[Array, "B S D"]
TokenHeads: TypeAlias = Float[Array, "B T N H"]
CacheHeads: TypeAlias = Float[Array, "B W N H"]
MemoryHeads: TypeAlias = Float[Array, "B N M H"]
