// main of the programs that run the conformance suite: either the tests or, when a test starts it so, their peer.
#include "gtest/gtest.h"
#include "tests/unit/device/peer_process.h"

int main(int argc, char** argv) {
  int exit_code = 0;
  if (dak::RunAsPeer(argc, argv, &exit_code)) return exit_code;
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
