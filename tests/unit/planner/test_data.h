// The config.json files in data/, with the public models' dimensions.
#ifndef DAK_TESTS_UNIT_PLANNER_TEST_DATA_H_
#define DAK_TESTS_UNIT_PLANNER_TEST_DATA_H_

#include <fstream>
#include <sstream>
#include <string>

namespace dak::planner {

inline std::string DataPath(const std::string& file) { return std::string(DAK_PLANNER_TEST_DATA "/") + file; }

inline std::string ReadData(const std::string& file) {
  std::ostringstream text;
  text << std::ifstream(DataPath(file)).rdbuf();
  return text.str();
}

}  // namespace dak::planner

#endif  // DAK_TESTS_UNIT_PLANNER_TEST_DATA_H_
