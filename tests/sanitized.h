#pragma once

namespace gsae::test {

// Whether this is the build with the sanitizers, in which a process takes some ten times as long: tests of what does
// not differ between the builds try fewer cases there.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

}  // namespace gsae::test
