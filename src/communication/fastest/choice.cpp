// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <string>

#include <troika/communication/fastest.hpp>

namespace troika {
namespace {

std::string size_name(std::size_t bytes) {
  if (bytes >= std::size_t{1} << 20) return std::to_string(bytes >> 20) + " MiB";
  if (bytes >= std::size_t{1} << 10) return std::to_string(bytes >> 10) + " KiB";
  return std::to_string(bytes) + " bytes";
}

}  // namespace

std::size_t FastestChoice::border(std::size_t i) const {
  return static_cast<std::size_t>(std::sqrt(static_cast<double>(sizes[i]) * static_cast<double>(sizes[i + 1])));
}

std::string FastestChoice::text() const {
  std::string all;
  for (std::size_t o = 0; o < operations.size(); ++o) {
    const auto& row = ways[o];
    all += (o > 0 ? "; " : "") + std::string(to_string(operations[o])) + " " + std::string(to_string(row[0]));
    for (std::size_t s = 1; s < row.size(); ++s)
      if (row[s] != row[s - 1]) all += ", " + std::string(to_string(row[s])) + " from " + size_name(border(s - 1));
  }
  return all;
}

FastestChoice FastestEngine::choose(const Log& log, const std::array<Trial, 2>& trials, const DeviceSite& site) {
  const Trial &peer = trials[index(Way::peer)], &nccl = trials[index(Way::nccl)];
  FastestChoice choice = FastestChoice::only(peer.sound ? Way::peer : nccl.sound ? Way::nccl : Way::host);
  if (peer.sound && nccl.sound) {
    for (std::size_t o = 0; o < choice.ways.size(); ++o)
      for (std::size_t s = 0; s < choice.sizes.size(); ++s)
        if (nccl.seconds[o][s] < peer.seconds[o][s]) choice.ways[o][s] = Way::nccl;
  }
  if (site.rank != 0) return choice;
  std::string line = "collectives of " + std::to_string(site.world_size) + " GPUs: ";
  line += peer.sound && nccl.sound ? choice.text() : std::string(to_string(choice.ways[0][0]));
  for (const Way way : {Way::peer, Way::nccl}) {
    const Trial& trial = trials[index(way)];
    if (trial.sound) continue;
    const std::string why = std::string(to_string(way)) + " is not used: " + trial.trouble.data();
    if (trial.missing)
      line += "; " + why;
    else
      log.write(LogLevel::warning, why);
  }
  log.write(LogLevel::info, line);
  return choice;
}

}  // namespace troika
