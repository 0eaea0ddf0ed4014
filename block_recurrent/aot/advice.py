"""What to change about a run whose step does not fit a slice."""

from block_recurrent.aot.compile import CompiledStep
from block_recurrent.config import RunConfig

_LARGE = 0.3  # of a chip's memory: parameters and optimizer that are worth dividing
_LESS_KEPT = {"none": ("dots", "full"), "dots": ("full",), "full": ()}


def advice(compiled: CompiledStep, run: RunConfig) -> str:
    """Names the settings that would save memory and are not used yet, the cheapest first; empty if it fits."""
    if compiled.fits:
        return ""
    settings = []
    if compiled.parameters + compiled.optimizer > _LARGE * compiled.capacity:
        more = "" if run.mesh.fsdp == 1 else f" above {run.mesh.fsdp}"
        settings.append(f"divide parameters and optimizer: MeshConfig.fsdp{more}")
    if compiled.step == "train":
        if policies := _LESS_KEPT[run.model.remat]:
            names = ", then ".join(f"'{policy}'" for policy in policies)
            settings.append(f"keep less for the backward pass: ModelConfig.remat={names}")
        if run.model.loss_chunk is None:
            settings.append("logits in chunks: ModelConfig.loss_chunk=512")
        more = "" if run.train.accumulate_steps == 1 else f" above {run.train.accumulate_steps}"
        settings.append(f"fewer rows at once: TrainConfig.accumulate_steps{more}")
    return "; ".join([*settings, "a smaller DataConfig.batch_size or more chips"])
