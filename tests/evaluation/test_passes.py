import dataclasses

import numpy as np
import pytest
from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.evaluation import interventions
from block_recurrent.evaluation.passes import ResumablePasses, Shape
from block_recurrent.evaluation.scorer import Placement, carried
from tests.data.conftest import write_store
from tests.evaluation.conftest import TEXTS, one_pass

SHAPE = Shape(batch_size=2, segment_length=8)


class KilledError(Exception):
    pass


def test_an_interrupted_pass_resumes_to_identical_bits(tmp_path, split, model, params):
    for method in (carried(model), interventions.shuffled(model, split)):
        expected = one_pass(tmp_path / "whole", method, params, split, batch_size=2, segment_length=8)
        folder, reported = epath.Path(tmp_path / method.name), []

        def run(at, folder=folder, reported=reported, method=method, identity="one"):
            def progress(done, total):
                reported.append(done)
                if done == at:
                    raise KilledError

            with ResumablePasses(folder, {"of": identity}, save_seconds=0).locked() as passes:
                placement = Placement([__import__("jax").devices()[0]])
                losses = passes.run(method, params, split, SHAPE, placement=placement, progress=progress)
                return np.array(losses.values)

        for at in (4, 9):
            with pytest.raises(KilledError):
                run(at)
        begun = len(reported)
        np.testing.assert_array_equal(run(None), expected.values)
        assert reported[begun] == 9  # resumed
        with pytest.raises(KilledError):
            run(4)
        begun = len(reported)
        np.testing.assert_array_equal(run(None, identity="another"), expected.values)
        assert reported[begun] == 0  # other parameters or data: started again
        assert not (folder / ".partial").exists()


def test_a_request_to_end_saves_the_steps_that_are_done(tmp_path, split, model, params):
    reported = []

    def run(at):
        def progress(done, total):
            reported.append(done)
            if done == at:
                raise KeyboardInterrupt

        with ResumablePasses(epath.Path(tmp_path), {}, save_seconds=1000).locked() as passes:
            losses = passes.run(carried(model), params, split, SHAPE, placement=Placement(), progress=progress)
            return np.array(losses.values)

    expected = one_pass(tmp_path / "whole", carried(model), params, split, batch_size=2, segment_length=8)
    with pytest.raises(KeyboardInterrupt):
        run(4)
    begun = len(reported)
    np.testing.assert_allclose(run(None), expected.values, rtol=1e-6)
    assert reported[begun] == 4


def test_two_processes_cannot_evaluate_into_one_folder(tmp_path):
    folder = epath.Path(tmp_path)
    with (
        ResumablePasses(folder, {}).locked(),
        pytest.raises(InputError, match="another process is evaluating"),
        ResumablePasses(folder, {}).locked(),
    ):
        pass


def test_order_of_documents_changes_no_loss(tmp_path, split, model, params):
    order = [3, 0, 5, 1, 4, 2]
    other = write_store(tmp_path / "other" / "test", {f"document {d}": TEXTS[d] for d in order})
    for method, moved in ((carried(model), carried(model)), (interventions.reset(model, every_blocks=2),) * 2):
        expected = one_pass(tmp_path / "a", method, params, split)
        losses = one_pass(tmp_path / "b", moved, params, other)
        for place, document in enumerate(order):
            np.testing.assert_allclose(losses.of(place), expected.of(document), rtol=2e-5, atol=2e-6)


def test_a_pass_of_another_batch_shape_is_not_resumed(tmp_path, split, model, params):
    folder = epath.Path(tmp_path)

    def run(shape, at):
        def progress(done, total):
            reported.append(done)
            if done == at:
                raise KilledError

        with ResumablePasses(folder, {}, save_seconds=0).locked() as passes:
            return np.array(
                passes.run(carried(model), params, split, shape, placement=Placement(), progress=progress).values
            )

    reported = []
    with pytest.raises(KilledError):
        run(SHAPE, 3)
    reported.clear()
    values = run(dataclasses.replace(SHAPE, segment_length=16), None)
    assert reported[0] == 0
    np.testing.assert_allclose(
        values, one_pass(tmp_path / "x", carried(model), params, split).values, rtol=1e-5, atol=1e-6
    )
