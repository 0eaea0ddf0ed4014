"""A user's action between two steps."""

from typing import Any

from block_recurrent.training.actions import Measured, UserAction


class Recorder:
    """Records the calls of any of its methods: name and arguments."""

    def __init__(self, calls: list[tuple[Any, ...]]):
        self.calls = calls

    def __getattr__(self, name: str):
        return lambda *arguments: self.calls.append((name, *arguments))


class CountWords:
    def __init__(self, calls: list[tuple[Any, ...]]):
        self.calls = calls

    def due(self, step: int) -> bool:
        return step == 2

    def run(self, step: int, state: Any) -> Measured:
        self.calls.append(("counted", step, state))
        return Measured(group="words", values={"words": 3}, sentences=("three words",))


def test_the_progress_names_the_action_before_it_runs():
    calls: list[tuple[Any, ...]] = []
    recorder: Any = Recorder(calls)

    def notify(sentence: str) -> None:
        calls.append(("notify", sentence))

    action = UserAction(CountWords(calls), recorder, metrics=recorder, progress=recorder, notify=notify, restored=None)
    assert [action.due(step) for step in (1, 2)] == [False, True]
    action.run(2, recorder)
    assert calls == [
        ("catch_up",),
        ("update", 2, "running CountWords"),
        ("counted", 2, recorder),
        ("notify", "step 2: three words"),
        ("write", 2, "words", {"words": 3}),
        ("start_clock",),
    ]
