#include "absl/strings/str_cat.h"
#include "daemon/planner/planner.h"

namespace dak::planner {
namespace {

// Measured on an H100 80GB HBM3, PCIe 5 x16, driver 580: TMA reads of HBM and of host memory, the copy engine, bf16
// matrix products of cuBLAS. docs/planner.md has the table.
Profile H100Pcie() {
  Profile profile;
  profile.hbm_bytes_per_s = 2990e9;
  profile.link_bytes_per_s = 51.1e9;
  profile.copy_engine_bytes_per_s = 54.7e9;
  profile.flops_per_s = 798e12;
  profile.round_trip_ns = 1'800;
  profile.knee_bytes = 128 * 1024;
  profile.cliff_bytes = 1'000'000;
  profile.remote_tiers = {RemoteTier{}};
  return profile;
}

// NVIDIA's GH200 datasheet: 96 GB of HBM3 at 4 TB/s, NVLink-C2C 900 GB/s both ways together, 990 teraflops of dense
// bf16. LPDDR5X gives up to 512 GB/s, more than one way of the link. Nothing here is measured.
Profile Gh200() {
  Profile profile;
  profile.hbm_bytes_per_s = 4000e9;
  profile.link_bytes_per_s = 450e9;
  profile.copy_engine_bytes_per_s = 450e9;
  profile.flops_per_s = 990e12;
  profile.remote_tiers = {RemoteTier{}};
  return profile;
}

}  // namespace

absl::StatusOr<Profile> NamedProfile(const std::string& name) {
  if (name == "h100-pcie") return H100Pcie();
  if (name == "gh200") return Gh200();
  return absl::NotFoundError(absl::StrCat("no profile is named '", name, "'; there are h100-pcie, gh200"));
}

}  // namespace dak::planner
