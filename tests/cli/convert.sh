#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A GGUF file made of the bundled model answers as the model does, on 1, 2 and 3 ranks; one made of an encoder gives the
# same embeddings; and what the converter refuses.
#   usage: convert.sh TROIKA_CONVERT TROIKA_RUN MODEL_FOLDER TOOL_TINY_ENCODER TOOL_EMBED
set -uo pipefail
convert=$1 run=$2 model=$3 tiny_encoder=$4 embed=$5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

failed() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# Questions whose answers are known, and not only to this model. grep reads to the end: with -q, a program
# that has more to say is ended by SIGPIPE.
answers() {
  local devices
  for devices in 1 2 3; do
    timeout 60 "$run" --model "$1" --devices "$devices" --prompt "12 + 345 =" | grep -x "12 + 345 = 357" > /dev/null || failed "$1 on $devices ranks: 12 + 345"
    timeout 60 "$run" --model "$1" --devices "$devices" --prompt "the smallest of 20 35 82 21 is" --speculate lookup |
      grep -x "the smallest of 20 35 82 21 is 20" > /dev/null || failed "$1 on $devices ranks: the smallest"
  done
}
for type in $("$convert" --types); do
  timeout 60 "$convert" "$model" "$work/$type.gguf" --type "$type" > "$work/out" 2>&1 || failed "$type: $(cat "$work/out")"
  answers "$work/$type.gguf"
done
grep -q "which Q6_K has" <("$convert" "$model" "$work/notes.gguf" --type Q6_K) || failed "nothing said that Q6_K does not fit"

# The same bits, tokens and embeddings, from an encoder's folder and from its file.
texts=$(printf '%s\n' "unhappy happily" "Unhappily!" "" | while read -r line; do printf '%s' "$line" | od -An -tx1 | tr -d ' \n'; echo; done)
"$tiny_encoder" "$work/encoder" || failed "no encoder"
sed -i 's/"max_input_chars_per_word":20,//' "$work/encoder/tokenizer.json"  # GGUF files know 100 only
timeout 60 "$convert" "$work/encoder" "$work/encoder.gguf" --type F32 > "$work/out" 2>&1 || failed "encoder: $(cat "$work/out")"
for source in encoder encoder.gguf; do
  timeout 60 "$embed" "$work/$source" 1 2 3 <<< "$texts" > "$work/$source.embeddings" || failed "no embeddings of $source"
done
[[ -s $work/encoder.embeddings ]] && cmp "$work/encoder.embeddings" "$work/encoder.gguf.embeddings" || failed "the encoder's embeddings are others"

# refuses EXPECTED_TEXT arguments...
refuses() {
  local expected=$1 code
  shift
  timeout 60 "$convert" "$@" > "$work/out" 2> "$work/err"
  code=$?
  if [[ $code -eq 0 || $code -ge 124 ]]; then
    failed "exit code $code for: $*"
  elif ! grep -qF -- "$expected" "$work/err" || [[ $(wc -l < "$work/err") -gt 2 ]]; then
    failed "no \"$expected\", or more, for: $* $(cat "$work/err")"
  else
    echo "ok: $(head -n 1 "$work/err")"
  fi
  ls "$work" | grep partial && failed "a temporary file is left for: $*"
}
cp "$work/F16.gguf" "$work/before"
refuses "is there already" "$model" "$work/F16.gguf"
cmp -s "$work/before" "$work/F16.gguf" || failed "a file that was there is another now"
refuses "valid are F32, F16" "$model" "$work/new.gguf" --type Q9
refuses "is a folder" "$model" "$work" --force
refuses "No such file or directory" "$model" "$work/none/new.gguf"
refuses "GGUF file" "$work/F16.gguf" "$work/new.gguf"
refuses "/nonexistent" /nonexistent "$work/new.gguf"
refuses "needs a folder" "$model"

# A disk that is full, as a limit on the size of files: one error, nothing left, and what was there stays.
(trap '' XFSZ; ulimit -f 200; timeout 60 "$convert" "$model" "$work/F16.gguf" --type F32 --force > "$work/out" 2> "$work/err")
code=$?
[[ $code -eq 1 ]] || failed "exit code $code for a full disk"
[[ $(wc -l < "$work/err") -eq 1 ]] && grep -q "cannot be written: File too large" "$work/err" || failed "a full disk: $(cat "$work/err")"
ls "$work" | grep partial && failed "a temporary file is left on a full disk"
cmp -s "$work/before" "$work/F16.gguf" || failed "a full disk took the file that was there"
timeout 60 "$convert" "$model" "$work/F16.gguf" --type F32 --force > "$work/out" 2>&1 && ! cmp -s "$work/before" "$work/F16.gguf" || failed "--force did not replace"

cp -r "$model" "$work/model"
chmod -R u+w "$work/model"
sed 's/"hidden_act":"gelu"/"hidden_act":"gelu_new"/' "$work/encoder/config.json" > "$work/config.json" && mv "$work/config.json" "$work/encoder/config.json"
refuses "the activation gelu_tanh is not converted" "$work/encoder" "$work/new.gguf"
sed -i 's/"individual_digits": true/"individual_digits": false/' "$work/model/tokenizer.json"
refuses "known are" "$work/model" "$work/new.gguf"
[[ ! -e $work/new.gguf ]] || failed "a file was left"

[[ $failures -eq 0 ]] && echo "all as it should be"
exit $((failures > 0))
