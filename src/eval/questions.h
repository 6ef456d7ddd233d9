// Task "questions": prompts with one right answer each, from a file.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "eval/task.h"

namespace kvant {

/// `lines`: JSON objects {"prompt": text, "answer": text}, one per line. An answer is right when the first line that the model
/// writes by greedy decoding is the expected one, white space and closing punctuation at both ends of both left aside. The
/// model gets as many tokens as the answer has, and a few more. Result: as ShareJson. Errors: those of ParseJsonLines,
/// InvalidArgument for an empty answer; Prepare: a prompt that exceeds the model's context.
Result<std::unique_ptr<Task>> MakeQuestions(std::string_view lines, std::string name);

/// Is that what the model wrote in its first line?
bool IsAnswer(std::string_view written, std::string_view expected);

}  // namespace kvant
