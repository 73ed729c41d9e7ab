#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "daemon/dakctl/commands.h"

namespace dak::dakctl {
namespace {

std::string FlagLine(const FlagSpec& flag) {
  const std::string left = absl::StrCat("--", flag.name, *flag.value == '\0' ? "" : "=", flag.value);
  return absl::StrFormat("  %-20s  %s\n", left, flag.help);
}

std::string GeneralHelp() {
  std::string text =
      "dakctl asks dakd who holds which memory tier and who reads how much of the link.\n\n"
      "usage: dakctl COMMAND [options]\n\ncommands:\n";
  for (const CommandSpec& spec : Commands()) absl::StrAppendFormat(&text, "  %-13s %s\n", spec.name, spec.summary);
  text += "\noptions of all commands:\n";
  for (const FlagSpec& flag : Flags()) {
    if (*flag.commands == '\0') text += FlagLine(flag);
  }
  return text + "\nexit codes: 0 done, 1 it failed, 2 the command line is wrong\n";
}

}  // namespace

std::string HelpText(const std::string& topic) {
  for (const CommandSpec& spec : Commands()) {
    if (topic != spec.name) continue;
    const std::string arguments = *spec.arguments == '\0' ? "" : absl::StrCat(" ", spec.arguments);
    std::string text = absl::StrCat("usage: dakctl ", spec.name, arguments, " [options]\n\n", spec.summary, "\n");
    if (*spec.help != '\0') absl::StrAppend(&text, "\n", spec.help, "\n");
    text += "\noptions:\n";
    for (const FlagSpec& flag : Flags()) {
      if (HasFlag(spec, flag)) text += FlagLine(flag);
    }
    return text;
  }
  return GeneralHelp();
}

}  // namespace dak::dakctl
