#include "tools/distinct_names.h"

#include <gtest/gtest.h>

namespace gsae::test {
namespace {

using Names = std::vector<std::string>;

TEST(DistinctNames, LeaveThoseThatDiffer) { EXPECT_EQ(distinct_names({"a", "b"}, {"x", "x"}), (Names{"a", "b"})); }

TEST(DistinctNames, TakeWhatPathsDifferIn) {
  EXPECT_EQ(distinct_names({"run", "run"}, {"p/run", "q/run/"}), (Names{"run (p)", "run (q)"}));
  EXPECT_EQ(distinct_names({"s", "s", "s"}, {"d/l/32/p.npz", "d/l/400/p.npz", "d/m/32/p.npz"}),
            (Names{"s (l/32)", "s (l/400)", "s (m/32)"}));
  // one path within the other, and one that ends as the other begins
  EXPECT_EQ(distinct_names({"run", "run"}, {"p/run", "p/run/run"}), (Names{"run", "run (run)"}));
  EXPECT_EQ(distinct_names({"a", "a"}, {"/x/y/x", "/x"}), (Names{"a (y/x)", "a"}));
}

TEST(DistinctNames, NumberWhatIsTheSame) {
  EXPECT_EQ(distinct_names({"a", "a", "a"}, {"x", "./x", "y/../x"}), (Names{"a", "a-2", "a-3"}));
  EXPECT_EQ(distinct_names({"a", "a", "a-2"}, {"", "", ""}), (Names{"a", "a-2", "a-2-2"}));
}

}  // namespace
}  // namespace gsae::test
