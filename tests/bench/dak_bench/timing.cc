#include "tests/bench/dak_bench/timing.h"

#include <algorithm>
#include <vector>

#include "tests/bench/dak_bench/check.h"

namespace dak::bench {

double TimeEvents(cudaStream_t stream, const std::function<void()>& enqueue, int repeats, int warmups) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  DAK_CUDA(cudaEventCreate(&begin));
  DAK_CUDA(cudaEventCreate(&end));
  for (int i = 0; i < warmups; ++i) enqueue();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    DAK_CUDA(cudaEventRecord(begin, stream));
    enqueue();
    DAK_CUDA(cudaEventRecord(end, stream));
    DAK_CUDA(cudaEventSynchronize(end));
    float milliseconds = 0;
    DAK_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
    seconds.push_back(milliseconds * 1e-3);
  }
  DAK_CUDA(cudaEventDestroy(begin));
  DAK_CUDA(cudaEventDestroy(end));
  std::nth_element(seconds.begin(), seconds.begin() + repeats / 2, seconds.end());
  return seconds[repeats / 2];
}

double TimeGraph(cudaStream_t stream, const std::function<void()>& enqueue, int repeats, int warmups) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  DAK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  enqueue();
  DAK_CUDA(cudaStreamEndCapture(stream, &graph));
  DAK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  const double seconds = TimeEvents(
      stream, [&] { DAK_CUDA(cudaGraphLaunch(exec, stream)); }, repeats, warmups);
  DAK_CUDA(cudaGraphExecDestroy(exec));
  DAK_CUDA(cudaGraphDestroy(graph));
  return seconds;
}

}  // namespace dak::bench
