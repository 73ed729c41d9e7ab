#include "daemon/planner/plan_command.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "daemon/planner/plan_report.h"
#include "daemon/planner/profile_file.h"
#include "daemon/planner/size_text.h"

namespace dak::planner {
namespace {

constexpr char kHelp[] =
    R"(Usage: dakctl plan --config FILE --hbm SIZE [flags]

Plans how a model's decode pass is split between HBM and the host, and predicts its speed. Needs no daemon and no GPU.

  --config FILE     the model's Hugging Face config.json (llama, mistral, qwen2, qwen3, opt, mixtral)
  --hbm SIZE        HBM to use, as 40GiB or 40GB
  --batch N         sequences decoded together (1)
  --context N       tokens of each sequence in the KV cache (1024, or what the model allows if that is less)
  --dtype TYPE      of the weights: bf16, f16, f32, u8 (what the config says, else bf16)
  --kv-dtype TYPE   of the KV cache (as the weights; bf16 for u8 weights)
  --profile WHICH   h100-pcie, gh200, or a JSON file (h100-pcie)
  --host SIZE       host memory to use (without limit, or as the profile's file says)
  --reserve SIZE    HBM kept for activations and the CUDA context (1GiB)
  --json            one JSON object instead of tables
  --help            this text

Exit code: 0 if a plan exists, 1 if the model doesn't fit, 2 if a flag or file is wrong.
)";

struct Options {
  std::map<std::string, std::string> values;
  bool json = false;
  bool help = false;
};

absl::Status Fault(const std::string& flag, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", problem));
}

absl::StatusOr<Options> ParseOptions(absl::Span<const std::string> args) {
  Options options;
  for (const char* flag :
       {"--config", "--hbm", "--batch", "--context", "--dtype", "--kv-dtype", "--profile", "--host", "--reserve"}) {
    options.values[flag] = "";
  }
  for (size_t i = 0; i < args.size(); ++i) {
    const size_t equals = args[i].find('=');
    const std::string flag = args[i].substr(0, equals);
    if (args[i] == "--json" || args[i] == "--help" || args[i] == "-h") {
      (args[i] == "--json" ? options.json : options.help) = true;
      continue;
    }
    const auto found = options.values.find(flag);
    if (found == options.values.end()) return Fault(args[i], "unknown flag (see dakctl plan --help)");
    if (!found->second.empty()) return Fault(flag, "given twice");
    if (equals == std::string::npos && i + 1 == args.size()) return Fault(flag, "a value is missing");
    found->second = equals == std::string::npos ? args[++i] : args[i].substr(equals + 1);
    if (found->second.empty()) return Fault(flag, "a value is missing");
  }
  return options;
}

absl::StatusOr<uint64_t> CountOf(const Options& options, const std::string& flag, uint64_t high, uint64_t otherwise) {
  const std::string& text = options.values.at(flag);
  if (text.empty()) return otherwise;
  uint64_t count = 0;
  if (!absl::SimpleAtoi(text, &count) || count < 1 || count > high) {
    return Fault(flag, absl::StrCat("'", text, "' is out of range (a whole number from 1 to ", high, ")"));
  }
  return count;
}

absl::StatusOr<uint64_t> SizeOf(const Options& options, const std::string& flag, uint64_t otherwise) {
  const std::string& text = options.values.at(flag);
  if (text.empty()) return otherwise;
  absl::StatusOr<uint64_t> bytes = ParseSize(text);
  if (!bytes.ok()) return Fault(flag, std::string(bytes.status().message()));
  return bytes;
}

std::optional<uint64_t> ElementBytes(const std::string& type) {
  static const auto& types = *new std::map<std::string, uint64_t>{
      {"bf16", 2}, {"f16", 2}, {"f32", 4}, {"u8", 1}, {"bfloat16", 2}, {"float16", 2}, {"float32", 4}};
  const auto found = types.find(type);
  if (found == types.end()) return std::nullopt;
  return found->second;
}

absl::StatusOr<uint64_t> ElementBytesOf(const Options& options, const std::string& flag, uint64_t otherwise) {
  const std::string& type = options.values.at(flag);
  if (type.empty()) return otherwise;
  const std::optional<uint64_t> bytes = ElementBytes(type);
  if (!bytes.has_value()) return Fault(flag, absl::StrCat("'", type, "' isn't known (bf16, f16, f32, u8)"));
  return *bytes;
}

absl::Status ReadShape(const Options& options, const ModelConfig& config, DecodeShape& shape) {
  DAK_ASSIGN_OR_RETURN(shape.batch, CountOf(options, "--batch", 65536, 1));
  DAK_ASSIGN_OR_RETURN(shape.context_tokens, CountOf(options, "--context", config.max_positions,
                                                     std::min<uint64_t>(1024, config.max_positions)));
  const uint64_t configured = ElementBytes(config.dtype).value_or(2);
  DAK_ASSIGN_OR_RETURN(shape.weight_element_bytes, ElementBytesOf(options, "--dtype", configured));
  const uint64_t like_weights = shape.weight_element_bytes == 1 ? 2 : shape.weight_element_bytes;
  DAK_ASSIGN_OR_RETURN(shape.kv_element_bytes, ElementBytesOf(options, "--kv-dtype", like_weights));
  return absl::OkStatus();
}

absl::Status LimitHost(const Options& options, Profile& profile) {
  if (options.values.at("--host").empty()) return absl::OkStatus();
  for (RemoteTier& tier : profile.remote_tiers) {
    if (tier.name != "host") continue;
    DAK_ASSIGN_OR_RETURN(tier.capacity_bytes, SizeOf(options, "--host", kUnlimitedBytes));
    return absl::OkStatus();
  }
  return Fault("--host", "the profile has no remote tier named 'host'");
}

absl::StatusOr<PlanQuestion> ReadQuestion(const Options& options) {
  for (const char* needed : {"--config", "--hbm"}) {
    if (options.values.at(needed).empty()) return Fault(needed, "is needed (see dakctl plan --help)");
  }
  PlanQuestion question;
  DAK_ASSIGN_OR_RETURN(question.hbm_bytes, SizeOf(options, "--hbm", 0));
  DAK_ASSIGN_OR_RETURN(question.reserve_bytes, SizeOf(options, "--reserve", uint64_t{1} << 30));
  absl::StatusOr<ModelConfig> config = LoadModelConfig(options.values.at("--config"));
  if (!config.ok()) return Fault("--config", std::string(config.status().message()));
  question.config = *std::move(config);
  const std::string& profile_name = options.values.at("--profile");
  question.profile_name = profile_name.empty() ? "h100-pcie" : profile_name;
  absl::StatusOr<Profile> profile = LoadProfile(question.profile_name);
  if (!profile.ok()) return Fault("--profile", std::string(profile.status().message()));
  question.profile = *std::move(profile);
  DAK_RETURN_IF_ERROR(LimitHost(options, question.profile));
  DAK_RETURN_IF_ERROR(ReadShape(options, question.config, question.shape));
  return question;
}

}  // namespace

int RunPlanCommand(absl::Span<const std::string> args, std::ostream& out, std::ostream& err) {
  const auto refuse = [&err](const absl::Status& status) {
    err << "dakctl plan: " << status.message() << "\n";
    return kPlanUsage;
  };
  const absl::StatusOr<Options> options = ParseOptions(args);
  if (!options.ok()) return refuse(options.status());
  if (options->help) {
    out << kHelp;
    return kPlanFits;
  }
  const absl::StatusOr<PlanQuestion> question = ReadQuestion(*options);
  if (!question.ok()) return refuse(question.status());
  const absl::StatusOr<PlanReport> report = MakePlanReport(*question);
  if (!report.ok()) return refuse(report.status());
  if (options->json) {
    WriteReportJson(*question, *report, out);
  } else {
    WriteReportText(*question, *report, out);
  }
  return report->does_not_fit.empty() ? kPlanFits : kPlanDoesNotFit;
}

}  // namespace dak::planner
