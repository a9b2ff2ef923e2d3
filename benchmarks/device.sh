#!/usr/bin/env bash
# Runs benchmarks.device on a machine with an accelerator and no network, from one folder of cargo.
#
#   benchmarks/device.sh fetch CARGO              here: download the wheels into CARGO/wheels
#   benchmarks/device.sh run CARGO OUT [OPTION]   there: unpack them, and measure
#
# The machine has Python 3.12, jax 0.11, flax, optax and chex; what else benchmarks.device imports is
# in WHEELS. CARGO/data is its --data-dir. If CARGO has an unpack_data.sh, that is run first, in
# CARGO, to make what is carried packed.
set -euo pipefail

# Without their dependencies: of these, nothing but what stands here is imported.
WHEELS=(
  array_record colorlog dm-tree docstring_parser etils fsspec googleapis-common-protos immutabledict
  importlib_resources optuna packaging pillow protobuf simplejson six tensorboardX
  tensorflow-datasets tensorflow-metadata termcolor toml tqdm tyro typeguard wrapt zipp
)

case "${1:-}" in
  fetch)
    mkdir -p "$2/wheels"
    python -m pip wheel --quiet --no-deps --wheel-dir "$2/wheels" promise  # It has no wheel.
    python -m pip download --quiet --no-deps --only-binary :all: --python-version 3.12 \
      --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
      --platform manylinux2014_x86_64 --dest "$2/wheels" "${WHEELS[@]}"
    ;;
  run)
    cargo=$(realpath "$2") out=$3
    shift 3
    packages=$cargo/packages
    python3 -m pip install --quiet --no-index --no-deps --upgrade --target "$packages" "$cargo"/wheels/*.whl
    if [ -e "$cargo/unpack_data.sh" ]; then (cd "$cargo" && bash unpack_data.sh); fi
    cd "$(dirname "$0")/.."
    PYTHONPATH=$packages exec python3 -m benchmarks.device --data-dir "$cargo/data" --out "$out" "$@"
    ;;
  *)
    sed -n '2,9p' "$0" >&2
    exit 2
    ;;
esac
