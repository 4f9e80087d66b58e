#!/usr/bin/env bash
# The pretrainings of "What pretraining is worth" in docs/results.md: bash docs/tables/study.sh. DATA holds a folder for each corpus.
# On a GPU each takes two minutes; without one leave out trainer.precision, and give it a day.
set -euo pipefail
DATA=${DATA:-/data}

train() {  # NAME, what differs from the base
  python run_pretrain.py -a -n "$1" -u melhubert -c small -o \
    "datarc.file_path={libri_a: $DATA/libri_a, libri_slice: $DATA/libri_slice, ocean_train: $DATA/ocean_train, kathleen: $DATA/kathleen, kerstin: $DATA/kerstin}" \
    datarc.valid_fraction=0.02 trainer.precision=bf16-mixed trainer.max_steps=3000 scheduler.num_training_steps=3000 scheduler.num_warmup_steps=300 \
    trainer.val_check_interval=1500 dataloader.batch_size=32 features.statistics_hours=0.3 objective.clusters.fit_positions=60000 \
    model.num_hidden_layers=3 model.hidden_size=256 model.num_attention_heads=4 model.intermediate_size=1024 model.hidden_dropout_prob=0.1 \
    features.spectrogram.n_mels=40 features.input.num_deltas=0 optimizer.lr=5e-4 "${@:2}"
}

train base
train lr_1e-3 optimizer.lr=1e-3
train width_384 model.hidden_size=384 model.num_attention_heads=6 model.intermediate_size=1536
train depth_6 model.num_hidden_layers=6
train unshared model.num_hidden_groups=3
train cmvn_utterance features.input.cmvn=utterance objective.clusters.feature.cmvn=utterance
train reconstruction objective.name=reconstruction "objective.reconstruction.targets=[{feature: mel, cmvn: corpus}]"
