// Times work as the replays of a CUDA graph, so that the CPU's launch cost is in nobody's figure.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_TIMING_H_
#define DAK_TESTS_BENCH_DAK_BENCH_TIMING_H_

#include <cuda_runtime_api.h>

#include <functional>
#include <utility>
#include <vector>

namespace dak::bench {

// Captures `enqueue` once and returns the median seconds of a replay, after `warmups`, and after it has been replayed
// for `steady_s`: a GPU's clock falls to what its power allows within some 30 ms of a heavy load. Without steady_s the
// GPU has a rest before. What `enqueue` forks to other streams must join `stream` again.
double TimeGraph(cudaStream_t stream, const std::function<void()>& enqueue, int repeats = 15, int warmups = 3,
                 double steady_s = 0);
inline constexpr double kSteadyS = 0.1;

// The same of several pieces of work, by replays in turn, so that what drifts while they run is in all figures.
std::vector<double> TimeGraphsInTurn(cudaStream_t stream, const std::vector<std::function<void()>>& works, int repeats);
std::pair<double, double> TimeGraphsInTurn(cudaStream_t stream, const std::function<void()>& first,
                                           const std::function<void()>& second, int repeats);

// Median seconds of `enqueue` itself, between two events.
double TimeEvents(cudaStream_t stream, const std::function<void()>& enqueue, int repeats = 15, int warmups = 3);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_TIMING_H_
