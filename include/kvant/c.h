/* The C API: attention over compressed pages on a CUDA device, for programs that cannot or will not use C++.
 *
 * kvant/device_codec.h explains the terms; the structs here are the same field by field. Pointers named device_* are device
 * memory of the caller, all others host memory. Functions return a status; kvant_error_message() then says what was wrong
 * and what is accepted. Nothing here allocates device memory, waits for the device, or prints. */
#ifndef KVANT_C_H_
#define KVANT_C_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KVANT_API __attribute__((visibility("default")))
#else
#define KVANT_API
#endif

/* The values of kvant::StatusCode. */
typedef enum kvant_status {
  KVANT_OK = 0,
  KVANT_INVALID_ARGUMENT = 1,
  KVANT_NOT_SUPPORTED = 2,
  KVANT_NOT_FOUND = 3,
  KVANT_CORRUPTION = 4,
  KVANT_OUT_OF_MEMORY = 5,
  KVANT_IO_ERROR = 6,
  KVANT_INTERNAL = 7
} kvant_status;

/* Why the last call of this thread that did not return KVANT_OK failed: one line, valid until the next failure. */
KVANT_API const char* kvant_error_message(void);

typedef enum kvant_side {
  KVANT_KEY = 0,
  KVANT_VALUE = 1,
  KVANT_EXACT_KEY = 2, /* fp16 rows */
  KVANT_EXACT_VALUE = 3
} kvant_side;

typedef enum kvant_type { KVANT_F16 = 0, KVANT_F32 = 1 } kvant_type;

/* A codec for keys and one for values, as device kernels read them. */
typedef struct kvant_device_codec kvant_device_codec;

/* `key` and `value` are scheme text, "decoquant:bits=4". dim: 64, 128 or 256. KVANT_NOT_SUPPORTED when there is no kernel for
 * it, or none at all in this build. Needs no GPU. */
KVANT_API kvant_status kvant_device_codec_create(const char* key, const char* value, int32_t dim,
                                                 kvant_device_codec** out);
KVANT_API void kvant_device_codec_destroy(kvant_device_codec* codec); /* null is fine */

/* Bytes of the block of one KV head in one page of 64 rows. */
KVANT_API size_t kvant_device_block_bytes(const kvant_device_codec* codec, kvant_side side);

/* rows [64, dim] -> block [block bytes], in device order, to be copied to a pool; and back. */
KVANT_API kvant_status kvant_device_encode(const kvant_device_codec* codec, kvant_side side, const float* rows,
                                           void* block);
KVANT_API kvant_status kvant_device_decode(const kvant_device_codec* codec, kvant_side side, const void* block,
                                           float* rows);

/* Pages of fp16 rows -> blocks in a pool, on the device. */
typedef struct kvant_encode_args {
  kvant_side side;
  int32_t pages;
  int32_t kv_heads;
  const void* device_rows;     /* fp16 [pages, 64, kv_heads, dim], finite */
  const int32_t* device_slots; /* [pages]: where in the pool; negative: this page is left out */
  void* device_pool;           /* [slots][kv_heads][block bytes] */
  size_t slot_stride;          /* as in kvant_device_pages */
  int32_t* device_refused;     /* set to 1 when a scale does not fit: then these pages must not be used */
} kvant_encode_args;
KVANT_API kvant_status kvant_device_encode_pages(const kvant_device_codec* codec, const kvant_encode_args* args,
                                                 void* stream);

/* Blocks in a pool -> pages of fp16 rows, on the device. */
typedef struct kvant_decode_args {
  kvant_side side;
  int32_t pages;
  int32_t kv_heads;
  const void* device_pool;     /* [slots][kv_heads][block bytes] */
  size_t slot_stride;          /* as in kvant_device_pages */
  const int32_t* device_slots; /* [pages]: where in the pool; negative: this page is left out */
  void* device_rows;           /* fp16 [pages, 64, kv_heads, dim] */
} kvant_decode_args;
KVANT_API kvant_status kvant_device_decode_pages(const kvant_device_codec* codec, const kvant_decode_args* args,
                                                 void* stream);

/* Rows of one side, to be stored in exact pages as they are. */
typedef struct kvant_device_rows {
  const void* device_rows; /* [count, kv_heads, dim], 4-byte aligned (fp16) or 16-byte aligned (fp32); null: no rows */
  kvant_type type;
  size_t row_stride;  /* bytes, aligned like rows; 0: rows follow one another */
  void* device_pool;  /* of exact pages, [slots][kv_heads][block bytes] */
  size_t slot_stride; /* as in kvant_device_pages */
} kvant_device_rows;

typedef struct kvant_write_args {
  kvant_device_rows keys;
  kvant_device_rows values;
  int32_t count;
  int32_t kv_heads;
  const int32_t* device_targets; /* [count]: 64 * slot + row of the page; negative: this row is left out */
  int32_t* device_refused; /* or mapped host memory: set to 1 when a value is no finite fp16 number: then that page must
                              not be used */
} kvant_write_args;
KVANT_API kvant_status kvant_device_write_rows(const kvant_device_codec* codec, const kvant_write_args* args,
                                               void* stream);

/* An entry of a page table. */
typedef struct kvant_device_page {
  uint64_t live; /* bit t: row t of the page is visible */
  int32_t slot;  /* index into the pools */
  int32_t ahead; /* exact pages: query row r does not see the last ahead - r rows; sealed pages: 0 */
} kvant_device_page;

typedef struct kvant_device_pages {
  const void* device_key_pool;           /* [slots][kv_heads][key block bytes], 16-byte aligned */
  const void* device_value_pool;         /* [slots][kv_heads][value block bytes] */
  const kvant_device_page* device_table; /* [sequences][max_pages] */
  const int32_t* device_counts;          /* [sequences]: pages in use */
  int32_t max_pages;                     /* 0: no pages of this kind; the pointers may be null */
  size_t key_stride;                     /* bytes from slot to slot, a multiple of 16; 0: kv_heads * block bytes */
  size_t value_stride;
} kvant_device_pages;

/* The pages of one kind that the rows of some streams may see, and the tables made of them. */
typedef struct kvant_page_list {
  const kvant_device_page* device_pages; /* [streams][max_pages]: live = rows held; ahead = number of the page */
  const int32_t* device_counts;          /* [streams]: pages in use */
  int32_t max_pages;                     /* 0: no pages of this kind; the pointers may be null */
  kvant_device_page* device_table;       /* out: [streams * rows][max_pages] */
  int32_t* device_table_counts;          /* out: [streams * rows] */
} kvant_page_list;

/* Page tables for a step in which each query row of a stream is a sequence of its own. */
typedef struct kvant_table_args {
  kvant_page_list sealed;
  kvant_page_list exact;
  int32_t streams;
  int32_t rows;  /* of each stream */
  int32_t cells; /* columns of the mask: row t of page n is cell 64 n + t; cells beyond are not seen */
  const void*
      device_mask; /* fp16 [streams, rows, cells] by strides, 16-byte aligned: 0 seen, below -1e4 not; null: all are
                              seen */
  size_t mask_row_stride; /* bytes, multiples of 16 */
  size_t mask_stream_stride;
} kvant_table_args;
KVANT_API kvant_status kvant_build_page_tables(const kvant_table_args* args, void* stream);

typedef struct kvant_attend_args {
  kvant_device_pages sealed;
  kvant_device_pages exact;
  int32_t sequences;
  int32_t kv_heads;
  int32_t heads_per_kv; /* 1..16 */
  int32_t rows;         /* query rows of each sequence, 1..8 */
  kvant_type query_type;
  kvant_type out_type;
  float scale;                /* scores = scale * q . k */
  float soft_cap;             /* > 0: scores s become soft_cap * tanh(s / soft_cap) */
  const float* device_sinks;  /* [kv_heads * heads_per_kv]: logits that only add to the sum of weights; null: none */
  const void* device_queries; /* [sequences, rows, kv_heads * heads_per_kv, dim] */
  void* device_out;           /* the same shape */
  void* device_workspace;     /* 256-byte aligned */
  size_t workspace_bytes;
  void*
      device_tickets; /* KVANT_TICKET_BYTES of zeros, left as zeros, not shared by steps that run at the same time: few
                           sequences then take one launch; null: always three */
  int32_t sealed_ready; /* not 0: the launch before this one writes no sealed pages, tables or counts */
  int32_t ragged;       /* not 0: the sequences' lengths differ much */
  int32_t fixed_pages;  /* > 0: bits of a result that depend neither on device nor on batch; 0: what is fastest */
} kvant_attend_args;
#define KVANT_TICKET_BYTES 4096

/* Bytes of workspace for these shapes; pointers are not read. Call it before a CUDA graph is captured. */
KVANT_API kvant_status kvant_attend_workspace_bytes(const kvant_device_codec* codec, const kvant_attend_args* args,
                                                    size_t* out);
/* One decode step on `stream` (a cudaStream_t; null: the default stream). */
KVANT_API kvant_status kvant_attend(const kvant_device_codec* codec, const kvant_attend_args* args, void* stream);

#ifdef __cplusplus
}
#endif

#endif /* KVANT_C_H_ */
