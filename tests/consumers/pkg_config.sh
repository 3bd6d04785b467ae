#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# pkg_config.sh PACKAGE PC_DIRECTORY PROGRAM OUTPUT COMPILER [ARGUMENTS]: one line, as a user without CMake would type it.
set -euo pipefail
export PKG_CONFIG_PATH=$2
"$5" -std=c++20 $(pkg-config --cflags "$1") "$3" -o "$4" $(pkg-config --libs "$1")
"$4" "${@:6}"
