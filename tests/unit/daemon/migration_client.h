// A TestSession that maps what it is granted and moves it: for tests of migration.
#ifndef DAK_TESTS_UNIT_DAEMON_MIGRATION_CLIENT_H_
#define DAK_TESTS_UNIT_DAEMON_MIGRATION_CLIENT_H_

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "allocator/device/emulated_device.h"
#include "dak/v1/control_page.h"
#include "dak/v1/migration.grpc.pb.h"
#include "tests/unit/daemon/test_client.h"

namespace dak::daemon {

class MigrationClient {
 public:
  explicit MigrationClient(const std::string& runtime_dir);

  // Allocates and maps.
  grpc::Status Allocate(const std::string& group, const std::vector<v1::TensorSpec>& specs);
  v1::Tensor& tensor(const std::string& name) { return tensors_.at(name); }
  void MapGrants(const google::protobuf::RepeatedPtrField<v1::SegmentGrant>& grants);
  // Rows that tell themselves apart from all others.
  void Fill(const v1::Tensor& tensor);
  // The first `rows` rows (0: all) are what Fill wrote, read through the tensor's parts.
  void ExpectFilled(const v1::Tensor& tensor, uint64_t rows = 0);

  v1::TensorMove Move(uint64_t tensor_id, double ratio) const;
  v1::PrepareMoveRequest PrepareRequest(const std::vector<v1::TensorMove>& moves) const;
  grpc::Status PrepareMove(const std::vector<v1::TensorMove>& moves, v1::PrepareMoveResponse* response);
  grpc::Status CommitMove(uint64_t move_id, v1::CommitMoveResponse* response = nullptr);
  grpc::Status AbortMove(uint64_t move_id);
  // Prepares, maps and commits, and keeps the tensor's new layout.
  void MoveAll(v1::Tensor& tensor, double ratio);

  grpc::Status Suspend();
  grpc::Status Resume(v1::ResumeSessionResponse* response = nullptr);
  grpc::Status TakeExchange(v1::TakeExchangeResponse* response);
  grpc::Status FinishExchange(uint64_t exchange_id, int code = 0, const std::string& message = "");
  // Waits until dakd announces an exchange, and takes it.
  v1::TakeExchangeResponse AwaitExchange();
  // Puts the new memory behind the old addresses.
  void Replace(const v1::TakeExchangeResponse& exchange);
  // The whole of it, once.
  void Serve();
  // As often as it is asked for, until `done`.
  void ServeUntil(const std::atomic<bool>& done);

  // Reads DemoteSession's or PromoteSession's stream to its end.
  grpc::Status Demote(std::vector<v1::MigrationProgress>* progress = nullptr);
  grpc::Status Promote(std::vector<v1::MigrationProgress>* progress = nullptr);

  // The latest events.
  std::vector<v1::Event> Events(uint32_t count);
  const Mapping& mapping(uint64_t segment_id) const { return *mappings_.at(segment_id); }

  TestSession session;
  std::unique_ptr<v1::MigrationService::Stub> migration;

 private:
  const v1::ControlPage& control_page() const;
  EmulatedDevice device_{EmulatedDeviceOptions{}};
  std::unique_ptr<SharedPage> control_page_;
  uint64_t seen_exchange_ = 0;
  std::map<std::string, v1::Tensor> tensors_;
  std::map<uint64_t, std::unique_ptr<Mapping>> mappings_;
};

}  // namespace dak::daemon

#endif  // DAK_TESTS_UNIT_DAEMON_MIGRATION_CLIENT_H_
