/* Compiled as C: the header is C, and an engine without C++ can use it. Prints nothing; the exit code is the line that
 * failed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kvant/c.h"

#define CHECK(condition)               \
  do {                                 \
    if (!(condition)) return __LINE__; \
  } while (0)

static int check_errors(void) {
  kvant_device_codec* codec = NULL;
  CHECK(kvant_device_codec_create(NULL, "int:4", 128, &codec) == KVANT_INVALID_ARGUMENT);
  CHECK(kvant_device_codec_create("nonsense", "int:4", 128, &codec) == KVANT_INVALID_ARGUMENT);
  CHECK(strstr(kvant_error_message(), "nonsense") != NULL);
  CHECK(kvant_device_codec_create("int:4", "int:4", 96, &codec) == KVANT_NOT_SUPPORTED);
  CHECK(strstr(kvant_error_message(), "96") != NULL);
  CHECK(kvant_device_codec_create("qjl", "int:2", 128, &codec) == KVANT_NOT_SUPPORTED);
  CHECK(codec == NULL);
  kvant_device_codec_destroy(NULL);
  return 0;
}

static int check_blocks(const kvant_device_codec* codec) {
  static float rows[64 * 128], back[64 * 128];
  for (int i = 0; i < 64 * 128; ++i) rows[i] = (float)((i * 37) % 101) / 50.0f - 1.0f;
  for (int side = KVANT_KEY; side <= KVANT_EXACT_VALUE; ++side) {
    const size_t bytes = kvant_device_block_bytes(codec, (kvant_side)side);
    void* block = malloc(bytes);
    CHECK(block != NULL);
    CHECK(kvant_device_encode(codec, (kvant_side)side, rows, block) == KVANT_OK);
    CHECK(kvant_device_decode(codec, (kvant_side)side, block, back) == KVANT_OK);
    for (int i = 0; i < 64 * 128; ++i) CHECK(fabsf(rows[i] - back[i]) < (side < KVANT_EXACT_KEY ? 0.08f : 1e-3f));
    free(block);
  }
  rows[0] = INFINITY;
  CHECK(kvant_device_encode(codec, KVANT_KEY, rows, back) == KVANT_INVALID_ARGUMENT);
  return 0;
}

static int check_strides(const kvant_device_codec* codec) {
  static _Alignas(16) char memory[64]; /* nothing reads it: the strides are refused first */
  kvant_encode_args encode = {.kv_heads = 2,
                              .device_rows = memory,
                              .device_slots = (const int32_t*)memory,
                              .device_pool = memory,
                              .device_refused = (int32_t*)memory};
  kvant_decode_args decode = {
      .kv_heads = 2, .device_rows = memory, .device_slots = (const int32_t*)memory, .device_pool = memory};
  kvant_attend_args attend = {.sealed = {.device_key_pool = memory,
                                         .device_value_pool = memory,
                                         .device_table = (const kvant_device_page*)memory,
                                         .device_counts = (const int32_t*)memory,
                                         .max_pages = 1},
                              .sequences = 1,
                              .kv_heads = 2,
                              .heads_per_kv = 1,
                              .rows = 1};
  const size_t packed = 2 * kvant_device_block_bytes(codec, KVANT_KEY);
  const size_t refused[] = {packed - 16, packed + 8, (size_t)1 << 31};
  for (int i = 0; i < 3; ++i) {
    encode.slot_stride = decode.slot_stride = attend.sealed.key_stride = refused[i];
    CHECK(kvant_device_encode_pages(codec, &encode, NULL) == KVANT_INVALID_ARGUMENT);
    CHECK(strstr(kvant_error_message(), "slot_stride") != NULL);
    CHECK(kvant_device_decode_pages(codec, &decode, NULL) == KVANT_INVALID_ARGUMENT);
    CHECK(strstr(kvant_error_message(), "slot_stride") != NULL);
    CHECK(kvant_attend(codec, &attend, NULL) == KVANT_INVALID_ARGUMENT);
    CHECK(strstr(kvant_error_message(), "sealed.key_stride") != NULL);
  }
  return 0;
}

static int check_rows(const kvant_device_codec* codec) {
  static _Alignas(16) char memory[64]; /* nothing reads it */
  const kvant_device_rows good = {.device_rows = memory, .type = KVANT_F32, .device_pool = memory};
  kvant_write_args args = {.keys = good, .count = -1, .kv_heads = 2};
  CHECK(kvant_device_write_rows(codec, &args, NULL) == KVANT_INVALID_ARGUMENT);
  args.count = 0;
  CHECK(kvant_device_write_rows(codec, &args, NULL) == KVANT_OK);
  args.count = 1;
  CHECK(kvant_device_write_rows(codec, &args, NULL) == KVANT_INVALID_ARGUMENT);
  CHECK(strstr(kvant_error_message(), "targets") != NULL);
  args.values = good;
  args.values.row_stride = 8;
  CHECK(kvant_device_write_rows(codec, &args, NULL) == KVANT_INVALID_ARGUMENT);
  CHECK(strstr(kvant_error_message(), "values.rows or row_stride") != NULL);
  args.values = good;
  args.values.slot_stride = 16;
  CHECK(kvant_device_write_rows(codec, &args, NULL) == KVANT_INVALID_ARGUMENT);
  CHECK(strstr(kvant_error_message(), "values.slot_stride") != NULL);
  args.keys.device_pool = NULL;
  CHECK(kvant_device_write_rows(codec, &args, NULL) == KVANT_INVALID_ARGUMENT);
  CHECK(strstr(kvant_error_message(), "keys.pool") != NULL);
  return 0;
}

static int check_tables(void) {
  static _Alignas(16) char memory[64]; /* nothing reads it */
  const kvant_table_args good = {.sealed = {.device_pages = (const kvant_device_page*)memory,
                                            .device_counts = (const int32_t*)memory,
                                            .max_pages = 1,
                                            .device_table = (kvant_device_page*)memory,
                                            .device_table_counts = (int32_t*)memory},
                                 .streams = 1,
                                 .rows = 1,
                                 .cells = 64};
  CHECK(kvant_build_page_tables(NULL, NULL) == KVANT_INVALID_ARGUMENT);
  kvant_table_args args = good;
  args.rows = 0;
  CHECK(kvant_build_page_tables(&args, NULL) == KVANT_INVALID_ARGUMENT);
  CHECK(strstr(kvant_error_message(), "rows = 0") != NULL);
  args = good;
  args.mask_row_stride = 8;
  CHECK(kvant_build_page_tables(&args, NULL) == KVANT_INVALID_ARGUMENT);
  CHECK(strstr(kvant_error_message(), "mask_row_stride") != NULL);
  args = good;
  args.sealed.device_table = NULL;
  CHECK(kvant_build_page_tables(&args, NULL) == KVANT_INVALID_ARGUMENT);
  CHECK(strstr(kvant_error_message(), "sealed") != NULL);
  args = good;
  args.exact.max_pages = -1;
  CHECK(kvant_build_page_tables(&args, NULL) == KVANT_INVALID_ARGUMENT);
  CHECK(strstr(kvant_error_message(), "exact.max_pages") != NULL);
  args = good;
  args.sealed.max_pages = 0;
  CHECK(kvant_build_page_tables(&args, NULL) == KVANT_OK); /* nothing to do */
#ifndef KVANT_HAS_CUDA
  CHECK(kvant_build_page_tables(&good, NULL) == KVANT_NOT_SUPPORTED);
#endif
  return 0;
}

int main(void) {
  const int errors = check_errors();
  if (errors != 0) return errors;
  const int tables = check_tables();
  if (tables != 0) return tables;
  kvant_device_codec* codec = NULL;
  const kvant_status created = kvant_device_codec_create("int:4", "int:4", 128, &codec);
#ifdef KVANT_HAS_CUDA
  CHECK(created == KVANT_OK);
  CHECK(kvant_device_block_bytes(codec, KVANT_KEY) == 4096 + 512);
  CHECK(kvant_device_block_bytes(codec, KVANT_VALUE) == 4096 + 256);
  const int blocks = check_blocks(codec);
  if (blocks != 0) return blocks;
  const int strides = check_strides(codec);
  if (strides != 0) return strides;
  const int rows = check_rows(codec);
  if (rows != 0) return rows;
  kvant_attend_args args;
  memset(&args, 0, sizeof(args));
  size_t bytes = 0;
  CHECK(kvant_attend_workspace_bytes(codec, &args, &bytes) == KVANT_INVALID_ARGUMENT);
  CHECK(kvant_attend(codec, &args, NULL) == KVANT_INVALID_ARGUMENT);
  kvant_encode_args encode;
  memset(&encode, 0, sizeof(encode));
  CHECK(kvant_device_encode_pages(codec, &encode, NULL) == KVANT_INVALID_ARGUMENT);
  kvant_decode_args decode;
  memset(&decode, 0, sizeof(decode));
  CHECK(kvant_device_decode_pages(codec, &decode, NULL) == KVANT_INVALID_ARGUMENT);
  kvant_device_codec_destroy(codec);
#else
  (void)check_blocks;
  (void)check_strides;
  (void)check_rows;
  CHECK(created == KVANT_NOT_SUPPORTED);
  CHECK(strstr(kvant_error_message(), "KVANT_CUDA") != NULL);
#endif
  return 0;
}
