// A fast hash that names contents: models and texts.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace kvant {

/// XXH3-128 of everything added. Not for adversaries: it tells files apart that differ by accident.
class Hash {
 public:
  Hash();
  ~Hash();
  void Add(const void* data, size_t bytes);
  /// 32 hexadecimal digits.
  std::string Hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvant
