#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the main program does with bad input: exit code not 0, and one line on stderr that says what is wrong.
#   usage: refusals.sh PROGRAM MODEL_FOLDER
set -uo pipefail
program=$1 model=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# refuses EXPECTED_TEXT arguments...
refuses() {
  local expected=$1 code
  shift
  timeout 60 "$program" "$@" > "$work/out" 2> "$work/err"
  code=$?
  if [[ $code -eq 0 || $code -ge 124 ]]; then
    echo "FAILED: exit code $code for: $*"
    failures=$((failures + 1))
  elif ! grep -qF -- "$expected" "$work/err" "$work/out"; then
    echo "FAILED: no \"$expected\" for: $*"
    cat "$work/err"
    failures=$((failures + 1))
  elif [[ $(wc -l < "$work/err") -gt 2 ]]; then  # CLI11 adds a line about --help
    echo "FAILED: more than one error for: $*"
    cat "$work/err"
    failures=$((failures + 1))
  else
    echo "ok: $(head -n 1 "$work/err")"
  fi
}

# A copy of the model in which one file is changed.
changed() {
  rm -rf "$work/model"
  cp -r "$model" "$work/model"
  chmod -R u+w "$work/model"
}

refuses "--devices" --devices 0
refuses "--devices" --devices many
refuses "--gpus" --gpus 1 --devices 2
refuses "GPU" --gpus 200 --prompt "1 + 1 ="
refuses "GPU" --gpus 0,0 --prompt "1 + 1 ="
refuses "--gpus takes how many" --gpus 0,,2 --prompt "1 + 1 ="
refuses "--gpus" --gpus "" --prompt "1 + 1 ="
refuses "--temperature" --temperature hot
refuses "2 shares for 3 devices" --weights 1,3 --devices 3
refuses "not negative" --weights=1,-3 --prompt "1 + 1 ="
refuses "above zero" --weights 0,0 --prompt "1 + 1 ="
refuses "--speculate" --speculate magic
refuses "--draft" --speculate lookup --draft "$model"
refuses "/nonexistent" --draft /nonexistent
refuses "1 to 256" --context 100000 --prompt "1 + 1 ="
refuses "top_p" --temperature 1 --top-p 2 --prompt "1 + 1 ="
refuses "/nonexistent" --model /nonexistent
refuses "does not fit a context of 256" --prompt "$(printf 'word %.0s' {1..300})"
refuses "UTF-8" --prompt $'12 + \xff ='
refuses "cannot write" --prompt "1 + 1 =" --trace "$work/no/such/folder/trace.json"

mkdir "$work/empty"
refuses "config.json" --model "$work/empty"

changed
sed -i 's/"model_type": *"llama"/"model_type": "alpaca9"/' "$work/model/config.json"
refuses "alpaca9" --model "$work/model" --prompt "1 + 1 ="

changed
head -c 1000000 "$model/model.safetensors" > "$work/model/model.safetensors"
refuses "model.safetensors" --model "$work/model" --prompt "1 + 1 ="

changed
: > "$work/model/model.safetensors"
refuses "model.safetensors" --model "$work/model" --prompt "1 + 1 ="

changed
printf '\xff\xff\xff\xff\xff\xff\xff\x7f{}' > "$work/model/model.safetensors"
refuses "header" --model "$work/model" --prompt "1 + 1 ="

changed
sed -i 's/"hidden_size": *128/"hidden_size": 256/' "$work/model/config.json"
refuses "(376, 256)" --model "$work/model" --prompt "1 + 1 ="

changed
sed -i 's/"num_key_value_heads": *2/"num_key_value_heads": 3/' "$work/model/config.json"
refuses "num_key_value_heads" --model "$work/model" --prompt "1 + 1 ="

changed
head -c 500 "$model/tokenizer.json" > "$work/model/tokenizer.json"
refuses "tokenizer.json" --model "$work/model" --prompt "1 + 1 ="

changed
rm "$work/model/tokenizer.json"
refuses "tokenizer.json" --model "$work/model" --prompt "1 + 1 ="

changed  # a tokenizer that knows an id that the model has no row for
sed -i 's/: *18\([,}]\)/: 9999\1/' "$work/model/tokenizer.json"
sed -i 's/: *18$/: 9999/; s/: *18,$/: 9999,/' "$work/model/tokenizer.json"
refuses "9999" --model "$work/model" --prompt "1 + 1 ="

changed  # a draft model whose tokens are others
sed -i 's/<|begin|>/<|start|>/g' "$work/model/tokenizer.json"
refuses "to the draft model" --draft "$work/model"

changed  # weights that are not numbers: every bf16 is NaN
python3 -c 0 2> /dev/null && python3 - "$work/model/model.safetensors" <<'PY'
import sys
path = sys.argv[1]
data = bytearray(open(path, "rb").read())
begin = 8 + int.from_bytes(data[:8], "little")
data[begin:] = b"\xc0\x7f" * ((len(data) - begin) // 2)
open(path, "wb").write(data)
PY
if ! cmp -s "$model/model.safetensors" "$work/model/model.safetensors"; then
  refuses "NaN" --model "$work/model" --prompt "1 + 1 ="
fi

[[ $failures -eq 0 ]] && echo "all refused"
exit $((failures > 0))
