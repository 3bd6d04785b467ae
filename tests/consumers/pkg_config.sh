#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# pkg_config.sh PACKAGE PREFIX PC_DIRECTORY PROGRAM OUTPUT COMPILER [ARGUMENTS]
# One line, as a user without CMake would type it; not again when nothing changed.
set -euo pipefail
export PKG_CONFIG_PATH=$3
if [[ ! -e $5 || -n $(find "$2" "$4" -newer "$5" -print -quit) ]]; then
  "$6" -std=c++20 $(pkg-config --cflags "$1") "$4" -o "$5" $(pkg-config --libs "$1")
fi
"$5" "${@:7}"
