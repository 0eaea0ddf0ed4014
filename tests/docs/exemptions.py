"""The one list of documented commands that `make docs-test` does not run as they are written, each with its reason.

A command is named in one line, without comments. `instead` is run in its place: a short form, or a local replacement of
a download, a bucket or a TPU. Without `instead` nothing is run. A command that is on no page any more fails the tests.
"""

import dataclasses

_CORPORA = "python tests/docs/small_corpora.py"
_LONG = "takes over two minutes"
_DOWNLOAD = "a download"
_BUCKET = "a bucket on Google Cloud"
_TPU = "needs libtpu; make test-tpu-compile compiles"
_HUB = "needs an account of the Hugging Face hub; tests/interop/test_hub.py uses a folder in its place"
_CLOUD = "needs an account on Google Cloud"
_BENCH = "needs an idle machine, and takes minutes"
_PG19_MODEL = "needs a model of PG19: the quickstart's takes its place"


@dataclasses.dataclass(frozen=True)
class Exemption:
    """A command that is not run as written.

    Attributes:
        command: the command in one line, or one line of a Python snippet.
        reason: why it is not run as written.
        instead: what is run; None for nothing.
    """

    command: str
    reason: str
    instead: str | None = None


# What the reader of a page has by then, and the bare machine does not: page -> (commands, reason).
SETUP = {
    "docs/extending.md": (
        'python -c "from pathlib import Path; from tests.support.extensions import write_examples; '
        'write_examples(Path())"',
        "the reader's files",
    ),
    "docs/evaluation.md": (
        "cp -r runs/quickstart runs/pg19 && cp -r runs/mine runs/xl && "
        "python -m block_recurrent export --workdir runs/quickstart --out exported_models/arxiv",
        _PG19_MODEL,
    ),
}
_BR = "python -m block_recurrent"
_QUICK = "--max-documents 3 --gin-param EvaluationConfig.official_segments=4"
_QUICKSTART_DATA = "--gin-file gin/data/python_stdlib.gin --gin-file gin/batches/512x4.gin"

EXEMPTIONS = (
    # README.md
    Exemption("make quickstart", _LONG, "make quickstart STEPS=30 RUN=runs/quickstart"),
    Exemption("make test", "takes ten minutes; CI runs it"),
    Exemption(
        f"{_BR} train --gin-file gin/runs/quickstart.gin --workdir runs/mine --gin-param TrainConfig.num_steps=200",
        _LONG,
        f"{_BR} train --gin-file gin/runs/quickstart.gin --workdir runs/mine --gin-param TrainConfig.num_steps=20",
    ),
    Exemption(
        f"{_BR} evaluate --workdir runs/quickstart --ablations --diagnostics",
        _LONG,
        f"{_BR} evaluate --workdir runs/quickstart --ablations --diagnostics {_QUICK}",
    ),
    # docs/data.md
    Exemption("BUCKET=gs://my-bucket", _BUCKET, "BUCKET=$PWD/bucket"),
    Exemption(
        "python -m experiments.laptop.python_packages",
        _DOWNLOAD,
        f"{_CORPORA} packages prepared/python_packages_source",
    ),
    Exemption("gcloud storage rsync -r gs://deepmind-gutenberg data/pg19", _DOWNLOAD, f"{_CORPORA} pg19 data/pg19"),
    Exemption(
        "gcloud storage cp gs://t5-data/vocabs/cc_all.32000/sentencepiece.model vocabularies/t5.model",
        _DOWNLOAD,
        f"{_BR} train-vocab vocabularies/t5.model --size 400 --gin-file gin/data/pg19_bytes.gin",
    ),
    Exemption(
        "gcloud storage cp -r prepared/pg19_bytes $BUCKET/prepared/pg19_bytes",
        _BUCKET,
        "mkdir -p $BUCKET/prepared && cp -r prepared/pg19_bytes $BUCKET/prepared/pg19_bytes",
    ),
    Exemption(
        f"{_BR} train --gin-file gin/data/pg19_bytes.gin --gin-file $MODEL "
        "--gin-param \"DataConfig.store='$BUCKET/prepared/pg19_bytes'\" "
        "--gin-param DataConfig.segment_length=4096 --gin-param DataConfig.batch_size=32 "
        "--workdir $BUCKET/runs/pg19_bytes",
        _LONG,
        f"{_BR} train --gin-file gin/data/pg19_bytes.gin --gin-file $MODEL "
        "--gin-param \"DataConfig.store='$BUCKET/prepared/pg19_bytes'\" "
        "--gin-param DataConfig.segment_length=512 --gin-param DataConfig.batch_size=2 "
        "--gin-param TrainConfig.num_steps=2 --workdir $BUCKET/runs/pg19_bytes",
    ),
    Exemption("pip install -e '.[data]'", "a download of 2 GB; make test installs it"),
    Exemption(
        f"{_BR} prepare --gin-file gin/data/pg19_bytes.gin "
        "--gin-param \"PrepareConfig.source='pg19_tfds'\" --gin-param \"PrepareConfig.input='~/tensorflow_datasets'\"",
        "needs the extra `data` and a download of 11 GB",
    ),
    Exemption(
        "aws s3 sync --request-payer requester s3://arxiv/src/ data/arxiv --exclude '*' "
        "--include 'arXiv_src_2401_*.tar'",
        _DOWNLOAD,
        f"{_CORPORA} arxiv data/arxiv",
    ),
    Exemption("pip install -e '.[beam,gcs]'", "a download; make test-beam installs it"),
    Exemption(
        "gcloud storage cp -r data/arxiv $BUCKET/data/arxiv",
        _BUCKET,
        "mkdir -p $BUCKET/data && cp -r data/arxiv $BUCKET/data",
    ),
    Exemption(
        f"{_BR} prepare --gin-file gin/data/arxiv.gin $ON_BUCKET --runner DataflowRunner "
        "--project=my-project --region=us-central1 --temp_location=$BUCKET/tmp --setup_file=./setup.py",
        "needs Dataflow; make test-beam runs the pipeline",
    ),
    Exemption(
        f"{_BR} prepare --gin-file gin/data/arxiv.gin $ON_BUCKET --finish",
        "needs the shards of Dataflow; make test-beam",
    ),
    Exemption(
        'while read repository; do git clone --depth 1 "https://github.com/$repository" "data/github/$repository" '
        "done < repositories.txt",
        _DOWNLOAD,
        f"{_CORPORA} github data/github",
    ),
    Exemption(
        f"{_BR} prepare --gin-file gin/data/text_folder.gin --gin-param \"PrepareConfig.input='/my/texts'\"",
        "the reader's texts",
        f"{_CORPORA} texts ~/my/texts && "
        f"{_BR} prepare --gin-file gin/data/text_folder.gin --gin-param \"PrepareConfig.input='~/my/texts'\"",
    ),
    Exemption(
        f"{_BR} prepare --gin-file gin/data/jsonl.gin --gin-param \"PrepareConfig.input='/my/file.jsonl'\" "
        "--gin-param \"PrepareConfig.name_field='id'\"",
        "the reader's texts",
        f"{_BR} prepare --gin-file gin/data/jsonl.gin --gin-param \"PrepareConfig.input='~/my/texts.jsonl'\" "
        "--gin-param \"PrepareConfig.name_field='id'\"",
    ),
    Exemption(
        f"{_BR} train-vocab vocabularies/own.model --size 32000 --gin-file gin/data/text_folder.gin",
        "needs a large corpus",
        f"{_BR} train-vocab vocabularies/own.model --size 400 --gin-file gin/data/text_folder.gin "
        "--gin-param \"PrepareConfig.input='~/my/texts'\"",
    ),
    Exemption(
        f"{_BR} prepare --gin-file gin/data/pg19_bytes.gin --gin-param \"PrepareConfig.input='/my/books'\" "
        "--gin-param \"PrepareConfig.store='prepared/my_books'\" --gin-param \"PrepareConfig.corpus='my books'\"",
        "the reader's books",
        f"{_BR} prepare --gin-file gin/data/pg19_bytes.gin "
        "--gin-param \"PrepareConfig.store='prepared/my_books'\" --gin-param \"PrepareConfig.corpus='my books'\"",
    ),
    # docs/extending.md
    Exemption(
        f"{_BR} train --gin-file scalar.gin --workdir runs/scalar",
        _LONG,
        f"{_BR} train --gin-file scalar.gin --workdir runs/scalar --gin-param TrainConfig.num_steps=10",
    ),
    Exemption(
        f"{_BR} evaluate --import scalar_gate --workdir runs/scalar --ablations --diagnostics",
        _LONG,
        f"{_BR} evaluate --import scalar_gate --workdir runs/scalar --ablations --diagnostics {_QUICK}",
    ),
    Exemption(
        f"{_BR} prepare --import subtitles --gin-param \"PrepareConfig.source='subtitles'\" "
        "--gin-param \"PrepareConfig.input='/my/films'\" --gin-param \"PrepareConfig.store='prepared/films'\"",
        "the reader's films; tests/cli/test_extending.py prepares some",
    ),
    Exemption(
        f"{_BR} train --gin-file gin/runs/quickstart.gin --workdir runs/fixed",
        _LONG,
        f"{_BR} train --gin-file gin/runs/quickstart.gin --workdir runs/fixed --gin-param TrainConfig.num_steps=10",
    ),
    Exemption(
        f"{_BR} compare --import scalar_gate runs/fixed runs/scalar --split test --out runs/scalar_against_fixed",
        _LONG,
        f"{_BR} compare --import scalar_gate runs/fixed runs/scalar --split test --out runs/scalar_against_fixed "
        "--max-documents 3",
    ),
    # docs/gpu.md
    Exemption("make check-card", "needs a GPU"),
    Exemption("make bench-table", "needs a GPU"),
    Exemption(
        f"{_BR} train --gin-file gin/table1/rec_fixed_skip.gin --gin-file gin/data/pg19_tokens.gin "
        "--gin-file gin/recipes/cosine.gin --gin-file gin/hardware/gpu.gin --workdir runs/rec_fixed_skip",
        "days on a GPU",
    ),
    # docs/evaluation.md
    Exemption(
        f"{_BR} evaluate --checkpoint runs/pg19/checkpoints/400000 --gin-file gin/runs/evaluate_pg19.gin --split test",
        _PG19_MODEL,
        f"{_BR} evaluate --checkpoint runs/pg19/checkpoints/30 {_QUICKSTART_DATA} --split test {_QUICK}",
    ),
    Exemption(
        f"{_BR} evaluate --checkpoint exported/arxiv --gin-file gin/runs/evaluate_arxiv.gin --split test",
        _PG19_MODEL,
        f"{_BR} evaluate --checkpoint exported_models/arxiv {_QUICKSTART_DATA} --split test {_QUICK}",
    ),
    Exemption(
        f"{_BR} evaluate --model exported/arxiv --gin-file gin/runs/evaluate_arxiv.gin --split test",
        _PG19_MODEL,
        f"{_BR} evaluate --model exported_models/arxiv {_QUICKSTART_DATA} --split test {_QUICK}",
    ),
    Exemption(
        f"{_BR} evaluate --workdir runs/pg19 --split test --tokens --official --ablations --diagnostics",
        _LONG,
        f"{_BR} evaluate --workdir runs/pg19 --split test --tokens --official --ablations --diagnostics {_QUICK}",
    ),
    Exemption("make quickstart-report", _LONG, "make quickstart-report STEPS=10 RUN=runs/quickstart"),
    # docs/experiments.md
    Exemption(
        f"{_BR} train --gin-file gin/table1/rec_fixed_skip.gin --gin-file gin/data/pg19_tokens.gin "
        "--gin-file gin/recipes/inverse_square_root.gin --workdir runs/table1/rec_fixed_skip/pg19_tokens/seed_0",
        "days on a TPU slice",
    ),
    Exemption(
        "python -m experiments.tables.run_table --table table1 --data pg19_tokens --rows fixed:skip --recipe cosine",
        "days on a TPU slice",
        "python -m experiments.tables.run_table --table table1 --data pg19_tokens --rows fixed:skip --recipe cosine "
        "--dry-run",
    ),
    Exemption(
        f"{_BR} train --gin-file gin/table1/memorizing_32k.gin --gin-file gin/data/pg19_tokens.gin "
        "--gin-file gin/recipes/inverse_square_root.gin --workdir runs/memorizing_32k",
        "needs a TPU: 16 GB of memory; the laptop row below it trains",
    ),
    Exemption(
        f"{_BR} train --gin-file gin/laptop/memorizing.gin --workdir runs/memorizing",
        "hours, and the corpus of make laptop",
        f"{_BR} train --gin-file gin/laptop/memorizing.gin --workdir runs/memorizing "
        "--gin-param \"DataConfig.store='prepared/python_stdlib'\" --gin-param TrainConfig.num_steps=3 "
        "--gin-param TrainConfig.eval_steps=3",
    ),
    Exemption("make laptop", "a day, and a download"),
    Exemption("make cost-by-length", "takes 30 minutes"),
    # docs/generation.md
    Exemption(
        f"{_BR} evaluate --workdir runs/quickstart --split test --ablations",
        _LONG,
        f"{_BR} evaluate --workdir runs/quickstart --split test --ablations {_QUICK}",
    ),
    Exemption(
        f"{_BR} export --workdir runs/laptop/rec_fixed_skip/python_packages/seed_2 "
        "--out block_recurrent/sample_model/sample --card experiments/laptop/sample_model.toml",
        "needs a run of make laptop",
        f"rm -r block_recurrent/sample_model/sample && {_BR} export --workdir runs/quickstart "
        "--out block_recurrent/sample_model/sample --card experiments/laptop/sample_model.toml",
    ),
    Exemption(f"{_BR} export --workdir runs/quickstart --out exported --card card.toml --push-to me/quickstart", _HUB),
    Exemption(f'{_BR} generate --model hf://me/quickstart --prompt "def main("', _HUB),
    Exemption(f"{_BR} evaluate --model hf://me/quickstart@v1 --gin-file gin/data/python_stdlib.gin --out scores", _HUB),
    # docs/performance.md
    Exemption("make bench", _BENCH),
    Exemption("make bench-compare", "needs the results of make bench"),
    Exemption("make bench-peers", _BENCH),
    Exemption("make bench-start", _BENCH),
    Exemption(
        "python -m experiments.benchmarks.profile train_step medium",
        _LONG,
        "python -m experiments.benchmarks.profile train_step small",
    ),
    Exemption("python -m experiments.benchmarks.profile eval_step medium", _LONG),
    Exemption("python -m experiments.benchmarks.profile prefill large", _LONG),
    # docs/recurrence.md
    Exemption(
        f"{_BR} train --gin-file gin/runs/quickstart.gin --workdir runs/states "
        "--gin-param TrainConfig.state_report_every=400",
        _LONG,
        f"{_BR} train --gin-file gin/runs/quickstart.gin --workdir runs/states "
        "--gin-param TrainConfig.state_report_every=10 --gin-param TrainConfig.num_steps=10",
    ),
    Exemption(
        'python -c "import tests.conftest; from tests.training.test_recall import *; print(accuracy_after_training( '
        'BEYOND_SEGMENT, recurrent=True, steps=1200, gate_init_bias=None))"',
        "needs the extra `dev`; tests/training/test_recall.py calls it",
    ),
    # docs/tpu.md
    Exemption("pip install -c requirements.lock -e '.[tpu,gcs]'", _TPU),
    Exemption("pip install -c requirements.lock -e '.[gcs]'", "a download; make test installs it"),
    Exemption("gcloud auth application-default login", _CLOUD),
    Exemption("gcloud iam service-accounts create trainer", _CLOUD),
    Exemption(
        "gcloud storage buckets add-iam-policy-binding gs://my-bucket --role=roles/storage.objectUser "
        "--member=serviceAccount:trainer@my-project.iam.gserviceaccount.com",
        _CLOUD,
    ),
    Exemption("python -m experiments.tpu.bench_attention", "needs a TPU; a test runs it with --interpret"),
    Exemption(
        f"{_BR} compile --gin-file gin/table1/rec_fixed_skip.gin --gin-file gin/data/pg19_tokens.gin "
        "--gin-file gin/recipes/cosine.gin --gin-file gin/hardware/tpu.gin --topology v4:2x2x4 --step train "
        "--step evaluate",
        _TPU,
    ),
    Exemption("gcloud projects create my-project && gcloud config set project my-project", _CLOUD),
    Exemption("gcloud services enable tpu.googleapis.com storage.googleapis.com", _CLOUD),
    Exemption("gcloud storage buckets create gs://my-bucket --location=us-central2", _CLOUD),
    Exemption(
        f"{_BR} prepare --gin-file gin/data/pg19_tokens.gin "
        "--gin-param \"STORE='gs://my-bucket/prepared/pg19_tokens'\"",
        _BUCKET,
        f"{_BR} prepare --gin-file gin/data/pg19_tokens.gin --gin-param \"STORE='bucket/prepared/pg19_tokens'\"",
    ),
    Exemption(
        "export ZONE=us-central2-b TYPE=v4-32 NAME=table1 SPOT=1 "
        "SERVICE_ACCOUNT=trainer@my-project.iam.gserviceaccount.com",
        "a dry run, since there is no TPU",
        "export ZONE=us-central2-b TYPE=v4-32 NAME=table1 SPOT=1 DRY_RUN=1 "
        "SERVICE_ACCOUNT=trainer@my-project.iam.gserviceaccount.com",
    ),
    # docs/training.md
    Exemption(
        f"{_BR} train --gin-file gin/runs/quickstart.gin --workdir runs/whole",
        _LONG,
        f"{_BR} train --gin-file gin/runs/quickstart.gin --workdir runs/whole --gin-param TrainConfig.num_steps=10",
    ),
    Exemption(
        f"WANDB_MODE=offline {_BR} train --gin-file gin/runs/quickstart.gin --workdir runs/tracked --tracker wandb",
        _LONG,
        "pip install --quiet -c requirements.lock wandb && "
        f"WANDB_MODE=offline {_BR} train --gin-file gin/runs/quickstart.gin --workdir runs/tracked --tracker wandb "
        "--gin-param TrainConfig.num_steps=5",
    ),
    Exemption(
        "--gin-param TrainConfig.accumulate_steps=4",
        "the quickstart has 16 rows: four for each of 4 devices",
        f"{_BR} describe --devices 4 --gin-file gin/runs/quickstart.gin --gin-param TrainConfig.accumulate_steps=4",
    ),
    Exemption(
        'train(run, epath.Path("/abs/runs/mine"), Console(), actions=[PrintSkipped()]) # run: a RunConfig',
        "`run` is the reader's",
        "from block_recurrent.training.run_record import read_run\n"
        'run = read_run(epath.Path("runs/quickstart").resolve())[0]\n'
        'train(run, epath.Path("runs/quickstart").resolve(), Console(), actions=[PrintSkipped()])',
    ),
    Exemption(
        f"{_BR} train ... --coordinator HOST:1234 --num-processes 2 --process-id 0",
        "needs two processes; tests/cli/test_launch.py starts them",
    ),
    # gin/README.md
    Exemption(
        f"{_BR} train --gin-file gin/runs/quickstart.gin --workdir runs/quickstart",
        _LONG,
        f"{_BR} train --gin-file gin/runs/quickstart.gin --workdir runs/quickstart "
        "--gin-param TrainConfig.num_steps=30",
    ),
    Exemption(
        f"{_BR} train --gin-file gin/table1/rec_fixed_skip.gin --gin-file gin/data/pg19_tokens.gin "
        "--gin-file gin/recipes/inverse_square_root.gin --workdir runs/rec_fixed_skip",
        "days on a TPU slice",
    ),
    Exemption(
        f"{_BR} prepare --gin-file mine.gin",
        "the reader's texts",
        f"{_BR} prepare --gin-file mine.gin --gin-param \"PrepareConfig.input='~/my/texts'\"",
    ),
    Exemption(
        f"{_BR} train --gin-file mine.gin --workdir runs/my_texts",
        _LONG,
        f"{_BR} train --gin-file mine.gin --workdir runs/my_texts --gin-param TrainConfig.num_steps=5",
    ),
    # experiments/laptop/README.md
    Exemption("python -m experiments.laptop.step_times", _BENCH),
    Exemption(
        "python -m experiments.tables.run_table --table laptop",
        "a day",
        "python -m experiments.tables.run_table --table laptop --list",
    ),
)
