// What the C ABI refuses before it asks anybody.
#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <vector>

#include "tests/unit/client/client_fixture.h"

namespace dak::testing {
namespace {

using ::testing::HasSubstr;

class CApiTest : public ClientTest {
 protected:
  void SetUp() override { session_ = Open(); }
  // The field that the call found at fault.
  template <typename Call>
  std::string FieldOf(const Call& call) {
    dak_error error{};
    EXPECT_EQ(call(&error), DAK_INVALID_ARGUMENT) << error.message;
    EXPECT_EQ(error.code, DAK_INVALID_ARGUMENT);
    return error.field;
  }
  dak::Session session_;
};

TEST_F(CApiTest, NamesThePointerThatIsNull) {
  dak_session* const s = session_.get();
  dak_tensor* tensor = nullptr;
  dak_tensor* const* attached = nullptr;
  size_t count = 0;
  dak_tensor_spec spec{};
  spec.struct_size = sizeof(spec);
  double ratio = 0;
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_session_open(nullptr, nullptr, e); }), "session");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_session_get_info(nullptr, nullptr, e); }), "session");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_session_get_info(s, nullptr, e); }), "info");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_tensors_allocate(s, "g", nullptr, 1, &tensor, e); }), "specs");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_tensors_allocate(s, "g", &spec, 1, nullptr, e); }), "tensors");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_tensors_allocate(s, "g", &spec, 1, &tensor, e); }),
            "tensors[0].name");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_tensors_free(s, nullptr, 1, e); }), "tensors");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_tensor_get_info(nullptr, nullptr, e); }), "tensor");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_tensor_upload(nullptr, 0, nullptr, 0, e); }), "tensor");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_tensor_download(nullptr, 0, nullptr, 0, e); }), "tensor");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_tensor_verify_map(nullptr, 0, e); }), "tensor");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_tensor_get_part(nullptr, 0, nullptr, e); }), "tensor");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_publish(s, "g", nullptr, "f", e); }), "publication");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_publish(s, "g", "p", nullptr, e); }), "fingerprint");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_attach(s, nullptr, nullptr, &attached, &count, e); }),
            "publication");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_attach(s, "p", nullptr, nullptr, &count, e); }), "tensors");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_attach(s, "p", nullptr, &attached, nullptr, e); }), "count");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_detach(s, nullptr, e); }), "publication");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_withdraw(s, nullptr, e); }), "publication");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_tensor_find(s, "g", nullptr, &tensor, e); }), "name");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_tensor_find(s, "g", "n", nullptr, e); }), "tensor");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_plan(s, nullptr, 1, 0, &ratio, nullptr, e); }), "operations");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_gemm(s, nullptr, e); }), "args");
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_synchronize(nullptr, nullptr, e); }), "session");
  EXPECT_EQ(dak_session_get_info(nullptr, nullptr, nullptr), DAK_INVALID_ARGUMENT) << "error may be NULL";
  dak_session_close(nullptr);
}

TEST_F(CApiTest, RefusesCountsOutOfRange) {
  dak_tensor_spec spec{};
  spec.struct_size = sizeof(spec);
  spec.name = "w";
  dak_tensor* tensor = nullptr;
  for (const size_t count : {size_t{0}, size_t{1025}}) {
    EXPECT_EQ(
        FieldOf([&](dak_error* e) { return dak_tensors_allocate(session_.get(), nullptr, &spec, count, &tensor, e); }),
        "count");
    EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_tensors_free(session_.get(), &tensor, count, e); }), "count");
  }
  EXPECT_EQ(daemon_.calls("AllocateTensors"), 0);
}

TEST_F(CApiTest, ReadsArraysByTheCallersStructSize) {
  struct NewerSpec {
    dak_tensor_spec spec;
    uint64_t added;
  };
  std::vector<NewerSpec> specs(2, NewerSpec{.spec = {}, .added = 0});
  for (size_t i = 0; i < specs.size(); ++i) {
    specs[i].spec.struct_size = sizeof(NewerSpec);
    specs[i].spec.name = i == 0 ? "first" : "second";
    specs[i].spec.data_type = DAK_BF16;
    specs[i].spec.rows = 64;
    specs[i].spec.cols = 64;
  }
  std::vector<dak_tensor*> tensors(2);
  dak_error error{};
  ASSERT_EQ(dak_tensors_allocate(session_.get(), nullptr, &specs[0].spec, 2, tensors.data(), &error), DAK_OK)
      << error.message;
  EXPECT_STREQ(dak::Tensor(tensors[1]).GetInfo()->name, "second");
  specs[1].added = 1;
  EXPECT_EQ(FieldOf([&](dak_error* e) {
              return dak_tensors_allocate(session_.get(), nullptr, &specs[0].spec, 2, tensors.data(), e);
            }),
            "tensors[1].struct_size");
  specs[1].spec.struct_size = sizeof(dak_tensor_spec);
  EXPECT_EQ(FieldOf([&](dak_error* e) {
              return dak_tensors_allocate(session_.get(), nullptr, &specs[0].spec, 2, tensors.data(), e);
            }),
            "tensors[1].struct_size");
}

TEST_F(CApiTest, RefusesStructsWhoseSizeNobodySet) {
  dak_session_info info{};
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_session_get_info(session_.get(), &info, e); }), "info.struct_size");
  dak_gemm_args args{};
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_gemm(session_.get(), &args, e); }), "args.struct_size");
  dak_session_options options{};
  dak_session* session = nullptr;
  EXPECT_EQ(FieldOf([&](dak_error* e) { return dak_session_open(&options, &session, e); }), "options.struct_size");
}

TEST_F(CApiTest, PassesTheDaemonsRefusalOnWithItsDetail) {
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->before["AllocateTensors"] = [] {
      v1::ErrorDetail detail;
      detail.set_field("tensors[0].rows");
      detail.set_reason("QUOTA_EXCEEDED");
      detail.set_shortfall_bytes(12345);
      v1::RpcStatus status;
      v1::AnyDetail* const any = status.add_details();
      any->set_type_url("type.googleapis.com/dak.v1.ErrorDetail");
      any->set_value(detail.SerializeAsString());
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "over the quota", status.SerializeAsString());
    };
  });
  const dak::Status status = session_.Allocate(Spec("w")).status();
  EXPECT_EQ(status.code(), DAK_RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.field(), "tensors[0].rows");
  EXPECT_EQ(status.reason(), "QUOTA_EXCEEDED");
  EXPECT_EQ(status.shortfall_bytes(), 12345u);
  EXPECT_THAT(status.message(), HasSubstr("over the quota"));
}

TEST_F(CApiTest, PlansInTheOrderOfTheOperations) {
  const std::vector<dak::Operation> operations = {
      {.name = "a", .bytes = 1, .flops = 0, .min_ratio = 0, .max_ratio = 0.25},
      {.name = "b", .bytes = 1, .flops = 0, .min_ratio = 0, .max_ratio = 0.75}};
  const auto plan = session_.PlanPass(operations, 1);
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  EXPECT_THAT(plan->ratios, ::testing::ElementsAre(0.25, 0.75));
}

TEST_F(CApiTest, GemmNamesWhatItCannotUse) {
  alignas(64) static uint16_t x[64 * 64];
  alignas(64) static uint16_t y[64 * 128];
  dak::Tensor w = *session_.Allocate(Spec("w"));
  dak::Tensor u8 = *session_.Allocate({.name = "u8",
                                       .data_type = DAK_U8,
                                       .rows = 64,
                                       .cols = 64,
                                       .offload_ratio = 0,
                                       .remote_tier = DAK_TIER_HOST,
                                       .tile_rows = 0});
  const auto address = [](const void* pointer) { return reinterpret_cast<uint64_t>(pointer); };
  const auto field = [&](dak::Tensor weights, uint64_t x_address, uint64_t y_address, uint32_t batch) {
    const dak::Status status = session_.Gemm(weights, x_address, y_address, batch);
    EXPECT_EQ(status.code(), DAK_INVALID_ARGUMENT) << status.message();
    return status.field();
  };
  EXPECT_EQ(field(dak::Tensor(), address(x), address(y), 1), "weights");
  int not_a_tensor = 0;
  EXPECT_EQ(field(dak::Tensor(reinterpret_cast<dak_tensor*>(&not_a_tensor)), address(x), address(y), 1), "weights");
  EXPECT_EQ(field(u8, address(x), address(y), 1), "weights");
  EXPECT_EQ(field(w, 0, address(y), 1), "x");
  EXPECT_EQ(field(w, address(x), 0, 1), "y");
  EXPECT_EQ(field(w, address(x) + 2, address(y), 1), "x");
  EXPECT_EQ(field(w, address(x), address(y) + 2, 1), "y");
  EXPECT_EQ(field(w, address(x), address(x), 1), "y");
  EXPECT_EQ(field(w, address(x), w.GetParts()->back().device_address, 1), "y");
  EXPECT_EQ(field(w, address(x), address(y), 0), "batch");
  EXPECT_EQ(field(w, address(x), address(y), 8193), "batch");
  EXPECT_TRUE(session_.Gemm(w, address(x), address(y), 64).ok());
  EXPECT_TRUE(session_.Synchronize().ok());
}

TEST_F(CApiTest, GemmPassesTheEpilogueOn) {
  constexpr uint32_t kBatch = 2;
  dak::Tensor w = *session_.Allocate(Spec("w"));  // all zero
  const uint64_t rows = w.GetInfo()->rows;
  alignas(64) static uint16_t x[kBatch * 64];
  std::vector<uint16_t> bias(rows);
  for (uint64_t row = 0; row < rows; ++row) bias[row] = static_cast<uint16_t>(0x3F80 + row % 8);  // bf16, about 1
  alignas(64) static uint16_t y[kBatch * 128];
  std::fill(std::begin(y), std::end(y), 0xFFFF);
  const auto address = [](const void* pointer) { return reinterpret_cast<uint64_t>(pointer); };
  dak::Status status = session_.Gemm(w, address(x), address(y), kBatch, nullptr, {.bias = address(bias.data())});
  ASSERT_TRUE(status.ok()) << status.ToString();
  for (uint64_t i = 0; i < kBatch * rows; ++i) EXPECT_EQ(y[i], bias[i % rows]);
  // y is half as wide now, and what lies behind it stays.
  std::fill(std::begin(y), std::end(y), 0xFFFF);
  const dak::Epilogue swiglu = {.residual = address(bias.data()), .activation = DAK_ACTIVATION_SWIGLU};
  status = session_.Gemm(w, address(x), address(y), 1, nullptr, swiglu);
  ASSERT_TRUE(status.ok()) << status.ToString();
  for (uint64_t i = 0; i < rows / 2; ++i) EXPECT_EQ(y[i], bias[i]);
  EXPECT_EQ(y[rows / 2], 0xFFFF);
  const auto field = [&](const dak::Epilogue& epilogue) {
    return session_.Gemm(w, address(x), address(y), 1, nullptr, epilogue).field();
  };
  EXPECT_EQ(field({.bias = 1}), "bias");
  EXPECT_EQ(field({.residual = 1}), "residual");
  EXPECT_EQ(field({.activation = static_cast<dak_activation>(7)}), "activation");
}

TEST(ExportsTest, NothingButTheAbiIsVisible) {
  void* const library = dlopen("libdak.so.0", RTLD_NOW | RTLD_NOLOAD);
  ASSERT_NE(library, nullptr);
  EXPECT_NE(dlsym(library, "dak_session_open"), nullptr);
  Dl_info of_abi{};
  ASSERT_NE(dladdr(dlsym(library, "dak_version"), &of_abi), 0);
  // Names that the library surely contains; found by dlsym only if exported by libdak.so itself.
  for (const char* name : {"_ZN3dak10OpenDeviceERKNS_13DeviceOptionsE", "_ZN3dak2v16TensorC1Ev",
                           "_ZN3dak12InvalidFieldEN4absl12lts_2022062311string_viewES2_S2_S2_"}) {
    void* const found = dlsym(library, name);
    Dl_info info{};
    if (found == nullptr || dladdr(found, &info) == 0) continue;
    EXPECT_STRNE(info.dli_fname, of_abi.dli_fname) << name;
  }
  dlclose(library);
}

}  // namespace
}  // namespace dak::testing
