// Task "last-word": passages whose last word can be told only from what stands long before it.
//
// D. Paperno et al., The LAMBADA dataset, 2016. A passage counts as right when every token of its last word is the most
// probable one after those before it, which is the same as greedy decoding giving the word.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "eval/task.h"

namespace kvant {

/// `passages`: one per line, empty lines skipped; white space and closing punctuation behind the last word are cut off.
/// Result: as ShareJson. Errors: InvalidArgument naming the line of a passage of a single word; Prepare: no passage, or one
/// that exceeds the model's context.
Result<std::unique_ptr<Task>> MakeLastWord(std::string_view passages, std::string name);

}  // namespace kvant
