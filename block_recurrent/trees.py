"""Names of pytree leaves: the path, joined with `/`, such as `layers/layer_00/mlp/hidden/kernel`."""

import re
from typing import Any

import jax


def leaf_name(path: Any) -> str:
    """Returns the name of a leaf from its path in `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def is_kernel(path: Any) -> bool:
    """Returns whether a leaf is the kernel of a linear layer, from its path in `jax.tree_util`."""
    return re.search(r"(^|/)kernel(/value)?$", leaf_name(path)) is not None


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns all leaves by name, in the order of `jax.tree.leaves`."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def from_named_leaves(leaves: dict[str, Any], like: Any) -> Any:
    """Returns a tree with the structure of `like` and these leaves; the inverse of `named_leaves`."""
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in named_leaves(like)])
