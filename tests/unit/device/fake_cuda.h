// A CUDA driver without a GPU: memfds and mmap behind the driver's function table, for tests of the cuda device.
//
// It keeps the rules that the real driver states (a context must be current where the driver needs one, ranges must be
// mapped and accessible, what is created must be released, once) and notes every breach. It counts what is alive, and
// fails the nth call on order. A release that is made to fail still releases, as a driver that reports an earlier
// asynchronous error does. Descriptors are memfds whose names tell their location, so that another process's fake
// imports them.
//
// One at a time a process, since the driver's functions carry no state. Thread-safe.
#ifndef DAK_TESTS_UNIT_DEVICE_FAKE_CUDA_H_
#define DAK_TESTS_UNIT_DEVICE_FAKE_CUDA_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "allocator/device/cuda/cuda_driver.h"

namespace dak {

struct FakeCudaConfig {
  int driver_version = 13'000;
  int device_count = 2;
  uint64_t device_bytes = uint64_t{64} << 20;
  std::map<CUdevice_attribute, int> attributes = {
      {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1},
      {CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 1},
      {CU_DEVICE_ATTRIBUTE_HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1},
      {CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED, 1},
      {CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, 0},
      {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9},
      {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0},
      {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 132},
  };
  size_t granularity = size_t{2} << 20;
  CUresult init_result = CUDA_SUCCESS;
  // What cuMemSetAccess answers for the CPU, by whether writing is asked for.
  CUresult cpu_write_access = CUDA_SUCCESS;
  CUresult cpu_read_access = CUDA_SUCCESS;
  // Errors have no names, as with a driver that is older than the code.
  bool names_errors = true;
};

// What is alive in the driver.
struct FakeCudaLive {
  int64_t contexts = 0;
  int64_t pushed = 0;
  int64_t handles = 0;
  int64_t reservations = 0;
  int64_t mappings = 0;
  int64_t registrations = 0;
  int64_t streams = 0;
  friend bool operator==(const FakeCudaLive&, const FakeCudaLive&) = default;
};

class FakeCuda {
 public:
  explicit FakeCuda(FakeCudaConfig config = {});
  ~FakeCuda();
  FakeCuda(const FakeCuda&) = delete;
  FakeCuda& operator=(const FakeCuda&) = delete;

  const CudaDriver* table() const { return &table_; }

  // The nth call from now (1: the next) returns `result`; 0 cancels. cuGetErrorName doesn't count.
  void FailNthCall(uint64_t nth, CUresult result);
  // Every call of this function returns `result` until cleared with CUDA_SUCCESS.
  void FailCallsOf(const std::string& function, CUresult result);
  // The function that the last order failed; nothing if it hasn't yet.
  std::optional<std::string> failed_function() const;
  // Calls so far by name.
  uint64_t calls(const std::string& function) const;

  FakeCudaLive live() const;
  // Rules that were broken, in words.
  std::vector<std::string> breaches() const;

  struct Handle {
    int fd = -1;
    uint64_t bytes = 0;
    CUmemLocation location{};
    bool created = false;  // here, not imported
  };
  struct Mapping {
    uint64_t bytes = 0;
    int fd = -1;  // the memory, as long as it is mapped
    CUmemLocation location{};
    CUmemAccess_flags gpu = CU_MEM_ACCESS_FLAGS_PROT_NONE;
    CUmemAccess_flags cpu = CU_MEM_ACCESS_FLAGS_PROT_NONE;
  };
  struct Registration {
    uint64_t bytes = 0;
    bool read_only = false;
  };
  struct State {
    std::map<CUmemGenericAllocationHandle, Handle> handles;
    std::map<CUdeviceptr, uint64_t> reservations;
    std::map<CUdeviceptr, Mapping> mappings;
    std::map<CUdeviceptr, Registration> registrations;
    int64_t contexts = 0;
    int64_t pushed = 0;
    int64_t streams = 0;
    uint64_t next_handle = 100;
  };

  // For the driver's functions (fake_cuda.cc).
  static FakeCuda& Current();
  // Counts the call; what it must return if it was ordered to fail.
  CUresult Enter(const char* function);
  CUresult Breach(const std::string& what, CUresult result);
  const FakeCudaConfig& config() const { return config_; }

  mutable std::mutex mutex;
  State state;

 private:
  const FakeCudaConfig config_;
  CudaDriver table_;
  uint64_t countdown_ = 0;
  CUresult ordered_ = CUDA_SUCCESS;
  std::optional<std::string> failed_function_;
  std::map<std::string, CUresult> failing_functions_;
  std::map<std::string, uint64_t> calls_;
  std::vector<std::string> breaches_;
};

}  // namespace dak

#endif  // DAK_TESTS_UNIT_DEVICE_FAKE_CUDA_H_
