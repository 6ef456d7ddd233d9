// What a decode step on the device consists of: plain pointers into device memory, passed to the kernels by value.
//
// Work. A sequence has sealed pages (blocks of the codecs, 64 rows) and exact pages (fp16 rows: sinks, recent window, open
// page). An *item* is a stretch of one sequence's pages of one kind for one KV head and up to 8 columns of its queries; a
// warp computes it and leaves a partial softmax state. The number of items follows from the page tables' capacity, not
// from what is in them, so a captured graph stays valid while sequences grow; warps without pages leave at once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/host_device.h"
#include "codec/device_format.h"
#include "cuda/attend_limits.h"

namespace kvant::cuda {

/// An entry of a page table.
struct alignas(16) PageRef {
  uint64_t live;  ///< bit t: token t of the page is to be seen
  int32_t slot;   ///< of the pool
  int32_t ahead;  ///< exact pages: query row r does not see the last ahead - r tokens
  bool operator==(const PageRef&) const = default;
};

/// The bits of `live` that query row `row` sees.
KVANT_HD inline uint64_t SeenBy(int row, uint64_t live, int32_t ahead) {
  const int hidden = ahead - row;
  if (hidden <= 0) return live;
  return hidden < 64 ? live & (~uint64_t{0} >> hidden) : 0;
}

/// The queries of a step. A *column* of a KV head is one of its query heads in one query row, rows outermost; a tile has up to 8
/// columns, which are columns of operands.
struct QueryShape {
  int32_t sequences;
  int32_t rows;  ///< of each sequence
  int32_t kv_heads;
  int32_t heads_per_kv;

  KVANT_HD int columns() const { return rows * heads_per_kv; }
  KVANT_HD int tiles() const { return (columns() + kTileColumns - 1) / kTileColumns; }
  KVANT_HD int row(int column) const { return rows == 1 ? 0 : column / heads_per_kv; }
  KVANT_HD int head(int kv_head, int column) const { return (kv_head - row(column)) * heads_per_kv + column; }
  /// Index of a column's vector among [sequences, rows, kv_heads * heads_per_kv].
  KVANT_HD int64_t Vector(int sequence, int kv_head, int column) const {
    return (static_cast<int64_t>(sequence) * rows + row(column)) * (kv_heads * heads_per_kv) + head(kv_head, column);
  }
};

/// From the first block of a pool to that of a KV head in a slot. A slot has its heads' blocks one after another; pools exceed
/// 4 GiB, what lies between two slots does not.
KVANT_HD inline int64_t BlockOffset(int32_t slot, int32_t slot_stride, int kv_head, int32_t block_bytes) {
  return static_cast<int64_t>(slot) * slot_stride + kv_head * block_bytes;
}

/// Pages of one kind: pools [slots][kv_heads][block bytes], tables [sequences][max_pages].
struct PageSet {
  const std::byte* keys;
  const std::byte* values;
  const PageRef* table;
  const int32_t* counts;  ///< [sequences]: pages in use
  int32_t max_pages;
  int32_t pages_per_item;
  int32_t key_stride;  ///< bytes from slot to slot
  int32_t value_stride;

  KVANT_HD int items() const { return (max_pages + pages_per_item - 1) / pages_per_item; }
};

/// Where the streams of a block lie, in bytes; part of a kernel, and compared with the codec's layout on the host.
struct BlockOffsets {
  int32_t bytes;  ///< of the block
  int32_t codes;
  int32_t scales;  ///< -1: there are none, likewise shifts
  int32_t shifts;
  bool operator==(const BlockOffsets&) const = default;
};

/// Before the items: queries to operands.
struct PrepareParams {
  const void* queries;  ///< [sequences, rows, kv_heads * heads_per_kv, dim], fp16 or fp32
  bool is_float;
  bool hadamard;
  float scale;        ///< softmax scale times log2 e
  float sealed_gain;  ///< further, for sealed pages
  QueryShape shape;
  uint32_t* out = nullptr;                   ///< AttendParams::queries
  const std::byte* sketch_tables = nullptr;  ///< where keys are sketches: SketchTableLayout
};

/// After the items.
struct OutputParams {
  bool hadamard;  ///< sealed values are mapped
  bool is_float;
  void* out;                 ///< [sequences, rows, kv_heads * heads_per_kv, dim]; zeros where a query row sees nothing
  const float* maybe_sinks;  ///< [kv_heads * heads_per_kv]: logits that only add to the sum of weights
};

/// A step in one launch (attend_tile.h): the blocks of a tile map its queries and merge what they have.
struct TileParams {
  int32_t blocks;     ///< of a tile, at most
  int32_t chunk;      ///< > 0: units of work of a block, so that short sequences have fewer blocks
  bool sealed_ready;  ///< sealed pages, tables and counts may be read before the previous launch has ended
  uint32_t* tickets;  ///< [sequences][kv_heads][tiles]: 0 before and after
  PrepareParams prepare;
  OutputParams output;
};

struct AttendParams {
  PageSet sealed;
  PageSet exact;
  float key_levels[kDeviceLevels];  ///< where codes are looked up
  float value_levels[kDeviceLevels];
  /// The codes of values are multiplied with weights that have absorbed their scales; this makes up for the rest.
  float value_gain;

  QueryShape shape;
  float soft_cap;  ///< times log2 e; scores s become cap * tanh(s / cap). 0: they stay

  /// Queries as the kernels read them, times softmax scale and log2 e: halves [sequences][kv_heads][tiles][2][8][dim] in
  /// the order of QueryHalf; first as they are, then for sealed pages (mapped, times the key codec's step; for sketched
  /// keys others, sketch_queries.h). In one launch every block has its own in shared memory.
  const uint32_t* queries;
  /// Partial states, [sequences][kv_heads][tiles][items, or blocks]: out [8][dim], then max and sum [2][8].
  float* partial_out;
  float* partial_state;

  TileParams tile;  ///< of one launch

  KVANT_HD int items() const { return sealed.items() + exact.items(); }
  /// Of a launch that gives each item a warp.
  KVANT_HD int64_t warps() const {
    return static_cast<int64_t>(items()) * shape.tiles() * shape.kv_heads * shape.sequences;
  }
};

struct MergeParams {
  const float* partial_out;
  const float* partial_state;
  const int32_t* sealed_counts;  ///< null: there are no pages of this kind
  const int32_t* exact_counts;   ///< likewise
  int32_t sealed_pages_per_item, exact_pages_per_item;
  int32_t sealed_items, items;
  QueryShape shape;
  OutputParams output;
};

/// What a window of the trellis costs in ticks: with l its level, (tick - l)^2 less tick^2 is l^2 - 2 l tick. Times 2^bits, plus
/// the oldest symbol of the window, so that one minimum finds both.
struct TrellisCosts {
  int32_t slope[kDeviceLevels];
  int32_t base[kDeviceLevels];
};

/// Pages of rows to be encoded, of one side.
struct EncodeParams {
  const uint16_t* rows;  ///< fp16 [pages, 64, kv_heads, dim]
  const int32_t* slots;  ///< [pages]; negative: the page is left out
  std::byte* pool;       ///< [slots][kv_heads][block bytes]
  int32_t slot_stride;   ///< bytes
  int32_t* refused;      ///< set to 1 when a value's scale exceeds kMaxValueScale; never cleared here
  int32_t pages;
  int32_t kv_heads;
  bool is_value;
  BlockOffsets offsets;
  // CodeKind::kLevels, kTrellis
  float step;
  float levels[kDeviceLevels];
  float thresholds[7];
  bool unbiased;
  // CodeKind::kTrellis
  TrellisCosts costs;
  // CodeKind::kSketch
  DeviceSketch sketch = {};
  const std::byte* sketch_tables = nullptr;  ///< SketchTableLayout
};

/// Pages to rows, of one side.
struct DecodeParams {
  const std::byte* pool;  ///< [slots][kv_heads][block bytes]
  int32_t slot_stride;    ///< bytes
  const int32_t* slots;   ///< [pages]; negative: the page is left out
  uint16_t* rows;         ///< fp16 [pages, 64, kv_heads, dim]
  int32_t pages;
  int32_t kv_heads;
  bool is_value;
  bool hadamard;
  BlockOffsets offsets;
  int32_t param_rows;  ///< of scales and shifts
  float step;
  float levels[kDeviceLevels];
};

/// Rows of one side that are stored in exact pages.
struct WriteSide {
  const std::byte* rows;  ///< fp16 or fp32 [count][kv_heads][dim]
  int64_t row_stride;     ///< bytes
  std::byte* pool;        ///< [slots][kv_heads][block bytes]
  int32_t slot_stride;    ///< bytes
  bool is_float;
  bool is_value;
};
struct WriteParams {
  WriteSide side[2];
  int32_t sides;  ///< in use
  int32_t count;
  int32_t kv_heads;
  const int32_t* targets;  ///< [count]: 64 * slot + row of the page; negative: left out
  int32_t* refused;        ///< set to 1 when a value is no finite fp16 number; never cleared here
};

}  // namespace kvant::cuda
