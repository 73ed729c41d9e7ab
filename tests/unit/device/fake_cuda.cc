#include "tests/unit/device/fake_cuda.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "tests/unit/device/fake_cuda_internal.h"

namespace dak {
namespace {

FakeCuda* g_current = nullptr;
CUresult Init(unsigned int) {
  FAKE_ENTER(cuInit);
  return fake.config().init_result;
}

CUresult DriverGetVersion(int* version) {
  FAKE_ENTER(cuDriverGetVersion);
  *version = fake.config().driver_version;
  return CUDA_SUCCESS;
}

CUresult GetErrorName(CUresult error, const char** name) {
  static const std::map<CUresult, const char*> names = {{CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
                                                        {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
                                                        {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
                                                        {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
                                                        {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"}};
  auto found = names.find(error);
  if (!FakeCuda::Current().config().names_errors || found == names.end()) return CUDA_ERROR_INVALID_VALUE;
  *name = found->second;
  return CUDA_SUCCESS;
}

CUresult DeviceGetCount(int* count) {
  FAKE_ENTER(cuDeviceGetCount);
  *count = fake.config().device_count;
  return CUDA_SUCCESS;
}

CUresult DeviceGet(CUdevice* device, int ordinal) {
  FAKE_ENTER(cuDeviceGet);
  if (ordinal < 0 || ordinal >= fake.config().device_count) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult DeviceGetName(char* name, int length, CUdevice device) {
  FAKE_ENTER(cuDeviceGetName);
  std::snprintf(name, static_cast<size_t>(length), "Fake GPU %d", device);
  return CUDA_SUCCESS;
}

CUresult DeviceGetUuid(CUuuid* uuid, CUdevice device) {
  FAKE_ENTER(cuDeviceGetUuid);
  for (int i = 0; i < 16; ++i) uuid->bytes[i] = static_cast<char>(0xA0 + i);
  uuid->bytes[15] = static_cast<char>(device);
  return CUDA_SUCCESS;
}

CUresult DeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
  FAKE_ENTER(cuDeviceGetAttribute);
  auto found = fake.config().attributes.find(attribute);
  if (found == fake.config().attributes.end()) return fake.Breach("unknown attribute", CUDA_ERROR_INVALID_VALUE);
  *value = found->second;
  return CUDA_SUCCESS;
}

CUresult DeviceTotalMem(size_t* bytes, CUdevice) {
  FAKE_ENTER(cuDeviceTotalMem);
  *bytes = fake.config().device_bytes;
  return CUDA_SUCCESS;
}

CUresult DevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  FAKE_ENTER(cuDevicePrimaryCtxRetain);
  ++fake.state.contexts;
  *context = reinterpret_cast<CUcontext>(&fake);
  return CUDA_SUCCESS;
}

CUresult DevicePrimaryCtxRelease(CUdevice) {
  FAKE_ENTER_RELEASE(cuDevicePrimaryCtxRelease);
  if (--fake.state.contexts < 0) return fake.Breach("context released twice", CUDA_ERROR_INVALID_CONTEXT);
  return ordered;
}

CUresult CtxPushCurrent(CUcontext context) {
  FAKE_ENTER(cuCtxPushCurrent);
  if (context != reinterpret_cast<CUcontext>(&fake))
    return fake.Breach("push of a strange context", CUDA_ERROR_INVALID_CONTEXT);
  ++fake_pushed;
  ++fake.state.pushed;
  return CUDA_SUCCESS;
}

CUresult CtxPopCurrent(CUcontext* context) {
  FAKE_ENTER_RELEASE(cuCtxPopCurrent);
  if (fake_pushed == 0) return fake.Breach("pop without push", CUDA_ERROR_INVALID_CONTEXT);
  --fake_pushed;
  --fake.state.pushed;
  *context = reinterpret_cast<CUcontext>(&fake);
  return ordered;
}

CUresult StreamSynchronize(CUstream) {
  FAKE_ENTER(cuStreamSynchronize);
  FAKE_NEED_CONTEXT(cuStreamSynchronize);
  return CUDA_SUCCESS;
}

CUresult CtxSynchronize() {
  FAKE_ENTER(cuCtxSynchronize);
  FAKE_NEED_CONTEXT(cuCtxSynchronize);
  return CUDA_SUCCESS;
}

CUresult StreamCreate(CUstream* stream, unsigned int flags) {
  FAKE_ENTER(cuStreamCreate);
  FAKE_NEED_CONTEXT(cuStreamCreate);
  if (flags != CU_STREAM_NON_BLOCKING) return fake.Breach("a stream that blocks others", CUDA_ERROR_INVALID_VALUE);
  ++fake.state.streams;
  *stream = reinterpret_cast<CUstream>(&fake.state.streams);
  return CUDA_SUCCESS;
}

CUresult StreamDestroy(CUstream stream) {
  FAKE_ENTER_RELEASE(cuStreamDestroy);
  if (stream != reinterpret_cast<CUstream>(&fake.state.streams) || --fake.state.streams < 0) {
    return fake.Breach("a strange stream destroyed", CUDA_ERROR_INVALID_VALUE);
  }
  return ordered;
}

CudaDriver MakeTable() {
  CudaDriver table;
  table.cuInit = Init;
  table.cuDriverGetVersion = DriverGetVersion;
  table.cuGetErrorName = GetErrorName;
  table.cuDeviceGetCount = DeviceGetCount;
  table.cuDeviceGet = DeviceGet;
  table.cuDeviceGetName = DeviceGetName;
  table.cuDeviceGetUuid = DeviceGetUuid;
  table.cuDeviceGetAttribute = DeviceGetAttribute;
  table.cuDeviceTotalMem = DeviceTotalMem;
  table.cuDevicePrimaryCtxRetain = DevicePrimaryCtxRetain;
  table.cuDevicePrimaryCtxRelease = DevicePrimaryCtxRelease;
  table.cuCtxPushCurrent = CtxPushCurrent;
  table.cuCtxPopCurrent = CtxPopCurrent;
  table.cuStreamSynchronize = StreamSynchronize;
  table.cuCtxSynchronize = CtxSynchronize;
  table.cuStreamCreate = StreamCreate;
  table.cuStreamDestroy = StreamDestroy;
  FillFakeMemoryFunctions(&table);
  return table;
}

}  // namespace

FakeCuda::FakeCuda(FakeCudaConfig config) : config_(std::move(config)), table_(MakeTable()) {
  if (g_current != nullptr) std::abort();
  g_current = this;
}

FakeCuda::~FakeCuda() {
  for (const auto& [address, bytes] : state.reservations) ::munmap(reinterpret_cast<void*>(address), bytes);
  for (const auto& [number, handle] : state.handles) ::close(handle.fd);
  fake_pushed = 0;
  g_current = nullptr;
}

FakeCuda& FakeCuda::Current() { return *g_current; }

CUresult FakeCuda::Enter(const char* function) {
  ++calls_[function];
  if (countdown_ != 0 && --countdown_ == 0) {
    failed_function_ = function;
    return ordered_;
  }
  auto found = failing_functions_.find(function);
  return found == failing_functions_.end() ? CUDA_SUCCESS : found->second;
}

CUresult FakeCuda::Breach(const std::string& what, CUresult result) {
  breaches_.push_back(what);
  return result;
}

void FakeCuda::FailNthCall(uint64_t nth, CUresult result) {
  std::lock_guard<std::mutex> lock(mutex);
  countdown_ = nth;
  ordered_ = result;
  failed_function_.reset();
}

void FakeCuda::FailCallsOf(const std::string& function, CUresult result) {
  std::lock_guard<std::mutex> lock(mutex);
  failing_functions_[function] = result;
}

std::optional<std::string> FakeCuda::failed_function() const {
  std::lock_guard<std::mutex> lock(mutex);
  return failed_function_;
}

uint64_t FakeCuda::calls(const std::string& function) const {
  std::lock_guard<std::mutex> lock(mutex);
  auto found = calls_.find(function);
  return found == calls_.end() ? 0 : found->second;
}

FakeCudaLive FakeCuda::live() const {
  std::lock_guard<std::mutex> lock(mutex);
  return {state.contexts,
          state.pushed,
          static_cast<int64_t>(state.handles.size()),
          static_cast<int64_t>(state.reservations.size()),
          static_cast<int64_t>(state.mappings.size()),
          static_cast<int64_t>(state.registrations.size()),
          state.streams};
}

std::vector<std::string> FakeCuda::breaches() const {
  std::lock_guard<std::mutex> lock(mutex);
  return breaches_;
}

}  // namespace dak
