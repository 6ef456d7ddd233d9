// A cache of one layer and its ops, as libllama builds them, on any ggml device: for tests without a model.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"

namespace kvant {

struct FreeGgml {
  void operator()(ggml_context* c) const { ggml_free(c); }
  void operator()(ggml_backend* b) const { ggml_backend_free(b); }
  void operator()(ggml_backend_buffer* b) const { ggml_backend_buffer_free(b); }
  void operator()(ggml_gallocr* a) const { ggml_gallocr_free(a); }
};
template <typename T>
using GgmlPtr = std::unique_ptr<T, FreeGgml>;

/// How keys are turned before they are written, as libllama's models do it.
struct TestTurn {
  int dims = 0;  ///< 0: not at all
  int mode = GGML_ROPE_TYPE_NEOX;
  float base = 1e4f;
  float scale = 1.0f;
  float ext_factor = 0.0f;
  bool factors = false;  ///< frequency factors 1, 1.5, 2, ...
};

struct TestShape {
  int q_heads = 8;
  int kv_heads = 2;
  int k_dim = 64;
  int v_dim = 128;
  int cells = 512;
  int streams = 1;
  TestTurn turn = {};
};

struct TestAttention {
  int queries = 1;    ///< per stream
  int visible = 256;  ///< cells that the view shows
  float softcap = 0;
  float max_bias = 0;
  bool sinks = false;
};

inline std::vector<float> RandomFloats(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

class TestLayer {
 public:
  TestLayer(ggml_backend_dev_t device, const TestShape& shape, ggml_type type = GGML_TYPE_F16)
      : shape_(shape), backend_(ggml_backend_dev_init(device, nullptr)), cache_context_(NewContext()) {
    key_ = NewCache("cache_k_l0", shape.k_dim, type);
    value_ = NewCache("cache_v_l0", shape.v_dim, type);
    cache_.reset(ggml_backend_alloc_ctx_tensors_from_buft(cache_context_.get(), ggml_backend_dev_buffer_type(device)));
    if (cache_) ggml_backend_buffer_clear(cache_.get(), 0);
  }

  bool has_cache() const { return cache_ != nullptr; }
  ggml_tensor* key() { return key_; }
  ggml_tensor* value() { return value_; }
  ggml_context* NewGraph() {
    graph_context_ = NewContext();
    graph_ = ggml_new_graph(graph_context_.get());
    inputs_.clear();
    return graph_context_.get();
  }

  ggml_tensor* Input(ggml_type type, std::vector<int64_t> ne, const void* data) {
    ggml_tensor* tensor = ggml_new_tensor(graph_context_.get(), type, static_cast<int>(ne.size()), ne.data());
    ggml_set_input(tensor);
    inputs_.push_back({tensor, data});
    return tensor;
  }
  void Add(ggml_tensor* node) { ggml_build_forward_expand(graph_, node); }

  /// As libllama: asks what is supported, allocates, computes. False: no memory for the graph.
  bool Plan() {
    for (int i = 0; i < ggml_graph_n_nodes(graph_); ++i)
      ggml_backend_supports_op(backend_.get(), ggml_graph_node(graph_, i));
    allocator_.reset(ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend_.get())));
    return ggml_gallocr_alloc_graph(allocator_.get(), graph_);
  }
  ggml_status Compute() {
    for (const auto& [tensor, data] : inputs_) ggml_backend_tensor_set(tensor, data, 0, ggml_nbytes(tensor));
    return ggml_backend_graph_compute(backend_.get(), graph_);
  }

  /// Writes random rows to the cells (numbered over all streams); plans an attention beside it, as a model has one.
  ggml_status Write(const std::vector<int64_t>& cells, unsigned seed) {
    NewGraph();
    AddWrite(cells, seed);
    std::vector<float> q = AddAttention({}, seed);
    return Plan() ? Compute() : GGML_STATUS_ALLOC_FAILED;
  }

  /// Attention of random queries; the last fourth of the visible cells is masked.
  std::vector<float> Attend(const TestAttention& a, unsigned seed) {
    NewGraph();
    ggml_tensor* out = nullptr;
    const std::vector<float> q = AddAttention(a, seed, &out);
    ggml_set_output(out);
    if (!Plan() || Compute() != GGML_STATUS_SUCCESS) return {};
    std::vector<float> result(static_cast<size_t>(ggml_nelements(out)));
    ggml_backend_tensor_get(out, result.data(), 0, ggml_nbytes(out));
    return result;
  }

  void AddWrite(const std::vector<int64_t>& cells, unsigned seed) {
    cells_ = cells;
    const auto rows = static_cast<int64_t>(cells_.size());
    ggml_tensor* index = Input(GGML_TYPE_I64, {rows}, cells_.data());
    int salt = 0;
    for (ggml_tensor* cache : {key_, value_}) {
      std::vector<float>& data = rows_[salt];
      data = RandomFloats(static_cast<size_t>(cache->ne[0] * rows), seed * 2 + static_cast<unsigned>(salt++));
      ggml_tensor* all = ggml_reshape_2d(graph_context_.get(), cache, cache->ne[0], cache->ne[1] * cache->ne[2]);
      ggml_tensor* source = shape_.turn.dims != 0 && cache == key_
                                ? Turned(rows, data.data())
                                : Input(GGML_TYPE_F32, {cache->ne[0], rows}, data.data());
      Add(ggml_set_rows(graph_context_.get(), all, source, index));
    }
  }

  /// Position of a key that is written to a cell.
  static int32_t PositionOf(int64_t cell) { return static_cast<int32_t>(7 + cell % 1000); }
  /// ROPE of keys [k_dim, kv_heads, rows] by `positions`, as this layer does it.
  ggml_tensor* Turn(ggml_tensor* keys, ggml_tensor* positions, bool in_place) {
    const TestTurn& t = shape_.turn;
    ggml_tensor* node = (in_place ? ggml_rope_ext_inplace : ggml_rope_ext)(
        graph_context_.get(), keys, positions, t.factors ? Factors() : nullptr, t.dims, GGML_ROPE_TYPE_NORMAL, 512,
        t.base, t.scale, t.ext_factor, 1.0f, 32.0f, 1.0f);
    node->op_params[2] = t.mode;  // of kinds that this function does not make as well
    return node;
  }

  std::vector<float> AddAttention(const TestAttention& a, unsigned seed, ggml_tensor** out = nullptr) {
    ggml_context* c = graph_context_.get();
    const int64_t streams = shape_.streams;
    queries_ = RandomFloats(static_cast<size_t>(shape_.k_dim * a.queries * shape_.q_heads * streams), seed + 77);
    mask_.assign(static_cast<size_t>(a.visible * a.queries * streams), 0);
    for (size_t i = 0; i < mask_.size(); ++i) {
      const auto cell = static_cast<int>(i % static_cast<size_t>(a.visible));
      const float bias = cell >= a.visible * 3 / 4 ? -INFINITY : -static_cast<float>(a.visible - cell) / 64;
      mask_[i] = ggml_fp32_to_fp16(a.max_bias > 0 || std::isinf(bias) ? bias : 0);
    }
    sinks_ = RandomFloats(static_cast<size_t>(shape_.q_heads), seed + 99);
    ggml_tensor* q = Input(GGML_TYPE_F32, {shape_.k_dim, shape_.q_heads, a.queries, streams}, queries_.data());
    ggml_tensor* mask = Input(GGML_TYPE_F16, {a.visible, a.queries, 1, streams}, mask_.data());
    ggml_tensor* node = ggml_flash_attn_ext(c, ggml_permute(c, q, 0, 2, 1, 3), View(key_, shape_.k_dim, a.visible),
                                            View(value_, shape_.v_dim, a.visible), mask,
                                            1.0f / std::sqrt(static_cast<float>(shape_.k_dim)), a.max_bias, a.softcap);
    ggml_prec_set_acc(node, GGML_PREC_F32);
    if (a.sinks) ggml_flash_attn_ext_add_sinks(node, Input(GGML_TYPE_F32, {shape_.q_heads}, sinks_.data()));
    Add(node);
    if (out) *out = node;
    return queries_;
  }

 private:
  // A weight, so its data is there before any graph.
  ggml_tensor* Factors() {
    if (factors_ == nullptr) {
      weights_context_ = NewContext();
      factors_ = ggml_new_tensor_1d(weights_context_.get(), GGML_TYPE_F32, shape_.turn.dims / 2);
      weights_.reset(ggml_backend_alloc_ctx_tensors_from_buft(weights_context_.get(), ggml_backend_cpu_buffer_type()));
      for (int i = 0; i < shape_.turn.dims / 2; ++i) {
        static_cast<float*>(factors_->data)[i] = 1.0f + 0.5f * static_cast<float>(i);
      }
    }
    return factors_;
  }
  ggml_tensor* Turned(int64_t rows, const float* data) {
    ggml_context* c = graph_context_.get();
    positions_.clear();
    for (const int64_t cell : cells_) positions_.push_back(PositionOf(cell));
    ggml_tensor* keys = Input(GGML_TYPE_F32, {shape_.k_dim, shape_.kv_heads, rows}, data);
    ggml_tensor* turned = Turn(keys, Input(GGML_TYPE_I32, {rows}, positions_.data()), false);
    return ggml_view_2d(c, turned, key_->ne[0], rows, turned->nb[2], 0);
  }
  static GgmlPtr<ggml_context> NewContext() {
    return GgmlPtr<ggml_context>(ggml_init({.mem_size = 1 << 20, .mem_buffer = nullptr, .no_alloc = true}));
  }
  ggml_tensor* NewCache(const char* name, int dim, ggml_type type) {
    ggml_tensor* t = ggml_new_tensor_3d(cache_context_.get(), type, static_cast<int64_t>(dim) * shape_.kv_heads,
                                        shape_.cells, shape_.streams);
    return ggml_set_name(t, name);
  }
  ggml_tensor* View(ggml_tensor* cache, int dim, int64_t visible) {
    ggml_context* c = graph_context_.get();
    const size_t row = cache->nb[1];
    ggml_tensor* view = ggml_view_4d(c, cache, dim, shape_.kv_heads, visible, shape_.streams,
                                     ggml_row_size(cache->type, dim), row, cache->nb[2], 0);
    return ggml_permute(c, view, 0, 2, 1, 3);
  }

  const TestShape shape_;
  GgmlPtr<ggml_backend> backend_;
  GgmlPtr<ggml_context> cache_context_;
  GgmlPtr<ggml_backend_buffer> cache_;
  GgmlPtr<ggml_context> weights_context_;
  GgmlPtr<ggml_backend_buffer> weights_;
  ggml_tensor* factors_ = nullptr;
  GgmlPtr<ggml_context> graph_context_;
  GgmlPtr<ggml_gallocr> allocator_;
  ggml_cgraph* graph_ = nullptr;
  ggml_tensor* key_ = nullptr;
  ggml_tensor* value_ = nullptr;
  std::vector<std::pair<ggml_tensor*, const void*>> inputs_;
  std::vector<int64_t> cells_;
  std::vector<float> rows_[2];
  std::vector<int32_t> positions_;
  std::vector<float> queries_;
  std::vector<ggml_fp16_t> mask_;
  std::vector<float> sinks_;
};

}  // namespace kvant
