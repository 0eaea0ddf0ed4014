"""The list of faults fits the code; `make mutation` makes them and takes too long for the suite."""

import ast

import pytest

from tests.mutation.mutations import MUTATIONS
from tests.mutation.run import ROOT, apply


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_fault_changes_one_place_and_stays_a_program(mutation, tmp_path):
    source = ROOT / "block_recurrent" / mutation.file
    copy = tmp_path / "block_recurrent" / mutation.file
    copy.parent.mkdir(parents=True)
    copy.write_text(source.read_text())
    apply(mutation, tmp_path)
    assert ast.dump(ast.parse(copy.read_text())) != ast.dump(ast.parse(source.read_text()))
    assert [path for path in mutation.tests if not (ROOT / path.partition("::")[0]).is_file()] == []
    with pytest.raises(ValueError, match="0 times"):
        apply(mutation, tmp_path)


def test_there_are_at_least_twenty_and_each_has_its_name():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 20
