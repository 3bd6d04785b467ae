// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <numeric>
#include <string>
#include <system_error>
#include <vector>

#include <troika/core/error.hpp>

// The numbers of GPUs that --gpus names: the first so many, or those of a list.
inline std::vector<int> parse_gpus(const std::string& text) {
  std::vector<int> numbers;
  const char *at = text.data(), *const end = at + text.size();
  for (bool more = true; more;) {
    const auto [rest, error] = std::from_chars(at, end, numbers.emplace_back());
    troika::expects(
        error == std::errc{} && numbers.back() >= 0 && numbers.back() <= 256 && (rest == end || *rest == ','),
        [&] { return "--gpus takes how many, such as 2, or their numbers, such as 0,2; not \"" + text + "\""; });
    more = rest != end;
    at = rest + (more ? 1 : 0);
  }
  if (numbers.size() > 1) return numbers;
  numbers.resize(static_cast<std::size_t>(numbers[0]));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}
