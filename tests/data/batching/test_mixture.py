import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from block_recurrent.config import DataConfig
from block_recurrent.data.batching import schedule as schedule_module
from block_recurrent.data.batching.batches import BatchReader
from block_recurrent.data.batching.mixture import MixtureSchedule, StoreMixture
from block_recurrent.data.batching.schedule import DocumentSchedule
from block_recurrent.data.batching.shuffle import ShuffledEpochs
from block_recurrent.data.batching.training_data import limit_lengths, open_training
from block_recurrent.errors import InputError
from tests.data.conftest import write_store
from tests.support.vocabularies import prose

LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(lambda lengths: max(lengths) > 1)


def simulate(stores, schedule, steps):
    """Computes the schedule by brute force from the choices of stores and their shuffled epochs."""
    firsts = np.cumsum([0, *map(len, stores)])
    choices = schedule.store_choices(0, steps)
    rows = []
    for row in range(schedule.batch_size):
        row_steps, taken, k = [], [0] * len(stores), 0
        while len(row_steps) < steps:
            store = int(choices[row, k])
            readable = [document for document, length in enumerate(stores[store]) if length > 1]
            position = row + taken[store] * schedule.batch_size
            document = readable[
                int(ShuffledEpochs(len(readable), schedule.seed, store).read(position, position + 1)[0])
            ]
            taken[store] += 1
            k += 1
            offsets = range(0, stores[store][document] - 1, schedule.segment_length)
            row_steps += [(firsts[store] + document, offset) for offset in offsets]
        rows.append(row_steps[:steps])
    return rows


@given(
    stores=st.lists(LENGTHS, min_size=1, max_size=3),
    batch_size=st.integers(1, 5),
    segment_length=st.integers(1, 9),
    seed=st.integers(0, 1000),
    table=st.integers(1, 30),
)
def test_locate_is_the_brute_force_simulation(stores, batch_size, segment_length, seed, table):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule_module, "_POSITIONS_PER_TABLE", table)
        patch.setattr(schedule_module, "_CACHED_TABLES", 2)
        weights = [1.0 + index for index in range(len(stores))]
        arrays = [np.array(lengths) for lengths in stores]
        schedule = MixtureSchedule(arrays, weights, batch_size=batch_size, segment_length=segment_length, seed=seed)
        expected = simulate(stores, schedule, 40)
        for step in [*range(0, 40, 3), 39, 5, 0]:  # also backwards
            located = schedule.locate(step)
            assert list(zip(located.document, located.offset, strict=True)) == [row[step] for row in expected]


@given(lengths=LENGTHS, batch_size=st.integers(1, 5), seed=st.integers(0, 2**64 - 1))
def test_a_mixture_of_one_is_the_plain_schedule(lengths, batch_size, seed):
    shape = {"batch_size": batch_size, "segment_length": 4, "seed": seed}
    plain, mixed = DocumentSchedule(np.array(lengths), **shape), MixtureSchedule([np.array(lengths)], [2.0], **shape)
    for step in range(20):
        assert (plain.locate(step).document == mixed.locate(step).document).all()
        assert (plain.locate(step).offset == mixed.locate(step).offset).all()


def test_draws_follow_the_weights_and_do_not_depend_on_where_they_are_read():
    arrays = [np.full(10, 5), np.full(20, 5), np.full(5, 5)]
    schedule = MixtureSchedule(arrays, [6, 3, 1], batch_size=7, segment_length=4, seed=1)
    choices = schedule.store_choices(0, 10_000)
    shares = np.bincount(choices.reshape(-1), minlength=3) / choices.size
    assert np.abs(shares - [0.6, 0.3, 0.1]).max() < 0.01
    for start in (0, 1, 3, 999):
        assert (schedule.store_choices(start, start + 50) == choices[:, start : start + 50]).all()


def test_each_store_has_its_own_shuffled_epochs():
    arrays = [np.full(6, 5), np.full(9, 5)]
    schedule = MixtureSchedule(arrays, [1, 1], batch_size=1, segment_length=4, seed=0)
    read = np.array([schedule.locate(step).document[0] for step in range(200)])
    for store, (first, size) in enumerate([(0, 6), (6, 9)]):
        mine = read[(read >= first) & (read < first + size)] - first
        assert (mine == ShuffledEpochs(size, 0, store).read(0, len(mine))).all()


def test_fingerprint_depends_on_weights_and_stores():
    def fingerprint(arrays=((5, 6), (7, 8, 9)), weights=(1, 2)):
        arrays = [np.array(array) for array in arrays]
        return MixtureSchedule(arrays, weights, batch_size=2, segment_length=4, seed=0).fingerprint

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint(weights=(1, 3)), fingerprint(((5, 6, 7), (8, 9)))}) == 3


@pytest.mark.parametrize(
    ("weights", "message"), [([1], "2 stores with 1 weights"), ([1, 0], "weight 0"), ([1, float("nan")], "weight nan")]
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        MixtureSchedule([np.array([5]), np.array([5])], weights, batch_size=1, segment_length=1, seed=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two prepared folders with a training split each."""
    root = tmp_path_factory.mktemp("mixture")
    for index, name in enumerate(("books", "code")):
        write_store(root / name / "train", [prose(10 * index + seed, 50 + 200 * seed) for seed in range(5)] + ["x", ""])
    return root


def config_of(folders, **options):
    options = {"store": str(folders / "books"), "segment_length": 64, "batch_size": 4} | options
    return DataConfig(**options)


def test_batches_of_a_mixture_hold_the_tokens_of_its_stores(folders):
    config = config_of(folders, mixture={str(folders / "books"): 1, str(folders / "code"): 3})
    data = open_training(config, vocab_size=260)
    mixture = StoreMixture(data.stores)
    reader = data.reader()
    seen = set()
    for step in range(40):
        batch = reader.read(step)
        for row in range(4):
            store, document = mixture.place(int(batch.document[row]))
            seen.add(store)
            text = data.stores[store].read(document, int(batch.offset[row]), int(batch.offset[row]) + 65)
            count = int(batch.weights[row].sum())
            assert (batch.tokens[row, :count] == text[:-1]).all()
            assert (batch.targets[row, :count] == text[1:]).all()
    assert seen == {0, 1}
    assert data.bytes_per_token == 1.0
    assert len(data.facts["stores"]) == 2
    assert (data.reader(slice(1, 3)).read(7).tokens == reader.read(7).tokens[1:3]).all()


def test_one_store_is_read_with_the_plain_schedule(folders):
    data = open_training(config_of(folders, seed=5), vocab_size=260)
    (store,) = data.stores
    schedule = DocumentSchedule(store.lengths, batch_size=4, segment_length=64, seed=5)
    assert data.facts["schedule"] == schedule.fingerprint
    expected = BatchReader(store, schedule, segment_length=64).read(9)
    assert (data.reader().read(9).tokens == expected.tokens).all()


def test_limits_on_length(folders):
    lengths = np.array([0, 1, 2, 5, 9, 100])
    assert limit_lengths(lengths, 2, None).tolist() == [0, 1, 2, 5, 9, 100]
    assert limit_lengths(lengths, 5, 9).tolist() == [0, 1, 0, 5, 9, 9]
    data = open_training(config_of(folders, min_document_tokens=1000, max_document_tokens=1500), vocab_size=260)
    long = np.flatnonzero(data.stores[0].lengths >= 1000)
    read: dict[int, set[int]] = {int(document): set() for document in long}
    for step in range(60):
        batch = data.reader().read(step)
        for row in range(4):
            end = int(batch.offset[row] + batch.weights[row].sum()) + 1
            assert end <= 1500
            read[int(batch.document[row])].add(end)
    assert {max(ends) for ends in read.values()} <= {1500, *data.stores[0].lengths.tolist()}
    assert all(max(ends) == min(1500, data.stores[0].lengths[document]) for document, ends in read.items())


def test_limits_that_leave_no_document_are_refused(folders):
    with pytest.raises(InputError, match=r"nothing to read.*min_document_tokens = 1000000"):
        open_training(config_of(folders, min_document_tokens=1_000_000), vocab_size=260)


def test_stores_of_different_vocabularies_do_not_mix(folders, pieces):
    write_store(folders / "pieces" / "train", [prose(1, 100)], pieces)
    config = config_of(folders, mixture={str(folders / "books"): 1, str(folders / "pieces"): 1})
    with pytest.raises(InputError, match=r"books.*pieces.*different vocabularies: 'bytes'.*tiny\.model"):
        open_training(config, vocab_size=260)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixture": {}}, r"DataConfig.mixture = \{\}"),
        ({"mixture": {"a": 0}}, "positive weights"),
        ({"mixture": "a"}, "DataConfig.mixture = 'a'"),
        ({"min_document_tokens": 1}, "min_document_tokens = 1: must be an integer of at least 2"),
        (
            {"max_document_tokens": 5, "min_document_tokens": 6},
            "max_document_tokens = 5: must be an integer of at least 6",
        ),
    ],
)
def test_wrong_configurations_are_refused(folders, options, message):
    with pytest.raises(InputError, match=message):
        config_of(folders, **options)
