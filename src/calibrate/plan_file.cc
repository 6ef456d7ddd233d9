// Plans as JSON files. Bytes are foreign until Parse has checked all of them; docs/tuning.md says what they mean.
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "kvant/plan.h"

namespace kvant {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr const char* kFormat = "kvant-plan";
constexpr int kFormatVersion = 1;
constexpr size_t kMaxLayers = 4096;

// ---- reading: what is missing keeps its default, what is there must be of its type

/// One object of the file. The first failure stays.
class Fields {
 public:
  Fields(const Json& json, std::string where, Status* status)
      : json_(json), where_(std::move(where)), status_(status) {}

  void Read(const char* key, std::string* value) const {
    if (const Json* field = Find(key, &Json::is_string, "text")) *value = field->get<std::string>();
  }
  void Read(const char* key, double* value) const {
    if (const Json* field = Find(key, &Json::is_number, "a number")) *value = field->get<double>();
  }
  template <std::integral T>
  void Read(const char* key, T* value) const {
    if (const Json* field = Find(key, &Json::is_number_integer, "a whole number")) *value = field->get<T>();
  }
  void Read(const char* key, bool* value) const {
    if (const Json* field = Find(key, &Json::is_boolean, "true or false")) *value = field->get<bool>();
  }
  /// Calls read(Fields) for the object under `key`, if there is one.
  void Object(const char* key, auto read) const {
    if (const Json* field = Find(key, &Json::is_object, "an object")) read(Fields(*field, where_ + key + ".", status_));
  }
  /// Appends read(Fields) of each object in the list under `key`.
  template <typename T>
  void List(const char* key, std::vector<T>* items, auto read) const {
    const Json* field = Find(key, &Json::is_array, "a list");
    if (field == nullptr) return;
    for (const Json& item : *field) {
      if (!item.is_object()) return Refuse(key, "a list of objects");
      read(Fields(item, where_ + key + ".", status_), &items->emplace_back());
    }
  }
  void Texts(const char* key, std::vector<std::string>* items) const {
    const Json* field = Find(key, &Json::is_array, "a list");
    if (field == nullptr) return;
    for (const Json& item : *field) {
      if (!item.is_string()) return Refuse(key, "a list of texts");
      items->push_back(item.get<std::string>());
    }
  }

 private:
  const Json* Find(const char* key, bool (Json::*is_type)() const noexcept, const char* type) const {
    const auto field = json_.find(key);
    if (field == json_.end()) return nullptr;
    if (((*field).*is_type)()) return &*field;
    Refuse(key, type);
    return nullptr;
  }
  void Refuse(const char* key, const char* type) const {
    if (status_->ok()) *status_ = Status::Corruption("its " + where_ + key + " is not " + type);
  }

  const Json& json_;
  const std::string where_;
  Status* const status_;
};

Result<LayerCodecs> ParseLayer(const std::string& line, size_t layer) {
  const Result<Scheme> scheme = Scheme::Parse(line);
  if (!scheme.ok()) return Status::Corruption(StrFormat("layer %zu: %s", layer, scheme.status().message().c_str()));
  if (!scheme->layer_keys.empty() || !scheme->layer_values.empty() || scheme->num_layers != 0) {
    return Status::Corruption(StrFormat("layer %zu: '%s' speaks of other layers", layer, line.c_str()));
  }
  return LayerCodecs{.key = scheme->key, .value = scheme->value};
}

Result<Scheme> SchemeOf(const std::vector<std::string>& lines, int sink_tokens, int recent_tokens) {
  if (lines.empty() || lines.size() > kMaxLayers) return Status::Corruption("it has no list of layers");
  std::vector<LayerCodecs> layers;
  for (const std::string& line : lines) {
    Result<LayerCodecs> layer = ParseLayer(line, layers.size());
    if (!layer.ok()) return layer.status();
    layers.push_back(*std::move(layer));
  }
  const Scheme scheme = Scheme::OfLayers(layers, sink_tokens, recent_tokens);
  const Result<Scheme> checked = Scheme::Parse(scheme.ToString());  // the ranges of sink and recent
  if (!checked.ok()) return Status::Corruption(checked.status().message());
  return scheme;
}

void ReadQuality(const Fields& fields, PlanQuality* quality) {
  fields.Read("text", &quality->text);
  fields.Read("tokens", &quality->tokens);
  fields.Read("kl", &quality->kl);
  fields.Read("kl_stderr", &quality->kl_stderr);
  fields.Read("bits_per_value", &quality->bits_per_value);
}

void ReadCost(const Fields& fields, PlanCost* cost) {
  std::string side = "k";
  fields.Read("side", &side);
  cost->is_key = side == "k";
  fields.Read("layer", &cost->layer);
  fields.Read("candidate", &cost->candidate);
  fields.Read("kl", &cost->kl);
  fields.Read("bits_per_value", &cost->bits_per_value);
  fields.Read("attention_error", &cost->attention_error);
  fields.Read("measured", &cost->is_measured);
}

void ReadTuning(const Fields& fields, PlanTuning* tuning) {
  fields.Read("text", &tuning->text);
  fields.Read("tokens", &tuning->tokens);
  fields.Read("expected_gain", &tuning->expected_gain);
  fields.Read("floor_kl", &tuning->floor_kl);
  fields.Texts("candidates", &tuning->candidates);
  fields.List("costs", &tuning->costs, ReadCost);
  fields.Read("proxy_rank_correlation", &tuning->proxy_rank_correlation);
  fields.List("validation", &tuning->validation, [](const Fields& pair, PlanValidation* v) {
    pair.Read("predicted_kl", &v->predicted_kl);
    pair.Read("measured_kl", &v->measured_kl);
  });
  fields.Read("validation_rank_correlation", &tuning->validation_rank_correlation);
}

Status ReadPlan(const Json& json, Plan* plan) {
  Status status;
  const Fields fields(json, "", &status);
  std::vector<std::string> lines;
  int sink_tokens = 4, recent_tokens = 0;
  fields.Read("kvant_version", &plan->kvant_version);
  fields.Read("model", &plan->model);
  fields.Read("model_hash", &plan->model_hash);
  fields.Texts("layers", &lines);
  fields.Read("sink", &sink_tokens);
  fields.Read("recent", &recent_tokens);
  fields.Read("bits_per_value", &plan->bits_per_value);
  fields.Read("bytes_per_token", &plan->bytes_per_token);
  fields.Object("measured", [&](const Fields& f) { ReadQuality(f, &plan->measured); });
  fields.Object("predicted", [&](const Fields& f) {
    f.Read("kl", &plan->predicted_kl);
    f.Read("bits_per_value", &plan->predicted_bits_per_value);
  });
  fields.List("uniform", &plan->uniform, [](const Fields& f, PlanUniform* uniform) {
    f.Read("cache", &uniform->cache);
    f.Read("kl", &uniform->kl);
    f.Read("bits_per_value", &uniform->bits_per_value);
  });
  fields.Object("tuning", [&](const Fields& f) { ReadTuning(f, &plan->tuning); });
  KVANT_TRY(status);
  if (plan->model_hash.empty()) return Status::Corruption("it has no model_hash");
  Result<Scheme> scheme = SchemeOf(lines, sink_tokens, recent_tokens);
  if (!scheme.ok()) return scheme.status();
  plan->scheme = *std::move(scheme);
  return Status::Ok();
}

// ---- writing

OrderedJson CostJson(const PlanCost& c) {
  return {{"layer", c.layer},
          {"side", c.is_key ? "k" : "v"},
          {"candidate", c.candidate},
          {"kl", c.kl},
          {"bits_per_value", c.bits_per_value},
          {"attention_error", c.attention_error},
          {"measured", c.is_measured}};
}

OrderedJson TuningJson(const PlanTuning& t) {
  OrderedJson costs = OrderedJson::array(), validation = OrderedJson::array();
  for (const PlanCost& cost : t.costs) costs.push_back(CostJson(cost));
  for (const PlanValidation& v : t.validation) {
    validation.push_back({{"predicted_kl", v.predicted_kl}, {"measured_kl", v.measured_kl}});
  }
  return {{"text", t.text},
          {"tokens", t.tokens},
          {"expected_gain", t.expected_gain},
          {"floor_kl", t.floor_kl},
          {"candidates", t.candidates},
          {"costs", std::move(costs)},
          {"proxy_rank_correlation", t.proxy_rank_correlation},
          {"validation", std::move(validation)},
          {"validation_rank_correlation", t.validation_rank_correlation}};
}

}  // namespace

Result<Plan> Plan::Parse(std::string_view text, const std::string& name) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.value("format", Json()) != kFormat) {
    return Status::Corruption(name + ": not a plan; accepted: files that kvant tune wrote");
  }
  if (json.value("format_version", Json()) != kFormatVersion) {
    return Status::NotSupported(
        name + ": its plan format_version is not accepted; accepted: " + std::to_string(kFormatVersion));
  }
  Plan plan;
  const Status status = ReadPlan(json, &plan);
  if (!status.ok()) return Status(status.code(), name + ": " + status.message());
  return plan;
}

Result<Plan> Plan::Load(const std::string& path) {
  if (std::filesystem::is_directory(path)) return Status::IoError(path + ": is a folder; accepted: a plan file");
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    const std::string message = path + ": " + std::strerror(errno);
    return errno == ENOENT ? Status::NotFound(message) : Status::IoError(message);
  }
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return Status::IoError(path + ": reading failed");
  return Parse(text, path);
}

std::string Plan::Serialize() const {
  OrderedJson json = {{"format", kFormat},
                      {"format_version", kFormatVersion},
                      {"kvant_version", kvant_version},
                      {"model", model},
                      {"model_hash", model_hash},
                      {"layers", OrderedJson::array()},
                      {"sink", scheme.sink_tokens},
                      {"recent", scheme.recent_tokens},
                      {"bits_per_value", bits_per_value},
                      {"bytes_per_token", bytes_per_token}};
  for (const LayerCodecs& layer : Layers()) {
    json["layers"].push_back("k=" + layer.key.ToString() + " v=" + layer.value.ToString());
  }
  json["measured"] = {{"text", measured.text},
                      {"tokens", measured.tokens},
                      {"kl", measured.kl},
                      {"kl_stderr", measured.kl_stderr},
                      {"bits_per_value", measured.bits_per_value}};
  json["predicted"] = {{"kl", predicted_kl}, {"bits_per_value", predicted_bits_per_value}};
  json["uniform"] = OrderedJson::array();
  for (const PlanUniform& u : uniform) {
    json["uniform"].push_back({{"cache", u.cache}, {"kl", u.kl}, {"bits_per_value", u.bits_per_value}});
  }
  json["tuning"] = TuningJson(tuning);
  // Names of files need not be UTF-8.
  return json.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

std::vector<LayerCodecs> Plan::Layers() const {
  std::vector<LayerCodecs> layers;
  for (int i = 0; i < scheme.num_layers; ++i) {
    layers.push_back({.key = scheme.Choice(i, true), .value = scheme.Choice(i, false)});
  }
  return layers;
}

Status Plan::CheckModel(const std::string& hash, const std::string& name) const {
  if (hash == model_hash) return Status::Ok();
  return Status::InvalidArgument(name + ": a plan for another model: its model_hash is " + model_hash +
                                 ", this model's is " + hash);
}

bool IsPlanPath(std::string_view cache) { return cache.ends_with(".json"); }

Result<Scheme> ReadScheme(std::string_view cache) {
  if (!IsPlanPath(cache)) return Scheme::Parse(cache);
  Result<Plan> plan = Plan::Load(std::string(cache));
  if (!plan.ok()) return plan.status();
  return std::move(plan->scheme);
}

}  // namespace kvant
