// What codecs learned from a model and a text, kept in a file: the bases that a cache then starts with.
//
// A codec either fits its basis to the prompt of each sequence, or takes it from a calibration, where it is the same for
// all sequences and there from the first page on. `kvant calibrate` makes the file; docs/calibration.md has its format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kvant/shape.h"
#include "kvant/status.h"

namespace kvant {

/// The bases of one codec for the K or V of one layer.
struct CalibrationEntry {
  std::string codec;             ///< name and canonical options: "decoquant:bits=3,gauge=klt,code=trellis,mean=auto"
  bool is_key = true;            ///< K; else V
  int layer = 0;                 ///< the model's own number of the layer
  int num_bases = 0;             ///< one per KV head, or 1 for all heads of the layer
  std::vector<std::byte> bytes;  ///< [num_bases, bytes of a basis]
};

/// One text that was read.
struct CalibrationText {
  std::string name;  ///< file name without its folder
  std::string hash;  ///< XXH3-128 of its bytes, 32 hexadecimal digits
};

/// Where a calibration comes from.
struct CalibrationOrigin {
  std::string kvant_version;
  std::string model_hash;          ///< ModelInfo::hash: XXH3-128, 32 hexadecimal digits
  std::string model_description;   ///< for people
  std::vector<LayerShape> layers;  ///< of the model, by layer number
  std::vector<CalibrationText> texts;
  int64_t tokens = 0;  ///< read from the texts
  int window = 0;      ///< tokens of a text that were read in one go
};

/// Immutable, so thread-safe.
class Calibration {
 public:
  /// Reads and checks a file; every entry can be used after that. Errors, in one line that names the file: NotFound,
  /// IoError, Corruption (not safetensors, truncated, sizes or offsets that do not fit, a basis that its codec
  /// refuses), NotSupported (another format version, a codec that this build does not have).
  static Result<std::shared_ptr<const Calibration>> Load(const std::string& path);
  /// The same from bytes; `name` is what messages call them.
  static Result<std::shared_ptr<const Calibration>> Parse(std::string_view bytes, const std::string& name);
  /// From parts; entries keep their order. No checks.
  static std::shared_ptr<const Calibration> Of(std::string name, CalibrationOrigin origin,
                                               std::vector<CalibrationEntry> entries);

  /// The bytes of the file.
  std::string Serialize() const;

  const std::string& name() const { return name_; }  ///< path of the file
  const CalibrationOrigin& origin() const { return origin_; }
  const std::vector<CalibrationEntry>& entries() const { return entries_; }
  /// Null: there is none.
  const CalibrationEntry* Find(std::string_view codec, int layer, bool is_key) const;

  /// InvalidArgument, with both hashes, unless it was made for the model with this hash.
  Status CheckModel(const std::string& model_hash) const;

 private:
  Calibration() = default;
  std::string name_;
  CalibrationOrigin origin_;
  std::vector<CalibrationEntry> entries_;
};

}  // namespace kvant
