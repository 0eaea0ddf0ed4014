"""The notation of the whole package: axis letters and array aliases, defined once.

| letter | axis                                            |
|--------|-------------------------------------------------|
| B      | batch: rows, each reading a document of its own |
| T      | tokens of a segment, T = C * W                  |
| C      | blocks of a segment                             |
| W      | window: tokens of a block                       |
| S      | state vectors of a recurrent layer              |
| Q, K   | queries, keys of one attention                  |
| N      | attention heads                                 |
| H      | head dimension                                  |
| D      | model (embedding) dimension                     |
| F      | hidden dimension of a feed-forward network      |
| V      | vocabulary                                      |

Aliases are for annotations; under pytest they are checked at every call.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

# Nested dictionaries of arrays, one leaf per parameter; see `model.init_params`.
Params: TypeAlias = Mapping[str, Any]
Key: TypeAlias = PRNGKeyArray

Tokens: TypeAlias = Int[Array, "B T"]
RowMask: TypeAlias = Bool[Array, "B"]
Activations: TypeAlias = Float[Array, "B T D"]
Logits: TypeAlias = Float[Array, "B T V"]
States: TypeAlias = Float[Array, "B S D"]
TokenHeads: TypeAlias = Float[Array, "B T N H"]
CacheHeads: TypeAlias = Float[Array, "B W N H"]
