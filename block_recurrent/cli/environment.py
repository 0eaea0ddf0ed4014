"""Errors of the environment: devices, libraries, memory and files that cannot be used; each names the remedy."""

import os

from block_recurrent.errors import first_line, install_command

# Module -> extra of the package that installs it.
_EXTRAS = {
    "libtpu": "tpu",
    "apache_beam": "beam",
    "seqio": "data",
    "tensorflow_datasets": "data",
    "tensorflow_text": "data",
    "tensorflow": "data",
    "gcsfs": "gcs",
    "fsspec": "gcs",
    "huggingface_hub": "hub",
    "wandb": "wandb",
}
_REMOTE_LIBRARIES = {"tensorflow", "gcsfs", "google", "aiohttp", "fsspec"}  # their own classes of errors
_NO_BACKEND = ("Unable to initialize backend", "Unknown backend", "No visible", "Backend 'tpu' failed to initialize")


def explain(error: Exception) -> str | None:
    """Returns the message about an error of the environment; None for other errors."""
    text = str(error)
    if (isinstance(error, RuntimeError) and any(mark in text for mark in _NO_BACKEND)) or _is_from_backends(error):
        return _no_device(error)
    if isinstance(error, ImportError):
        return _not_installed(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
        return (
            f"not enough memory ({first_line(error)}); try a smaller DataConfig.batch_size, --batch-size or "
            "DataConfig.segment_length, or a smaller model"
        )
    if type(error).__module__.partition(".")[0] in _REMOTE_LIBRARIES or (
        isinstance(error, OSError) and "gs://" in text
    ):
        shown = " ".join(text.split())[:300]
        return f"remote storage ({shown}): check the address, the network and your access rights"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return None


def _is_from_backends(error: Exception) -> bool:
    """Returns whether jax found no device at all, which ends in a bare assertion."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    source = trace.tb_frame.f_code.co_filename if trace is not None else ""
    return isinstance(error, AssertionError) and source.endswith("xla_bridge.py")


def _no_device(error: Exception) -> str:
    platforms = os.environ.get("JAX_PLATFORMS", "")
    extra = "tpu" if "tpu" in platforms else "cuda"
    detail = "" if isinstance(error, AssertionError) else f" ({first_line(error)})"
    return (
        f"JAX_PLATFORMS={platforms}: JAX finds no such device{detail}. Install its extra on a machine "
        f"that has one ({install_command(extra)}), or unset JAX_PLATFORMS"
    )


def _not_installed(error: ImportError) -> str | None:
    text = str(error)
    if "gcsfs" in text or "gs://" in text or "epath-gcs" in text or "epath_gcs" in text:
        extra = "gcs"
    else:
        module = (error.name or "").partition(".")[0]
        extra = _EXTRAS.get(module)
        if extra is None:
            return f"{module} is not installed; pip install {module}" if module == "flatbuffers" else None
    return f"{first_line(error)}: {install_command(extra)}"
