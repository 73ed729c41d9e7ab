// Reads /metrics as Prometheus does, and looks series up in what came.
//
// Thread safety: functions are pure or own their sockets. Errors: nothing where there is no answer or no series.
#ifndef DAK_CLIENT_DEMO_SCRAPE_H_
#define DAK_CLIENT_DEMO_SCRAPE_H_

#include <optional>
#include <string>
#include <vector>

namespace dak::demo {

// The body of GET `path` at "host:port" (an IPv4 address), if the answer is 200.
std::optional<std::string> HttpGet(const std::string& address, const std::string& path);

// The value of the first series of family `name` whose labels contain all of `labels` (`tier="hbm"`).
std::optional<double> FindSeries(const std::string& text, const std::string& name,
                                 const std::vector<std::string>& labels);

}  // namespace dak::demo

#endif  // DAK_CLIENT_DEMO_SCRAPE_H_
