#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# judge.sh CASE ANSWER: does the compiler's answer fit what the case expects?
set -u
case=$1
answer=$2
mapfile -t expected < <(sed -n 's|^// expect: *||p' "$case")
code=$(head -n 1 "$answer")
first=$(grep -m 1 -E '(error|fatal error): ' "$answer")

refuse() {
  echo "${case##*/}: $1"
  tail -n +2 "$answer" | head -n 30
  exit 1
}
[[ ${#expected[@]} -gt 0 ]] || refuse "it has no line '// expect: <regular expression>'"
if [[ ${expected[0]} == compiles ]]; then
  [[ $code -eq 0 ]] || refuse "this control must compile, but does not"
  echo "compiles, as it must"
  exit 0
fi
[[ $code -ne 0 ]] || refuse "this must not compile, but does"
wanted=$(sed -n 's|^// errors: *||p' "$case")
count=$(grep -c 'error: ' "$answer")
[[ -z $wanted || $count -eq $wanted ]] || refuse "$count errors instead of $wanted"
for pattern in "${expected[@]}"; do
  if [[ $first =~ $pattern ]]; then
    echo "$first"
    exit 0
  fi
done
refuse "the first error is not the expected one (${expected[*]})"
