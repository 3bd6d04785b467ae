// SPDX-License-Identifier: Apache-2.0
#pragma once

// What nearly every test includes and nobody edits, parsed once. No header of troika: a change in one should rebuild
// what includes it, not everything.
#include <support/catch.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <thread>
#include <vector>
