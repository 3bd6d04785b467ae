#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A load on a server over HTTP: all requests are answered with as many tokens as were asked for, those beyond its queue
# are refused with a time to come again, and what nobody serves is an error.
# usage: stress.sh TROIKA-SERVE TROIKA-STRESS MODELS
set -euo pipefail
serve=$1 stress=$2 models=$3
folder=$(mktemp -d)
server=
stop() {
  [[ -z $server ]] || { kill "$server" && wait "$server"; } || true
  server=
}
trap 'stop; rm -rf "$folder"' EXIT

start() {
  : > "$folder/log"
  "$serve" --models "$models" --port 0 --devices 2 "$@" > "$folder/log" 2>&1 &
  server=$!
  for ((i = 0; i < 600; ++i)); do
    url=$(sed -n 's/^listening on \(http[^,]*\),.*/\1/p' "$folder/log")
    [[ -z $url ]] || return 0
    sleep 0.1
  done
  echo "the server did not start:" >&2
  cat "$folder/log" >&2
  exit 1
}
fail() {
  echo "$1" >&2
  cat "$folder/out" >&2
  exit 1
}
# field NAME: a number of the JSON file that troika-stress wrote
field() { sed -n "s/^ *\"$1\": \([0-9.]*\),*$/\1/p" "$folder/json"; }
load() { "$stress" --url "$url" --repeats 1 --json "$folder/json" "$@" > "$folder/out" 2>&1; }

start
name=$("$serve" --models "$models" --list | sed -n '2s/^ *\([^ ]*\).*/\1/p')
load --model "$name" --mix 1:20/6 --requests 40 --concurrency 8 --budget 0 || fail "a closed loop failed"
[[ $(field answered) == 40 && $(field prompt_tokens) == 800 && $(field tokens) == 240 ]] || fail "not all tokens came"
grep -q '100.0 %$' "$folder/out" || fail "not all answers counted as good"
load --model "$name" --mix 1:20/6,2:5/3 --requests 40 --rate 200 --budget 0 || fail "an open loop failed"
[[ $(field answered) == 40 ]] || fail "not all were answered in the open loop"
if load --model nothing --requests 3; then fail "a model that is not there did not fail"; fi
grep -q '3 times: 404' "$folder/out" || fail "the status of what failed is not told"
stop
if load --model "$name" --requests 3; then fail "a server that is not there did not fail"; fi
grep -q '3 times: cannot connect' "$folder/out" || fail "that nobody listens is not told"

start --max-queue 1
load --model "$name" --mix 1:100/100 --requests 300 --concurrency 100 || fail "an overload failed"
[[ $(field refused) -gt 0 && $(($(field answered) + $(field refused))) == 300 ]] || fail "a full queue refused nobody"
if grep -q "without Retry-After" "$folder/out"; then fail "who was refused was not told when to come again"; fi
