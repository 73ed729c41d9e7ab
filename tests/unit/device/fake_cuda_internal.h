// What the two halves of the fake driver share. For fake_cuda*.cc only.
#ifndef DAK_TESTS_UNIT_DEVICE_FAKE_CUDA_INTERNAL_H_
#define DAK_TESTS_UNIT_DEVICE_FAKE_CUDA_INTERNAL_H_

#include <mutex>

#include "tests/unit/device/fake_cuda.h"

namespace dak {

// Contexts that are current on this thread.
inline thread_local int fake_pushed = 0;

void FillFakeMemoryFunctions(CudaDriver* table);

}  // namespace dak

// Enters a function of the driver: locks, counts, and answers the order to fail, if any.
#define FAKE_ENTER(function)                    \
  FakeCuda& fake = FakeCuda::Current();         \
  std::lock_guard<std::mutex> lock(fake.mutex); \
  if (CUresult ordered = fake.Enter(#function); ordered != CUDA_SUCCESS) return ordered

// The same for a release: the work is done all the same.
#define FAKE_ENTER_RELEASE(function)            \
  FakeCuda& fake = FakeCuda::Current();         \
  std::lock_guard<std::mutex> lock(fake.mutex); \
  const CUresult ordered = fake.Enter(#function)

#define FAKE_NEED_CONTEXT(function) \
  if (fake_pushed == 0) return fake.Breach(#function " without a current context", CUDA_ERROR_INVALID_CONTEXT)

#endif  // DAK_TESTS_UNIT_DEVICE_FAKE_CUDA_INTERNAL_H_
