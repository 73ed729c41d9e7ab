/* The C ABI in one page: open a session, hold a split matrix, say where it is.
 *
 * Build:  cc quickstart.c $(pkg-config --cflags --libs dak)
 * Run:    dakd --runtime-dir=/tmp/dak & DAK_RUNTIME_DIR=/tmp/dak ./a.out
 */
#include <stdio.h>
#include <string.h>

#include "dak/dak.h"

static int Fail(const dak_error* error) {
  fprintf(stderr, "quickstart: %s: %s\n", dak_code_name(error->code), error->message);
  return 1;
}

static int UseTensor(dak_session* session, dak_error* error) {
  dak_tensor_spec spec;
  memset(&spec, 0, sizeof(spec));
  spec.struct_size = sizeof(spec);
  spec.name = "w";
  spec.data_type = DAK_BF16;
  spec.rows = 1024;
  spec.cols = 512;
  spec.offload_ratio = 0.25;
  dak_tensor* w = NULL;
  if (dak_tensors_allocate(session, NULL, &spec, 1, &w, error) != DAK_OK) return Fail(error);

  dak_tensor_info info;
  memset(&info, 0, sizeof(info));
  info.struct_size = sizeof(info);
  if (dak_tensor_get_info(w, &info, error) != DAK_OK) return Fail(error);
  for (uint32_t i = 0; i < info.part_count; ++i) {
    dak_tensor_part part;
    memset(&part, 0, sizeof(part));
    part.struct_size = sizeof(part);
    if (dak_tensor_get_part(w, i, &part, error) != DAK_OK) return Fail(error);
    printf("rows %llu to %llu are in %s\n", (unsigned long long)part.first_row,
           (unsigned long long)(part.first_row + part.rows - 1), part.tier == DAK_TIER_HBM ? "HBM" : "host memory");
  }
  if (dak_tensors_free(session, &w, 1, error) != DAK_OK) return Fail(error);
  return 0;
}

int main(void) {
  dak_error error;
  dak_session* session = NULL;
  if (dak_session_open(NULL, &session, &error) != DAK_OK) return Fail(&error);
  const int code = UseTensor(session, &error);
  dak_session_close(session);
  return code;
}
