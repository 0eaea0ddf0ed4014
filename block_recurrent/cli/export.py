"""The command `export`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from etils import epath

from block_recurrent.cli.options import CONSOLE, STDERR, VocabularyFile, Workdir
from block_recurrent.data.recorded_vocabulary import VOCABULARY_FILE
from block_recurrent.errors import InputError
from block_recurrent.files import is_remote, resolve, whole_folder

if TYPE_CHECKING:
    from block_recurrent.data.vocabulary import Vocabulary
    from block_recurrent.interop.hub import HubModel
    from block_recurrent.training.saved_run import SavedRun


def export(
    workdir: Workdir,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder to create, local or gs://.")],
    functions: Annotated[
        bool,
        typer.Option(
            "--functions", help="Also export prefill and decode step as StableHLO (CPU, TPU, CUDA), for serving."
        ),
    ] = False,
    card: Annotated[
        str | None,
        typer.Option(
            "--card",
            metavar="FILE",
            help="TOML file with title, summary, license, languages, training_text, text_licences and limits for the "
            "model card.",
        ),
    ] = None,
    push_to: Annotated[
        str | None,
        typer.Option(
            "--push-to",
            metavar="OWNER/NAME",
            help="Then upload the folder to the Hugging Face hub (extra `hub`); a new repository is private.",
        ),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push-to: everyone sees a new repository.")] = False,
    vocabulary: VocabularyFile = None,
) -> None:
    """Write a run's parameters as safetensors, its configuration as JSON, its vocabulary's file and a model card.

    The folder is complete: `generate`, `score`, `evaluate` and `report` read it with --model. The card, README.md, has
    the scores that `evaluate` and training recorded for this checkpoint; --card gives licences and limits.

    With --functions, also write prefill.stablehlo and decode.stablehlo (jax.export), which run without this package;
    functions.json documents their arguments.

    With --push-to, the folder also becomes a repository of the Hugging Face hub, for --model hf://OWNER/NAME.

    The newest checkpoint is exported; pass --workdir WORKDIR/checkpoints/STEP for another one.

    Example: python -m block_recurrent export --workdir runs/quickstart --out exported
    """
    from block_recurrent.cli import console
    from block_recurrent.evaluation.model_card import CARD_FILE, CardText, read_card_text, write_card
    from block_recurrent.generation.stablehlo import MANIFEST_FILE
    from block_recurrent.interop import hub
    from block_recurrent.interop.safetensors import CONFIG_FILE, PARAMS_FILE
    from block_recurrent.training.saved_run import SavedRun

    folder = resolve(out)
    model = None if push_to is None else _hub_model(push_to, folder)
    _refuse_another_export(folder, (PARAMS_FILE, CONFIG_FILE, MANIFEST_FILE))
    text = CardText() if card is None else read_card_text(resolve(card))
    saved = SavedRun.load(resolve(workdir))
    kept = _vocabulary(saved, vocabulary)
    try:
        with whole_folder(folder, last=(CONFIG_FILE, MANIFEST_FILE)) as partial:
            partial.mkdir(parents=True, exist_ok=True)
            scores = write_card(partial, saved, text, folder.name)
            saved.export(partial, kept)
            if functions:
                _export_functions(saved, partial)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror or error}") from None
    console.line(CONSOLE, f"step {saved.step}: {PARAMS_FILE}, {CONFIG_FILE} and {CARD_FILE} written to {out}")
    if not scores:
        console.line(
            STDERR, f"warning: {CARD_FILE} has no scores: evaluate this checkpoint first, then export it again"
        )
    if functions:
        console.line(CONSOLE, f"prefill.stablehlo, decode.stablehlo and functions.json written to {out}")
    if model is not None:
        address = hub.upload(folder, model, private=not public)
        console.line(CONSOLE, f"uploaded: {address}; use it with --model {hub.PREFIX}{model.name}")


def _hub_model(push_to: str, folder: epath.Path) -> "HubModel":
    """Returns the repository of --push-to, and checks that the upload is possible."""
    from block_recurrent.interop import hub

    if is_remote(folder):
        raise InputError(f"--push-to {push_to}: uploads a local folder, not --out {folder}")
    model = hub.HubModel.parse(push_to, "--push-to")
    hub.check_upload(model)
    return model


def _refuse_another_export(folder: epath.Path, names: Sequence[str]) -> None:
    from block_recurrent.evaluation.model_card import CARD_FILE, METRICS_FILE, RESULTS_FOLDER

    for name in (*names, VOCABULARY_FILE, CARD_FILE, METRICS_FILE, RESULTS_FOLDER):
        if (folder / name).exists():
            raise InputError(f"--out {folder}: {name} is there already; choose another folder")


def _vocabulary(saved: "SavedRun", given: str | None) -> "Vocabulary | None":
    from block_recurrent.cli import console

    try:
        return saved.vocabulary(given)
    except InputError as error:
        if given is not None:
            raise
        console.line(STDERR, f"warning: the export has no {VOCABULARY_FILE}: {error}")
        return None


def _export_functions(saved: "SavedRun", folder: epath.Path) -> None:
    from block_recurrent.generation.stablehlo import export_functions

    export_functions(
        folder,
        config=saved.config.model,
        segment_length=saved.config.data.segment_length,
        vocabulary_size=saved.data["stores"][0]["vocabulary"]["size"],
    )
