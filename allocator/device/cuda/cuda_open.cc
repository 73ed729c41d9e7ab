// Finding a device and learning what it can do.
#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "allocator/device/cuda/cuda_device.h"
#include "allocator/device/device_checks.h"

namespace dak {
namespace {

absl::Status NoSuchGpu(const std::string& message) { return WithReason(absl::NotFoundError(message), "NO_DEVICE"); }

absl::Status InitDriver(const CudaDriver& driver) {
  const CUresult result = driver.cuInit(0);
  if (result == CUDA_ERROR_NO_DEVICE) return NoSuchGpu("the CUDA driver sees no GPU: CUDA_ERROR_NO_DEVICE (100)");
  DAK_RETURN_IF_ERROR(DriverStatus(driver, result, "cuInit"));
  int version = 0;
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(driver, cuDriverGetVersion, &version));
  if (version >= kMinDriverVersion) return absl::OkStatus();
  return WithReason(absl::FailedPreconditionError(absl::StrCat(
                        "the CUDA driver is too old: it supports CUDA ", version / 1000, ".", version % 1000 / 10,
                        ", not ", kMinDriverVersion / 1000, ".", kMinDriverVersion % 1000 / 10)),
                    "DRIVER_TOO_OLD");
}

absl::StatusOr<std::string> UuidOf(const CudaDriver& driver, CUdevice device) {
  CUuuid uuid{};
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(driver, cuDeviceGetUuid, &uuid, device));
  return absl::BytesToHexString(absl::string_view(uuid.bytes, sizeof(uuid.bytes)));
}

// "GPU-8F0c..-..", as nvidia-smi prints it, or plain hex digits: to what UuidOf gives.
std::string NormalUuid(const std::string& uuid) {
  std::string digits = absl::AsciiStrToLower(uuid);
  if (absl::StartsWith(digits, "gpu-")) digits = digits.substr(4);
  return absl::StrReplaceAll(digits, {{"-", ""}});
}

absl::StatusOr<CUdevice> FindDevice(const CudaDriver& driver, const DeviceOptions& options) {
  int count = 0;
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(driver, cuDeviceGetCount, &count));
  CUdevice device = 0;
  if (options.uuid.empty()) {
    if (options.ordinal < 0 || options.ordinal >= count) {
      return NoSuchGpu(absl::StrCat("there is no GPU ", options.ordinal, ": the CUDA driver sees ", count));
    }
    DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(driver, cuDeviceGet, &device, options.ordinal));
    return device;
  }
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(driver, cuDeviceGet, &device, ordinal));
    DAK_ASSIGN_OR_RETURN(const std::string uuid, UuidOf(driver, device));
    if (uuid == NormalUuid(options.uuid)) return device;
  }
  return NoSuchGpu(absl::StrCat("there is no GPU with uuid ", options.uuid, " among ", count));
}

absl::StatusOr<int> Attribute(const CudaDriver& driver, CUdevice device, CUdevice_attribute attribute) {
  int value = 0;
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(driver, cuDeviceGetAttribute, &value, attribute, device));
  return value;
}

absl::Status Require(const CudaDriver& driver, CUdevice device, CUdevice_attribute attribute, const char* what) {
  DAK_ASSIGN_OR_RETURN(const int value, Attribute(driver, device, attribute));
  if (value != 0) return absl::OkStatus();
  return WithReason(absl::FailedPreconditionError(absl::StrCat("the GPU doesn't support ", what)),
                    "DEVICE_UNSUPPORTED");
}

// What measurements of this machine are good for: a new driver may change them.
absl::StatusOr<std::string> DriverVersion(const CudaDriver& driver) {
  int version = 0;
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(driver, cuDriverGetVersion, &version));
  std::string text = absl::StrCat("CUDA ", version / 1000, ".", version % 1000 / 10);
  std::ifstream module("/sys/module/nvidia/version");
  std::string own;
  if (module >> own) absl::StrAppend(&text, ", ", own);
  return text;
}

absl::StatusOr<DeviceDescription> Describe(const CudaDriver& driver, CUdevice device) {
  DeviceDescription description;
  description.kind = "cuda";
  description.ordinal = device;
  std::array<char, 256> name{};
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(driver, cuDeviceGetName, name.data(), static_cast<int>(name.size()) - 1, device));
  description.name = name.data();
  DAK_ASSIGN_OR_RETURN(description.uuid, UuidOf(driver, device));
  DAK_ASSIGN_OR_RETURN(const int major, Attribute(driver, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR));
  DAK_ASSIGN_OR_RETURN(const int minor, Attribute(driver, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
  description.compute_capability = 10 * major + minor;
  DAK_ASSIGN_OR_RETURN(description.multiprocessors,
                       Attribute(driver, device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT));
  DAK_ASSIGN_OR_RETURN(description.driver, DriverVersion(driver));
  return description;
}

}  // namespace

absl::StatusOr<CudaDevice::Traits> CudaDevice::ReadTraits(const CudaDriver& driver, CUdevice device,
                                                          const DeviceOptions& options, const std::string& node_root) {
  DAK_RETURN_IF_ERROR(
      Require(driver, device, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, "virtual memory management"));
  DAK_RETURN_IF_ERROR(Require(driver, device, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED,
                              "sharing memory by file descriptors"));
  Traits traits;
  traits.node_root = node_root;
  DAK_ASSIGN_OR_RETURN(const int host_numa,
                       Attribute(driver, device, CU_DEVICE_ATTRIBUTE_HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED));
  traits.driver_makes_host_memory = host_numa != 0 && !options.host_memfd;
  DAK_ASSIGN_OR_RETURN(const int read_only,
                       Attribute(driver, device, CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED));
  traits.registers_read_only = read_only != 0;
  DAK_ASSIGN_OR_RETURN(const int nearest, Attribute(driver, device, CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID));
  traits.host_node = std::max(nearest, 0);  // -1: a machine without NUMA, where the driver wants 0
  traits.cxl_node = options.cxl_numa_node;
  if (traits.cxl_node < -1 || traits.cxl_node > kMaxNode ||
      (traits.cxl_node >= 0 && !NodeMemoryBytes(node_root, traits.cxl_node).ok())) {
    return InvalidField("cxl_numa_node", absl::StrCat("there is no NUMA node ", traits.cxl_node),
                        "-1, or a node of this machine", "NO_SUCH_NODE");
  }
  return traits;
}

absl::Status CudaDevice::CheckGranularity(const CUmemLocation& location) const {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = location;
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  size_t granularity = 0;
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(context_->driver(), cuMemGetAllocationGranularity, &granularity, &properties,
                                    CU_MEM_ALLOC_GRANULARITY_MINIMUM));
  if (granularity != 0 && kDeviceGranuleBytes % granularity == 0) return absl::OkStatus();
  return WithReason(absl::FailedPreconditionError(
                        absl::StrCat("the driver makes memory in pieces of ", granularity, " bytes, not of 2 MiB")),
                    "DEVICE_UNSUPPORTED");
}

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Open(const CudaDriver* driver, const DeviceOptions& options,
                                                             const std::string& node_root) {
  DAK_RETURN_IF_ERROR(InitDriver(*driver));
  DAK_ASSIGN_OR_RETURN(const CUdevice gpu, FindDevice(*driver, options));
  DAK_ASSIGN_OR_RETURN(DeviceDescription description, Describe(*driver, gpu));
  DAK_ASSIGN_OR_RETURN(Traits traits, ReadTraits(*driver, gpu, options, node_root));
  description.cxl_numa_node = traits.cxl_node;
  DAK_ASSIGN_OR_RETURN(SharedContext context, CudaContext::Retain(driver, gpu));
  std::unique_ptr<CudaDevice> device(new CudaDevice(std::move(context), std::move(description), std::move(traits)));
  DAK_RETURN_IF_ERROR(device->CheckGranularity(device->LocationFor(Tier::kHbm)));
  if (device->traits_.driver_makes_host_memory) {
    DAK_RETURN_IF_ERROR(device->CheckGranularity(device->LocationFor(Tier::kHost)));
  }
  return device;
}

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(const DeviceOptions& options) {
  DAK_ASSIGN_OR_RETURN(const CudaDriver* driver, LoadCudaDriver());
  return CudaDevice::Open(driver, options);
}

}  // namespace dak
