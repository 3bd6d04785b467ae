// SPDX-License-Identifier: Apache-2.0

// The times of MPI_Allreduce in the form of `bench_collectives --samples`: one line a size, "bytes us us ...", where 1
// byte stands for a barrier. Usage: mpirun -n RANKS bench_collectives_mpi BATCHES in|out

#include <mpi.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const int batches = argc > 1 ? std::atoi(argv[1]) : 5;
  const bool in_place = argc > 2 && std::string(argv[2]) == "in";
  std::vector<float> in((64 << 20) / 4, 0.0f), out(in_place ? 0 : in.size(), 0.0f);
  const auto time = [&](std::size_t bytes, auto&& once) {
    const int calls = static_cast<int>(std::max<std::size_t>(2, std::min<std::size_t>(1000, (8 << 20) / bytes)));
    for (int i = 0; i < std::min(calls, 50); ++i) once();
    std::vector<double> samples;
    for (int b = 0; b < batches; ++b) {
      MPI_Barrier(MPI_COMM_WORLD);
      const double begin = MPI_Wtime();
      for (int i = 0; i < calls; ++i) once();
      samples.push_back((MPI_Wtime() - begin) * 1e6 / calls);
    }
    if (rank == 0) {
      std::printf("%zu", bytes);
      for (const double sample : samples) std::printf(" %.4f", sample);
      std::printf("\n");
    }
  };
  time(1, [] { MPI_Barrier(MPI_COMM_WORLD); });
  for (std::size_t bytes = 1 << 10; bytes <= in.size() * 4; bytes *= 4) {
    time(bytes, [&] {
      MPI_Allreduce(in_place ? MPI_IN_PLACE : in.data(), in_place ? in.data() : out.data(), static_cast<int>(bytes / 4),
                    MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    });
  }
  MPI_Finalize();
}
