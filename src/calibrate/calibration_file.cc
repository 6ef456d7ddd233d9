// Calibrations as safetensors files: 8 bytes length of a JSON header, the header, the tensors' bytes.
//
// docs/calibration.md says what the header holds. Bytes are foreign until Parse has checked all of them.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/aligned_buffer.h"
#include "codec/calibrated.h"
#include "codec/registry.h"
#include "kvant/calibration.h"

namespace kvant {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr const char* kFormatVersion = "1";
constexpr size_t kLengthBytes = 8;
/// The header ends on a multiple of this, so the tensors begin on one.
constexpr size_t kHeaderGranule = 64;
/// safetensors' own limit.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr int kMaxLayers = 4096;
constexpr int kMaxHeads = 1 << 16;
constexpr int kMaxDim = 1024;

// ---- writing

std::string TensorName(const CalibrationEntry& entry) {
  return StrFormat("layer.%d.%s/%s", entry.layer, entry.is_key ? "k" : "v", entry.codec.c_str());
}

OrderedJson MetadataOf(const CalibrationOrigin& origin) {
  OrderedJson layers = OrderedJson::array();
  for (const LayerShape& l : origin.layers) layers.push_back({l.kv_heads, l.k_dim, l.v_dim});
  OrderedJson texts = OrderedJson::array();
  for (const CalibrationText& text : origin.texts) texts.push_back({text.name, text.hash});
  // safetensors wants strings as values.
  return {{"format", "kvant calibration"},
          {"format_version", kFormatVersion},
          {"kvant_version", origin.kvant_version},
          {"model_hash", origin.model_hash},
          {"model", origin.model_description},
          {"layers", layers.dump()},
          {"texts", texts.dump()},
          {"tokens", std::to_string(origin.tokens)},
          {"window", std::to_string(origin.window)}};
}

// ---- reading

/// One file while it is checked; every failure is a Status that names it.
class Reader {
 public:
  Reader(std::string_view bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  Status Read();
  CalibrationOrigin& origin() { return origin_; }
  std::vector<CalibrationEntry>& entries() { return entries_; }

 private:
  Status Damaged(const std::string& what) const { return Status::Corruption(name_ + ": " + what); }
  Status ReadHeader(Json* header);
  Status ReadMetadata(const Json& header);
  Status ReadLayers();
  Status ReadTexts();
  Status ReadTensor(const std::string& tensor, const Json& info);
  Status CheckTensor(const std::string& tensor, const Json& info, size_t* begin, size_t* end) const;
  Status ParseName(const std::string& tensor, CalibrationEntry* entry) const;
  Status CheckEntry(const std::string& tensor, const CalibrationEntry& entry) const;
  Status CheckCoverage();

  const std::string_view bytes_;
  const std::string& name_;
  std::string_view data_;  ///< of the tensors
  std::map<std::string, std::string> metadata_;
  std::vector<std::pair<size_t, size_t>> ranges_;  ///< of data_, one per tensor
  CalibrationOrigin origin_;
  std::vector<CalibrationEntry> entries_;
};

Status Reader::Read() {
  Json header;
  KVANT_TRY(ReadHeader(&header));
  KVANT_TRY(ReadMetadata(header));
  for (const auto& [tensor, info] : header.items()) {
    if (tensor != "__metadata__") KVANT_TRY(ReadTensor(tensor, info));
  }
  return CheckCoverage();
}

Status Reader::ReadHeader(Json* header) {
  constexpr const char* kForeign = "not a calibration file of kvant (no safetensors header)";
  if (bytes_.size() < kLengthBytes) return Damaged(kForeign);
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) length = length << 8 | static_cast<unsigned char>(bytes_[i]);
  if (length > kMaxHeaderBytes) return Damaged(kForeign);
  if (length > bytes_.size() - kLengthBytes) {
    return Damaged(StrFormat("truncated or no calibration file: a header of %llu bytes in a file of %zu",
                             static_cast<unsigned long long>(length), bytes_.size()));
  }
  *header = Json::parse(bytes_.substr(kLengthBytes, length), nullptr, /*allow_exceptions=*/false);
  if (!header->is_object()) return Damaged(kForeign);
  data_ = bytes_.substr(kLengthBytes + length);
  return Status::Ok();
}

Status Reader::ReadMetadata(const Json& header) {
  const auto metadata = header.find("__metadata__");
  if (metadata == header.end() || !metadata->is_object()) {
    return Damaged("a safetensors file without metadata; accepted: files that kvant calibrate wrote");
  }
  for (const auto& [key, value] : metadata->items()) {
    if (value.is_string()) metadata_[key] = value.get<std::string>();
  }
  if (metadata_["format"] != "kvant calibration") {
    return Damaged("a safetensors file of another kind; accepted: files that kvant calibrate wrote");
  }
  if (metadata_["format_version"] != kFormatVersion) {
    return Status::NotSupported(name_ + ": format version '" + metadata_["format_version"] +
                                "' is not accepted; accepted: " + kFormatVersion);
  }
  origin_.kvant_version = metadata_["kvant_version"];
  origin_.model_hash = metadata_["model_hash"];
  origin_.model_description = metadata_["model"];
  if (origin_.model_hash.empty()) return Damaged("its metadata has no model_hash");
  KVANT_TRY(ReadLayers());
  return ReadTexts();
}

Status Reader::ReadLayers() {
  const Json layers = Json::parse(metadata_["layers"], nullptr, false);
  if (!layers.is_array() || layers.empty() || layers.size() > kMaxLayers) return Damaged("its layers are not valid");
  const auto is_size = [](const Json& n, int min, int max) { return n.is_number_integer() && n >= min && n <= max; };
  for (const Json& layer : layers) {
    if (!layer.is_array() || layer.size() != 3 || !is_size(layer[0], 0, kMaxHeads) || !is_size(layer[1], 0, kMaxDim) ||
        !is_size(layer[2], 0, kMaxDim)) {
      return Damaged("its layers are not valid");
    }
    origin_.layers.push_back({.kv_heads = layer[0], .k_dim = layer[1], .v_dim = layer[2]});
  }
  return Status::Ok();
}

Status Reader::ReadTexts() {
  const Json texts = Json::parse(metadata_["texts"], nullptr, false);
  if (!texts.is_array()) return Damaged("its texts are not valid");
  for (const Json& text : texts) {
    if (!text.is_array() || text.size() != 2 || !text[0].is_string() || !text[1].is_string()) {
      return Damaged("its texts are not valid");
    }
    origin_.texts.push_back({text[0], text[1]});
  }
  const auto number = [&](const char* key, auto* value) {
    const std::string& text = metadata_[key];
    return std::from_chars(text.data(), text.data() + text.size(), *value).ec == std::errc();
  };
  if (number("tokens", &origin_.tokens) && number("window", &origin_.window)) return Status::Ok();
  return Damaged("its number of tokens is not valid");
}

// ---- tensors

Status Reader::CheckTensor(const std::string& tensor, const Json& info, size_t* begin, size_t* end) const {
  const auto is_count = [](const Json& n) { return n.is_number_unsigned(); };
  const auto is_pair = [&](const char* key) {
    return info.contains(key) && info[key].is_array() && info[key].size() == 2 && is_count(info[key][0]) &&
           is_count(info[key][1]);
  };
  if (!info.is_object() || info.value("dtype", Json()) != "U8" || !is_pair("shape") || !is_pair("data_offsets")) {
    return Damaged("tensor " + tensor + " is not of two dimensions of type U8");
  }
  *begin = info["data_offsets"][0];
  *end = info["data_offsets"][1];
  const size_t rows = info["shape"][0];
  const size_t row_bytes = info["shape"][1];
  if (*begin > *end || *end > data_.size()) {
    return Damaged(StrFormat("truncated: tensor %s ends at byte %zu of %zu", tensor.c_str(), *end, data_.size()));
  }
  const size_t bytes = *end - *begin;
  if (rows == 0 || rows > kMaxHeads || row_bytes == 0 || row_bytes > bytes || rows * row_bytes != bytes) {
    return Damaged(StrFormat("tensor %s: shape and size (%zu bytes) differ", tensor.c_str(), bytes));
  }
  return Status::Ok();
}

// "layer.3.k/decoquant:bits=3,..."
Status Reader::ParseName(const std::string& tensor, CalibrationEntry* entry) const {
  constexpr std::string_view kStart = "layer.";
  const size_t slash = tensor.find('/');
  if (!tensor.starts_with(kStart) || slash == std::string::npos || slash < kStart.size() + 3) {
    return Damaged("tensor " + tensor + " is none of a calibration");
  }
  const char* last = tensor.data() + slash - 2;
  const auto [stop, error] = std::from_chars(tensor.data() + kStart.size(), last, entry->layer);
  const char side = tensor[slash - 1];
  if (error != std::errc() || stop != last || *last != '.' || (side != 'k' && side != 'v') || entry->layer < 0 ||
      entry->layer >= std::ssize(origin_.layers)) {
    return Damaged("tensor " + tensor + " is of no layer of the model");
  }
  entry->is_key = side == 'k';
  entry->codec = tensor.substr(slash + 1);
  return Status::Ok();
}

// A codec that can use the bytes, exactly these options, each basis accepted by it.
Status Reader::CheckEntry(const std::string& tensor, const CalibrationEntry& entry) const {
  const auto refuse = [&](const std::string& why) { return Status::NotSupported(name_ + ": " + tensor + ": " + why); };
  const std::string name = entry.codec.substr(0, entry.codec.find(':'));
  const CodecInfo* info = FindCodec(name);
  if (info == nullptr) return refuse("this kvant has no such codec");
  const Result<CodecOptions> options =
      ParseCodecOptions(*info, entry.codec.substr(std::min(name.size() + 1, entry.codec.size())));
  if (!options.ok()) return refuse(options.status().message());
  const LayerShape& shape = origin_.layers[static_cast<size_t>(entry.layer)];
  const Result<Codec> codec = MakeCodec(name, *options,
                                        {.side = entry.is_key ? Side::kKey : Side::kValue,
                                         .dim = entry.is_key ? shape.k_dim : shape.v_dim,
                                         .layer = entry.layer,
                                         .num_layers = static_cast<int>(origin_.layers.size())});
  if (!codec.ok()) return refuse(codec.status().message());
  if (CalibrationKey(*info, *options) != entry.codec) return refuse("its options are not complete");
  const size_t basis_bytes = codec->state->basis_bytes;
  const int num_bases = codec->state->basis_per_layer ? 1 : shape.kv_heads;
  if (basis_bytes == 0 || entry.num_bases != num_bases ||
      entry.bytes.size() != basis_bytes * static_cast<size_t>(num_bases)) {
    return Damaged(StrFormat("%s: %d bases, %zu bytes; the codec has %d of %zu bytes", tensor.c_str(), entry.num_bases,
                             entry.bytes.size(), num_bases, basis_bytes));
  }
  AlignedBuffer<std::byte> basis(basis_bytes);
  if (basis.data() == nullptr) return Status::OutOfMemory("no memory for a basis");
  for (size_t i = 0; info->check_basis != nullptr && i < static_cast<size_t>(num_bases); ++i) {
    std::memcpy(basis.data(), entry.bytes.data() + i * basis_bytes, basis_bytes);
    if (const Status status = info->check_basis(*codec->state, basis.data()); !status.ok()) {
      return Damaged(StrFormat("%s, head %zu: %s", tensor.c_str(), i, status.message().c_str()));
    }
  }
  return Status::Ok();
}

Status Reader::ReadTensor(const std::string& tensor, const Json& info) {
  size_t begin = 0, end = 0;
  KVANT_TRY(CheckTensor(tensor, info, &begin, &end));
  CalibrationEntry entry;
  KVANT_TRY(ParseName(tensor, &entry));
  entry.num_bases = info["shape"][0];
  const auto* bytes = reinterpret_cast<const std::byte*>(data_.data());
  entry.bytes.assign(bytes + begin, bytes + end);
  KVANT_TRY(CheckEntry(tensor, entry));
  ranges_.emplace_back(begin, end);
  entries_.push_back(std::move(entry));
  return Status::Ok();
}

// No byte belongs to two tensors or to none, as safetensors demands.
Status Reader::CheckCoverage() {
  std::ranges::sort(ranges_);
  size_t end = 0;
  for (const auto& [first, last] : ranges_) {
    if (first != end) return Damaged(StrFormat("its tensors overlap or leave a gap at byte %zu", end));
    end = last;
  }
  if (end == data_.size()) return Status::Ok();
  return Damaged(StrFormat("%zu bytes follow its tensors", data_.size() - end));
}

}  // namespace

std::string Calibration::Serialize() const {
  OrderedJson header = {{"__metadata__", MetadataOf(origin_)}};
  size_t end = 0;
  for (const CalibrationEntry& entry : entries_) {
    const size_t begin = end;
    end += entry.bytes.size();
    const auto num_bases = static_cast<size_t>(entry.num_bases);
    header[TensorName(entry)] = {
        {"dtype", "U8"}, {"shape", {num_bases, entry.bytes.size() / num_bases}}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  text.append(AlignUp(kLengthBytes + text.size(), kHeaderGranule) - kLengthBytes - text.size(), ' ');
  std::string bytes;
  bytes.reserve(kLengthBytes + text.size() + end);
  for (size_t i = 0; i < kLengthBytes; ++i) bytes += static_cast<char>(text.size() >> (8 * i) & 0xFF);
  bytes += text;
  for (const CalibrationEntry& entry : entries_) {
    bytes.append(reinterpret_cast<const char*>(entry.bytes.data()), entry.bytes.size());
  }
  return bytes;
}

Result<std::shared_ptr<const Calibration>> Calibration::Parse(std::string_view bytes, const std::string& name) {
  Reader reader(bytes, name);
  KVANT_TRY(reader.Read());
  return Of(name, std::move(reader.origin()), std::move(reader.entries()));
}

Result<std::shared_ptr<const Calibration>> Calibration::Load(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) {
    const std::string message = "calibration file " + path + ": " + error.message();
    return error == std::errc::no_such_file_or_directory ? Status::NotFound(message) : Status::IoError(message);
  }
  std::string bytes(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(size))) {
    return Status::IoError("calibration file " + path + ": cannot be read");
  }
  return Parse(bytes, "calibration file " + path);
}

}  // namespace kvant
