#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# pkg_config.sh PROGRAM PC_DIRECTORY WORK COMPILER: one line, as a user without CMake would type it.
set -euo pipefail
export PKG_CONFIG_PATH=$2
mkdir -p "$3"
"$4" -std=c++20 $(pkg-config --cflags troika) "$1" -o "$3/consumer" $(pkg-config --libs troika)
"$3/consumer"
