// What tests of the attention kernels share: a problem, its pages, and a kernel on the host (simt_host.h) against attention in
// double precision over decoded blocks.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "codec/registry.h"
#include "cuda/attend_tile.h"
#include "cuda/block_order.h"
#include "cuda/prepare_merge_warp.h"
#include "cuda/simt_host.h"
#include "cuda/sketch_tables.h"
#include "cuda/trellis_readers.h"

namespace kvant::cuda {

constexpr double kMaxError = 2e-3;

struct Problem {
  const char* codec = "int";
  const char* options = "bits=4";
  const char* value_options = nullptr;  ///< null: those of keys
  int dim = 128;
  int kv_heads = 1;
  int heads_per_kv = 4;
  int rows = 1;
  int chunk = 0;
  float soft_cap = 0.0f;
  bool sinks = false;
  std::vector<int> sealed = {3, 0, 4};  ///< pages of each sequence
  std::vector<int> exact = {1, 1, 0};
  int pages_per_item = 2;
  int spare_pages = 0;  ///< of the tables
  int gap = 0;          ///< bytes of something else between the keys of two slots; of values twice as many
  uint64_t first_live = ~uint64_t{0};
  float query_scale = 1.0f;
};

inline Codec Make(const char* name, const char* options, Side side, int dim) {
  auto codec = MakeCodec(name, *ParseCodecOptions(*FindCodec(name), options), {.side = side, .dim = dim});
  EXPECT_TRUE(codec.ok()) << codec.status().message();
  return *codec;
}

// The pages of one kind and side, encoded, in device order, with what they decode to.
class Pool {
 public:
  Pool(const Codec& codec, int slots, int kv_heads, int gap, uint32_t seed)
      : codec_(codec), kv_heads_(kv_heads), stride_(kv_heads * static_cast<int>(codec.block_bytes()) + gap) {
    const auto format = DeviceFormatOf(codec);
    EXPECT_TRUE(format.ok()) << format.status().message();
    format_ = *format;
    const size_t values = static_cast<size_t>(kPageTokens * codec.shape().dim);
    const size_t blocks = static_cast<size_t>(slots * kv_heads);
    bytes_ = AlignedBuffer<std::byte>(static_cast<size_t>(slots * stride_) + 64);
    std::fill(bytes_.span().begin(), bytes_.span().end(), std::byte{0xFF});  // as halves no numbers
    decoded_ = AlignedBuffer<float>(blocks * values + 64);
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    AlignedBuffer<float> rows(values);
    AlignedBuffer<std::byte> block(codec.block_bytes());
    for (size_t i = 0; i < blocks; ++i) {
      for (size_t v = 0; v < values; ++v) {
        rows[v] = kvant::ToFloat(ToF16(normal(rng) + 0.3f * static_cast<float>(v % 7) - 0.7f));
      }
      EXPECT_TRUE(codec.verbs.encode(*codec.state, {}, rows.data(), block.data()).ok());
      EXPECT_TRUE(codec.verbs.decode(*codec.state, {}, block.data(), decoded_.data() + i * values).ok());
      const int slot = static_cast<int>(i) / kv_heads, head = static_cast<int>(i) % kv_heads;
      ToDeviceOrder(codec, format_, block.data(),
                    bytes_.data() + BlockOffset(slot, stride_, head, static_cast<int>(codec.block_bytes())));
    }
  }
  const std::byte* bytes() const { return bytes_.data(); }
  int stride() const { return stride_; }
  const float* row(int slot, int head, int token) const {
    return decoded_.data() + ((slot * kv_heads_ + head) * kPageTokens + token) * codec_.shape().dim;
  }
  const DeviceFormat& format() const { return format_; }

 private:
  Codec codec_;
  int kv_heads_;
  int stride_;
  DeviceFormat format_;
  AlignedBuffer<std::byte> bytes_;
  AlignedBuffer<float> decoded_;
};

// Shuffled page tables.
struct Tables {
  std::vector<PageRef> refs;
  std::vector<int32_t> counts;
  int max_pages;

  Tables(const std::vector<int>& pages, int spare, uint64_t first_live, std::mt19937& rng) {
    counts.assign(pages.begin(), pages.end());
    max_pages = *std::max_element(pages.begin(), pages.end()) + spare;
    int total = 0;
    for (const int n : pages) total += n;
    std::vector<int> slots(static_cast<size_t>(total));
    for (int i = 0; i < total; ++i) slots[static_cast<size_t>(i)] = i;
    std::shuffle(slots.begin(), slots.end(), rng);
    refs.resize(static_cast<size_t>(max_pages) * pages.size());
    size_t next = 0;
    for (size_t s = 0; s < pages.size(); ++s) {
      for (int i = 0; i < pages[s]; ++i) {
        refs[s * static_cast<size_t>(max_pages) + static_cast<size_t>(i)] = {i == 0 ? first_live : ~uint64_t{0},
                                                                             slots[next++], 0};
      }
    }
  }
  /// The last `rows` tokens of each sequence are those of the queries.
  void AddQueryRows(int rows) {
    for (size_t s = 0; s < counts.size(); ++s) {
      for (int i = 0; i < counts[s]; ++i) {
        const int after = (counts[s] - 1 - i) * kPageTokens;  // tokens of later pages
        refs[s * static_cast<size_t>(max_pages) + static_cast<size_t>(i)].ahead = rows - 1 - after;
      }
    }
  }
};

template <template <class, int, int> class Keys, template <class, int, int> class Values, int kDim, int kBits,
          int kValueBits = kBits>
class Kernel {
 public:
  using K = Keys<HostWarp, kDim, kBits>;
  using V = Values<HostWarp, kDim, kValueBits>;

  static double Error(const Problem& p) {
    Kernel k(p);
    k.Run();
    return k.RelativeError();
  }
  static std::vector<float> Output(const Problem& p) {
    Kernel k(p);
    k.Run();
    return k.out_;
  }
  /// Of one launch, twice: a step leaves its tickets for the next.
  static double TileError(const Problem& p, int blocks, int warps) {
    Kernel k(p);
    std::vector<uint32_t> tickets(1024);
    k.RunTiles(blocks, warps, tickets.data());
    std::fill(k.out_.begin(), k.out_.end(), NAN);
    k.RunTiles(blocks, warps, tickets.data());
    EXPECT_EQ(std::count(tickets.begin(), tickets.end(), 0u), 1024);
    return k.RelativeError();
  }

 private:
  explicit Kernel(const Problem& p)
      : p_(p),
        rng_(11),
        sealed_(p.sealed, p.spare_pages, p.first_live, rng_),
        exact_(p.exact, p.spare_pages, p.first_live, rng_),
        slots_(Total(p.sealed)),
        exact_slots_(Total(p.exact)),
        k_(Make(p.codec, p.options, Side::kKey, kDim), slots_, p.kv_heads, p.gap, 1),
        v_(Make(p.codec, p.value_options ? p.value_options : p.options, Side::kValue, kDim), slots_, p.kv_heads,
           2 * p.gap, 2),
        exact_k_(Make("raw", "", Side::kKey, kDim), exact_slots_, p.kv_heads, p.gap, 3),
        exact_v_(Make("raw", "", Side::kValue, kDim), exact_slots_, p.kv_heads, 2 * p.gap, 4) {
    exact_.AddQueryRows(p.rows);
    if (k_.format().kind == CodeKind::kSketch) sketch_tables_ = MakeSketchTables(kDim);
    queries_.resize(static_cast<size_t>(sequences() * p.rows * q_heads() * kDim));
    std::normal_distribution<float> normal(0.0f, p.query_scale);
    for (float& q : queries_) q = normal(rng_);
    out_.assign(queries_.size(), NAN);
    for (int h = 0; h < q_heads(); ++h) sinks_.push_back(0.7f * static_cast<float>(h) - 1.0f);
  }
  static int Total(const std::vector<int>& pages) {
    int total = 0;
    for (const int n : pages) total += n;
    return total;
  }
  int sequences() const { return static_cast<int>(p_.sealed.size()); }
  QueryShape shape() const {
    return {.sequences = sequences(), .rows = p_.rows, .kv_heads = p_.kv_heads, .heads_per_kv = p_.heads_per_kv};
  }
  int q_heads() const { return p_.kv_heads * p_.heads_per_kv; }
  float softmax_scale() const { return 1.0f / std::sqrt(static_cast<float>(kDim)); }

  static PageSet Set(const Pool& k, const Pool& v, const Tables& tables, int pages_per_item) {
    return {.keys = k.bytes(),
            .values = v.bytes(),
            .table = tables.refs.data(),
            .counts = tables.counts.data(),
            .max_pages = tables.max_pages,
            .pages_per_item = pages_per_item,
            .key_stride = k.stride(),
            .value_stride = v.stride()};
  }
  AttendParams Params() {
    AttendParams a = {};
    a.sealed = Set(k_, v_, sealed_, p_.pages_per_item);
    a.exact = Set(exact_k_, exact_v_, exact_, 1);
    std::ranges::copy(k_.format().levels, a.key_levels);
    std::ranges::copy(v_.format().levels, a.value_levels);
    a.value_gain = v_.format().kind == CodeKind::kUniform ? 4.0f : v_.format().step;
    a.shape = shape();
    a.soft_cap = p_.soft_cap * 1.44269504f;
    return a;
  }

  void Run() {
    AttendParams a = Params();
    const size_t tiles = static_cast<size_t>(sequences() * p_.kv_heads * a.shape.tiles());
    AlignedBuffer<uint32_t> queries(tiles * QueryBytes<K>() / sizeof(uint32_t));
    AlignedBuffer<float> out(tiles * static_cast<size_t>(a.items()) * kTileColumns * kDim);
    AlignedBuffer<float> state(tiles * static_cast<size_t>(a.items()) * 2 * kTileColumns);
    std::fill(out.span().begin(), out.span().end(), NAN);  // nothing may be read that nobody wrote
    std::fill(state.span().begin(), state.span().end(), NAN);
    a.queries = queries.data();
    a.partial_out = out.data();
    a.partial_state = state.data();
    Prepare(a, queries.data());
    Attend(a);
    Finish(a);
  }
  PrepareParams Preparing(uint32_t* to) const {
    return {.queries = queries_.data(),
            .is_float = true,
            .hadamard = k_.format().hadamard,
            .scale = softmax_scale() * 1.44269504f,
            .sealed_gain = k_.format().kind == CodeKind::kUniform ? 4.0f : k_.format().step,
            .shape = shape(),
            .out = to,
            .sketch_tables = sketch_tables_.data()};
  }
  OutputParams Results() {
    return {.hadamard = v_.format().hadamard,
            .is_float = true,
            .out = out_.data(),
            .maybe_sinks = p_.sinks ? sinks_.data() : nullptr};
  }
  void Prepare(const AttendParams& a, uint32_t* to) {
    const PrepareParams prepare = Preparing(to);
    ForEachTile(a, [&](int s, int h, int tile) {
      HostBlock::Run(32 * kTileColumns, [&](int thread) {
        if constexpr (requires { K::kQueryBytes; }) {
          PrepareSketchWarp<HostWarp, K>(prepare, s, h, tile, thread / 32, thread % 32);
        } else {
          PrepareWarp<HostWarp, kDim>(prepare, s, h, tile, thread / 32, thread % 32);
        }
      });
    });
  }
  void Attend(const AttendParams& a) {
    constexpr int kDepth = 1;
    constexpr int kWarps = 2;
    AlignedBuffer<std::byte> slots(kWarps * PageSlots<K, V, kDepth>::kBytes);
    AlignedBuffer<std::byte> tables(K::Table::kBytes + V::Table::kBytes + 64);
    std::byte* key_table = tables.data();
    std::byte* value_table = key_table + K::Table::kBytes;
    const int64_t warps = a.warps();
    for (int64_t first = 0; first < warps; first += kWarps) {
      HostBlock::Run(32 * kWarps, [&](int thread) {
        if constexpr (K::Table::kBytes > 0) {
          K::Table::template Fill<HostWarp>(a.key_levels, thread, 32 * kWarps, key_table);
          V::Table::template Fill<HostWarp>(a.value_levels, thread, 32 * kWarps, value_table);
        }
        HostWarp::BlockSync();
        if (first + thread / 32 >= warps) return;
        AttendWarp<kDepth, HostWarp, K, V>(a, WarpPlace::Of(a, first + thread / 32, thread % 32),
                                           slots.data() + thread / 32 * PageSlots<K, V, kDepth>::kBytes, key_table,
                                           value_table);
      });
    }
  }
  void Finish(const AttendParams& a) {
    const MergeParams merge = {
        .partial_out = a.partial_out,
        .partial_state = a.partial_state,
        .sealed_counts = a.sealed.counts,
        .exact_counts = a.exact.counts,
        .sealed_pages_per_item = a.sealed.pages_per_item,
        .exact_pages_per_item = a.exact.pages_per_item,
        .sealed_items = a.sealed.items(),
        .items = a.items(),
        .shape = a.shape,
        .output = Results(),
    };
    MergeShared<kDim> shared;
    for (int s = 0; s < sequences(); ++s) {
      for (int i = 0; i < a.shape.kv_heads * a.shape.columns(); ++i) {
        HostBlock::Run(32 * kMergeWarps,
                       [&](int thread) { MergeWarp<HostWarp, kDim>(merge, s, i, thread / 32, thread % 32, &shared); });
      }
    }
  }
  void RunTiles(int blocks_per_tile, int warps, uint32_t* tickets) {
    constexpr int kDepth = 2;
    AttendParams a = Params();
    const size_t blocks = static_cast<size_t>(sequences() * p_.kv_heads * a.shape.tiles() * blocks_per_tile);
    AlignedBuffer<float> out(blocks * kTileColumns * kDim);
    AlignedBuffer<float> state(blocks * 2 * kTileColumns);
    std::fill(out.span().begin(), out.span().end(), NAN);  // nothing may be read that nobody wrote
    std::fill(state.span().begin(), state.span().end(), NAN);
    a.partial_out = out.data();
    a.partial_state = state.data();
    a.tile = {blocks_per_tile, p_.chunk, warps % 2 == 0, tickets, Preparing(nullptr), Results()};
    const int head_tiles = a.shape.kv_heads * a.shape.tiles();
    for (size_t block = 0; block < blocks; ++block) {
      const size_t floats = static_cast<size_t>(warps * PageSlots<K, V, kDepth>::kBytes) / sizeof(float);
      AlignedBuffer<float> space(floats);
      AlignedBuffer<std::byte> queries(WarpQueries::kBytes<K>);
      AlignedBuffer<std::byte> tables(K::Table::kBytes + V::Table::kBytes + 64);
      std::byte* value_table = tables.data() + K::Table::kBytes;
      std::fill(space.span().begin(), space.span().end(), NAN);
      HostBlock::Run(32 * warps, [&](int thread) {
        if constexpr (K::Table::kBytes > 0) {
          K::Table::template Fill<HostWarp>(a.key_levels, thread, 32 * warps, tables.data());
          V::Table::template Fill<HostWarp>(a.value_levels, thread, 32 * warps, value_table);
        }
        AttendTile<kDepth, HostWarp, K, V>(
            a,
            TilePlace::Of(a, static_cast<int>(block) % blocks_per_tile,
                          static_cast<int>(block) / blocks_per_tile % head_tiles,
                          static_cast<int>(block) / blocks_per_tile / head_tiles, thread / 32, warps, thread % 32),
            queries.data(), reinterpret_cast<std::byte*>(space.data()), tables.data(), value_table);
      });
    }
  }
  template <typename Visit>
  void ForEachTile(const AttendParams& a, Visit visit) {
    for (int s = 0; s < a.shape.sequences; ++s) {
      for (int h = 0; h < a.shape.kv_heads; ++h) {
        for (int tile = 0; tile < a.shape.tiles(); ++tile) visit(s, h, tile);
      }
    }
  }

  template <typename Visit>
  void ForEachRow(const Tables& tables, int s, int row, Visit visit) const {
    for (int i = 0; i < tables.counts[static_cast<size_t>(s)]; ++i) {
      const PageRef& ref = tables.refs[static_cast<size_t>(s * tables.max_pages + i)];
      for (int t = 0; t < kPageTokens; ++t) {
        if ((ref.live >> t & 1) && t < kPageTokens - ref.ahead + row) visit(ref.slot, t);
      }
    }
  }
  // Adds exp(score) and exp(score) * row of the rows of one kind.
  void AddRows(const Tables& tables, const Pool& k, const Pool& v, int s, int row, int head, double* sum,
               std::vector<double>* out) const {
    const float* q = &queries_[static_cast<size_t>(((s * p_.rows + row) * q_heads() + head) * kDim)];
    const int kv = head / p_.heads_per_kv;
    ForEachRow(tables, s, row, [&](int slot, int t) {
      double score = 0.0;
      for (int c = 0; c < kDim; ++c) score += static_cast<double>(q[c]) * static_cast<double>(k.row(slot, kv, t)[c]);
      score *= static_cast<double>(softmax_scale());
      const auto cap = static_cast<double>(p_.soft_cap);
      const double weight = std::exp(cap > 0.0 ? cap * std::tanh(score / cap) : score);
      *sum += weight;
      for (int c = 0; c < kDim; ++c) {
        (*out)[static_cast<size_t>(c)] += weight * static_cast<double>(v.row(slot, kv, t)[c]);
      }
    });
  }
  double RelativeError() const {
    double error = 0.0;
    double norm = 0.0;
    for (int s = 0; s < sequences() * p_.rows; ++s) {
      for (int h = 0; h < q_heads(); ++h) {
        double sum = 0.0;
        std::vector<double> want(kDim);
        AddRows(sealed_, k_, v_, s / p_.rows, s % p_.rows, h, &sum, &want);
        AddRows(exact_, exact_k_, exact_v_, s / p_.rows, s % p_.rows, h, &sum, &want);
        const double sink = p_.sinks && sum > 0.0 ? std::exp(static_cast<double>(sinks_[static_cast<size_t>(h)])) : 0.0;
        for (int c = 0; c < kDim; ++c) {
          const double w = sum > 0.0 ? want[static_cast<size_t>(c)] / (sum + sink) : 0.0;
          const double got = static_cast<double>(out_[static_cast<size_t>((s * q_heads() + h) * kDim + c)]);
          error += (got - w) * (got - w);
          norm += w * w;
        }
      }
    }
    return std::sqrt(error / norm);
  }

  Problem p_;
  std::mt19937 rng_;
  Tables sealed_, exact_;
  int slots_, exact_slots_;
  Pool k_, v_, exact_k_, exact_v_;
  std::vector<float> queries_, out_, sinks_;
  AlignedBuffer<std::byte> sketch_tables_;
};

template <class Subject>
double ErrorOf(Problem p, const char* codec, const std::string& options) {
  p.codec = codec;
  p.options = options.c_str();
  return Subject::Error(p);
}
template <int kDim, int kBits>
double UniformError(Problem p) {
  return ErrorOf<Kernel<UniformKeys, UniformValues, kDim, kBits>>(p, "int", "bits=" + std::to_string(kBits));
}
template <int kDim, int kBits>
double LevelError(Problem p) {
  return ErrorOf<Kernel<LevelKeys, LevelValues, kDim, kBits>>(p, "decoquant", "bits=" + std::to_string(kBits));
}
template <int kDim, int kBits>
double TrellisError(Problem p) {
  return ErrorOf<Kernel<TrellisKeys, TrellisValues, kDim, kBits>>(p, "decoquant",
                                                                  "code=trellis,bits=" + std::to_string(kBits));
}

}  // namespace kvant::cuda
