"""Configuration of a training run."""

import dataclasses

from block_recurrent.config.data import DataConfig
from block_recurrent.config.model import ModelConfig
from block_recurrent.config.training import MeshConfig, OptimizerConfig, TrainConfig
from block_recurrent.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Complete configuration of a training run.

    Attributes:
        model: architecture.
        data: token stores and batches.
        optimizer: optimizer and learning rate.
        train: training loop.
        mesh: division between devices.

    Raises:
        InputError: two parts do not fit together.
    """

    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

    def __post_init__(self):
        segment, window, chunk = self.data.segment_length, self.model.window_length, self.model.loss_chunk
        if chunk is not None and segment % chunk:
            raise InputError(f"ModelConfig.loss_chunk = {chunk}: must divide DataConfig.segment_length = {segment}")
        self.model.check_memory_segment(segment, "DataConfig.segment_length")
        if window is None:
            return
        if segment % window:
            raise InputError(
                f"DataConfig.segment_length = {segment}: must be a multiple of ModelConfig.window_length = {window}"
            )
        if self.model.recurrent_layers and segment == window and self.train.backprop_segments == 1:
            raise InputError(
                f"DataConfig.segment_length = {segment}: must be at least 2 * ModelConfig.window_length = {2 * window} "
                "to train recurrent layers: with one block per segment, the loss does not depend on the update of the "
                "states, so the parameters of the update would get no gradient"
            )

    @property
    def tokens_per_step(self) -> int:
        """Tokens of all rows in one training step."""
        return self.data.batch_size * self.data.segment_length * self.train.backprop_segments
