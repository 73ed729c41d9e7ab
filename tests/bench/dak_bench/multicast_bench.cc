// `dak-bench multicast`: unique remote bytes a second where every CTA of a cluster needs every tile, with and without
// multicast, with as many bytes in flight.
#include <algorithm>
#include <vector>

#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/multicast_stream.h"
#include "tests/bench/dak_bench/operation.h"
#include "tests/bench/dak_bench/table.h"
#include "tests/bench/dak_bench/timing.h"

namespace dak::bench {
namespace {

constexpr uint64_t kLinkBytes = uint64_t{64} << 20;  // that a run reads from the link

// Ends the program unless every CTA got every word of its cluster's slice.
void CheckSums(Context& context, const MulticastStream& stream) {
  uint32_t* sums = nullptr;
  const uint32_t ctas = stream.clusters * stream.cluster_ctas;
  DAK_CUDA(cudaMalloc(reinterpret_cast<void**>(&sums), 2 * ctas * sizeof(uint32_t)));
  DAK_CUDA(cudaMemsetAsync(sums, 0, 2 * ctas * sizeof(uint32_t), context.stream));
  MulticastStream summed = stream;
  summed.sums = sums;
  StreamToClusters(summed, context.stream);
  SumSlices(stream.data, uint64_t{stream.chunks_per_cluster} * kMulticastChunkBytes, stream.clusters, sums + ctas,
            context.stream);
  std::vector<uint32_t> host(2 * ctas);
  DAK_CUDA(cudaMemcpyAsync(host.data(), sums, host.size() * sizeof(uint32_t), cudaMemcpyDefault, context.stream));
  DAK_CUDA(cudaStreamSynchronize(context.stream));
  DAK_CUDA(cudaFree(sums));
  for (uint32_t cta = 0; cta < ctas; ++cta) {
    if (host[cta] != host[ctas + cta / stream.cluster_ctas]) Fail("multicast", "wrong sums");
  }
}

}  // namespace

void RunMulticast(Context& context) {
  Table table("multicast: every CTA of a cluster needs every tile, " + context.device_name, &context.report);
  // A CTA has kMulticastInflightChunks on the way. With multicast a place is free only when all CTAs of the cluster are
  // done with it, so that a large cluster needs more in flight for the same rate.
  for (const uint32_t ctas : {16u, 32u, 64u}) {
    for (const uint32_t cluster_ctas : {1u, 2u, 4u, 8u}) {
      for (const bool multicast : {false, true}) {
        if (multicast && cluster_ctas == 1) continue;
        MulticastStream stream{.data = context.host,
                               .clusters = ctas / cluster_ctas,
                               .cluster_ctas = cluster_ctas,
                               .multicast = multicast};
        const uint64_t unique_bytes = std::min(kLinkBytes / (multicast ? 1 : cluster_ctas), context.host_bytes);
        stream.chunks_per_cluster = static_cast<uint32_t>(unique_bytes / kMulticastChunkBytes / stream.clusters);
        CheckSums(context, stream);
        const double seconds = TimeEvents(
            context.stream, [&] { StreamToClusters(stream, context.stream); }, 7, 1);
        const double unique =
            static_cast<double>(stream.chunks_per_cluster) * stream.clusters * kMulticastChunkBytes / seconds;
        table.Add(Table::Row()
                      .Number("cluster_ctas", cluster_ctas)
                      .Text("multicast", multicast ? "on" : "off")
                      .Number("inflight_kib", ctas * kMulticastInflightChunks * kMulticastChunkBytes / 1024)
                      .Number("unique_gbps", unique * 1e-9)
                      .Number("link_gbps", unique * (multicast ? 1 : cluster_ctas) * 1e-9)
                      .Number("unique_of_sm_link", unique / context.ceilings.link_bytes_per_s));
      }
    }
  }
}

}  // namespace dak::bench
