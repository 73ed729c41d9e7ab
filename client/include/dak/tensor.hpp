// A tensor of a session, as dak/dak.hpp hands it out: a handle, valid until it is freed, detached or its session ends.
//
// Values: copyable; they own nothing. Thread safety and errors: as of the calls of dak/dak.h that they make.
#ifndef DAK_TENSOR_HPP_
#define DAK_TENSOR_HPP_

#include <cstdint>
#include <span>
#include <vector>

#include "dak/dak.h"
#include "dak/result.hpp"

namespace dak {
inline namespace v0 {

class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(dak_tensor* tensor) : tensor_(tensor) {}
  dak_tensor* get() const { return tensor_; }

  Result<dak_tensor_info> GetInfo() const {
    dak_tensor_info info{};
    info.struct_size = sizeof(info);
    if (Status s = Check([&](dak_error* e) { return dak_tensor_get_info(tensor_, &info, e); }); !s.ok()) return s;
    return info;
  }
  // In order of rows.
  Result<std::vector<dak_tensor_part>> GetParts() const {
    Result<dak_tensor_info> info = GetInfo();
    if (!info.ok()) return info.status();
    std::vector<dak_tensor_part> parts(info->part_count);
    for (uint32_t i = 0; i < info->part_count; ++i) {
      parts[i].struct_size = sizeof(parts[i]);
      if (Status s = Check([&](dak_error* e) { return dak_tensor_get_part(tensor_, i, &parts[i], e); }); !s.ok()) {
        return s;
      }
    }
    return parts;
  }
  template <typename T>
  Status Upload(std::span<T> source, uint64_t offset_bytes = 0) const {
    return Check(
        [&](dak_error* e) { return dak_tensor_upload(tensor_, offset_bytes, source.data(), source.size_bytes(), e); });
  }
  template <typename T>
  Status Download(std::span<T> target, uint64_t offset_bytes = 0) const {
    return Check([&](dak_error* e) {
      return dak_tensor_download(tensor_, offset_bytes, target.data(), target.size_bytes(), e);
    });
  }
  Status VerifyMap(uint32_t part) const {
    return Check([&](dak_error* e) { return dak_tensor_verify_map(tensor_, part, e); });
  }

 private:
  dak_tensor* tensor_ = nullptr;
};

}  // namespace v0
}  // namespace dak

#endif  // DAK_TENSOR_HPP_
