#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -u
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

# says yes|no EXPECTATION CODE MESSAGES
says() {
  printf '// expect: %s\n' "$2" > "$work/case"
  printf '%s\n%s\n' "$3" "$4" > "$work/answer"
  local said=no
  bash "$here/judge.sh" "$work/case" "$work/answer" > "$work/out" && said=yes
  [[ $said == "$1" ]] || { echo "said $said: expect '$2', code $3, messages '$4'"; bad=1; }
}
says yes 'gelu of a sum' 1 $'a.cpp:1: error: static assertion failed: gelu of a sum is not'
says no  'gelu of a sum' 0 ''
says no  'gelu of a sum' 1 $'a.cpp:1: error: no such file'
says no  'gelu of a sum' 1 $'a.cpp:1: error: no such file\na.cpp:2: error: gelu of a sum'
says yes $'gelu of a sum\n// errors: 1' 1 'a.cpp:1: error: gelu of a sum'
says no  $'gelu of a sum\n// errors: 1' 1 $'a.cpp:1: error: gelu of a sum\nb.cpp:1: error: more'
says yes 'compiles' 0 ''
says no  'compiles' 1 $'a.cpp:1: error: anything'
exit $bad
