"""Compares Rec with Slide:+1 layer token by token, and keeps what a page needs: no text of the packages.

python -m experiments.laptop.word_study BASELINE MODEL   # folders of runs or exported models
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from etils import epath

from block_recurrent.errors import InputError
from block_recurrent.evaluation.comparison_results import Comparison
from block_recurrent.evaluation.records import read

OUTPUT = Path("experiments/laptop/word_study.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", help="run or exported model of Slide:+1 layer")
    parser.add_argument("model", help="run or exported model of Rec:fixed:skip")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "block_recurrent", "compare", arguments.baseline, arguments.model]
        data = ["--split", "test", "--gin-file", "gin/laptop/rec_fixed_skip.gin"]
        subprocess.run([*command, *data, "--out", folder], check=True)
        found = read(Comparison, epath.Path(folder))
    if found is None:
        raise InputError(f"{arguments.baseline}, {arguments.model}: `compare` wrote no result")
    (difference,) = found.differences
    study = {
        "baseline": found.baseline.fingerprint,
        "model": difference.subject.fingerprint,
        "tokens": found.tokens,
        "documents": found.documents,
        "window": difference.words.window,
        "rule": difference.words.rule,
        "improvement_per_byte": dataclasses.asdict(difference.improvement_per_byte),
        "documents_better": difference.documents_better,
        "words": [dataclasses.asdict(group) for group in difference.words.groups],
        "positions": [
            {"low": part.low, "high": part.high, "improvement": dataclasses.asdict(part.bits_per_token)}
            for part in difference.by_position
        ],
    }
    OUTPUT.write_text(json.dumps(study, indent=1) + "\n")
    print(f"written to {OUTPUT}")


if __name__ == "__main__":
    main()
