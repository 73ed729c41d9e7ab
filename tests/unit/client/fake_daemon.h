// A daemon for the client's tests: real sockets and real memory, placement by bump, and faults on order.
//
// Speaks the whole protocol as far as libdak needs it. Faults are set by the test before the call that is to fail.
// Thread safety: all methods may be called from any thread.
#ifndef DAK_TESTS_UNIT_CLIENT_FAKE_DAEMON_H_
#define DAK_TESTS_UNIT_CLIENT_FAKE_DAEMON_H_

#include <grpcpp/server.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "allocator/base/unique_fd.h"
#include "allocator/device/device.h"
#include "dak/v1/handles.pb.h"
#include "dak/v1/plan.grpc.pb.h"
#include "dak/v1/session.grpc.pb.h"
#include "dak/v1/tensor.grpc.pb.h"

namespace dak::testing {

class FakeDaemon {
 public:
  using Refusal = std::function<grpc::Status()>;
  struct Faults {
    std::function<void(v1::HandleReply*)> edit_greeting;
    std::string raw_greeting;  // sent instead, if not empty
    bool no_greeting = false;
    // By RPC ("AllocateTensors"): answer that is given before the call acts, or after it acted, instead of OK.
    std::map<std::string, Refusal> before;
    std::map<std::string, Refusal> after;
    // Changes an answer before it is sent.
    std::function<void(v1::AllocateTensorsResponse*)> edit_allocation;
    // The n-th segment descriptor from now on (0: the next) is one that can't be mapped.
    int bad_segment_in = -1;
    std::optional<int> redeem_code;  // handles.sock refuses with it
    bool mute_handles = false;       // requests are held until Unmute
    bool deliver = false;            // what is allocated, when the client asks for it; older daemons don't
    std::string device_kind = "emulated";
    uint32_t page_version = 0;  // 0: the right one
    uint64_t lease_ns = 0;
  };

  FakeDaemon();
  ~FakeDaemon();
  const std::string& runtime_dir() const { return runtime_dir_; }
  // Changes the faults while no request reads them.
  void Set(const std::function<void(Faults*)>& change);
  // Answers what was held back by mute_handles.
  void Unmute();
  // Both sockets close, as when the process ends.
  void Stop();

  // What it holds for sessions, published tensors not counted.
  size_t tensor_count() const;
  size_t segment_count() const;
  size_t attached_count() const;
  int calls(const std::string& rpc) const;

 private:
  class Sessions;
  class Tensors;
  class Plans;
  class Moves;
  struct Segment {
    std::unique_ptr<dak::Segment> memory;
    std::string group;
  };
  struct Connection {
    UniqueFd fd;
    std::string ticket;
  };
  struct Ticket {
    v1::Handle handle;
    UniqueFd fd;
  };

  grpc::Status Handle(const std::string& rpc, const std::function<grpc::Status()>& act);
  grpc::Status Allocate(const v1::AllocateTensorsRequest& request, v1::AllocateTensorsResponse* response);
  void Place(const v1::TensorSpec& spec, v1::Tensor* tensor, v1::AllocateTensorsResponse* response);
  void PlacePart(Tier tier, uint64_t first_row, uint64_t rows, v1::Tensor* tensor,
                 v1::AllocateTensorsResponse* response);
  grpc::Status Free(const v1::FreeTensorsRequest& request, v1::FreeTensorsResponse* response);
  grpc::Status Publish(const v1::PublishGroupRequest& request);
  grpc::Status Attach(const v1::AttachPublicationRequest& request, v1::AttachPublicationResponse* response);
  void FillOpen(v1::OpenSessionResponse* response);
  void AddPage(v1::Handle::Purpose purpose, uint32_t magic, const std::string& ticket);
  std::string GrantSegment(uint64_t id, bool read_only);
  void ReleaseEmptySegments();
  void Deliver(v1::AllocateTensorsResponse* response);

  void ServeHandles();
  void Greet(UniqueFd fd);
  bool Answer(Connection& connection);
  void Reply(const Connection& connection, const std::string& bytes);

  std::string runtime_dir_;
  std::unique_ptr<Device> device_;
  mutable std::mutex mutex_;
  Faults faults_;
  std::map<std::string, int> calls_;
  std::map<uint64_t, v1::Tensor> tensors_;
  std::map<uint64_t, v1::Tensor> published_;
  std::map<uint64_t, v1::Tensor> moving_;  // tensors of a prepared move, as they will be
  std::map<std::string, std::string> fingerprints_;
  std::map<std::string, int> attached_;
  std::map<uint64_t, Segment> segments_;
  std::multimap<std::string, Ticket> tickets_;
  std::vector<std::unique_ptr<SharedPage>> pages_;
  uint64_t next_id_ = 1;

  UniqueFd listener_;
  UniqueFd wake_;
  bool stopping_ = false;
  std::vector<Connection> connections_;  // of the handles thread
  std::vector<std::pair<int, std::string>> held_;
  std::thread handles_thread_;
  std::unique_ptr<Sessions> sessions_service_;
  std::unique_ptr<Tensors> tensors_service_;
  std::unique_ptr<Plans> plans_service_;
  std::unique_ptr<Moves> moves_service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace dak::testing

#endif  // DAK_TESTS_UNIT_CLIENT_FAKE_DAEMON_H_
