// Stops this process at its n-th call to the kernel that changes something outside it.
//
// kernel_calls.cc defines connect, sendmsg, recvmsg, mmap, munmap, mprotect, madvise, close and the sleeps in the
// program, so that libdak's and gRPC's calls come here first. The thread whose call is the n-th says "stopped <call>"
// on standard output and never goes on.
//
// Thread safety: all functions may be called from any thread.
#ifndef DAK_TESTS_FAULT_KERNEL_CALLS_H_
#define DAK_TESTS_FAULT_KERNEL_CALLS_H_

namespace dak::testing {

// Counts from now on and stops before the n-th call (from 1).
void StopAtCall(int n);
// Counts no more.
void Disarm();

}  // namespace dak::testing

#endif  // DAK_TESTS_FAULT_KERNEL_CALLS_H_
