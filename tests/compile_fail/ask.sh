#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ask.sh ANSWER COMPILER ARGUMENTS...: writes the compiler's exit code and messages to ANSWER. A refusal is an answer, too.
answer=$1
shift
messages=$(LC_ALL=C "$@" 2>&1)
code=$?
printf '%s\n%s\n' "$code" "$messages" > "$answer"
