"""`train`."""

from block_recurrent import gin_files
from block_recurrent.commands.options import CONSOLE, GinFiles, GinParams, Workdir, absolute


def train(workdir: Workdir, gin_file: GinFiles = None, gin_param: GinParams = None) -> None:
    """Train; started again on the same workdir, continue from its newest checkpoint.

    Example: python -m block_recurrent train --gin_file gin/runs/quickstart.gin --workdir runs/quickstart
    """
    gin_files.parse(gin_file, gin_param)
    run = gin_files.configured_run()
    from block_recurrent import console
    from block_recurrent.generate import Sampling
    from block_recurrent.saved_run import SavedRun
    from block_recurrent.train import train as train_run

    folder = absolute(workdir)
    result = train_run(run, folder, CONSOLE, config_gin=gin_files.operative_config())
    console.show_result(CONSOLE, run.data.eval_split, result)
    if run.train.sample_tokens:
        CONSOLE.rule("sample: the prompt and its continuation")
        sampling = Sampling(temperature=0.8, top_p=0.95)
        saved = SavedRun.load(folder)
        console.stream_continuation(saved, run.train.sample_prompt, run.train.sample_tokens, sampling, seed=0)
        CONSOLE.rule()
    console.show_next_steps(CONSOLE, workdir)
