"""Shows what got slower since the committed results of `make bench`: `make bench-compare`.

Machines differ and are noisy: the rates are compared as shares of the large matrix product of the same minutes.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments.benchmarks.speed import OUTPUT

SLOWER = 0.9  # times the share of before


def shares(results: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Returns the share of the product's rate by measurement and model."""
    return {
        (measurement, model): values["share_of_product"]
        for measurement, group in results["measurements"].items()
        for model, values in group["models"].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Shows what got slower since the committed results of `make bench`.")
    parser.add_argument("results", type=Path, nargs="?", default=OUTPUT)
    results = parser.parse_args().results
    if not results.exists():
        sys.exit(f"{results}: does not exist; run `make bench` first")
    committed = subprocess.run(["git", "show", f"HEAD:{OUTPUT}"], capture_output=True, text=True)
    if committed.returncode:
        sys.exit(f"{OUTPUT}: no results are committed to compare with")
    new, old = shares(json.loads(results.read_text())), shares(json.loads(committed.stdout))
    for key in new.keys() & old.keys():
        ratio = new[key] / old[key]
        mark = "SLOWER" if ratio < SLOWER else "faster" if ratio > 1 / SLOWER else "same"
        print(f"{mark:7} {ratio:5.2f} times  {key[0]}: {key[1]}")
    for key in old.keys() - new.keys():
        print(f"missing             {key[0]}: {key[1]}")


if __name__ == "__main__":
    main()
