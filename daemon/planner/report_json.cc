#include <ostream>

#include "daemon/planner/plan_report.h"
#include "nlohmann/json.hpp"

namespace dak::planner {
namespace {

using Json = nlohmann::ordered_json;

Json GroupJson(const OperationGroup& group) {
  Json json = {{"kind", KindName(group.kind)}, {"operations", group.operations}};
  if (group.first_layer != kNoLayer) {
    json["first_layer"] = group.first_layer;
    json["last_layer"] = group.last_layer;
  }
  json["stored_bytes"] = group.stored_bytes;
  json["remote_bytes"] = group.remote_bytes;
  json["ratio"] =
      group.stored_bytes == 0 ? 0 : static_cast<double>(group.remote_bytes) / static_cast<double>(group.stored_bytes);
  json["predicted_s"] = group.seconds;
  json["all_hbm_s"] = group.hbm_seconds;
  return json;
}

Json PrefetchJson(const PrefetchEstimate& prefetch) {
  if (!prefetch.known) return nullptr;
  Json json = {{"fits", prefetch.shortfall_bytes == 0},
               {"layers_offloaded", prefetch.layers_offloaded},
               {"buffer_bytes", prefetch.buffer_bytes},
               {"remote_bytes", prefetch.remote_bytes},
               {"shortfall_bytes", prefetch.shortfall_bytes}};
  if (prefetch.shortfall_bytes == 0) json["pass_s"] = prefetch.pass_s;
  return json;
}

}  // namespace

void WriteReportJson(const PlanQuestion& question, const PlanReport& report, std::ostream& out) {
  Json json = {{"model_type", question.config.model_type},
               {"layers", question.config.layers},
               {"parameters", ParameterCount(question.config)},
               {"batch", question.shape.batch},
               {"context_tokens", question.shape.context_tokens},
               {"profile", question.profile_name},
               {"hbm_bytes", question.hbm_bytes},
               {"reserve_bytes", question.reserve_bytes},
               {"weight_bytes", report.weight_bytes},
               {"kv_bytes", report.kv_bytes},
               {"needed_bytes", report.needed_bytes},
               {"over_hbm_bytes", report.over_hbm_bytes},
               {"fits", report.does_not_fit.empty()},
               {"shortfall_bytes", report.shortfall_bytes}};
  if (report.does_not_fit.empty()) {
    json["operations"] = Json::array();
    for (const OperationGroup& group : report.groups) json["operations"].push_back(GroupJson(group));
    json["remote_bytes"] = report.remote_bytes;
    json["pass_s"] = report.pass_s;
    json["tokens_per_s"] = static_cast<double>(question.shape.batch) / report.pass_s;
    json["uniform_s"] = report.uniform_s;
    json["all_hbm_s"] = report.all_hbm_s;
    json["prefetch"] = PrefetchJson(report.prefetch);
  } else {
    json["reason"] = report.does_not_fit;
  }
  // A path may hold bytes that aren't UTF-8, which dump() otherwise throws on.
  out << json.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
}

}  // namespace dak::planner
