// The shortest useful program over libdak: a matrix split between HBM and host memory, and y = x W^T on it.
//
// Build:  g++ -std=c++20 quickstart.cc $(pkg-config --cflags --libs dak)
// Run:    dakd --runtime-dir=/tmp/dak & DAK_RUNTIME_DIR=/tmp/dak ./a.out
#include <cstdint>
#include <cstdio>
#include <vector>

#include "dak/dak.hpp"

namespace {

constexpr uint64_t kRows = 1024;
constexpr uint64_t kCols = 512;
constexpr uint16_t kOne = 0x3f80;  // 1.0 in bf16

int Fail(const dak::Status& status) {
  std::fprintf(stderr, "quickstart: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace

int main() {
  dak::Result<dak::Session> session = dak::Session::Open();
  if (!session.ok()) return Fail(session.status());

  // A quarter of W's rows are in host memory; x and y are wholly in HBM.
  const std::vector<dak::TensorSpec> specs = {{.name = "w", .rows = kRows, .cols = kCols, .offload_ratio = 0.25},
                                              {.name = "x", .rows = 1, .cols = kCols},
                                              {.name = "y", .rows = 1, .cols = kRows}};
  dak::Result<std::vector<dak::Tensor>> tensors = session->Allocate(specs);
  if (!tensors.ok()) return Fail(tensors.status());
  const dak::Tensor w = (*tensors)[0];
  const dak::Tensor x = (*tensors)[1];
  const dak::Tensor y = (*tensors)[2];
  dak::Result<std::vector<dak_tensor_part>> x_parts = x.GetParts();
  dak::Result<std::vector<dak_tensor_part>> y_parts = y.GetParts();
  if (!x_parts.ok()) return Fail(x_parts.status());
  if (!y_parts.ok()) return Fail(y_parts.status());

  const std::vector<uint16_t> ones(kRows * kCols, kOne);
  if (dak::Status s = w.Upload(std::span(ones)); !s.ok()) return Fail(s);
  if (dak::Status s = x.Upload(std::span(ones).first(kCols)); !s.ok()) return Fail(s);
  dak::Status status = session->Gemm(w, x_parts->front().device_address, y_parts->front().device_address, /*batch=*/1);
  if (!status.ok()) return Fail(status);
  if (dak::Status s = session->Synchronize(); !s.ok()) return Fail(s);

  std::vector<uint16_t> result(kRows);
  if (dak::Status s = y.Download(std::span(result)); !s.ok()) return Fail(s);
  for (const uint16_t element : result) {
    if (element != 0x4400) {  // 512.0
      std::fprintf(stderr, "quickstart: wrong result\n");
      return 1;
    }
  }
  std::printf("every y is %llu, as it should be\n", static_cast<unsigned long long>(kCols));
  return 0;
}
