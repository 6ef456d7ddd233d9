#include "cache_list.h"

#include <algorithm>
#include <array>

namespace kvant {
namespace {

constexpr std::array<std::string_view, 4> kSchemeWords = {"k", "v", "sink", "recent"};

bool StartsCache(std::string_view piece) {
  const size_t end = piece.find_first_of("=:/ ");
  if (end == std::string_view::npos || piece[end] != '=') return true;
  return std::find(kSchemeWords.begin(), kSchemeWords.end(), piece.substr(0, end)) != kSchemeWords.end();
}

}  // namespace

std::vector<std::string> SplitCaches(std::string_view list) {
  std::vector<std::string> caches;
  while (true) {
    const std::string_view piece = list.substr(0, list.find(','));
    if (caches.empty() || StartsCache(piece)) {
      caches.emplace_back(piece);
    } else {
      caches.back() += "," + std::string(piece);
    }
    if (piece.size() == list.size()) return caches;
    list.remove_prefix(piece.size() + 1);
  }
}

}  // namespace kvant
