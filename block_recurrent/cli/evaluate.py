"""The commands `evaluate` and `compare`."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Annotated, Any

import typer
from etils import epath

from block_recurrent.cli import gin_files, interruption, several_processes
from block_recurrent.cli.compilation_cache import CompilationCache, use_compilation_cache
from block_recurrent.cli.options import CONSOLE, GinFiles, GinParams, ModelName, VocabularyFile
from block_recurrent.cli.several_processes import Coordinator, Fsdp, NumProcesses, ProcessId
from block_recurrent.config import DataConfig, EvaluationConfig
from block_recurrent.errors import InputError
from block_recurrent.files import resolve
from block_recurrent.progress import StageCallback

if TYPE_CHECKING:
    from block_recurrent.data.vocabulary import Vocabulary
    from block_recurrent.evaluation.evaluation import Evaluation
    from block_recurrent.evaluation.model_under_test import ModelUnderTest
    from block_recurrent.evaluation.token_losses import TokenLosses
    from block_recurrent.parallel.placement import Placement

Split = Annotated[str, typer.Option("--split", help="Split of the prepared store.")]
MaxDocuments = Annotated[
    int | None,
    typer.Option(
        "--max-documents",
        metavar="N",
        help="Quick evaluation: score at most N documents, drawn at random. All results are labelled as partial.",
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        metavar="N",
        help="Quick evaluation: score at most N tokens of documents drawn at random, labelled as partial.",
    ),
]


def evaluate(
    workdir: Annotated[
        str | None,
        typer.Option("--workdir", metavar="DIR", help="Folder of a run; its newest checkpoint is evaluated."),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="DIR", help="A checkpoint, RUN/checkpoints/STEP, or an exported model."),
    ] = None,
    model: ModelName = None,
    split: Split = "validation",
    gin_file: GinFiles = None,
    gin_param: GinParams = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Output folder. Default: RUN/evaluation/STORE/SPLIT/step_N."),
    ] = None,
    max_documents: MaxDocuments = None,
    max_tokens: MaxTokens = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Also write all token losses to tokens.parquet.")] = False,
    official: Annotated[
        bool,
        typer.Option(
            "--official", help="Also score with the official code's protocol: first segments and its masks; not exact."
        ),
    ] = False,
    ablations: Annotated[
        bool,
        typer.Option(
            "--ablations",
            help="Also measure the contribution of the states: reset, frozen, exchanged, not attended to.",
        ),
    ] = False,
    diagnostics: Annotated[
        bool, typer.Option("--diagnostics", help="Also record gates and states on the longest document.")
    ] = False,
    all_checkpoints: Annotated[
        bool, typer.Option("--all-checkpoints", help="Score every checkpoint of --workdir, and write a curve.")
    ] = False,
    fsdp: Fsdp = 1,
    coordinator: Coordinator = None,
    num_processes: NumProcesses = None,
    process_id: ProcessId = None,
    compilation_cache: CompilationCache = True,
) -> None:
    """Score a whole split exactly: every token except the first of a document, once.

    The data is that of the run unless --gin-file or --gin-param bind DataConfig; an exported model needs
    DataConfig.store. The same command resumes an interrupted evaluation. docs/evaluation.md explains every number.
    With several processes, one on each host, all of them run the same command; each scores its rows, and the first one
    prints and writes.

    Example: python -m block_recurrent evaluate --workdir runs/quickstart --split test --ablations
    """
    from block_recurrent.cli.console import line
    from block_recurrent.evaluation.evaluation import Evaluation
    from block_recurrent.evaluation.model_under_test import load_model_under_test
    from block_recurrent.parallel.placement import Placement
    from block_recurrent.progress import Stages

    if sum(given is not None for given in (workdir, checkpoint, model)) != 1:
        raise InputError("evaluate: give either --workdir or --checkpoint or --model")
    settings, bindings = _settings(gin_file, gin_param, max_documents, max_tokens)
    interruption.keeps(
        "finished results and the losses of finished steps are kept; the same command continues", resumable=True
    )
    if all_checkpoints and (workdir is None or out or tokens or official or ablations or diagnostics):
        raise InputError(
            "--all-checkpoints: goes with --workdir and --split, not with --checkpoint, --model, --out or another study"
        )
    if diagnostics and fsdp > 1:
        raise InputError(f"--diagnostics: runs on one device, so that it does not go with --fsdp {fsdp}")
    use_compilation_cache(compilation_cache)
    several_processes.join(coordinator, num_processes, process_id)
    placement = Placement(fsdp=fsdp)
    if workdir is not None and all_checkpoints:
        _evaluate_all(workdir, split, settings, bindings, placement)
        several_processes.leave()
        return
    with Stages(f"evaluate {split}", CONSOLE) as stages:
        with several_processes.loading(fsdp):
            tested = load_model_under_test(_folder(workdir or checkpoint, model, out), placement)
            evaluation = Evaluation(
                tested,
                _data(tested, bindings),
                split,
                settings,
                folder=None if out is None else resolve(out),
                progress=stages,
                placement=placement,
            )
        interruption.keeps(
            f"{evaluation.folder}: finished results and the losses of finished steps are kept; the same command "
            "continues",
            resumable=True,
        )
        with evaluation.scored() as losses:
            _write(evaluation, losses, tokens=tokens, official=official, ablations=ablations, diagnostics=diagnostics)
    line(CONSOLE, f"written to {evaluation.folder}")
    several_processes.leave()


def _write(
    evaluation: "Evaluation", losses: "TokenLosses", *, tokens: bool, official: bool, ablations: bool, diagnostics: bool
) -> None:
    """Writes and shows the scores and the chosen studies."""
    from block_recurrent.cli import show_evaluation

    show_evaluation.show_scores(CONSOLE, evaluation.write_scores(losses))
    if tokens:
        evaluation.write_tokens(losses)
    if official:
        show_evaluation.show_official(CONSOLE, evaluation.write_official())
    if ablations:
        show_evaluation.show_ablations(CONSOLE, evaluation.write_ablations(losses))
    if diagnostics:
        show_evaluation.show_diagnostics(CONSOLE, evaluation.write_diagnostics())


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="BASELINE MODEL...",
            help="Folders of runs, RUN/checkpoints/STEP, or exported models; the first is the baseline.",
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Output folder.")],
    split: Split = "validation",
    gin_file: GinFiles = None,
    gin_param: GinParams = None,
    max_documents: MaxDocuments = None,
    max_tokens: MaxTokens = None,
    vocabulary: VocabularyFile = None,
    fsdp: Fsdp = 1,
    coordinator: Coordinator = None,
    num_processes: NumProcesses = None,
    process_id: ProcessId = None,
    compilation_cache: CompilationCache = True,
) -> None:
    """Compare models on the same tokens: paired differences, and the most improved words in context.

    Every model is scored first; its token losses are written next to its scores and used again by later comparisons.
    The data is that of the baseline unless --gin-file or --gin-param bind DataConfig.

    Example: python -m block_recurrent compare runs/xl runs/recurrent --split test --out comparisons/recurrent
    """
    from block_recurrent.cli import show_evaluation
    from block_recurrent.cli.console import line
    from block_recurrent.evaluation.compare import write_comparison
    from block_recurrent.evaluation.evaluation import Evaluation
    from block_recurrent.evaluation.model_under_test import load_model_under_test
    from block_recurrent.parallel.placement import Placement
    from block_recurrent.parallel.processes import is_primary
    from block_recurrent.progress import Stages

    if len(models) < 2:
        raise InputError("compare: needs a baseline and at least one other model")
    settings, bindings = _settings(gin_file, gin_param, max_documents, max_tokens)
    interruption.keeps("the losses of finished steps are kept; the same command continues", resumable=True)
    use_compilation_cache(compilation_cache)
    several_processes.join(coordinator, num_processes, process_id)
    placement = Placement(fsdp=fsdp)
    with several_processes.loading(fsdp):
        tested = [load_model_under_test(resolve(path), placement) for path in models]
    data = _data(tested[0], bindings)
    evaluations = []
    with Stages(f"evaluate {split}", CONSOLE) as stages:
        for model in tested:
            own = model.data or _with_shape(data, model)
            shape = dataclasses.replace(own, store=data.store) if "segment_length" not in bindings else data
            progress = functools.partial(_named, stages, model.subject.name)
            evaluations.append(Evaluation(model, shape, split, settings, progress=progress, placement=placement))
        own = _vocabulary(evaluations, vocabulary)
        scored = []
        for evaluation in evaluations:  # all models have been checked before the first pass starts
            with evaluation.scored() as losses:
                evaluation.write_scores(losses)
                evaluation.write_tokens(losses)
            if is_primary():
                scored.append((evaluation.model.subject, evaluation.read_tokens()))
    if not is_primary():
        several_processes.leave()
        return
    first = evaluations[0]
    header = {name: value for name, value in first.header.items() if name != "subject"}
    comparison = write_comparison(header, first.store, scored, resolve(out), own)
    show_evaluation.show_comparison(CONSOLE, comparison)
    line(CONSOLE, f"written to {resolve(out)}")
    several_processes.leave()


def _vocabulary(evaluations: "list[Evaluation]", given: str | None) -> "Vocabulary":
    from block_recurrent.data.recorded_vocabulary import load_recorded_vocabulary

    store = evaluations[0].store
    folders = [store.path, *(evaluation.model.home for evaluation in evaluations)]
    return load_recorded_vocabulary(store.vocabulary.spec, store.vocabulary.fingerprint, given=given, folders=folders)


def _named(progress: StageCallback, name: str, stage: str, done: int, total: int) -> None:
    progress(f"{name} {stage}", done, total)


def _settings(
    gin_file: list[str] | None, gin_param: list[str] | None, max_documents: int | None, max_tokens: int | None
) -> tuple[EvaluationConfig, dict[str, Any]]:
    """Returns the settings of the studies, and the fields of DataConfig that the files bind."""
    gin_files.parse(gin_file, gin_param)
    settings = gin_files.configured(EvaluationConfig)
    for name, limit in (("max_documents", max_documents), ("max_tokens", max_tokens)):
        if limit is not None:
            settings = dataclasses.replace(settings, **{name: limit})
    return settings, gin_files.bindings(DataConfig)


def _data(model: "ModelUnderTest", bindings: dict[str, Any]) -> DataConfig:
    """Returns the data: the run's own with the bound fields replaced; for an export its batch shape and the files'."""
    if model.data is None:
        return gin_files.configured(DataConfig, None if model.shape is None else dataclasses.asdict(model.shape))
    return dataclasses.replace(model.data, **bindings)


def _with_shape(data: DataConfig, model: "ModelUnderTest") -> DataConfig:
    """Returns the data with the batch shape of an export's training, if the export records it."""
    return data if model.shape is None else dataclasses.replace(data, **dataclasses.asdict(model.shape))


def _folder(path: str | None, model: str | None, out: str | None) -> epath.Path:
    """Returns the folder of a run, checkpoint or export."""
    from block_recurrent.interop.model_folder import is_read_only, model_folder

    if model is None:
        return resolve(path or "")
    folder = model_folder(model)
    if is_read_only(model, folder) and out is None:
        raise InputError(
            f"--model {model}: results are not written into the installed package or the hub's cache; name a folder "
            "with --out"
        )
    return folder


def _evaluate_all(
    workdir: str, split: str, settings: EvaluationConfig, bindings: dict[str, Any], placement: "Placement"
) -> None:
    from block_recurrent.cli import show_evaluation
    from block_recurrent.cli.console import line
    from block_recurrent.evaluation.curve import evaluate_checkpoints
    from block_recurrent.progress import Stages

    with Stages(f"evaluate {split}", CONSOLE) as stages:
        folder, curve = evaluate_checkpoints(
            resolve(workdir), bindings, split, settings, progress=stages, placement=placement
        )
    show_evaluation.show_curve(CONSOLE, curve)
    line(CONSOLE, f"written to {folder}")
