#include "base/hash.h"

#define XXH_INLINE_ALL  // header only: nothing to link
#include <xxhash.h>

#include "base/check.h"
#include "kvant/status.h"

namespace kvant {

struct Hash::State {
  XXH3_state_t* state = XXH3_createState();
  ~State() { XXH3_freeState(state); }
};

Hash::Hash() : state_(std::make_unique<State>()) {
  KVANT_CHECK(state_->state != nullptr);
  XXH3_128bits_reset(state_->state);
}
Hash::~Hash() = default;

void Hash::Add(const void* data, size_t bytes) { XXH3_128bits_update(state_->state, data, bytes); }

std::string Hash::Hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->state);
  return StrFormat("%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                   static_cast<unsigned long long>(hash.low64));
}

}  // namespace kvant
