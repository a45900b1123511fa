#!/usr/bin/env bash
# Everything that is to be measured on a machine with one NVIDIA GPU, in parts of at most ten minutes:
#
#     benchmarks/gpu.sh          parts 1 to 3, under 30 minutes
#     benchmarks/gpu.sh 1        correctness on the device, then benchmarks/depthwise.py --device cuda
#     benchmarks/gpu.sh 2        time of every tile on the shapes that aims were set for
#     benchmarks/gpu.sh 3        a real search, four trials sharing the GPU
#     benchmarks/gpu.sh 4        a share of the recorded benchmark space; it goes on where it stopped
#     benchmarks/gpu.sh 5        the proxy at 128 and 224 px; it goes on where it stopped
#
# Runs from the checkout (PYTHONPATH), nothing is installed but what parts 3 to 5 miss: from the wheels in $LKSPACE_WHEELS
# if that names a folder, else from PyPI. What was measured lies in benchmarks/results/ after each part; each part can be
# given again. The choices of kernels are remembered in $LKSPACE_CACHE, by default in runs/cache of the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export LKSPACE_CACHE="${LKSPACE_CACHE:-$PWD/runs/cache}"
export TRITON_CACHE_DIR="${TRITON_CACHE_DIR:-$LKSPACE_CACHE/triton}"
python=${PYTHON:-python3}
results=benchmarks/results

device() {
    "$python" -c 'import sys; sys.path.insert(0, "benchmarks"); import torch, depthwise_cuda
print(depthwise_cuda.slug(torch.cuda.get_device_name()))'
}

part_1() {
    # A failed test must not cost the timings, nor a slow compiler: both are told at the end.
    local failed=0
    local workers=()
    "$python" -c "import xdist" 2>/dev/null && workers=(-n "$(($(nproc) < 8 ? $(nproc) : 8))")  # most of it compiles
    timeout 200 "$python" -m pytest -p no:cacheprovider ${workers[@]+"${workers[@]}"} tests/kernels/test_gpu_kernels.py ||
        failed=$?
    timeout 395 "$python" benchmarks/depthwise.py --device cuda --budget "${BUDGET:-365}"
    [ "$failed" = 0 ] || { echo "the kernels' tests ended with $failed" >&2; return 1; }
}

part_2() {
    timeout 540 "$python" benchmarks/depthwise_tiles.py
}

part_3() {
    install_missing
    local run=runs/gpu out
    out=$results/$(device)_search
    # What the limit cuts off, the same command continues.
    timeout --signal=INT --kill-after=30 540 "$python" -m lkspace search --space replknet-tiny --budget "${TRIALS:-24}" \
        --gpus-per-trial 0.25 --concurrency 4 --latency-dtype bfloat16 --latency-batch 64 --run "$run" ||
        echo "the search ended with $?: what it has found so far is kept" >&2
    "$python" -m lkspace front "$run" --json >"$out.json"
    "$python" -m lkspace front "$run"
    cp "$run/environment.json" "${out}_environment.json"
}

part_4() {
    install_missing
    # Trains what nine minutes allow, one share after the other: give the part again until none is left.
    timeout 590 "$python" benchmarks/record.py --device cuda --workers "${WORKERS:-8}" --minutes 9 \
        --out "$results/$(device)_recorded.json"
}

part_5() {
    install_missing
    local size
    for size in 128 224; do
        timeout 295 "$python" benchmarks/proxy.py --device cuda --size "$size" --workers "${WORKERS:-8}" --minutes 4 \
            --out "$results/$(device)_proxy_$size.json" || echo "part 5 at $size px ended with $?" >&2
    done
}

install_missing() {
    local missing
    missing=$("$python" - <<'PYTHON'
from importlib.util import find_spec
needed = {"optuna": "optuna>=5.0", "ray": "ray[tune]>=2.50", "fvcore": "fvcore", "plotly": "plotly>=6.0",
          "pydantic": "pydantic>=2.9", "yaml": "pyyaml", "PIL": "pillow", "safetensors": "safetensors",
          "sklearn": "scikit-learn", "pandas": "pandas", "typer": "typer", "rich": "rich"}
print(*(package for module, package in needed.items() if find_spec(module) is None))
PYTHON
    )
    [ -n "$missing" ] || return 0
    local source=()
    if [ -n "${LKSPACE_WHEELS:-}" ] && compgen -G "$LKSPACE_WHEELS/*.whl" >/dev/null; then
        source=(--no-index --find-links "$LKSPACE_WHEELS")
    fi
    # shellcheck disable=SC2086
    "$python" -m pip install --quiet ${source[@]+"${source[@]}"} $missing
}

mkdir -p "$results" runs
"$python" -c 'import torch; assert torch.cuda.is_available(), "torch finds no GPU: nothing can be measured here"'
case "${1:-all}" in
    all) status=0; for part in 1 2 3; do "part_$part" || status=1; done; exit "$status" ;;
    [1-5]) "part_$1" ;;
    *) echo "usage: benchmarks/gpu.sh [1|2|3|4|5]" >&2; exit 2 ;;
esac
