#!/usr/bin/env bash
# Every figure that wants a GPU, in under eight minutes on one of 80 GB; what it says is also in FOLDER:
#
#     bash benchmarks/device.sh FOLDER                   on the GPU, without a network
#     bash benchmarks/device.sh FOLDER --dry             small, on the CPU: shows that it runs to its end
#     bash benchmarks/device.sh FOLDER llava training    these parts only
#
# Packages that the machine lacks may lie in the folder "site": pip install --no-deps --target site pyautoattack ...
# Each part has a time limit, and one that fails does not stop the others; the exit code is that of the worst.
set -uo pipefail
folder=${1:?"give a folder for what is measured"} dry=
shift
[ "${1:-}" = --dry ] && dry=yes && shift
chosen=" $* "
cd "$(dirname "$0")/.." && mkdir -p "$folder"
export PYTHONPATH=$PWD:$PWD/site${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
worst=0

part() { # NAME SECONDS COMMAND...: within a time limit, its words noted
    local name=$1 limit=$2 began=$SECONDS code
    shift 2
    [[ $chosen =~ ^\ *$ || $chosen == *" $name "* ]] || return 0
    timeout "$limit" "$@" >"$folder/$name.txt" 2>"$folder/$name.err"
    code=$?
    echo "== $name: exit code $code after $((SECONDS - began)) s: $*"
    tail -n 20 "$folder/$name.txt"
    [ $code -eq 0 ] || { tail -n 3 "$folder/$name.err" >&2; worst=$code; }
}

size=(python3 benchmarks/full_size.py) training=(python3 benchmarks/training.py) both=(--precision bf16 --precision float32)
peers=(python3 benchmarks/attacks.py --only peers)
suite='python3 -m bench run --encoder fare --task vqa --attack apgd --save-adversarial --output "$0" "$@" &&
    python3 -m bench verify "$0"/*/*/* --device cpu' # a run on a device, whose images the CPU bears out
if [ -n "$dry" ]; then
    part suite 60 bash -c "$suite" "$folder/runs" --limit 4 --device cpu
    part vit 60 "${size[@]}" vit --device cpu --batch 1
    part llava 200 "${size[@]}" llava --device cpu --batch 1 "${both[@]}" --layers 1
    part openflamingo 200 "${size[@]}" openflamingo --device cpu --batch 1 --precision bf16 --layers 4
    part training 100 "${training[@]}" --bf16 --batch 2 --rounds 1 --warm 0
    part peers 200 "${peers[@]}" --quick
else
    gpu=(--device cuda) tower=(--arch ViT-L-14 --device cuda --batch 32 --rounds 5)
    part suite 60 bash -c "$suite" "$folder/runs" --limit 64 "${gpu[@]}"
    part vit 60 "${size[@]}" vit "${gpu[@]}" --batch 64 "${both[@]}" --steps 5
    part llava 60 "${size[@]}" llava "${gpu[@]}" --batch 8 "${both[@]}" --steps 3
    part openflamingo 60 "${size[@]}" openflamingo "${gpu[@]}" --batch 8 "${both[@]}" --steps 3
    part training 90 "${training[@]}" "${tower[@]}"
    part training-compiled 150 "${training[@]}" "${tower[@]}" --bf16 --compile --warm 3
    part peers 180 "${peers[@]}" "${gpu[@]}"
fi
exit $worst
