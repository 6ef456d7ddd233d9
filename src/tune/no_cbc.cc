// choice_solver.h in a build without CBC.
#include "tune/choice_solver.h"

namespace kvant {

Result<SolverPicks> RunSolver(const std::vector<Column>&, int, double, double) {
  return Status::NotSupported("this build of kvant has no solver; configure with -DKVANT_CBC=ON to tune");
}

}  // namespace kvant
