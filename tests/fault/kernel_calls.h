// Stops this process at its n-th call to the kernel of one kind.
//
// kernel_calls.cc defines connect, send, sendmsg, recvmsg, mmap, munmap, mprotect, madvise, close and the sleeps in the
// program, so that libdak's and gRPC's calls come here first. The thread whose call is the n-th says "stopped" on
// standard output and never goes on. Calls are counted by kind, since gRPC's threads make their order vary.
//
// Thread safety: all functions may be called from any thread.
#ifndef DAK_TESTS_FAULT_KERNEL_CALLS_H_
#define DAK_TESTS_FAULT_KERNEL_CALLS_H_

namespace dak::testing {

// Counts calls of `kind` ("mmap", or "sleep" for either sleep) from now on and stops before the n-th (from 1). `kind`
// must outlive the program.
void StopAtCall(const char* kind, int n);
// Counts no more.
void Disarm();

}  // namespace dak::testing

#endif  // DAK_TESTS_FAULT_KERNEL_CALLS_H_
