// Reading and merging configuration.
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "daemon/config/options.h"

namespace dak::daemon {
namespace {

class FirstError final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text_.empty()) text_ = absl::StrCat("line ", line + 1, ", column ", column + 1, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

absl::StatusOr<config::Config> ParseConfig(const std::string& text) {
  google::protobuf::TextFormat::Parser parser;
  FirstError error;
  parser.RecordErrorsTo(&error);
  config::Config config;
  if (!parser.ParseFromString(text, &config)) {
    return WithDetail(absl::InvalidArgumentError(absl::StrCat("configuration: ", error.text())),
                      {.field = "config", .reason = "SYNTAX"});
  }
  return config;
}

absl::StatusOr<config::Config> LoadConfig(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return absl::NotFoundError(absl::StrCat("configuration: can't read ", path));
  absl::StatusOr<config::Config> config = ParseConfig(text.str());
  if (config.ok()) return config;
  return WithDetail(absl::InvalidArgumentError(absl::StrCat(path, ": ", config.status().message())),
                    DetailOf(config.status()));
}

void MergeConfig(const config::Config& overrides, config::Config* config) {
  config::Config rest = overrides;
  rest.clear_pools();
  config->MergeFrom(rest);
  for (const config::Pool& pool : overrides.pools()) {
    config::Pool* target = nullptr;
    for (config::Pool& held : *config->mutable_pools()) {
      if (held.tier() == pool.tier()) target = &held;
    }
    if (target == nullptr) target = config->add_pools();
    target->MergeFrom(pool);
  }
}

}  // namespace dak::daemon
