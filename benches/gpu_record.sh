#!/usr/bin/env bash
# Makes the whole GPU record in one run, within 8 minutes, on a bare machine: a shell, coreutils, and the built command.
#
#   benches/gpu_record.sh [--bin FILE] [--out DIR] [--adapter NAME] [--commit ID] [--network FILE --picture FILE] [--quick]
#
# --bin      the command [target/release/cipherlens]
# --out      where DATE-gpu.md and the reports go [./gpu-record]
# --adapter  a GPU by name; the only way to a software adapter (llvmpipe) [the best GPU, or what WGPU_ADAPTER_NAME names]
# --commit   what was built, for the record [asked of git, where there is one]
# --network  a compiled network to classify a picture with several times, cold and warm, on both devices
# --picture  the picture
# --quick    little of everything, to try the script; no demo, no bootstrap, no network
#
# What is left out is said, with the reason, in the record. Ends with 1 where something failed or two devices gave
# different bits, with 0 where all that could be measured was.
set -uo pipefail

bin=target/release/cipherlens out=gpu-record adapter="" quick="" commit="" network="" picture=""
while [ $# -gt 0 ]; do
    case "$1" in
        --bin) bin="$2"; shift ;;
        --out) out="$2"; shift ;;
        --adapter) adapter="$2"; shift ;;
        --commit) commit="$2"; shift ;;
        --network) network="$2"; shift ;;
        --picture) picture="$2"; shift ;;
        --quick) quick=1 ;;
        *) sed -n '2,16s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
[ -x "$bin" ] || { echo "no command at $bin: build it (cargo build --release) or say --bin FILE" >&2; exit 2; }
mkdir -p "$out" || exit 2
[ -n "$commit" ] || commit="$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
# The Vulkan loader complains without one.
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-$out}"
[ -z "$adapter" ] || export WGPU_ADAPTER_NAME="$adapter"

started=$SECONDS
budget=470
left() { echo $((budget - (SECONDS - started))); }
failures=()
record="$out/$(date -u +%F)-gpu.md"
note() { printf '%s\n' "$*" >>"$record"; }
# The value of a top-level number or string of a one-line report.
value() { sed -nE "s/.*\"$2\":\"?([^,\"}]*).*/\1/p" "$1" 2>/dev/null | head -n 1; }
# Runs a step within some seconds; standard output to FILE, standard error beside it. Says why it failed.
step() {
    local name="$1" seconds="$2" file="$3" begun=$SECONDS rc
    shift 3
    echo "-- $name" >&2
    [ "$seconds" -ge 5 ] || { why="no time was left"; return 1; }
    timeout "$seconds" "$@" >"$file" 2>"$file.err"
    rc=$?
    case $rc in
        0) why="" ;;
        124) why="it was stopped after $seconds s" ;;
        *) why="exit code $rc: $(tail -n 4 "$file.err" | tr '\n' ' ')" ;;
    esac
    echo "   $((SECONDS - begun)) s${why:+, $why}" >&2
    [ $rc = 0 ] && rm -f "$file.err"
    return $rc
}

: >"$record"
note "# $(date -u +%F), GPU"
note ""
note "Machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) processors," \
    "$(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo); $(uname -sr)."
if command -v nvidia-smi >/dev/null 2>&1; then
    note "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 4)."
fi
note "$("$bin" --version), commit $commit. Made by \`benches/gpu_record.sh\`${quick:+ --quick}."
note ""

# What there is, and its self-tests.
note "## Devices and self-tests"
note ""
if step "doctor" 90 "$out/doctor.txt" "$bin" doctor; then
    note '```'
    note "$(cat "$out/doctor.txt")"
    note '```'
    ! grep -q FAILED "$out/doctor.txt" || failures+=("a self-test")
else
    failures+=("doctor")
    note "Failed: $why"
fi
note ""

# The demo on both, with the same keys: the encrypted answers must be the same words.
note "## The demo"
note ""
if [ -n "$quick" ]; then
    note "Left out: --quick."
else
    demo=(demo --json --seed 1 --progress none)
    step "demo on the processor" 90 "$out/demo-cpu.json" "$bin" "${demo[@]}" --backend cpu
    cpu=$? cpu_why="$why"
    step "demo on a GPU" 150 "$out/demo-gpu.json" "$bin" "${demo[@]}" --backend gpu
    gpu=$? gpu_why="$why"
    note "\`demo --json --seed 1\`, seconds:"
    note ""
    note "| device | backend | keygen | encrypt | run | decrypt | logit error | label | logits_ciphertext_blake3 |"
    note "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for device in cpu gpu; do
        report="$out/demo-$device.json"
        [ "${!device}" = 0 ] || continue
        row="| $device"
        for field in backend keygen encrypt run decrypt max_abs_logit_error label logits_ciphertext_blake3; do
            row="$row | $(value "$report" $field)"
        done
        note "$row |"
    done
    note ""
    if [ $cpu != 0 ]; then
        failures+=("the demo on the processor")
        note "On the processor: failed: $cpu_why"
    fi
    if [ $gpu = 0 ] && [ $cpu = 0 ]; then
        if [ "$(value "$out/demo-cpu.json" logits_ciphertext_blake3)" = "$(value "$out/demo-gpu.json" logits_ciphertext_blake3)" ]; then
            note "The encrypted answers are the same words. Run, processor over GPU:" \
                "$(awk -v c="$(value "$out/demo-cpu.json" run)" -v g="$(value "$out/demo-gpu.json" run)" 'BEGIN { printf "%.2f", c / g }')."
        else
            failures+=("the demo: the encrypted answers differ")
            note "**The encrypted answers DIFFER.**"
        fi
    elif [ $gpu != 0 ]; then
        note "On a GPU: left out: $gpu_why"
        # A machine without a GPU is no failure of the program; anything else is.
        grep -q "no GPU can be used" "$out/demo-gpu.json.err" 2>/dev/null || failures+=("the demo on a GPU")
    fi
fi
note ""

# Whole bootstraps.
note "## Bootstraps (\`bench bootstrap\`)"
note ""
if [ -n "$quick" ]; then
    note "Left out: --quick."
else
    note "Seconds; the first call also sends keys, makes pipelines and encodes what later calls find."
    note ""
    note "| preset | device | vectors | median | least | first call | processor time | bits, mean | GPU memory |"
    note "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for case in "n16-boot gpu 1 9" "n16-boot gpu 2 10" "n16-boot-lean gpu 1 9" "n16-boot cpu 1 3" "n16-boot-lean cpu 1 3"; do
        read -r preset device batch vectors <<<"$case"
        report="$out/bootstrap-$preset-$device-$batch.json"
        if step "bootstrap, $preset, $device, $batch" 60 "$report" "$bin" bench bootstrap --preset "$preset" \
            --backend "$device" --batch "$batch" --ciphertexts "$vectors" --json --progress none; then
            row="| $preset | $(value "$report" backend) | $batch"
            for field in seconds seconds_min seconds_first_call cpu_seconds precision_bits_mean peak_vram_bytes; do
                row="$row | $(value "$report" $field)"
            done
            note "$row |"
        else
            note "| $preset | $device | $batch | left out: $why | | | | | |"
            grep -q "no GPU can be used" "$report.err" 2>/dev/null || failures+=("the bootstrap of $preset on $device")
        fi
    done
fi
note ""

# A network, several times with one set of keys.
note "## A network (\`classify\`)"
note ""
if [ -n "$quick" ] || [ -z "$network" ] || [ -z "$picture" ]; then
    note "Left out: no --network and --picture${quick:+, or --quick}."
else
    note "$(basename "$network"), the same keys for all runs, seconds a run in order; several pictures a run where its slots have room."
    note ""
    note "| device | pictures a run | runs | label | logits_ciphertext_blake3 of the last run |"
    note "| --- | --- | --- | --- | --- |"
    for case in "gpu 8" "cpu 2"; do
        read -r device count <<<"$case"
        report="$out/network-$device.json"
        pictures=()
        for _ in $(seq "$count"); do pictures+=("$picture"); done
        if step "network, $device" 150 "$report" "$bin" classify "$network" "${pictures[@]}" --seed 1 --backend "$device" --json --progress none; then
            together="$(value "$report" pictures_together)"
            runs="$(sed -nE 's/.*"run":([0-9.]+).*/\1/p' "$report" | awk -v t="$together" 'NR % t == 0 { printf "%s%.3f", (NR > t ? ", " : ""), $1 }')"
            note "| $(value "$report" backend) | $together | $runs | $(value "$report" label) | $(tail -n 1 "$report" | sed -nE 's/.*"logits_ciphertext_blake3":"([0-9a-f]+).*/\1/p') |"
        else
            note "| $device | | left out: $why | | |"
            grep -q "no GPU can be used" "$report.err" 2>/dev/null || failures+=("the network on $device")
        fi
    done
fi
note ""

# Kernels, key switches, rotations, a layer: times, bits, floors.
note "## Kernels and operations (\`bench backends\`)"
note ""
bench=(bench backends --json --progress none --markdown "$out/bench.md" ${quick:+--quick})
within=$(($(left) - 60))
if [ "$within" -lt 10 ]; then
    failures+=("bench backends")
    note "Left out: no time was left."
else
    step "bench backends" $(($(left) - 5)) "$out/bench.json" "$bin" "${bench[@]}" --within "$within" ||
        { failures+=("bench backends"); note "Failed: $why"; note ""; }
    [ ! -s "$out/bench.md" ] || sed 's/^## /### /' "$out/bench.md" >>"$record"
fi
note ""
note "All of it took $((SECONDS - started)) s."
if [ ${#failures[@]} -gt 0 ]; then
    note ""
    note "**Failed:** $(printf '%s; ' "${failures[@]}")"
fi
rm -f "$out/bench.md"
echo "the record is $record, in $((SECONDS - started)) s${failures[*]:+; FAILED: ${failures[*]}}" >&2
[ ${#failures[@]} = 0 ]
