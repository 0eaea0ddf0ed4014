"""Facts about a model, for its card: size, steps, window, recurrent states, speed of training."""

import statistics
from typing import Any

from block_recurrent.evaluation.records import Subject
from block_recurrent.evaluation.run_results import RunResults


def model_facts(run: RunResults, subject: Subject) -> list[str]:
    """Returns short facts about a model of a run.

    Args:
        run: the run, for the length of its training and its speed.
        subject: the model; its checkpoint may be any of the run's.
    """
    config = subject.config
    layers = f"{config['num_layers']} layers of width {config['embed_dim']}"
    facts = [f"{subject.parameters:,} parameters", _steps(run, subject), layers, _window(config), _states(config)]
    speeds = [line["tokens_per_second"] for line in run.metrics if line["group"] == "speed"]
    if speeds:
        facts.append(f"trained at {statistics.median(speeds):,.0f} tokens per second (median)")
    return [fact for fact in facts if fact]


def _steps(run: RunResults, subject: Subject) -> str:
    if subject.step is None:
        return ""
    planned = run.config.get("train", {}).get("num_steps")
    return f"step {subject.step:,}" + ("" if planned in (None, subject.step) else f" of {planned:,}")


def _window(config: dict[str, Any]) -> str:
    if config["layer"] == "lstm":
        return "LSTM"
    return "no window" if config["window_length"] is None else f"window of {config['window_length']:,} tokens"


def _states(config: dict[str, Any]) -> str:
    places = [index % config["num_layers"] for index in config["recurrent_layers"]]  # negative ones count from the end
    if not places:
        return "" if config["layer"] == "lstm" else "no recurrent layer"
    layers = f"layer{'s' if len(places) > 1 else ''} {', '.join(map(str, sorted(places)))}"
    return f"{config['num_states']:,} state vectors in {layers} ({config['gate']} gate)"
