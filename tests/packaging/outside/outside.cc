// Opens a session where no daemon is: exits with 0 if the library says so as it should.
#include <cstdio>
#include <dak/dak.hpp>

int main() {
  const dak::Result<dak::Session> session = dak::Session::Open({.name = "outside"});
  std::printf("dak %s: %s\n", dak_version(), session.status().ToString().c_str());
  return session.ok() || session.status().code() != DAK_UNAVAILABLE;
}
