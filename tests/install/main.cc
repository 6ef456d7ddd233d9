// Sees and links what a user of the installed package sees and links: every public header, the library, its dependencies.
#include <cstdio>

#include "all_headers.h"

int main() {
  const auto scheme = kvant::Scheme::Parse("k=raw v=raw");
  if (!scheme.ok()) return 1;
  kvant::CacheConfig config;
  config.scheme = *scheme;
  config.layers.resize(1);
  config.layers[0].kv_heads = 1;
  config.layers[0].k_dim = 64;
  config.layers[0].v_dim = 64;
  const auto cache = kvant::KvCache::Create(config);
  if (!cache.ok()) return 1;
  std::printf("%s, %d layer\n", scheme->ToString().c_str(), (*cache)->num_layers());
  return 0;
}
