#!/usr/bin/env bash
# Made artefacts.tar.xz, with the tree of commit c275696 (version 0.1.0); run it from a copy of this folder, with that tree's
# environment active. Never run it with a later tree: the point is that later trees read what this one wrote.
set -euo pipefail
export JAX_PLATFORMS=cpu
command() { python -m block_recurrent "$@"; }
recurrent=(--gin_file run.gin --gin_file recurrent.gin)
lstm=(--gin_file run.gin --gin_file lstm.gin)
rm -rf store recurrent lstm exported expected comparison
command prepare "${recurrent[@]}" --gin_param PrepareConfig.workers=1
command train "${recurrent[@]}" --gin_param TrainConfig.sample_tokens=5 --gin_param "TrainConfig.sample_prompt='3 times'" \
  --workdir recurrent
command train "${lstm[@]}" --workdir lstm
rm -rf recurrent/tensorboard lstm/tensorboard recurrent/lock lstm/lock
command export --workdir recurrent --out exported
command generate --workdir recurrent --prompt "3 times 4 is 12; 3 times" --num-tokens 0 --save-state prompt.state
command evaluate --workdir recurrent --gin_file run.gin --tokens --official --ablations --diagnostics
command evaluate --workdir recurrent --gin_file run.gin --all-checkpoints
command compare lstm recurrent --gin_file run.gin --out comparison

# What 0.1.0 itself makes of them: the run continued to step 15, and text written from the saved state.
mkdir expected
cp -r recurrent continued
command train "${recurrent[@]}" --gin_param TrainConfig.num_steps=15 --workdir continued
cp continued/metrics.jsonl expected/continued_metrics.jsonl
cp -r lstm continued_lstm
command train "${lstm[@]}" --gin_param TrainConfig.num_steps=15 --workdir continued_lstm
cp continued_lstm/metrics.jsonl expected/continued_lstm_metrics.jsonl
rm -rf continued continued_lstm
command generate --workdir recurrent --load-state prompt.state --prompt " 5 is" --greedy --num-tokens 20 \
  --jsonl expected/continuation.jsonl
command score --workdir recurrent --text "3 times 4 is 12; 3 times 5 is 15;" --jsonl expected/score.jsonl

tar -cJf artefacts.tar.xz store recurrent lstm exported prompt.state comparison expected
