// Sees what a user of the installed package sees.
#include "all_headers.h"

#include <cstdio>

int main() {
  std::puts("kvant found");
  return 0;
}
