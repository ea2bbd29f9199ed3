#!/usr/bin/env bash
# A quarter of an hour on a machine with one GPU: does it work, how fast is it, what is a short pretraining worth?
#
#     bash benchmarks/gpu.sh check       # 3 minutes at most: tests on the GPU, the first tables of speed.py
#     bash benchmarks/gpu.sh pretrain    # 8 minutes at most: pretraining, then DRIVE by that encoder and a random one
#
# From the repository's root; needs no network. DATA holds eyepacs_770, idrid_grading_516 and DRIVE. Results go to OUT, eight
# files below 16 MB at most for each part; what is not kept, to WORK. A rehearsal on a CPU, some minutes:
#
#     DEVICE=cpu CHECK=600 SPEED=--quick bash benchmarks/gpu.sh check
#     DEVICE=cpu SIZE=96 BATCH=16 PRETRAIN=180 EPOCHS=1 SEEDS=0 JOBS=1 REST=10 bash benchmarks/gpu.sh pretrain
set -u
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
DATA=${DATA:-.gpu/data}
OUT=${OUT:-runs/gpu}
WORK=${WORK:-$(mktemp -d)}
CHECK=${CHECK:-170}       # seconds for the whole check, at most half of them for the tests
SPEED=${SPEED:-}          # more options of speed.py
SIZE=${SIZE:-224}         # px of the pretraining photographs
BATCH=${BATCH:-64}        # of them a step
PRETRAIN=${PRETRAIN:-300} # seconds
EPOCHS=${EPOCHS:-150}     # of segmentation, four steps each
SEEDS=${SEEDS:-0 1 2}     # of segmentation, each with a fold of its own
JOBS=${JOBS:-4}           # trainings at once
REST=${REST:-1}           # minutes for a recipe, after which no training is begun
mkdir -p "$OUT"

check() {
    df -h /dev/shm
    nvidia-smi || echo "no nvidia-smi"
    failed=0
    if [ -e tests/test_device.py ]; then
        timeout "$((CHECK / 2))" "$PYTHON" -m pytest -q tests/test_device.py || failed=1
    else
        echo "tests/test_device.py is not there: left out"
    fi
    # shellcheck disable=SC2086
    timeout "$((CHECK - SECONDS))" "$PYTHON" -u benchmarks/speed.py --device "$DEVICE" --repeats 2 \
        --only ceiling operations step decoder --out "$OUT" $SPEED || failed=1
    return $failed
}

pretrain() {
    log=$OUT/log.txt run=$WORK/paper
    timeout --preserve-status -s TERM -k 60 "$PRETRAIN" "$PYTHON" -u DualScaleNet/main.py --recipe paper \
        --data "$DATA/eyepacs_770" "$DATA/idrid_grading_516" --image-size "$SIZE" --batch-size "$BATCH" \
        --device "$DEVICE" --cache "$WORK/cache" --run-dir "$run" > "$log" 2>&1
    code=$?
    echo "pretraining ended with $code (143: its time was up)" | tee -a "$log"
    cp "$run/log.csv" "$run/curves.png" "$OUT"
    "$PYTHON" - "$run/encoder.pth" "$OUT/encoder-float16.pth" << 'END_OF_PYTHON' || { tail -n 20 "$log"; return 1; }
import sys

import torch

content = torch.load(sys.argv[1])
content["state"] = {k: v.half() if v.is_floating_point() else v for k, v in content["state"].items()}
torch.save(content, sys.argv[2])
END_OF_PYTHON
    [ $code = 0 ] || [ $code = 143 ]
    failed=$?
    for recipe in linear compact; do
        # shellcheck disable=SC2086
        "$PYTHON" -u DownStream/compare.py --data-dir "$DATA/DRIVE" --out "$WORK/$recipe" --max-minutes "$REST" \
            --encoders random "paper=$OUT/encoder-float16.pth" --recipes "$recipe" --fractions 1 --seeds $SEEDS \
            --epochs "$EPOCHS" --jobs "$JOBS" -- --device "$DEVICE" >> "$log" 2>&1 || { failed=1; tail -n 5 "$log"; }
        cp "$WORK/$recipe/table.md" "$OUT/$recipe.md"
        cp "$WORK/$recipe/per_image.csv" "$OUT/$recipe.csv"
    done
    head -n 2 "$OUT/log.csv"
    tail -n 1 "$OUT/log.csv"
    cat "$OUT/linear.md" "$OUT/compact.md"
    return $failed
}

case ${1:-} in
    check | pretrain) "$1" ;;
    *) echo "usage: bash benchmarks/gpu.sh check|pretrain" >&2; exit 2 ;;
esac
