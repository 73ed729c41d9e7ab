// The C ABI as a thin layer over Session: checks pointers and structs, converts, and lets nothing be thrown out.
#include "client/src/c_api.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "dak/dak.h"

namespace dak::client {
namespace {

constexpr size_t kMaxOperations = 100'000;

template <size_t size>
void CopyText(const std::string& text, char (&target)[size]) {
  const size_t length = text.copy(target, size - 1);
  target[length] = '\0';
}

absl::Status OpenSession(const dak_session_options* options, dak_session** session) {
  DAK_RETURN_IF_ERROR(NotNull("session", session));
  *session = nullptr;
  dak_session_options given{};
  if (options != nullptr) DAK_RETURN_IF_ERROR(ReadStruct("options", options, &given));
  DAK_ASSIGN_OR_RETURN(
      std::unique_ptr<Session> opened,
      Session::Open({.runtime_dir = TextOr(given.runtime_dir, ""),
                     .name = TextOr(given.name, ""),
                     .weight = given.weight,
                     .quota_bytes = {given.hbm_quota_bytes, given.host_quota_bytes, given.cxl_quota_bytes},
                     .timeout = absl::Nanoseconds(std::min<uint64_t>(given.timeout_ns, INT64_MAX))}));
  *session = reinterpret_cast<dak_session*>(opened.release());
  return absl::OkStatus();
}

absl::Status AllocateTensors(dak_session* session, const char* group, const dak_tensor_spec* specs, size_t count,
                             dak_tensor** tensors) {
  DAK_RETURN_IF_ERROR(CheckSession(session));
  DAK_RETURN_IF_ERROR(NotNull("specs", specs));
  DAK_RETURN_IF_ERROR(NotNull("tensors", tensors));
  DAK_RETURN_IF_ERROR(CheckCount(count, kMaxTensors));
  v1::AllocateTensorsRequest request;
  request.set_group(TextOr(group, "default"));
  for (size_t i = 0; i < count; ++i) {
    dak_tensor_spec given{};
    DAK_RETURN_IF_ERROR(ReadElement("tensors", specs, i, &given));
    DAK_RETURN_IF_ERROR(NotNull(absl::StrCat("tensors[", i, "].name"), given.name));
    v1::TensorSpec* const spec = request.add_tensors();
    spec->set_name(given.name);
    spec->set_data_type(static_cast<v1::DataType>(given.data_type));
    spec->set_rows(given.rows);
    spec->set_cols(given.cols);
    spec->set_remote_tier(given.remote_tier == 0 ? v1::TIER_HOST : static_cast<v1::Tier>(given.remote_tier));
    spec->set_offload_ratio(given.offload_ratio);
    spec->set_tile_rows(given.tile_rows);
  }
  DAK_ASSIGN_OR_RETURN(const std::vector<Tensor*> allocated, Unwrap(session)->Allocate(std::move(request)));
  for (size_t i = 0; i < count; ++i) tensors[i] = Wrap(allocated[i]);
  return absl::OkStatus();
}

absl::Status FreeTensors(dak_session* session, dak_tensor* const* tensors, size_t count) {
  DAK_RETURN_IF_ERROR(CheckSession(session));
  DAK_RETURN_IF_ERROR(NotNull("tensors", tensors));
  DAK_RETURN_IF_ERROR(CheckCount(count, kMaxTensors));
  std::vector<Tensor*> freed;
  for (size_t i = 0; i < count; ++i) freed.push_back(Unwrap(tensors[i]));
  return Unwrap(session)->Free(freed);
}

absl::Status GetSessionInfo(dak_session* session, dak_session_info* info) {
  DAK_RETURN_IF_ERROR(CheckSession(session));
  DAK_RETURN_IF_ERROR(CheckOutput("info", info));
  const SessionStatus status = Unwrap(session)->GetStatus();
  dak_session_info filled{};
  filled.session_id = status.session_id;
  CopyText(status.device_kind, filled.device_kind);
  CopyText(status.device_name, filled.device_name);
  filled.device_ordinal = status.device_ordinal;
  CopyText(status.daemon_version, filled.daemon_version);
  filled.window_bytes = status.window_bytes;
  filled.plan_version = status.plan_version;
  filled.remote_bytes = status.remote_bytes;
  filled.connected = status.connected ? 1 : 0;
  WriteStruct(filled, info);
  return absl::OkStatus();
}

absl::Status GetTensorInfo(const dak_tensor* tensor, dak_tensor_info* info) {
  DAK_RETURN_IF_ERROR(CheckTensor(tensor));
  DAK_RETURN_IF_ERROR(CheckOutput("info", info));
  const Tensor& from = *Unwrap(tensor);
  dak_tensor_info filled{};
  filled.tensor_id = from.id();
  filled.name = from.name().c_str();
  filled.group = from.group().c_str();
  filled.data_type = static_cast<dak_data_type>(from.element());
  filled.rows = from.rows();
  filled.cols = from.cols();
  filled.bytes = from.bytes();
  from.session()
      ->WithParts([&] {
        filled.part_count = static_cast<uint32_t>(from.parts().size());
        return absl::OkStatus();
      })
      .IgnoreError();
  filled.read_only = from.read_only() ? 1 : 0;
  WriteStruct(filled, info);
  return absl::OkStatus();
}

absl::Status FillTensorPart(const Tensor& from, uint32_t index, dak_tensor_part* part) {
  DAK_RETURN_IF_ERROR(from.CheckMapped());
  if (index >= from.parts().size()) {
    return InvalidField("index", absl::StrCat(index, " is out of range"),
                        absl::StrCat("at most ", from.parts().size() - 1));
  }
  const Part& source = from.parts()[index];
  dak_tensor_part filled{};
  filled.tier = static_cast<dak_tier>(source.mapping->tier());  // the host's while demoted
  filled.first_row = source.first_row;
  filled.rows = source.rows;
  filled.bytes = source.bytes;
  filled.device_address = source.address();
  auto* const host = static_cast<std::byte*>(source.mapping->host_pointer());
  filled.host_pointer = host != nullptr ? host + source.offset_bytes : nullptr;
  filled.tensor_map = source.map.has_value() ? source.map->bytes.data() : nullptr;
  WriteStruct(filled, part);
  return absl::OkStatus();
}

absl::Status GetTensorPart(const dak_tensor* tensor, uint32_t index, dak_tensor_part* part) {
  DAK_RETURN_IF_ERROR(CheckTensor(tensor));
  DAK_RETURN_IF_ERROR(CheckOutput("part", part));
  return Unwrap(tensor)->session()->WithParts([&] { return FillTensorPart(*Unwrap(tensor), index, part); });
}

absl::Status AttachPublication(dak_session* session, const char* publication, const char* fingerprint,
                               dak_tensor* const** tensors, size_t* count) {
  DAK_RETURN_IF_ERROR(CheckSession(session));
  DAK_RETURN_IF_ERROR(NotNull("publication", publication));
  DAK_RETURN_IF_ERROR(NotNull("tensors", tensors));
  DAK_RETURN_IF_ERROR(NotNull("count", count));
  DAK_ASSIGN_OR_RETURN(const absl::Span<Tensor* const> attached,
                       Unwrap(session)->Attach(publication, TextOr(fingerprint, "")));
  *tensors = reinterpret_cast<dak_tensor* const*>(attached.data());
  *count = attached.size();
  return absl::OkStatus();
}

absl::Status PlanPass(dak_session* session, const dak_operation* operations, size_t count, uint64_t hbm_budget_bytes,
                      double* ratios, double* predicted_s) {
  DAK_RETURN_IF_ERROR(CheckSession(session));
  DAK_RETURN_IF_ERROR(NotNull("operations", operations));
  DAK_RETURN_IF_ERROR(NotNull("ratios", ratios));
  DAK_RETURN_IF_ERROR(CheckCount(count, kMaxOperations));
  v1::PlanPassRequest request;
  request.set_hbm_budget_bytes(hbm_budget_bytes);
  for (size_t i = 0; i < count; ++i) {
    dak_operation given{};
    DAK_RETURN_IF_ERROR(ReadElement("operations", operations, i, &given));
    DAK_RETURN_IF_ERROR(NotNull(absl::StrCat("operations[", i, "].name"), given.name));
    v1::Operation* const operation = request.add_operations();
    operation->set_name(given.name);
    operation->set_bytes(given.bytes);
    operation->set_flops(given.flops);
    operation->set_min_ratio(given.min_ratio);
    operation->set_max_ratio(given.max_ratio);
  }
  DAK_ASSIGN_OR_RETURN(const v1::Plan plan, Unwrap(session)->Plan(std::move(request)));
  for (size_t i = 0; i < count; ++i) ratios[i] = plan.operations(static_cast<int>(i)).offload_ratio();
  if (predicted_s != nullptr) *predicted_s = plan.predicted_s();
  return absl::OkStatus();
}

}  // namespace
}  // namespace dak::client

using namespace dak::client;

dak_code dak_session_open(const dak_session_options* options, dak_session** session, dak_error* error) {
  return Guard(error, [&] { return OpenSession(options, session); });
}

void dak_session_close(dak_session* session) {
  // In a forked child nothing of it may be touched: its threads and mappings are the parent's.
  if (session == nullptr || !Unwrap(session)->InOwner()) return;
  Guard(nullptr, [&] {
    delete Unwrap(session);
    return absl::OkStatus();
  });
}

dak_code dak_session_get_info(dak_session* session, dak_session_info* info, dak_error* error) {
  return Guard(error, [&] { return GetSessionInfo(session, info); });
}

dak_code dak_tensors_allocate(dak_session* session, const char* group, const dak_tensor_spec* specs, size_t count,
                              dak_tensor** tensors, dak_error* error) {
  return Guard(error, [&] { return AllocateTensors(session, group, specs, count, tensors); });
}

dak_code dak_tensors_free(dak_session* session, dak_tensor* const* tensors, size_t count, dak_error* error) {
  return Guard(error, [&] { return FreeTensors(session, tensors, count); });
}

dak_code dak_tensor_get_info(const dak_tensor* tensor, dak_tensor_info* info, dak_error* error) {
  return Guard(error, [&] { return GetTensorInfo(tensor, info); });
}

dak_code dak_tensor_get_part(const dak_tensor* tensor, uint32_t index, dak_tensor_part* part, dak_error* error) {
  return Guard(error, [&] { return GetTensorPart(tensor, index, part); });
}

dak_code dak_tensor_upload(dak_tensor* tensor, uint64_t offset_bytes, const void* source, uint64_t bytes,
                           dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckTensor(tensor));
    if (bytes != 0) DAK_RETURN_IF_ERROR(NotNull("source", source));
    Tensor* const target = Unwrap(tensor);
    return target->session()->WithMemory([&] {
      return target->Upload(target->session()->device(), offset_bytes, {static_cast<const std::byte*>(source), bytes});
    });
  });
}

dak_code dak_tensor_download(const dak_tensor* tensor, uint64_t offset_bytes, void* target, uint64_t bytes,
                             dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckTensor(tensor));
    if (bytes != 0) DAK_RETURN_IF_ERROR(NotNull("target", target));
    const Tensor* const source = Unwrap(tensor);
    return source->session()->WithMemory([&] {
      return source->Download(source->session()->device(), offset_bytes, {static_cast<std::byte*>(target), bytes});
    });
  });
}

dak_code dak_tensor_verify_map(const dak_tensor* tensor, uint32_t index, dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckTensor(tensor));
    return Unwrap(tensor)->VerifyMap(Unwrap(tensor)->session()->device(), index);
  });
}

dak_code dak_publish(dak_session* session, const char* group, const char* publication, const char* fingerprint,
                     dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckSession(session));
    DAK_RETURN_IF_ERROR(NotNull("publication", publication));
    DAK_RETURN_IF_ERROR(NotNull("fingerprint", fingerprint));
    return Unwrap(session)->Publish(TextOr(group, "default"), publication, fingerprint);
  });
}

dak_code dak_attach(dak_session* session, const char* publication, const char* fingerprint, dak_tensor* const** tensors,
                    size_t* count, dak_error* error) {
  return Guard(error, [&] { return AttachPublication(session, publication, fingerprint, tensors, count); });
}

dak_code dak_detach(dak_session* session, const char* publication, dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckSession(session));
    DAK_RETURN_IF_ERROR(NotNull("publication", publication));
    return Unwrap(session)->Detach(publication);
  });
}

dak_code dak_withdraw(dak_session* session, const char* publication, dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckSession(session));
    DAK_RETURN_IF_ERROR(NotNull("publication", publication));
    return Unwrap(session)->Withdraw(publication);
  });
}

dak_code dak_tensor_find(dak_session* session, const char* group, const char* name, dak_tensor** tensor,
                         dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckSession(session));
    DAK_RETURN_IF_ERROR(NotNull("name", name));
    DAK_RETURN_IF_ERROR(NotNull("tensor", tensor));
    DAK_ASSIGN_OR_RETURN(Tensor* const found, Unwrap(session)->Find(TextOr(group, "default"), name));
    *tensor = Wrap(found);
    return absl::OkStatus();
  });
}

dak_code dak_plan(dak_session* session, const dak_operation* operations, size_t count, uint64_t hbm_budget_bytes,
                  double* ratios, double* predicted_s, dak_error* error) {
  return Guard(error, [&] { return PlanPass(session, operations, count, hbm_budget_bytes, ratios, predicted_s); });
}

dak_code dak_gemm(dak_session* session, const dak_gemm_args* args, dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckSession(session));
    dak_gemm_args given{};
    DAK_RETURN_IF_ERROR(ReadStruct("args", args, &given));
    return Unwrap(session)->Gemm(
        {.weights = Unwrap(given.weights),
         .x = given.x,
         .y = given.y,
         .batch = given.batch,
         .stream = given.stream,
         .epilogue = {given.bias, given.residual, static_cast<dak::kernels::GemmActivation>(given.activation)}});
  });
}

dak_code dak_synchronize(dak_session* session, void* stream, dak_error* error) {
  return Guard(error, [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckSession(session));
    return Unwrap(session)->Synchronize(stream);
  });
}
