// docs/dakctl.md against the commands and options that exist.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>

#include "daemon/dakctl/options.h"

namespace dak::dakctl {
namespace {

std::string Document() {
  std::ifstream in(DAK_SOURCE_DIR "/docs/dakctl.md");
  EXPECT_TRUE(in.good());
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::set<std::string> Matches(const std::string& text, const char* pattern) {
  std::set<std::string> found;
  const std::regex regex(pattern);
  for (std::sregex_iterator it(text.begin(), text.end(), regex), end; it != end; ++it) found.insert((*it)[1]);
  return found;
}

TEST(DocTest, DocumentsExactlyTheCommandsThatExist) {
  std::set<std::string> commands;
  for (const CommandSpec& spec : Commands()) commands.insert(spec.name);
  EXPECT_EQ(Matches(Document(), "\n\\| `dakctl ([a-z]+)[^`]*` \\|"), commands);
}

TEST(DocTest, DocumentsExactlyTheOptionsThatExist) {
  std::set<std::string> flags;
  for (const FlagSpec& flag : Flags()) flags.insert(flag.name);
  EXPECT_EQ(Matches(Document(), "--([a-z][a-z-]*)"), flags);
}

TEST(DocTest, ExamplesParse) {
  const std::set<std::string> examples = Matches(Document(), "\n\\$ dakctl ([^\n|]*)");
  EXPECT_GE(examples.size(), 5u);
  for (const std::string& example : examples) {
    std::istringstream words(example);
    const std::vector<std::string> args{std::istream_iterator<std::string>(words), {}};
    const auto options = ParseCommandLine(args, "/run/dak");
    EXPECT_TRUE(options.ok()) << example << ": " << options.status();
  }
}

}  // namespace
}  // namespace dak::dakctl
