"""The command `generate`."""

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from block_recurrent.cli import interruption, several_processes
from block_recurrent.cli.batch import Batch
from block_recurrent.cli.compilation_cache import CompilationCache, use_compilation_cache
from block_recurrent.cli.options import (
    CONSOLE,
    STDERR,
    ModelName,
    RunFolder,
    SegmentLength,
    VocabularyFile,
    check_one_model,
    load_generator,
)
from block_recurrent.cli.several_processes import Coordinator, Fsdp, NumProcesses, ProcessId
from block_recurrent.cli.text_io import STANDARD, gather_texts, json_lines, text_of_argument
from block_recurrent.errors import InputError
from block_recurrent.files import local_path

if TYPE_CHECKING:
    from block_recurrent.generation.completion import Continuation
    from block_recurrent.generation.decode_state import DecodeState
    from block_recurrent.generation.generator import Generator


def generate(
    workdir: RunFolder = None,
    model: ModelName = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="TEXT", help="Text to continue. Repeatable.")
    ] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option(
            "--prompt-file",
            metavar="FILE",
            parser=local_path,
            help="File with the text to continue (UTF-8); - is standard input.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            parser=local_path,
            help="Many prompts: JSON lines, strings or objects with a string in `prompt`.",
        ),
    ] = None,
    num_tokens: Annotated[
        int,
        typer.Option("--num-tokens", min=0, help="Tokens to sample; 0 only processes the prompt, for --save-state."),
    ] = 256,
    num_samples: Annotated[int, typer.Option("--num-samples", min=1, help="Continuations of each prompt.")] = 1,
    temperature: Annotated[float, typer.Option(help="Divides the logits; 0 takes the most probable token.")] = 1.0,
    greedy: Annotated[bool, typer.Option("--greedy", help="Same as --temperature 0.")] = False,
    top_k: Annotated[int, typer.Option("--top-k", help="Keep the k most probable tokens; 0 keeps all.")] = 0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Keep the most probable tokens up to this total probability.")
    ] = 1.0,
    min_p: Annotated[
        float, typer.Option("--min-p", help="Keep tokens with at least this fraction of the highest probability.")
    ] = 0.0,
    repetition_penalty: Annotated[
        float, typer.Option("--repetition-penalty", help="Above 1, makes the tokens of the last window less probable.")
    ] = 1.0,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", metavar="TEXT", help="Stop where this text appears. Repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    save_state: Annotated[
        Path | None,
        typer.Option(
            "--save-state",
            metavar="FILE",
            parser=local_path,
            help="Write the state after prompt and continuation, to continue later.",
        ),
    ] = None,
    load_state: Annotated[
        Path | None,
        typer.Option(
            "--load-state",
            metavar="FILE",
            parser=local_path,
            help="Continue from a saved state; a prompt is then optional.",
        ),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            "--jsonl", metavar="FILE", parser=local_path, help="Write JSON lines instead of text; - is standard output."
        ),
    ] = None,
    box: Annotated[
        bool, typer.Option("--box", help="Show one text in a box, when it is complete, with the tokens per second.")
    ] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows computed together.")] = 8,
    segment_length: SegmentLength = None,
    vocabulary: VocabularyFile = None,
    fsdp: Fsdp = 1,
    coordinator: Coordinator = None,
    num_processes: NumProcesses = None,
    process_id: ProcessId = None,
    compilation_cache: CompilationCache = True,
) -> None:
    """Continue texts, carrying the recurrent state through prompt and continuation.

    Without --prompt, --prompt-file, --prompts or --load-state the prompt is read from standard input. The prompt may be
    of any length; time and memory per token do not depend on it. Several processes run the same command.

    Example: python -m block_recurrent generate --workdir runs/quickstart --prompt-file setup.py --top-p 0.95

    Without a run of your own: python -m block_recurrent generate --model sample --prompt "def main():"

    Process a text once and continue it often: generate --workdir W --prompt-file BOOK --num-tokens 0 --save-state
    BOOK.state, then generate --workdir W --load-state BOOK.state --prompt "And then" --seed 1
    """
    from block_recurrent.generation.sampling import Sampling
    from block_recurrent.generation.stop_strings import StopStrings

    check_one_model("generate", workdir, model)
    sampling = Sampling(
        temperature=0.0 if greedy else temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
    )
    if not -(2**63) <= seed < 2**63:
        raise InputError(f"--seed {seed}: must be an integer of 64 bits")
    several_processes.join(coordinator, num_processes, process_id)
    texts = _texts(prompt, prompt_file, prompts, load_state)
    jsonl = several_processes.output_of_the_first(jsonl)
    stop = [text_of_argument(string) for string in stop or ()]
    StopStrings(stop)  # refuses an empty string before the model is loaded
    one = len(texts) == num_samples == 1
    if box and (not one or jsonl is not None):
        raise InputError("--box: shows one text; it does not go with several prompts or samples, or with --jsonl")
    if save_state is not None and not one:
        raise InputError(
            f"--save-state: keeps one text, but there are {len(texts)} prompts and {num_samples} samples of each"
        )
    if not num_tokens and save_state is None:
        raise InputError("--num-tokens 0: samples nothing; it needs --save-state")
    use_compilation_cache(compilation_cache)
    placement = several_processes.placement_if_needed(fsdp)
    with several_processes.loading(fsdp):
        settings = {"batch_size": batch_size, "vocabulary": vocabulary, "segment_length": segment_length}
        generator = load_generator(workdir, model, placement=placement, **settings)
    if save_state is not None:
        generator.check_room_for_state(save_state)
    state = None if load_state is None else generator.load_state(load_state)
    arguments: Any = {"num_tokens": num_tokens, "sampling": sampling, "seed": seed, "stop": stop, "state": state}

    def check(text: str) -> None:
        if num_tokens:
            generator.generate([text], **arguments)  # checks at once, and computes when it is iterated over

    batch = Batch("prompt", texts, check, alone=prompts is None and len(texts) == 1)
    _warn_of_unknown_tokens(generator, batch)
    if one and batch.answerable:
        _continue_one(generator, batch.answerable[0], arguments, jsonl, save_state, box=box)
    else:
        _continue_many(generator, batch, arguments | {"num_samples": num_samples}, jsonl)
    several_processes.leave()
    batch.end()


def _texts(
    prompt: list[str] | None, prompt_file: Path | None, prompts: Path | None, load_state: Path | None
) -> list[str | InputError]:
    if prompt is None and prompt_file is None and prompts is None and load_state is None:
        prompt_file = STANDARD
    texts = several_processes.read_texts(
        lambda: gather_texts(prompt, prompt_file, prompts, "prompt"), prompt_file, prompts
    )
    if load_state is not None and not texts:
        return [""]
    if not texts:
        raise InputError(f"--prompts {prompts}: contains no prompts")
    return texts


def _continue_one(
    generator: "Generator",
    prompt: str,
    arguments: dict[str, Any],
    jsonl: Path | None,
    save_state: Path | None,
    *,
    box: bool,
) -> None:
    from block_recurrent.progress import Progress

    saved = "" if save_state is None else f"; {save_state} was not written"
    kept = "only the printed text is kept" if jsonl is None and not box else "nothing is kept"
    interruption.keeps(kept + saved)
    if arguments["num_tokens"]:
        state = _sample_one(generator, prompt, arguments, jsonl, box=box)
    else:
        with Progress("prefill", 0, console=STDERR) as progress:
            state = generator.prefill([prompt], state=arguments["state"], progress=progress)
    if save_state is not None:
        _save(generator, save_state, state)


def _sample_one(
    generator: "Generator", prompt: str, arguments: dict[str, Any], jsonl: Path | None, *, box: bool
) -> "DecodeState":
    from block_recurrent.cli import console
    from block_recurrent.progress import Progress

    with contextlib.nullcontext(None) if jsonl is None else json_lines(jsonl) as write:
        with Progress("prefill", 0, console=STDERR) as progress:
            stream = generator.stream(prompt, progress=progress, **arguments)
        if box:
            console.boxed_text(CONSOLE, stream, prompt=prompt, num_tokens=arguments["num_tokens"])
        elif write is None:
            console.stream_text(stream, prompt=prompt)
        else:
            for _ in stream:
                pass
            write(_record(stream.finish(), prompt, arguments["seed"]))
    return stream.state


def _save(generator: "Generator", path: Path, state: "DecodeState") -> None:
    from block_recurrent.cli import console
    from block_recurrent.parallel.placement import to_host

    generator.save_state(path, state)
    console.line(STDERR, f"{path}: the state after {int(to_host(state.position)[0]):,} tokens")


def _continue_many(generator: "Generator", batch: Batch, arguments: dict[str, Any], jsonl: Path | None) -> None:
    from block_recurrent.cli import console
    from block_recurrent.progress import Progress

    with (
        contextlib.nullcontext(None) if jsonl is None else json_lines(jsonl) as write,
        Progress("prefill", 0, console=STDERR) as progress,
    ):
        interruption.keeps("no continuation was written yet")
        continuations = generator.generate(batch.answerable, progress=progress, **arguments)
        answers = batch.answers(continuations, lambda continuation: continuation.prompt)
        for done, (number, continuation) in enumerate(answers, 1):
            interruption.keeps(f"{done} continuations of {len(batch.texts)} prompts are written")
            if isinstance(continuation, InputError):
                batch.show(number, continuation) if write is None else write(batch.record(number, continuation))
                continue
            text = str(batch.texts[number])
            if write is not None:
                write(_record(dataclasses.replace(continuation, prompt=number), text, arguments["seed"]))
            else:
                CONSOLE.rule(f"prompt {number}, sample {continuation.sample}")
                console.stream_text([continuation.text], prompt=text)


def _record(continuation: "Continuation", prompt: str, seed: int) -> dict[str, Any]:
    return continuation.as_dict() | {"prompt_text": prompt, "seed": seed}


def _warn_of_unknown_tokens(generator: "Generator", batch: Batch) -> None:
    from block_recurrent.cli import console

    for number, text in enumerate(batch.texts):
        if isinstance(text, str) and (unknown := generator.unknown_tokens(text)):
            message = f"warning: text {number}: {unknown:,} tokens are not in the vocabulary and become `unknown`"
            console.line(STDERR, message)
