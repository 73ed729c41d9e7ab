#include "tests/bench/dak_bench/timing.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <thread>
#include <vector>

#include "tests/bench/dak_bench/check.h"

namespace dak::bench {
namespace {

constexpr auto kRest = std::chrono::milliseconds(30);

class Stopwatch {
 public:
  explicit Stopwatch(cudaStream_t stream) : stream_(stream) {
    DAK_CUDA(cudaEventCreate(&begin_));
    DAK_CUDA(cudaEventCreate(&end_));
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  double Seconds(const std::function<void()>& enqueue) {
    DAK_CUDA(cudaEventRecord(begin_, stream_));
    enqueue();
    DAK_CUDA(cudaEventRecord(end_, stream_));
    DAK_CUDA(cudaEventSynchronize(end_));
    float milliseconds = 0;
    DAK_CUDA(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return milliseconds * 1e-3;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

class Graph {
 public:
  Graph(cudaStream_t stream, const std::function<void()>& enqueue) : stream_(stream) {
    DAK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    enqueue();
    DAK_CUDA(cudaStreamEndCapture(stream, &graph_));
    DAK_CUDA(cudaGraphInstantiate(&exec_, graph_, 0));
  }
  ~Graph() {
    cudaGraphExecDestroy(exec_);
    cudaGraphDestroy(graph_);
  }
  void Replay() const { DAK_CUDA(cudaGraphLaunch(exec_, stream_)); }

 private:
  cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t exec_ = nullptr;
};

double Median(std::vector<double>& seconds) {
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

}  // namespace

double TimeEvents(cudaStream_t stream, const std::function<void()>& enqueue, int repeats, int warmups) {
  Stopwatch stopwatch(stream);
  for (int i = 0; i < warmups; ++i) enqueue();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) seconds.push_back(stopwatch.Seconds(enqueue));
  return Median(seconds);
}

double TimeGraph(cudaStream_t stream, const std::function<void()>& enqueue, int repeats, int warmups, double steady_s) {
  const Graph graph(stream, enqueue);
  const auto replay = [&] { graph.Replay(); };
  if (steady_s > 0) {
    warmups += static_cast<int>(std::ceil(steady_s / Stopwatch(stream).Seconds(replay)));
  } else {
    DAK_CUDA(cudaStreamSynchronize(stream));
    std::this_thread::sleep_for(kRest);  // tidy: sleep, because a GPU cools down by time alone
  }
  return TimeEvents(stream, replay, repeats, warmups);
}

std::vector<double> TimeGraphsInTurn(cudaStream_t stream, const std::vector<std::function<void()>>& works,
                                     int repeats) {
  Stopwatch stopwatch(stream);
  std::vector<std::unique_ptr<Graph>> graphs;
  for (const auto& work : works) graphs.push_back(std::make_unique<Graph>(stream, work));
  for (const auto& graph : graphs) graph->Replay();
  std::vector<std::vector<double>> seconds(graphs.size());
  for (int i = 0; i < repeats; ++i) {
    for (size_t g = 0; g < graphs.size(); ++g) {
      seconds[g].push_back(stopwatch.Seconds([&] { graphs[g]->Replay(); }));
    }
  }
  std::vector<double> medians;
  for (std::vector<double>& of_one : seconds) medians.push_back(Median(of_one));
  return medians;
}

std::pair<double, double> TimeGraphsInTurn(cudaStream_t stream, const std::function<void()>& first,
                                           const std::function<void()>& second, int repeats) {
  const std::vector<double> seconds = TimeGraphsInTurn(stream, {first, second}, repeats);
  return {seconds[0], seconds[1]};
}

}  // namespace dak::bench
