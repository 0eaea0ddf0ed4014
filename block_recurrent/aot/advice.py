"""Settings that make a step fit a slice."""

from block_recurrent.aot.compile import CompiledStep
from block_recurrent.config import RunConfig

_LARGE_SHARE = 0.3  # of a chip's memory; below it, sharding parameters and optimizer state saves little
_STRONGER_POLICIES = {"none": ("dots", "full"), "dots": ("full",), "full": ()}


def advice(compiled: CompiledStep, run: RunConfig) -> str:
    """Returns unused settings that save memory, the cheapest first; an empty string if the step fits."""
    if compiled.fits:
        return ""
    settings = []
    if compiled.parameters + compiled.optimizer > _LARGE_SHARE * compiled.capacity:
        more = "" if run.mesh.fsdp == 1 else f" above {run.mesh.fsdp}"
        settings.append(f"shard parameters and optimizer state: MeshConfig.fsdp{more}")
    if compiled.step == "train":
        if policies := _STRONGER_POLICIES[run.model.remat]:
            names = ", then ".join(f"'{policy}'" for policy in policies)
            settings.append(f"store fewer activations for the backward pass: ModelConfig.remat={names}")
        if run.model.loss_chunk is None:
            settings.append("compute logits in chunks: ModelConfig.loss_chunk=512")
        more = "" if run.train.accumulate_steps == 1 else f" above {run.train.accumulate_steps}"
        settings.append(f"smaller micro-batches: TrainConfig.accumulate_steps{more}")
    return "; ".join([*settings, "a smaller DataConfig.batch_size or more chips"])
