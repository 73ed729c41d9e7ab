// Conformance: what doesn't depend on a tier: descriptors, shared pages, refusals.
#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iostream>

#include "allocator/device/memory_file.h"
#include "tests/unit/device/conformance.h"
#include "tests/unit/device/peer_process.h"

namespace dak {

const DeviceCase& FindDeviceCase(const std::string& name) {
  for (const DeviceCase& device_case : DeviceCases()) {
    if (device_case.name == name) return device_case;
  }
  std::cerr << "no device case " << name << std::endl;
  std::abort();
}

namespace {

constexpr uint64_t kPage = kSharedPageGranuleBytes;

class DeviceTest : public TierFixture, public ::testing::WithParamInterface<std::string> {
 protected:
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(Open(device_case())); }
  const DeviceCase& device_case() const { return FindDeviceCase(GetParam()); }
};

const std::vector<TensorMapSpec>& GoodSpecs() {
  static const auto* specs = new std::vector<TensorMapSpec>{
      {ElementType::kBf16, 1, 64, 64, 64},         {ElementType::kF16, 4096, 4096, 64, 64},
      {ElementType::kBf16, 128'256, 8, 1, 64},     {ElementType::kF32, 100, 36, 256, 32},
      {ElementType::kU8, 7, 128 * 1024, 128, 128}, {ElementType::kBf16, uint64_t{1} << 31, 16'384, 64, 64},
  };
  return *specs;
}

const std::vector<uint64_t>& Addresses() {
  static const auto* addresses =
      new std::vector<uint64_t>{0, 16, 0x7f00'0000'0000, 0x7f12'3456'7890, 0x3'0200'0000, (uint64_t{1} << 47) - 4096};
  return *addresses;
}

TEST_P(DeviceTest, SaysWhatItIs) {
  const DeviceDescription& description = device_->description();
  EXPECT_TRUE(description.kind == "cuda" || description.kind == "emulated");
  EXPECT_FALSE(description.name.empty());
  EXPECT_EQ(description.uuid.size(), description.kind == "cuda" ? 32 : 0);
  EXPECT_GT(description.link.bandwidth_bytes_per_s, 0);
}

TEST_P(DeviceTest, TensorMapsAreDeterministic) {
  for (const TensorMapSpec& spec : GoodSpecs()) {
    auto one = device_->EncodeTensorMap(spec, 0x7f00'0000'0000);
    auto same = device_->EncodeTensorMap(spec, 0x7f00'0000'0000);
    auto elsewhere = device_->EncodeTensorMap(spec, 0x7f00'0000'0010);
    ASSERT_THAT(one.status(), IsOk());
    ASSERT_THAT(same.status(), IsOk());
    ASSERT_THAT(elsewhere.status(), IsOk());
    EXPECT_EQ(*one, *same);
    EXPECT_FALSE(*one == *elsewhere);
  }
}

TEST_P(DeviceTest, ARebasedTensorMapEqualsAFreshOne) {
  for (const TensorMapSpec& spec : GoodSpecs()) {
    for (uint64_t from : Addresses()) {
      auto map = device_->EncodeTensorMap(spec, from);
      ASSERT_THAT(map.status(), IsOk()) << from;
      for (uint64_t to : Addresses()) {
        if (to == 0) continue;
        auto rebased = device_->RebaseTensorMap(*map, to);
        ASSERT_THAT(rebased.status(), IsOk()) << from << " " << to;
        EXPECT_EQ(*rebased, device_->EncodeTensorMap(spec, to).value()) << from << " " << to;
      }
    }
  }
}

TEST_P(DeviceTest, AnotherProcessEncodesTheSameTensorMap) {
  PeerProcess peer(GetParam());
  for (const TensorMapSpec& spec : GoodSpecs()) {
    auto theirs = peer.Encode(spec, 0x7f00'0000'0000);
    ASSERT_THAT(theirs.status(), IsOk());
    EXPECT_EQ(*theirs, device_->EncodeTensorMap(spec, 0x7f00'0000'0000).value());
    EXPECT_EQ(device_->RebaseTensorMap(*theirs, 4096).value(), device_->EncodeTensorMap(spec, 4096).value());
  }
}

TEST_P(DeviceTest, SpecsThatNoDescriptorExpressesAreRefusedByField) {
  struct Row {
    const char* field;
    TensorMapSpec spec;
    uint64_t address;
  };
  const TensorMapSpec good{ElementType::kBf16, 64, 64, 64, 64};
  auto with = [&](auto change) {
    TensorMapSpec spec = good;
    change(spec);
    return spec;
  };
  for (const Row& row :
       {Row{"element", with([](auto& s) { s.element = static_cast<ElementType>(0); }), 0},
        Row{"element", with([](auto& s) { s.element = static_cast<ElementType>(5); }), 0},
        Row{"rows", with([](auto& s) { s.rows = 0; }), 0},
        Row{"rows", with([](auto& s) { s.rows = (uint64_t{1} << 32) + 1; }), 0},
        Row{"cols", with([](auto& s) { s.cols = 0; }), 0}, Row{"cols", with([](auto& s) { s.cols = 7; }), 0},
        Row{"cols", with([](auto& s) { s.cols = (uint64_t{1} << 32) + 8; }), 0},
        Row{"cols", with([](auto& s) { s.cols = ~uint64_t{0}; }), 0},
        Row{"box_rows", with([](auto& s) { s.box_rows = 0; }), 0},
        Row{"box_rows", with([](auto& s) { s.box_rows = 257; }), 0},
        Row{"box_cols", with([](auto& s) { s.box_cols = 32; }), 0},
        Row{"box_cols", with([](auto& s) { s.box_cols = 128; }), 0},
        Row{"box_cols", with([](auto& s) { s.box_cols = 0; }), 0}, Row{"address", good, 8},
        Row{"address", good, 4097}}) {
    const absl::Status status = device_->EncodeTensorMap(row.spec, row.address).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << row.field << " " << status;
    EXPECT_EQ(DetailOf(status).field, row.field) << status;
  }
  const TensorMap map = device_->EncodeTensorMap(good, 0).value();
  EXPECT_THAT(device_->RebaseTensorMap(map, 8).status(), Fails(absl::StatusCode::kInvalidArgument, "MISALIGNED"));
  EXPECT_THAT(device_->RebaseTensorMap(map, 0).status(), Fails(absl::StatusCode::kInvalidArgument, "NULL_ADDRESS"));
}

TEST_P(DeviceTest, SharedPagesAreZeroAndShared) {
  PeerProcess peer(GetParam());
  UniqueFd fd;
  auto page = device_->CreateSharedPage(kPage, &fd);
  ASSERT_THAT(page.status(), IsOk());
  ASSERT_TRUE(fd.valid());
  EXPECT_TRUE(::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_NE((*page)->device_address(), 0);
  auto* words = static_cast<volatile uint64_t*>((*page)->host_pointer());
  for (uint64_t i = 0; i < kPage / sizeof(uint64_t); ++i) ASSERT_EQ(words[i], 0);

  ASSERT_THAT(peer.MapPage(DuplicateFd(fd.get()).value(), kPage, Access::kReadWrite), IsOk());
  words[0] = 12;
  EXPECT_EQ(peer.ReadPageWord().value(), 12);
  ASSERT_THAT(peer.WritePageWord(34), IsOk());
  EXPECT_EQ(words[0], 34);
}

TEST_P(DeviceTest, AReadOnlyDescriptorOfAPageCannotBeWrittenThrough) {
  PeerProcess peer(GetParam());
  UniqueFd fd;
  auto page = device_->CreateSharedPage(kPage, &fd);
  ASSERT_THAT(page.status(), IsOk());
  UniqueFd reader = ReopenReadOnly(fd.get()).value();
  EXPECT_EQ(::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, reader.get(), 0), MAP_FAILED);
  EXPECT_EQ(peer.MapPage(DuplicateFd(reader.get()).value(), kPage, Access::kReadWrite).code(),
            absl::StatusCode::kPermissionDenied);
  ASSERT_THAT(peer.MapPage(std::move(reader), kPage, Access::kReadOnly), IsOk());
  *static_cast<volatile uint64_t*>((*page)->host_pointer()) = 56;
  EXPECT_EQ(peer.ReadPageWord().value(), 56);
}

TEST_P(DeviceTest, APageOutlivesItsCreator) {
  PeerProcess peer(GetParam());
  UniqueFd fd;
  auto page = device_->CreateSharedPage(kPage, &fd);
  ASSERT_THAT(page.status(), IsOk());
  ASSERT_THAT(peer.MapPage(std::move(fd), kPage, Access::kReadOnly), IsOk());
  *static_cast<volatile uint64_t*>((*page)->host_pointer()) = 78;
  page->reset();
  device_.reset();
  EXPECT_EQ(peer.ReadPageWord().value(), 78);
}

TEST_P(DeviceTest, PagesOfOddSizesAndFalseDescriptorsAreRefused) {
  UniqueFd fd;
  for (uint64_t bytes : {uint64_t{0}, uint64_t{1}, kPage + 1, ~uint64_t{0}}) {
    EXPECT_THAT(device_->CreateSharedPage(bytes, &fd).status(),
                Fails(absl::StatusCode::kInvalidArgument, "OUT_OF_RANGE"))
        << bytes;
    EXPECT_FALSE(fd.valid());
  }
  auto page = device_->CreateSharedPage(kPage, &fd);
  ASSERT_THAT(page.status(), IsOk());
  const int before = OpenDescriptors();
  auto map = [&](UniqueFd page_fd, uint64_t bytes) {
    return device_->MapSharedPage(std::move(page_fd), bytes, Access::kReadOnly).status();
  };
  EXPECT_THAT(map(DuplicateFd(fd.get()).value(), 2 * kPage),
              Fails(absl::StatusCode::kInvalidArgument, "SIZE_MISMATCH"));
  EXPECT_THAT(map(DuplicateFd(fd.get()).value(), 1), Fails(absl::StatusCode::kInvalidArgument, "OUT_OF_RANGE"));
  EXPECT_THAT(map(UniqueFd(), kPage), Fails(absl::StatusCode::kInvalidArgument, "BAD_DESCRIPTOR"));
  EXPECT_THAT(map(UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)), kPage),
              Fails(absl::StatusCode::kInvalidArgument, "SEALS_MISSING"));
  // A file that its owner could truncate under the reader.
  UniqueFd unsealed(::memfd_create("unsealed", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(unsealed.get(), kPage), 0);
  EXPECT_THAT(map(std::move(unsealed), kPage), Fails(absl::StatusCode::kInvalidArgument, "SEALS_MISSING"));
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_P(DeviceTest, TiersThatAreNotThereAreRefused) {
  for (Tier tier : device_case().absent_tiers) {
    EXPECT_THAT(device_->GetTier(tier).status(), Fails(absl::StatusCode::kFailedPrecondition, "TIER_ABSENT"));
    EXPECT_THAT(device_->CreateSegment(tier, kDeviceGranuleBytes).status(),
                Fails(absl::StatusCode::kFailedPrecondition, "TIER_ABSENT"));
  }
  for (int value : {0, 4, -1}) {
    EXPECT_THAT(device_->GetTier(static_cast<Tier>(value)).status(),
                Fails(absl::StatusCode::kInvalidArgument, "OUT_OF_RANGE"));
    EXPECT_THAT(device_->CreateSegment(static_cast<Tier>(value), kDeviceGranuleBytes).status(),
                Fails(absl::StatusCode::kInvalidArgument, "OUT_OF_RANGE"));
  }
}

class ForeignSegment : public Segment {
 public:
  ForeignSegment() : Segment(Tier::kHbm, kDeviceGranuleBytes, HandleKind::kMemfd) {}
};

class ForeignMapping : public Mapping {
 public:
  ForeignMapping() : Mapping(Tier::kHbm, kDeviceGranuleBytes, Access::kReadWrite) {}
  absl::Status MakeReadOnly() override { return absl::OkStatus(); }
};

TEST_P(DeviceTest, ObjectsOfAnotherDeviceAreRefused) {
  ForeignSegment segment;
  ForeignMapping mapping;
  std::byte byte{1};
  EXPECT_THAT(device_->Export(segment, Access::kReadOnly).status(),
              Fails(absl::StatusCode::kInvalidArgument, "FOREIGN_OBJECT"));
  EXPECT_THAT(device_->Upload(mapping, 0, {&byte, 1}), Fails(absl::StatusCode::kInvalidArgument, "FOREIGN_OBJECT"));
  EXPECT_THAT(device_->Download(mapping, 0, {&byte, 1}), Fails(absl::StatusCode::kInvalidArgument, "FOREIGN_OBJECT"));
}

std::vector<std::string> AllNames() {
  std::vector<std::string> names;
  for (const DeviceCase& device_case : DeviceCases()) names.push_back(device_case.name);
  return names;
}

std::string ParamName(const ::testing::TestParamInfo<std::string>& param) { return param.param; }

INSTANTIATE_TEST_SUITE_P(All, DeviceTest, ::testing::ValuesIn(AllNames()), ParamName);

}  // namespace
}  // namespace dak
