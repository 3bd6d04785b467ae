// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/mapped_file.hpp>

int main() { return 0; }
