"""Benchmarks the data pipeline at the paper's scale on synthetic stores and text: `make bench-data`.

Measures the schedule, reading, tokenising and the memory of `prepare`, and compares each number with its bound. Writes
the numbers to a JSON file and exits with 1 if a bound is missed. Needs about 10 GB of disk and 10 minutes on 2 cores;
`--quick` needs a tenth.
"""

import argparse
import itertools
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from block_recurrent.config import PrepareConfig
from block_recurrent.data.batching.batches import BatchReader
from block_recurrent.data.batching.schedule import DocumentSchedule
from block_recurrent.data.preparation.prepare import available_cores, prepare
from block_recurrent.data.sources.python_stdlib import PythonStdlib
from block_recurrent.data.store.encoded_document import EncodedDocument
from block_recurrent.data.store.metadata import VocabularyMetadata, identity
from block_recurrent.data.store.token_store import TokenStore
from block_recurrent.data.store.writer import StoreWriter
from block_recurrent.data.train_vocabulary import train_vocabulary
from block_recurrent.data.vocabulary import ByteVocabulary
from experiments.benchmarks.benchmark import Result, judge

DOCUMENTS = 28_602  # PG19's training split
ROWS, SEGMENT = 32, 4096
MB = 1_000_000


def text_of_this_machine() -> str:
    """Returns real text for the corpora: the Python standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [file for split in ("train", "validation", "test") for file in PythonStdlib().files(split)]
    return "".join((root / file.payload).read_text(encoding="utf-8", errors="replace") for file in files)


def lengths_like_pg19(documents: int, tokens: int) -> np.ndarray:
    """Returns log-normal document lengths with a given sum."""
    drawn = np.random.default_rng(0).lognormal(0, 0.8, documents)
    return np.maximum(2, drawn / drawn.sum() * tokens).astype(np.int64)


def bench_schedule() -> Iterator[Result]:
    lengths = lengths_like_pg19(DOCUMENTS, 3_000_000_000)
    shape = {"batch_size": ROWS, "segment_length": SEGMENT, "seed": 0}
    schedule, cold = DocumentSchedule(lengths, **shape), []
    for _ in range(5):
        start = time.perf_counter()
        schedule = DocumentSchedule(lengths, **shape)
        schedule.locate(400_000)
        cold.append(time.perf_counter() - start)
    yield Result("cold locate(400_000)", float(np.median(cold)), "s", 0.1, at_least=False)
    start = time.perf_counter()
    for step in range(400_001, 402_001):
        schedule.locate(step)
    yield Result("warm locate", (time.perf_counter() - start) / 2000 * 1000, "ms", 1, at_least=False)


def synthetic_store(folder: Path, documents: int, tokens: int) -> TokenStore:
    """Writes a store of bytes; each document is a window of real text."""
    text = np.frombuffer(text_of_this_machine().encode(), np.uint8) + np.uint16(3)
    lengths = lengths_like_pg19(documents, tokens)
    text = np.tile(text, int(lengths.max()) // len(text) + 2)
    starts = np.random.default_rng(1).integers(0, len(text) - lengths.max(), documents)
    vocabulary = ByteVocabulary()
    writer = StoreWriter(folder, identity("synthetic", "train", {}, "", vocabulary.fingerprint), np.dtype(np.uint16))
    for number, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        counts = {"size": length, "characters": length, "words": 0, "unknown_tokens": 0, "first_token_bytes": 1}
        piece = text[start : start + length]
        writer.add(EncodedDocument(name=str(number), tokens=piece, digest=bytes(32), **counts))
    sizes = {"size": vocabulary.size, "table_size": vocabulary.table_size}
    writer.finish(VocabularyMetadata(spec="bytes", fingerprint=vocabulary.fingerprint, **sizes), {})
    return TokenStore.open(folder)


def bench_reading(folder: Path, tokens: int, steps: int) -> Iterator[Result]:
    start = time.perf_counter()
    store = synthetic_store(folder / "synthetic", DOCUMENTS, tokens)
    print(f"     wrote {store.metadata.counts.tokens:,} tokens in {time.perf_counter() - start:.0f} s", flush=True)
    schedule = DocumentSchedule(store.lengths, batch_size=ROWS, segment_length=SEGMENT, seed=0)
    reader = BatchReader(store, schedule, segment_length=SEGMENT)
    rates = []
    for first in (0, 10_000, 200_000):
        reader.read(first)
        start = time.perf_counter()
        with reader.prefetch(first + 1, first + 1 + steps) as batches:
            for _ in batches:
                pass
        rates.append(steps * ROWS * SEGMENT / (time.perf_counter() - start) / MB)
    yield Result("loader", float(np.median(rates)), "million tokens/s", 20, at_least=True)


def write_corpus(folder: Path, size: int, file_size: int) -> Path:
    """Writes a folder of text files: windows of real text that begin at random lines."""
    text = text_of_this_machine()
    rng = np.random.default_rng(2)
    (folder / "train").mkdir(parents=True)
    for number in range(max(1, size // file_size)):
        start = text.find("\n", int(rng.integers(0, len(text) - file_size - 100_000))) + 1
        (folder / "train" / f"{number:06}.txt").write_text(text[start : start + file_size], encoding="utf-8")
    return folder


def bench_tokenising(folder: Path, size: int) -> Iterator[Result]:
    import sentencepiece

    model = str(folder / "bench.model")
    train_vocabulary(PythonStdlib(), model, size=32_000, sample_bytes=5 * MB)
    corpus = write_corpus(folder / "corpus", size, 400_000)
    texts = [path.read_text(encoding="utf-8") for path in sorted((corpus / "train").iterdir())]
    total = sum(len(text.encode()) for text in texts) / MB
    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    own, ours = [], []
    for turn in range(3):  # alternating, so that other work on the machine slows both down
        start = time.perf_counter()
        processor.encode(texts, num_threads=available_cores(), return_type="numpy")
        own.append(total / (time.perf_counter() - start))
        ours.append(total / timed_prepare(corpus, folder / f"pieces{turn}", model))
    print(
        f"     sentencepiece's batched encoder {np.median(own):.1f} MB/s, prepare {np.median(ours):.1f} MB/s",
        flush=True,
    )
    share = float(np.median(ours) / np.median(own))
    yield Result("tokenising against sentencepiece's own batched encoder", share, "", 0.85, at_least=True)
    large = write_corpus(folder / "large", 10 * size, 400_000)
    rate = 10 * size / MB / timed_prepare(large, folder / "bytes", "bytes")
    yield Result("tokenising bytes", rate, "MB/s", 50, at_least=True)


def timed_prepare(corpus: Path, store: Path, vocabulary: str) -> float:
    """Returns the seconds of a whole `prepare`: reading, worker start, tokenising, compression, checksums."""
    start = time.perf_counter()
    prepare(PrepareConfig(source="text_folder", store=str(store), input=str(corpus), vocabulary=vocabulary))
    return time.perf_counter() - start


def bench_memory(folder: Path, small: int, large: int) -> Iterator[Result]:
    peaks = []
    for size in (small, large):
        corpus = write_corpus(folder / f"memory{size}", size, 400_000)
        command = "import sys; from block_recurrent.config import PrepareConfig as C\n"
        command += "from block_recurrent.data.preparation.prepare import prepare\n"
        command += "if __name__ == '__main__':\n"
        command += "    prepare(C(source='text_folder', input=sys.argv[1], store=sys.argv[2]))\n"
        script = folder / "prepare_once.py"
        script.write_text(command)
        arguments = [sys.executable, str(script), str(corpus), str(folder / f"memory{size}.store")]
        peaks.append(peak_of(subprocess.Popen(arguments)) / MB)
        print(f"     prepare of {size / MB:,.0f} MB: peak {peaks[-1]:.0f} MB, all processes together", flush=True)
    yield Result("memory of prepare", peaks[1], "MB", 1000, at_least=False)
    yield Result(
        f"memory, {large // MB} MB against {small // MB} MB", peaks[1] - peaks[0], "MB more", 300, at_least=False
    )


def peak_of(process: subprocess.Popen[bytes]) -> float:
    """Returns the peak of the summed proportional set sizes of a process and its descendants, in bytes."""
    peak = 0.0
    while process.poll() is None:  # sampled: the system records no peak over several processes
        peak = max(peak, sum(map(proportional_set_size, family(process.pid))))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"prepare failed with {process.returncode}")
    return peak


def family(pid: int) -> list[int]:
    """Returns the ids of a process and its descendants."""
    found, parents = [pid], {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def proportional_set_size(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmarks the data pipeline at the scale of PG19.")
    parser.add_argument("--quick", action="store_true", help="use a tenth of the sizes")
    parser.add_argument("--output", help="JSON file to write", default="experiments/benchmarks/results/data.json")
    arguments = parser.parse_args()
    scale = 10 if arguments.quick else 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = itertools.chain(
            bench_schedule(),
            bench_reading(folder, 3_000_000_000 // scale, 300),
            bench_tokenising(folder, 100 * MB // scale),
            bench_memory(folder, 20 * MB, 2000 * MB // scale),
        )
        judge(results, Path(arguments.output), quick=arguments.quick)


if __name__ == "__main__":
    main()
