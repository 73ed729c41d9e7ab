/* Opens a session where no daemon is: exits with 0 if the library says so as it should. */
#include <dak/dak.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  dak_error error;
  dak_session* session = NULL;
  const dak_code code = dak_session_open(NULL, &session, &error);
  printf("dak %s: %s: %s\n", dak_version(), dak_code_name(code), error.message);
  if (code != DAK_UNAVAILABLE || error.code != DAK_UNAVAILABLE || session != NULL) return 1;
  return strstr(error.message, "control.sock") == NULL && strstr(error.message, "handles.sock") == NULL;
}
