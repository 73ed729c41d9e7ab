// The script that most tests use.
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "tests/unit/dakctl/fake_daemon.h"

namespace dak::dakctl::testing {
namespace {

template <typename Message>
void Parse(const char* text, Message& message) {
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message));
}

v1::Event MakeEvent(const char* text) {
  v1::Event event;
  Parse(text, event);
  return event;
}

}  // namespace

Script NodeAtWork() {
  Script script;
  Parse(R"(daemon_version: "0.1.0" api_version: 1 pid: 4242 uptime_ns: 7980000000000
           metrics_address: "127.0.0.1:9465"
           device { kind: "cuda" name: "NVIDIA H100 80GB HBM3" uuid: "GPU-1234" granule_bytes: 2097152
                    link_count: 1 })",
        script.node);
  Parse(R"(pools { tier: TIER_HBM capacity_bytes: 85899345920 free_bytes: 53687091200 session_bytes: 21474836480
                   published_bytes: 10737418240 granule_bytes: 2097152 segment_count: 12 unplaced_bytes: 1536
                   largest_unplaced_bytes: 1024 numa_node: -1 }
           pools { tier: TIER_HOST capacity_bytes: 107374182400 free_bytes: 106300440576 session_bytes: 1073741824
                   granule_bytes: 2097152 segment_count: 1 numa_node: 0 }
           pools { tier: TIER_CXL capacity_bytes: 0 numa_node: 1 })",
        script.pools);
  Parse(R"(sessions { session_id: 3 name: "llama-3-8b" pid: 811 uid: 4294900001 weight: 100 tensor_count: 225
                      quotas { tier: TIER_HBM bytes: 34359738368 }
                      used { tier: TIER_HBM bytes: 20401094656 } used { tier: TIER_HOST bytes: 1073741824 }
                      remote_bytes: 98765432100 window_bytes: 131072 plan_version: 2 age_ns: 312000000000 }
           sessions { session_id: 12 name: "idle" pid: 9 uid: 4294900002 weight: 50
                      used { tier: TIER_HBM bytes: 1073741824 } age_ns: 4000000000 })",
        script.sessions);
  Parse(R"(tensors { tensor_id: 1 name: "layers.0.q" group: "default" data_type: DATA_TYPE_BF16 rows: 4096 cols: 4096
                     session_id: 3
                     parts { tier: TIER_HBM rows: 3072 segment_id: 1 bytes: 25165824 }
                     parts { tier: TIER_HOST first_row: 3072 rows: 1024 segment_id: 2 bytes: 8388608 } }
           tensors { tensor_id: 2 name: "kv" group: "cache" data_type: DATA_TYPE_U8 rows: 10 cols: 100 session_id: 12
                     parts { tier: TIER_HBM rows: 10 segment_id: 1 bytes: 1000 } }
           tensors { tensor_id: 5 name: "embed" group: "weights" data_type: DATA_TYPE_F32 rows: 2 cols: 2
                     parts { tier: TIER_CXL rows: 2 segment_id: 7 bytes: 16 } })",
        script.tensors);
  Parse(R"(publications { name: "llama/weights" fingerprint: "sha256:ab12" owner_uid: 4294900001 tensor_count: 225
                          bytes { tier: TIER_HBM bytes: 10737418240 } attached_sessions: 2 age_ns: 93600000000000 }
           publications { name: "old" fingerprint: "f" owner_uid: 0 tensor_count: 1 withdrawn: true
                          bytes { tier: TIER_HOST bytes: 4096 } attached_sessions: 1 age_ns: 1000000000 })",
        script.publications);
  Parse(R"(quotas { session_id: 3 tier: TIER_HBM limit_bytes: 34359738368 used_bytes: 20401094656 revision: 1 }
           quotas { session_id: 3 tier: TIER_HOST limit_bytes: 536870912 used_bytes: 1073741824 overage_bytes: 536870912
                    revision: 4 }
           quotas { session_id: 12 tier: TIER_HBM limit_bytes: 18446744073709551615 used_bytes: 1073741824
                    revision: 1 })",
        script.quotas);
  Parse(R"(links { bandwidth_bytes_per_s: 51100000000 base_round_trip_ns: 1800 target_bytes: 184320 tiers: TIER_HOST
                   sessions { session_id: 3 name: "llama-3-8b" weight: 100 active: true window_bytes: 131072
                              achieved_bytes_per_s: 48700000000 round_trip_ns: 2600 inflight_peak_bytes: 131072 }
                   sessions { session_id: 12 name: "idle" weight: 50 window_bytes: 8192 } })",
        script.congestion);
  Parse(R"(hbm_bytes_per_s: 3010e9 link_bytes_per_s: 51.2e9 copy_engine_bytes_per_s: 54.9e9 round_trip_ns: 1840
           knee_bytes: 131072 cliff_bytes: 1048576 flops_per_s: 812e12 source: "measured" measured_unix_s: 1700000000
           links { tiers: [TIER_HOST, TIER_CXL] bytes_per_s: 51.2e9 round_trip_ns: 1840 knee_bytes: 131072
             cliff_bytes: 1048576 rates { tier: TIER_CXL bytes_per_s: 27e9 round_trip_ns: 2300 knee_bytes: 65536 } }
           links { link: 1 bytes_per_s: 10e9 round_trip_ns: 5000 cliff_bytes: 524288 } copy_to_host_bytes_per_s: 55.1e9
           batch_rates { batch: 1 hbm_bytes_per_s: 2890e9 flops_per_s: 812e12 operation_s: 1.5e-6
                         link_bytes_per_s: 50e9 remote_s: 1.2e-5 } age_s: 8000 measuring_s: 1.4 from_cache: true
           batch_rates { batch: 512 hbm_bytes_per_s: 3010e9 flops_per_s: 690e12 operation_s: 4e-6 })",
        script.profile);
  Parse(R"(session_id: 3 version: 2 predicted_s: 0.0055 uniform_s: 0.006 all_hbm_s: 0.0048 remote_bytes: 1073741824
           moved_bytes: 33554432 target_s: 0.0054
           operations { name: "layers.0.qkv" offload_ratio: 0.0625 predicted_s: 2e-5 remote_rows: 384
                        remote_tier: "host" }
           operations { name: "layers.0.kv" predicted_s: 1e-5 remote_tier: "host" })",
        script.plan);
  script.events = {
      MakeEvent(R"(sequence: 1 time_unix_ns: 1700000000123000000 type: SESSION_OPENED session_id: 3
                                subject: "llama-3-8b")"),
      MakeEvent(R"(sequence: 2 time_unix_ns: 1700000001000000000 type: TENSORS_ALLOCATED session_id: 3
                                subject: "default" message: "225 tensors" bytes { tier: TIER_HBM bytes: 20401094656 }
                                bytes { tier: TIER_HOST bytes: 1073741824 })"),
      MakeEvent(R"(sequence: 3 time_unix_ns: 1700000002000000000 type: PUBLICATION_FREED subject: "old")")};
  return script;
}

}  // namespace dak::dakctl::testing
