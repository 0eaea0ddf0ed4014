"""The models that the benchmarks of speed measure, as plain values that every environment can read."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A model and its batch.

    Attributes:
        model: fields of `ModelConfig`.
        batch_size: rows.
        segment_length: tokens of a row in a step.
    """

    model: dict[str, Any]
    batch_size: int
    segment_length: int

    def job(self, task: str) -> dict[str, Any]:
        """Returns the job of a worker (`workers.turn`)."""
        return {"task": task, **dataclasses.asdict(self)}

    def replace(self, **fields: Any) -> "Configuration":
        """Returns a configuration with other fields of the model."""
        return dataclasses.replace(self, model=self.model | fields)


def _model(width: int, layers: int, heads: int, window: int, states: int, vocab: int, recurrent: int) -> dict[str, Any]:
    return {
        "embed_dim": width,
        "num_layers": layers,
        "num_heads": heads,
        "head_dim": 64,
        "mlp_dim": 4 * width,
        "vocab_size": vocab,
        "window_length": window,
        "recurrent_layers": [recurrent],
        "num_states": states,
        "cell": "skip",
        "gate": "fixed",
    }


# Rec:fixed:skip at three sizes.
SIZES = {
    "medium": Configuration(_model(256, 4, 4, 128, 128, 1024, 2), batch_size=1, segment_length=1024),
    "small": Configuration(_model(128, 4, 2, 128, 64, 260, 2), batch_size=4, segment_length=512),
    "large": Configuration(_model(512, 8, 8, 256, 256, 260, 5), batch_size=4, segment_length=1024),
}


def slide(configuration: Configuration, *, more_layers: int = 1) -> Configuration:
    """Returns the baseline without recurrence: Slide, with one layer more."""
    layers = configuration.model["num_layers"] + more_layers
    return configuration.replace(num_layers=layers, recurrent_layers=[], num_states=0)


def table1_in_small() -> dict[str, Configuration]:
    """Returns the rows of the paper's Table 1 at the size `small`."""
    small = SIZES["small"]
    tokens = small.batch_size * small.segment_length
    rows = {}
    for windows in (1, 2, 4):
        window = windows * small.model["window_length"]
        xl = slide(small, more_layers=0).replace(window_length=window)
        rows[f"XL:{windows}W"] = dataclasses.replace(xl, batch_size=tokens // window, segment_length=window)
    rows["Slide"] = slide(small, more_layers=0)
    rows["Slide, one layer more"] = slide(small)
    for gate in ("lstm", "fixed"):
        for cell in ("dual", "single", "skip"):
            rows[f"Rec:{gate}:{cell}"] = small.replace(gate=gate, cell=cell)
    rows["Feedback:lstm:single"] = small.replace(gate="lstm", cell="single", feedback=True)
    rows["Feedback:fixed:skip"] = small.replace(feedback=True)
    return rows
