#include "child_process.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>

namespace kvant {
namespace {

// What goes through the pipe; small enough to be written at once.
struct Answer {
  StatusCode code = StatusCode::kInternal;
  int64_t value = 0;
  char message[1000] = {};
};

Answer AnswerOf(const Result<int64_t>& result) {
  Answer answer;
  answer.code = result.status().code();
  if (result.ok()) answer.value = *result;
  const std::string& message = result.status().message();
  std::memcpy(answer.message, message.data(), std::min(message.size(), sizeof(answer.message) - 1));
  return answer;
}

[[noreturn]] void Work(const std::function<Result<int64_t>()>& work, int out) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // nobody would read the answer
  const Answer answer = AnswerOf(work());
  const bool written = write(out, &answer, sizeof(answer)) == static_cast<ssize_t>(sizeof(answer));
  std::fflush(stderr);
  _exit(written ? 0 : 1);  // without the parent's destructors
}

}  // namespace

Result<int64_t> InChildProcess(const std::function<Result<int64_t>()>& work) {
  int ends[2];
  if (pipe(ends) != 0) return Status::IoError(std::string("no pipe: ") + std::strerror(errno));
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) Work(work, ends[1]);
  close(ends[1]);
  Answer answer;
  const ssize_t got = child < 0 ? 0 : read(ends[0], &answer, sizeof(answer));
  close(ends[0]);
  if (child < 0) return Status::IoError(std::string("no process: ") + std::strerror(errno));
  int end = 0;
  waitpid(child, &end, 0);
  if (got == static_cast<ssize_t>(sizeof(answer))) {
    if (answer.code == StatusCode::kOk) return answer.value;
    return Status(answer.code, answer.message);
  }
  if (WIFSIGNALED(end) && WTERMSIG(end) == SIGKILL)
    return Status::OutOfMemory("the system ended the process that was measured");
  return Status::Internal("the process that was measured ended without an answer");
}

}  // namespace kvant
