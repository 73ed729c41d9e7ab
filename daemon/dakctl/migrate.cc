// demote and promote: a stream of progress, and at its end what was done.
#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "daemon/dakctl/commands.h"
#include "daemon/dakctl/json.h"
#include "daemon/dakctl/text.h"

namespace dak::dakctl {
namespace {

std::string ProgressLine(const v1::MigrationProgress& progress, const Format& format) {
  return absl::StrCat("session ", progress.session_id(), ": ", format.Bytes(progress.done_bytes()), " of ",
                      format.Bytes(progress.total_bytes()), " copied (",
                      Percent(static_cast<double>(progress.done_bytes()), static_cast<double>(progress.total_bytes())),
                      ")\n");
}

std::string ResultLines(const v1::MigrationProgress& result, bool demoted, const Format& format) {
  const double seconds = static_cast<double>(result.copy_ns()) / 1e9;
  std::string text = absl::StrCat("session ", result.session_id(), demoted ? ": out of HBM, " : ": back in HBM, ",
                                  result.segment_count(), result.segment_count() == 1 ? " segment" : " segments");
  for (const v1::CopiedBytes& copied : result.copied()) {
    absl::StrAppend(&text, ", ", format.Bytes(copied.bytes()), " copied in ", Duration(seconds), " (",
                    format.Rate(static_cast<double>(copied.bytes()) / seconds), ")");
  }
  absl::StrAppend(&text, "\nthe device has ", format.Bytes(result.hbm_free_after_bytes()), " of HBM free, and had ",
                  format.Bytes(result.hbm_free_before_bytes()), "\n");
  return text;
}

template <typename Reader>
absl::Status Follow(const Client& client, const Options& options, Reader& reader, std::ostream& out) {
  const Format format{options.exact_bytes};
  for (v1::MigrationProgress progress; reader.Read(&progress);) {
    if (options.json) {
      out << ToJson(progress, JsonStyle::kLine);
    } else {
      out << (progress.finished() ? ResultLines(progress, options.command == Command::kDemote, format)
                                  : ProgressLine(progress, format));
    }
    out.flush();
  }
  return client.Explain(reader.Finish());
}

}  // namespace

// Without a deadline: copies give way to everybody's reads, so they take as long as they take. Ctrl-C takes it back.
absl::Status RunMigrate(const Client& client, const Options& options, std::ostream& out) {
  // Says at once if there is no daemon.
  DAK_RETURN_IF_ERROR(client.Call(client.node(), &v1::NodeService::Stub::GetNode, {}).status());
  grpc::ClientContext context;
  if (options.command == Command::kDemote) {
    v1::DemoteSessionRequest request;
    request.set_session_id(options.session_id);
    return Follow(client, options, *client.migrations().DemoteSession(&context, request), out);
  }
  v1::PromoteSessionRequest request;
  request.set_session_id(options.session_id);
  return Follow(client, options, *client.migrations().PromoteSession(&context, request), out);
}

}  // namespace dak::dakctl
