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
    features.spectrogram.n_mels=40 features.input.num_deltas=0 optimizer.lr=1e-3 "${@:2}"
}

RECONSTRUCTION=(objective.name=reconstruction "objective.reconstruction.targets=[{feature: mel, cmvn: corpus}]")
for seed in 1337 2 3; do
  train base_$seed seed=$seed
  train unshared_$seed seed=$seed model.num_hidden_groups=3
  train reconstruction_$seed seed=$seed "${RECONSTRUCTION[@]}"
done
train reconstruction_unshared "${RECONSTRUCTION[@]}" model.num_hidden_groups=3
train reconstruction_utterance objective.name=reconstruction "objective.reconstruction.targets=[{feature: mel, cmvn: utterance}]" features.input.cmvn=utterance
train cmvn_utterance features.input.cmvn=utterance objective.clusters.feature.cmvn=utterance
train stage_2 init.clusters=small:3    # clusters of hidden state 3 of the weights that come with Mynah

train mask_25 masking.mask_proportion=0.25
train mask_65 masking.mask_proportion=0.65
train span_1 masking.mask_consecutive_min=1 masking.mask_consecutive_max=1
train span_10 masking.mask_consecutive_min=10 masking.mask_consecutive_max=10
# Positions of 10 and of 40 ms; spans stay at 100 and 120 ms.
train stack_1 model.frames_per_position=1 masking.mask_consecutive_min=10 masking.mask_consecutive_max=10
train stack_4 model.frames_per_position=4 masking.mask_consecutive_min=3 masking.mask_consecutive_max=3
train width_384 model.hidden_size=384 model.num_attention_heads=6 model.intermediate_size=1536
train depth_6 model.num_hidden_layers=6
train lr_5e-4 optimizer.lr=5e-4

# Parts of the data: files in a random order until there are so many hours.
for hours in 1 3 6; do
  python - "$DATA" $hours > part_$hours.csv <<'PYTHON'
import pathlib, random, sys
import soundfile
files = sorted(str(path) for path in pathlib.Path(sys.argv[1]).rglob("*") if path.suffix in (".wav", ".flac", ".opus"))
random.Random(0).shuffle(files)
print("path")
seconds = 0.0
for file in files:
    if seconds >= 3600 * float(sys.argv[2]):
        break
    print(file)
    seconds += soundfile.info(file).duration
PYTHON
  train data_${hours}h "datarc.file_path={part: part_$hours.csv}"
done
