#include "client/src/fork_guard.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace dak::client {
namespace {

// A child may only do what is async-signal-safe: hence a plain table and a plain mutex, both without destructors.
constexpr size_t kMaxDescriptors = 1024;
pthread_mutex_t g_mutex = PTHREAD_MUTEX_INITIALIZER;
std::array<int, kMaxDescriptors> g_descriptors;
size_t g_count = 0;

void BeforeFork() { pthread_mutex_lock(&g_mutex); }
void InParent() { pthread_mutex_unlock(&g_mutex); }
void InChild() {
  for (size_t i = 0; i < g_count; ++i) close(g_descriptors[i]);
  g_count = 0;
  pthread_mutex_unlock(&g_mutex);
}

}  // namespace

bool CloseInChildren(int fd) {
  static const bool installed = pthread_atfork(BeforeFork, InParent, InChild) == 0;
  if (!installed) return false;
  pthread_mutex_lock(&g_mutex);
  const bool fits = g_count < kMaxDescriptors;
  if (fits) g_descriptors[g_count++] = fd;
  pthread_mutex_unlock(&g_mutex);
  return fits;
}

void CloseRegistered(int fd) {
  pthread_mutex_lock(&g_mutex);
  int* const end = g_descriptors.data() + g_count;
  int* const found = std::find(g_descriptors.data(), end, fd);
  if (found != end) {
    *found = g_descriptors[--g_count];
    close(fd);
  }
  pthread_mutex_unlock(&g_mutex);
}

}  // namespace dak::client
