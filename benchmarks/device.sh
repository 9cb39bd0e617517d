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

part() { # NAME SECONDS WORDS...: a benchmark within a time limit, its words noted
    local name=$1 limit=$2 began=$SECONDS code
    shift 2
    [[ $chosen =~ ^\ *$ || $chosen == *" $name "* ]] || return 0
    timeout "$limit" python3 "benchmarks/$1.py" "${@:2}" >"$folder/$name.txt" 2>"$folder/$name.err"
    code=$?
    echo "== $name: exit code $code after $((SECONDS - began)) s: benchmarks/$*"
    tail -n 20 "$folder/$name.txt"
    [ $code -eq 0 ] || { tail -n 3 "$folder/$name.err" >&2; worst=$code; }
}

half_and_whole=(--precision bf16 --precision float32)
if [ -n "$dry" ]; then
    part vit 60 full_size vit --device cpu --batch 1
    part llava 200 full_size llava --device cpu --batch 1 "${half_and_whole[@]}" --layers 1
    part openflamingo 200 full_size openflamingo --device cpu --batch 1 --precision bf16 --layers 4
    part training 100 training --bf16 --batch 2 --rounds 1 --warm 0
    part peers 200 attacks --only peers --quick
else
    part vit 60 full_size vit --device cuda --batch 64 "${half_and_whole[@]}" --steps 5
    part llava 120 full_size llava --device cuda --batch 8 "${half_and_whole[@]}" --steps 3
    part openflamingo 60 full_size openflamingo --device cuda --batch 8 "${half_and_whole[@]}" --steps 3
    part training 90 training --arch ViT-L-14 --device cuda --batch 32 --rounds 5
    part training-compiled 150 training --arch ViT-L-14 --device cuda --batch 32 --rounds 5 --bf16 --compile --warm 3
    part peers 110 attacks --only peers --device cuda
fi
exit $worst
