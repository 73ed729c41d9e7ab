#include "tests/bench/dak_bench/cublas.h"

#include <dlfcn.h>

#include <cstdio>

#include "tests/bench/dak_bench/check.h"

namespace dak::bench {
namespace {

// Values of cublas_api.h and library_types.h.
constexpr int kOperationNone = 0;
constexpr int kOperationTranspose = 1;
constexpr int kTypeF16 = 2;
constexpr int kTypeBf16 = 14;
constexpr int kCompute32F = 68;
constexpr int kDefaultAlgorithm = -1;
constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what NVIDIA recommends for Hopper

void CheckStatus(int status, const char* what) {
  if (status == 0) return;
  char text[32];
  std::snprintf(text, sizeof(text), "cuBLAS status %d", status);
  Fail(what, text);
}

}  // namespace

struct Cublas::Functions {
  int (*create)(void**);
  int (*destroy)(void*);
  int (*set_stream)(void*, cudaStream_t);
  int (*set_workspace)(void*, void*, size_t);
  int (*gemm)(void*, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int, const void*,
              void*, int, int, int, int);
};

std::unique_ptr<Cublas> Cublas::Open() {
  void* library = dlopen("libcublas.so.13", RTLD_NOW);
  if (library == nullptr) library = dlopen("libcublas.so.12", RTLD_NOW);
  if (library == nullptr) {
    std::fprintf(stderr, "dak-bench: no peers that need cuBLAS: %s\n", dlerror());
    return nullptr;
  }
  auto cublas = std::unique_ptr<Cublas>(new Cublas());
  cublas->functions_ = std::make_unique<Functions>();
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) Fail("libcublas lacks", name);
  };
  find(cublas->functions_->create, "cublasCreate_v2");
  find(cublas->functions_->destroy, "cublasDestroy_v2");
  find(cublas->functions_->set_stream, "cublasSetStream_v2");
  find(cublas->functions_->set_workspace, "cublasSetWorkspace_v2");
  find(cublas->functions_->gemm, "cublasGemmEx");
  CheckStatus(cublas->functions_->create(&cublas->handle_), "cublasCreate");
  DAK_CUDA(cudaMalloc(&cublas->workspace_, kWorkspaceBytes));
  return cublas;
}

Cublas::~Cublas() {
  if (handle_ != nullptr) functions_->destroy(handle_);
  cudaFree(workspace_);
}

void Cublas::Gemm(const void* x, const void* w, void* y, uint64_t batch, uint64_t n, uint64_t k, uint64_t y_stride,
                  bool f16, cudaStream_t stream) {
  const float one = 1;
  const float zero = 0;
  const int type = f16 ? kTypeF16 : kTypeBf16;
  const auto narrow = [](uint64_t value) { return static_cast<int>(value); };
  CheckStatus(functions_->set_stream(handle_, stream), "cublasSetStream");
  CheckStatus(functions_->set_workspace(handle_, workspace_, kWorkspaceBytes), "cublasSetWorkspace");
  CheckStatus(
      functions_->gemm(handle_, kOperationTranspose, kOperationNone, narrow(n), narrow(batch), narrow(k), &one, w, type,
                       narrow(k), x, type, narrow(k), &zero, y, type, narrow(y_stride), kCompute32F, kDefaultAlgorithm),
      "cublasGemmEx");
}

}  // namespace dak::bench
