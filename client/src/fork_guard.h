// Keeps a forked child from prolonging its parent's session.
//
// A child inherits the handle connection. As long as it holds it open, dakd can't see that the parent died. So the
// connections that are registered here are closed in every child that fork() makes.
//
// Thread safety: all functions may be called from any thread.
#ifndef DAK_CLIENT_SRC_FORK_GUARD_H_
#define DAK_CLIENT_SRC_FORK_GUARD_H_

namespace dak::client {

// Closes `fd` in children forked from now on. False if the table (1024 descriptors) is full.
bool CloseInChildren(int fd);
// Closes a registered `fd` here, at once with forgetting it. In a forked child it does nothing: there it is closed.
void CloseRegistered(int fd);

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_FORK_GUARD_H_
