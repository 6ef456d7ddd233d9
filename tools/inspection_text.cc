// The forms of an inspection, for people and programs.
#include <nlohmann/json.hpp>

#include "eval/table.h"
#include "inspection.h"

namespace kvant {
namespace {

double Fp16BytesPerToken(const LayerShape& s) { return 2.0 * s.kv_heads * (s.k_dim + s.v_dim); }

std::string OrDash(int value) { return value > 0 ? std::to_string(value) : "-"; }

std::string GroupTable(const Inspection& inspection) {
  Table table({{"blocks"},
               {"remember"},
               {"KV heads", true},
               {"K size", true},
               {"V size", true},
               {"fp16 bytes per token", true}});
  for (const BlockGroup& g : inspection.groups) {
    table.AddRow({RangesText(g.blocks), MemoryText(g.memory, inspection.model.window), OrDash(g.shape.kv_heads),
                  OrDash(g.shape.k_dim), OrDash(g.shape.v_dim), StrFormat("%.0f", Fp16BytesPerToken(g.shape))});
  }
  return table.ToText();
}

std::string CacheTable(const Inspection& inspection) {
  const int context = inspection.model.context_train;
  std::vector<Column> columns = {
      {"cache"}, {"bytes per token", true}, {"bits", true}, {StrFormat("MB at %d tokens", context), true}};
  if (inspection.memory_bytes) {
    columns.push_back({StrFormat("context in %.2f GB", static_cast<double>(inspection.memory_bytes) / 1e9), true});
  }
  Table table(columns);
  for (const CacheLine& line : inspection.caches) {
    std::vector<std::string> cells = {line.cache, "-", "-", "-", "-"};
    if (line.refused.empty()) {
      cells = {line.cache, StrFormat("%.0f", line.bytes_per_token), StrFormat("%.2f", line.bits),
               StrFormat("%.1f", line.full_bytes / 1e6),
               (line.largest_context >= context ? "all " : "") + std::to_string(line.largest_context)};
    }
    cells.resize(columns.size());
    table.AddRow(std::move(cells));
  }
  return table.ToText();
}

constexpr const char* kMemoryNames[] = {"all", "window", "latent", "state", "all and state", "nothing"};

nlohmann::ordered_json GroupJson(const BlockGroup& group) {
  return {{"blocks", group.blocks},           {"memory", kMemoryNames[static_cast<size_t>(group.memory)]},
          {"kv_heads", group.shape.kv_heads}, {"k_size", group.shape.k_dim},
          {"v_size", group.shape.v_dim},      {"fp16_bytes_per_token", Fp16BytesPerToken(group.shape)}};
}

nlohmann::ordered_json CacheJson(const CacheLine& line, bool with_context) {
  if (!line.refused.empty()) return {{"cache", line.cache}, {"refused", line.refused}};
  nlohmann::ordered_json json = {{"cache", line.cache},
                                 {"bytes_per_token", line.bytes_per_token},
                                 {"bits_per_value", line.bits},
                                 {"bytes_at_full_context", line.full_bytes}};
  if (with_context) json["largest_context"] = line.largest_context;
  return json;
}

}  // namespace

std::string InspectionToText(const Inspection& inspection) {
  const ModelInfo& m = inspection.model;
  std::string text = StrFormat("%s: %s, %.1f M parameters, %.1f MB, vocabulary %d, context %d, %d query heads; %s\n\n",
                               m.path.c_str(), m.architecture.c_str(), static_cast<double>(m.parameters) / 1e6,
                               static_cast<double>(m.file_bytes) / 1e6, m.vocab_size, m.context_train, m.q_heads,
                               inspection.refused.empty() ? "supported" : "not supported");
  text += GroupTable(inspection) + "\n";
  for (const std::string& meaning : inspection.meanings) text += meaning + "\n";
  if (!inspection.meanings.empty()) text += "\n";
  if (inspection.caches.empty()) return text;
  text += CacheTable(inspection) + "\n";
  for (const CacheLine& line : inspection.caches) {
    if (!line.refused.empty()) text += line.cache + ": " + line.refused + "\n";
  }
  return text + "Bits: of sealed pages. MB: with sinks, recent window and open pages, at most.\n";
}

std::string InspectionToJson(const Inspection& inspection, const std::string& kvant_version) {
  const ModelInfo& m = inspection.model;
  nlohmann::ordered_json json = {{"format", "kvant-inspect"},
                                 {"format_version", 1},
                                 {"kvant_version", kvant_version},
                                 {"model", m.path},
                                 {"architecture", m.architecture},
                                 {"parameters", m.parameters},
                                 {"file_bytes", m.file_bytes},
                                 {"vocabulary", m.vocab_size},
                                 {"context", m.context_train},
                                 {"query_heads", m.q_heads},
                                 {"window", m.window},
                                 {"supported", inspection.refused.empty()}};
  if (!inspection.refused.empty()) json["refused"] = inspection.refused;
  json["meanings"] = inspection.meanings;
  if (inspection.memory_bytes) json["memory_bytes"] = inspection.memory_bytes;
  json["layers"] = json["caches"] = nlohmann::ordered_json::array();
  for (const BlockGroup& group : inspection.groups) json["layers"].push_back(GroupJson(group));
  for (const CacheLine& line : inspection.caches)
    json["caches"].push_back(CacheJson(line, inspection.memory_bytes != 0));
  return json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace kvant
